"""Task: what listeners saved on a listening page -> scores of each class and row of sounds."""

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from specgan.batch.failures import (
    FAILURES_NAME,
    Failure,
    UnitError,
    check_on_error,
    failure_of,
    is_table_of_failures,
    stage,
    write_failures,
)
from specgan.batch.runner import Report
from specgan.command_line.tables import print_rows
from specgan.evaluation.ratings import KEY_NAME, OF_SETS, OF_SOUNDS, Key, Ratings, read_key, read_ratings
from specgan.evaluation.scores import SCORES, Rating, Score, score
from specgan.files import Outputs, atomic_path, find_files

log = logging.getLogger(__name__)

TABLE_NAME = "table.csv"
RATINGS_NAME = "ratings.csv"
ALL = "all"  # classes together


@dataclass(frozen=True)
class _File:
    """What a listener sent."""

    source: Path


@dataclass(frozen=True)
class _Cell:
    """The scores of a class (None: all) and a row of sounds, by name, and how many gave how many ratings for them."""

    label: str | None
    row: str
    scores: dict[str, Score | None]
    n_listeners: int
    n_ratings: int


def join_listeners(
    input: str | Path, output: str | Path, *, key: str | Path | None = None, on_error: str = "skip"
) -> Report:
    """Joins the ratings of several listeners: prints their scores and writes two tables.

    `table.csv` has a row for each class and row of sounds, and for all classes together: scores from 0 to 10 of
    quality, fit and diversity, their mean with weights of 2, 2 and 1 (total), and the 95 % interval of each, see
    `specgan.evaluation.scores.score`. `ratings.csv` has every rating.

    Of files with the same name of a listener, or from the same browser, the last that was saved counts.

    Args:
        input: folder of the files that listeners saved, searched with its subfolders; or one of them.
        output: folder.
        key: of the page; None: listening_key.json in the input folder, or beside it.
        on_error: "skip" records a file that cannot be used in failures.csv and goes on; "raise" stops at the first.
    Raises:
        FileNotFoundError, ValueError: no ratings or no key, no file can be used, or a file is in the way that no
            earlier run wrote.
    """
    input, output = Path(input), Path(output)
    check_on_error(on_error)
    paths = _find(input)
    page_key = read_key(_find_key(input) if key is None else Path(key))
    outputs = Outputs(output, "listening")
    names = [TABLE_NAME, RATINGS_NAME]
    outputs.require_free([*names, *([] if is_table_of_failures(output / FAILURES_NAME) else [FAILURES_NAME])])

    ratings: dict[Path, Ratings] = {}
    failures: list[Failure] = []
    for path in paths:
        try:
            with stage("read"):
                ratings[path] = read_ratings(path, page_key)
        except UnitError as err:
            failures.append(failure_of(_File(path), err, on_error))
    outputs.claim(names)
    for name in names:
        (output / name).unlink(missing_ok=True)  # those of an earlier run would not fit a failures.csv of this one
    write_failures(failures, output)
    if not ratings:
        raise ValueError(
            f"{input}: none of its files can be used, see {output / FAILURES_NAME}; the first: {failures[0].error}"
        )
    counted = _last_of_each(ratings)
    for one in counted:
        _log_missing(one, page_key)
    joined = [rating for one in counted for rating in _rated(one, page_key)]
    cells = _scored(joined, page_key)
    _write([rating._asdict() for rating in joined], output / RATINGS_NAME)
    _write([_figures(cell) for cell in cells], output / TABLE_NAME)
    print_rows([_words(cell) for cell in cells], ["class", "row", *SCORES, "listeners"])
    if len(counted) == 1:
        log.warning("one listener: the intervals tell how other sounds would be rated, not what others would say")
    return Report(n_done=len(ratings), failures=failures, message=_message(output, cells))


def _find_key(input: Path) -> Path:
    folder = input if input.is_dir() else input.parent
    places = [folder / KEY_NAME, folder.absolute().parent / KEY_NAME]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"{places[0]}: no such file, nor {places[1]}; give the key of the page: task.key=<run>/{KEY_NAME}"
    )


def _find(input: Path) -> list[Path]:
    if input.is_file():
        return [input]
    stem = Path(KEY_NAME).stem  # keys of earlier pages begin with it, too
    found = [path for path in find_files(input, (".json",)) if not path.name.startswith(stem)]
    if not found:
        raise FileNotFoundError(f"{input}: no .json in it or its subfolders; put what listeners saved there")
    return found


def _last_of_each(ratings: Mapping[Path, Ratings]) -> list[Ratings]:
    """The last file of each listener, by when they were saved; two are of one if they share a name or a browser."""
    counted: dict[Path, Ratings] = {}
    for path, one in sorted(ratings.items(), key=lambda item: item[1].saved):
        for before, other in list(counted.items()):
            if one.browser == other.browser or one.listener.casefold() == other.listener.casefold():
                log.warning(
                    "%s and %s are both of %s: the second counts, which was saved later; if they are two people, "
                    'change "listener" and "browser" in one',
                    *(before, path, one.listener),
                )
                del counted[before]
        counted[path] = one
    return list(counted.values())


def _log_missing(ratings: Ratings, key: Key) -> None:
    wanted = len(key.sounds) * len(OF_SOUNDS) + len(key.sets) * len(OF_SETS)
    if ratings.n_ratings < wanted:
        log.warning("%s: %d of %d ratings are missing", ratings.listener, wanted - ratings.n_ratings, wanted)


def _rated(ratings: Ratings, key: Key) -> list[Rating]:
    return [
        Rating(ratings.listener, origins[item].label, origins[item].row, item, name, value)
        for rated, origins in ((ratings.sounds, key.sounds), (ratings.sets, key.sets))
        for item, points in rated.items()
        for name, value in points.items()
    ]


def _scored(joined: Sequence[Rating], key: Key) -> list[_Cell]:
    """Of each class and row, and of all classes together, those that anybody rated."""
    cells = []
    for label in [*dict.fromkeys(origin.label for origin in key.sounds.values()), None]:
        for row in key.rows:
            own = [rating for rating in joined if rating.row == row and label in (rating.label, None)]
            if own:
                scores = {name: score(own, weights) for name, weights in SCORES.items()}
                cells.append(_Cell(label, row, scores, len({rating.listener for rating in own}), len(own)))
    return cells


def _figures(cell: _Cell) -> dict[str, object]:
    """A row of table.csv."""
    figures: dict[str, object] = {"label": cell.label or ALL, "row": cell.row}
    for name, found in cell.scores.items():
        for column, value in (("", "value"), ("_low", "low"), ("_high", "high")):
            figure = getattr(found, value, None)
            figures[name + column] = None if figure is None else round(figure, 4)
    return {**figures, "listeners": cell.n_listeners, "ratings": cell.n_ratings}


def _words(cell: _Cell) -> list[str]:
    return [cell.label or ALL, cell.row, *map(_in_words, cell.scores.values()), str(cell.n_listeners)]


def _in_words(found: Score | None) -> str:
    if found is None:
        return "-"
    return f"{found.value:.1f}" + ("" if found.low is None else f" ({found.low:.1f} to {found.high:.1f})")


def _message(output: Path, cells: Sequence[_Cell]) -> str:
    of_all = [cell for cell in cells if cell.label is None]
    n = max(cell.n_listeners for cell in of_all)
    totals = ", ".join(f"{cell.row} {_in_words(cell.scores['total'])}" for cell in of_all)
    return f"{output / TABLE_NAME}: {n} listener{'s' * (n > 1)}; of 10 points {totals}"


def _write(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    # surrogateescape: the name of a class may be that of a folder, which need not be UTF-8
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
