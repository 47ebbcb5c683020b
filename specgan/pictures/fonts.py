"""Letters in figures: matplotlib draws boxes, with a warning for each, where its font has no such letter."""

import logging
from functools import cache

log = logging.getLogger(__name__)

_MISSING = "?"  # in place of a letter that no installed font has
_warned_about: set[str] = set()  # once in a process, for all figures


def drawable(text: str) -> str:
    """The text with a question mark for each character that no installed font has, or that is not Unicode.

    Such letters are warned about once.
    """
    text = "".join(char if char.isprintable() or char == "\n" else _MISSING for char in text)
    missing = {char for char in text if char.isprintable() and family_of(char) is None}
    if missing and not _warned_about:
        log.warning(
            "no installed font has the letters %s: pictures show %s for such letters; install a font that has them, "
            "for Chinese, Japanese and Korean e.g. Noto Sans CJK",
            " ".join(sorted(missing)),
            _MISSING,
        )
    _warned_about.update(missing)
    return "".join(_MISSING if char in missing else char for char in text)


def families(text: str) -> list[str]:
    """The fonts to draw a text with: matplotlib's own, and behind it those that have the other letters."""
    found = [family_of(char) for char in text if char.isprintable()]
    return list(dict.fromkeys(["sans-serif", *(family for family in found if family)]))


@cache
def family_of(char: str) -> str | None:
    """The font that has a character: matplotlib's own if it can, else the first of those installed; None: none has."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    if _has(font_manager.findfont(font_manager.FontProperties(family=["sans-serif"])), char):
        return "sans-serif"
    for entry in _plain_fonts(manager):
        if _has(entry.fname, char):
            return entry.name
    # matplotlib keeps a list of fonts; those that were installed later are not in it
    for path in sorted(set(font_manager.findSystemFonts()) - {entry.fname for entry in manager.ttflist}):
        if _has(path, char):
            manager.addfont(path)
            return manager.ttflist[-1].name
    return None


def _plain_fonts(manager):
    """Upright ones of normal weight first; without those of last resort, which have a box for every letter."""
    fonts = [entry for entry in manager.ttflist if "lastresort" not in entry.name.replace(" ", "").lower()]
    return sorted(fonts, key=lambda entry: (entry.style != "normal", entry.weight not in (400, "normal")))


@cache
def _has(path: str, char: str) -> bool:
    font = _opened(path)
    return font is not None and font.get_char_index(ord(char)) != 0


@cache
def _opened(path: str):
    """A font of outlines; None: matplotlib cannot draw with it, as with most fonts of emoji."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):
        return None
    return font if font.scalable else None
