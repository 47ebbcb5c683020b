"""What listeners said of the sounds of a listening page, and the key that says which sounds these were."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

KEY_NAME = "listening_key.json"
MOST = 10  # points
OF_SOUNDS = ("quality", "fit")
OF_SETS = ("diversity",)

Points = dict[str, int]  # by what is rated: one of OF_SOUNDS or OF_SETS


@dataclass(frozen=True)
class Origin:
    """Where a sound or a set of sounds comes from: its class, and its row in the report."""

    label: str
    row: str


@dataclass(frozen=True)
class Key:
    """Which sounds are on a listening page.

    Args:
        page: the page's own name, a digest of its sounds.
        checkpoint: of the generated ones.
        rows: in the order of the report.
        sounds: by their number on the page.
        sets: of the sounds of a class, by their number and letter on the page.
    """

    page: str
    checkpoint: str
    rows: list[str]
    sounds: Mapping[str, Origin]
    sets: Mapping[str, Origin]


@dataclass(frozen=True)
class Ratings:
    """What one listener saved.

    Args:
        listener: the name that was given, or else a part of `browser`.
        browser: who rated, as the browser knows it: a random word.
        saved: when, in ISO 8601 and UTC.
        sounds: points by number of a sound.
        sets: points by number and letter of a set.
    """

    listener: str
    browser: str
    saved: str
    sounds: dict[str, Points]
    sets: dict[str, Points]

    @property
    def n_ratings(self) -> int:
        return sum(len(points) for rated in (self.sounds, self.sets) for points in rated.values())


def read_key(path: Path) -> Key:
    """Reads the key of a listening page.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no key.
    """
    content = _read(path)
    try:
        sounds, sets = (_origins(content[kind]) for kind in ("sounds", "sets"))
        rows = [row for row in _list(content["rows"]) if isinstance(row, str)]
        if unknown := {origin.row for origin in (*sounds.values(), *sets.values())} - set(rows):
            raise ValueError(f"rows lacks {sorted(unknown)}")
        return Key(_text(content, "page"), _text(content, "checkpoint"), rows, sounds, sets)
    except (KeyError, TypeError, AttributeError, ValueError) as err:
        raise ValueError(
            f"{path}: is not the key of a listening page ({err!r}); give the {KEY_NAME} beside it"
        ) from err


def _origins(content: object) -> dict[str, Origin]:
    return {number: Origin(_text(origin, "label"), _text(origin, "row")) for number, origin in _object(content).items()}


def read_ratings(path: Path, key: Key) -> Ratings:
    """Reads what a listener saved on the page of the key.

    Raises:
        ValueError: the file is damaged, holds no ratings, or is of another page; the message says which.
    """
    content = _read(path)
    page = content.get("page")
    if not isinstance(page, str):
        raise ValueError(f"{path}: holds no ratings; give what 'Save ratings' on a listening page wrote")
    if page != key.page:
        raise ValueError(
            f"{path}: rates the page {page[:40]!r}, and the key is of the page {key.page!r}; join the ratings of each "
            "page by themselves, with its own key"
        )
    try:
        sounds = _rated(content["sounds"], key.sounds, OF_SOUNDS)
        sets = _rated(content["sets"], key.sets, OF_SETS)
        browser, saved, name = (_text(content, part) for part in ("browser", "saved", "listener"))
    except (KeyError, TypeError, AttributeError, ValueError) as err:
        raise ValueError(f"{path}: was changed since it was saved, or is damaged ({err}); ask for it again") from err
    shown = "".join(letter if letter.isprintable() else "?" for letter in name.strip())
    ratings = Ratings(shown or browser[:6], browser, saved, sounds, sets)
    if not ratings.n_ratings:
        raise ValueError(f"{path}: nothing is rated in it")
    return ratings


def _rated(content: object, known: Mapping[str, Origin], names: tuple[str, ...]) -> dict[str, Points]:
    rated: dict[str, Points] = {}
    for number, points in _object(content).items():
        if number not in known:
            raise ValueError(f"{number!r} is not on the page")
        rated[number] = {}
        for name, value in _object(points).items():
            if name not in names:
                raise ValueError(f"{name!r} of {number} is none of {', '.join(names)}")
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
                raise ValueError(f"{name} of {number} is {value!r}; a whole number from 0 to {MOST}")
            rated[number][name] = value
    return rated


def _read(path: Path) -> dict[str, object]:
    try:
        return _object(json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError) as err:  # ValueError: neither JSON nor UTF-8
        raise ValueError(f"{path}: is damaged: it holds no object of JSON ({err}); ask for it again") from err


def _object(content: object) -> dict[str, object]:
    if not isinstance(content, dict):
        raise TypeError(f"{str(content)[:40]!r} stands where names and values belong")
    return content


def _list(content: object) -> list[object]:
    if not isinstance(content, list):
        raise TypeError(f"{str(content)[:40]!r} stands where a list belongs")
    return content


def _text(content: object, name: str) -> str:
    text = _object(content)[name]
    if not isinstance(text, str):
        raise TypeError(f"{name} is {str(text)[:40]!r}, which is no text")
    return text
