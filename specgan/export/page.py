"""A page of one file that draws the sounds of a model in a browser."""

import gzip
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specgan.export.graph import SoundGraph
from specgan.export.runtime import VERSION, Runtime
from specgan.pictures.pages import write_page
from specgan.spectrogram import Spectrogram, SpectrogramParams
from specgan.vocoders.griffin_lim import GriffinLim

WEB = Path(__file__).parent / "web"
SCRIPTS = ("noise.js", "frames.js", "griffin_lim.js", "sound.js", "page.js")
_SHOWN = {"conditional_accuracy": "classified as the requested class", "frechet_distance": "Fréchet distance"}


def write_sound_page(
    path: str | Path,
    *,
    graph: SoundGraph,
    model: bytes,
    about: Mapping[str, Any],
    vocoder: nn.Module,
    runtime: Runtime,
) -> None:
    """Writes the page.

    Args:
        path: of the page.
        graph: what the model computes; one that takes embeddings draws sounds between two others, too.
        model: content of an ONNX file, see `to_onnx`.
        about: its metadata, see `about.about`.
        vocoder: that the model holds, or which the page does by itself.
        runtime: runs the model.
    """
    from markupsafe import Markup  # of jinja2

    packed = {"runtime": runtime.code, "wasm": runtime.wasm, "model": model}
    griffin = _griffin(vocoder) if isinstance(vocoder, GriffinLim) else None
    write_page(
        Path(path),
        WEB / "page.html",
        title=Path(path).stem,
        size=f"{len(model) / 1e6:.1f} MB",
        about={**about, "griffin": griffin, "embeddings": _embeddings(graph)},
        measured=list(_measured(about)),
        version=VERSION,
        licence=(WEB / "LICENCE.txt").read_text(encoding="utf-8"),
        style=Markup((WEB / "page.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((WEB / name).read_text(encoding="utf-8") for name in SCRIPTS)),
        packed={name: b64encode(gzip.compress(content, 9, mtime=0)).decode() for name, content in packed.items()},
    )


@torch.no_grad()
def _embeddings(graph: SoundGraph) -> list[list[float]] | None:
    """That of each class."""
    if not graph.embedded:
        return None
    n_classes = graph.network.embedding.num_embeddings
    return [_short(row) for row in graph.network.embedding(torch.arange(n_classes))]


def _short(values: Tensor) -> list[float]:
    return [float(f"{value:.8g}") for value in values.tolist()]


def require_drawable(vocoder: nn.Module, params: SpectrogramParams) -> None:
    """Raises ValueError for Griffin-Lim with settings that the page has not."""
    if not isinstance(vocoder, GriffinLim):
        return
    if vocoder.start != "steady":
        raise ValueError(f"vocoder.start is {vocoder.start!r}; a page starts from steady: vocoder.start=steady")
    if params.n_fft & (params.n_fft - 1):
        raise ValueError(
            f"n_fft is {params.n_fft}; Griffin-Lim in a page takes a power of two. Export with vocoder=learned"
        )


def _griffin(vocoder: GriffinLim) -> dict[str, Any]:
    """What Griffin-Lim in the page needs to know besides the settings of the spectrograms."""
    transform = Spectrogram(vocoder.params)
    settings: dict[str, Any] = {"full_scale": transform.full_scale, "floor": transform.floor}
    if vocoder.inversion is None:
        return {**settings, "filters": None, "first_bin": vocoder.params.fft_bins.start}
    bands = []
    for row in vocoder.inversion.filters:
        used = row.nonzero()
        first, last = int(used[0]), int(used[-1])
        bands.append([first, _short(row[first : last + 1])])
    return {**settings, "filters": bands}


def _measured(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    row = ((about["figures"] or {}).get("rows") or {}).get("generated") or {}
    return [(shown, f"{row[name]['value']:.3g}") for name, shown in _SHOWN.items() if name in row]
