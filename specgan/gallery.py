"""A page of sounds and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from specgan.files import atomic_path

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px system-ui, sans-serif; margin: 2rem; background: #16141f; color: #eee; }}
section div {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
figure {{ margin: 0; width: {width}; max-width: 100%; }}
img {{ width: 100%; {rendering} }}
audio {{ width: 100%; height: 2rem; }}
figcaption, p {{ color: #aaa; }}
</style>
<h1>{title}</h1>
<p>{note}</p>
{sections}
</html>
"""


@dataclass(frozen=True)
class Sound:
    """One player: files relative to the page, and the text under it. `audio` may be None, `picture` too: text alone."""

    caption: str
    picture: str | None
    audio: str | None


def write_gallery(
    path: Path,
    *,
    title: str,
    note: str,
    sections: Mapping[str, Sequence[Sound]],
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
    html = []
    for heading, sounds in sections.items():
        figures = "\n".join(_figure(sound) for sound in sounds)
        html.append(f"<section><h2>{escape(heading)}</h2><div>\n{figures}\n</div></section>")
    page = _PAGE.format(
        title=escape(title),
        note=escape(note),
        sections="\n".join(html),
        rendering="aspect-ratio: 1; image-rendering: pixelated;" if pixelated else "",
        width=width,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")  # a file name need not be UTF-8


def _figure(sound: Sound) -> str:
    caption, picture, player = escape(sound.caption), "", ""
    if sound.picture:
        picture = f'<img src="{_quote(sound.picture)}" alt="spectrogram: {caption}" loading="lazy">'
    if sound.audio:
        player = f'<audio controls preload="none" src="{_quote(sound.audio)}"></audio>'
    return f"<figure>{picture}{player}<figcaption>{caption}</figcaption></figure>"


def _quote(path: str) -> str:
    return quote(path, errors="surrogateescape")
