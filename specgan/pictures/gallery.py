"""A page of sounds and pictures that lie beside it as files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from specgan.pictures.pages import TEMPLATES, write_page


@dataclass(frozen=True)
class Entry:
    """A sound of a gallery: its files, relative to the page, and the text under it.

    Without `audio` it is a picture alone, without `picture` and `audio` text alone.
    """

    caption: str
    picture: str | None
    audio: str | None


def write_gallery(
    path: Path,
    *,
    title: str,
    note: str,
    sections: Mapping[str, Sequence[Entry]],
    pixelated: bool = True,
    width: str = "12rem",
) -> None:
    """Writes an HTML page with a heading for each section and a player and picture for each sound.

    Args:
        path: of the page.
        title: heading of the page.
        note: a sentence under it.
        sections: sounds by heading.
        pixelated: the pictures hold one pixel a value and are enlarged without blurring.
        width: of a figure, in units of CSS; a narrower window has narrower figures.
    """
    write_page(
        path,
        TEMPLATES / "gallery.html",
        title=title,
        note=note,
        sections={heading: [_addressed(entry) for entry in entries] for heading, entries in sections.items()},
        pixelated=pixelated,
        width=width,
    )


def _addressed(entry: Entry) -> Entry:
    return replace(entry, picture=_address(entry.picture), audio=_address(entry.audio))


def _address(path: str | None) -> str | None:
    """A file name as a URL: not every name is one, nor is every name UTF-8."""
    return path and quote(path, errors="surrogateescape")
