"""The words that captions choose from."""

import csv
from functools import cache
from importlib.resources import files

GROUPS = ("mood", "genre", "instrument", "character")

# No caption has both words of a pair. Words of one kind are near each other for a text model, opposites too.
OPPOSITES = [
    {"fast", "slow"},
    {"loud", "quiet"},
    {"loud", "soft"},
    {"hard", "soft"},
    {"heavy", "soft"},
    {"heavy", "light"},
    {"heavy", "airy"},
    {"deep", "light"},
    {"low", "airy"},
    {"old", "modern"},
    {"acoustic", "electric"},
    {"instrumental", "operatic"},
    {"solo", "orchestral"},
    {"Happy", "Sad"},
    {"Happy", "Angry"},
    {"Happy", "Scary"},
    {"Happy", "Dark"},
    {"Upbeat", "Sad"},
    {"Upbeat", "Calm"},
    {"Calm", "Angry"},
    {"Calm", "Exciting"},
    {"Mellow", "Angry"},
    {"Mellow", "Exciting"},
    {"Tender", "Angry"},
    {"Tender", "Scary"},
]


@cache
def _table() -> dict[str, list[str]]:
    table: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name in ("audioset.tsv", "magnatagatune.tsv"):
        text = files("specgan.captions").joinpath("words", name).read_text(encoding="utf-8")
        for row in csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE):
            table[row["group"]].append(row["word"])
    return table


def words(group: str) -> list[str]:
    """Lists the words of a group as captions write them, each once, AudioSet's before MagnaTagATune's.

    Args:
        group: mood, genre, instrument or character.
    Raises:
        ValueError: an unknown group.
    Source: the AudioSet ontology and MagnaTagATune's tags; words/README.md lists the changes.
    """
    if group not in GROUPS:
        raise ValueError(f"group is {group!r}; one of {', '.join(GROUPS)}")
    return list(_table()[group])


def clash(one: str, other: str) -> bool:
    """Whether a caption must not have both words: opposites, or Guitar and Bass Guitar.

    Args:
        one, other: words, in the case that `words` writes.
    """
    if {one, other} in OPPOSITES:
        return True
    parts, others = set(one.split()), set(other.split())
    return parts <= others or others <= parts
