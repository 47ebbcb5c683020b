"""A page of sounds and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from specgan.files import atomic_path

# Of every page of ours, so that they look alike.
STYLE = """\
body { font: 16px system-ui, sans-serif; margin: clamp(1rem, 4vw, 2rem); background: #16141f; color: #eee; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; max-width: 100%; }
img { width: 100%; }
audio { width: 100%; height: 2rem; }
figcaption, p { color: #aaa; }"""

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="script-src 'none'">
<title>{title}</title>
<style>
{style}
figure {{ width: {width}; }}
img {{ {rendering} }}
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
        html.append(f'<section><h2>{escape(heading)}</h2><div class="figures">\n{figures}\n</div></section>')
    page = _PAGE.format(
        style=STYLE,
        title=escape(title),
        note=escape(note),
        sections="\n".join(html),
        rendering="aspect-ratio: 1; image-rendering: pixelated;" if pixelated else "",
        width=width,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")  # a file name need not be UTF-8


def _figure(sound: Sound) -> str:
    return player(sound.caption, picture=_quote(sound.picture), audio=_quote(sound.audio))


def _quote(path: str | None) -> str | None:
    return path and quote(path, errors="surrogateescape")


def player(caption: str, *, picture: str | None, audio: str | None) -> str:
    """Returns the HTML of a picture, the controls of a sound and a caption, each address as it is to stand in `src`."""
    caption, image, controls = escape(caption), "", ""
    if picture:
        image = f'<img src="{escape(picture)}" alt="spectrogram: {caption}" loading="lazy">'
    if audio:
        controls = f'<audio controls preload="none" src="{escape(audio)}"></audio>'
    return f"<figure>{image}{controls}<figcaption>{caption}</figcaption></figure>"
