"""A checkpoint -> one file: what is asked for is checked first, and nothing of anyone else is replaced."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from specgan.export.about import about, about_vocoder
from specgan.export.graph import SoundGraph, to_onnx
from specgan.export.page import require_drawable, write_sound_page
from specgan.export.runtime import find_runtime
from specgan.files import Outputs, write_bytes
from specgan.generation import make_vocoder
from specgan.models.trained import TrainedGenerator
from specgan.spectrogram import SpectrogramParams

log = logging.getLogger(__name__)

SUFFIXES = (".onnx", ".html")


def export(
    ckpt_path: str | Path,
    *,
    output: str | Path,
    vocoder: Callable[..., nn.Module],
    carried_vocoder: bool = True,
    network: str | None = None,
    opset: int = 18,
    runtime: str | Path | None = None,
    presets: Callable[[], Mapping[str, SpectrogramParams]] = dict,
) -> Path:
    """Writes a checkpoint as an ONNX model, or as a page that draws its sounds in a browser.

    Args:
        ckpt_path: a checkpoint of train.py.
        output: a file that ends in .onnx or .html.
        vocoder: called with the checkpoint's params and level_range. One that is a network is in the model.
        carried_vocoder: use the vocoder that the checkpoint carries instead, if it carries one.
        network: class of the generator if it is your own, see `TrainedGenerator.load`.
        opset: version of ONNX's operators.
        runtime: of a page: folder of onnxruntime-web, see `runtime.find_runtime`.
        presets: returns presets by name, for the file to say which one its spectrograms have.
    Returns:
        The file.
    Raises:
        FileNotFoundError, ValueError: no such checkpoint, another suffix, a file is in the way, or what cannot be
            exported; nothing is written.
        MissingRuntimeError: a page needs onnxruntime-web, which is neither here nor can be fetched.
        ImportError: the package onnx is not installed.
    """
    path = Path(output)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"output is {output}; a file whose name ends in {' or '.join(SUFFIXES)}")
    outputs = Outputs(path.parent, "export")
    outputs.require_free([path.name])
    trained = TrainedGenerator.load(ckpt_path, network=network)
    to_sound = make_vocoder(trained, vocoder, carried=carried_vocoder)
    is_page = path.suffix == ".html"
    graph = SoundGraph(trained, to_sound, embedded=is_page and hasattr(trained.network, "from_embedding"))
    facts = about(trained, ckpt_path, presets=presets(), vocoder=about_vocoder(to_sound))
    found = None
    if is_page:
        require_drawable(to_sound, trained.params)
        found = find_runtime(runtime)
    content = to_onnx(graph, facts, opset=opset)
    outputs.claim([path.name])
    if found is None:
        write_bytes(path, content)
    else:
        write_sound_page(path, graph=graph, model=content, about=facts, vocoder=to_sound, runtime=found)
    log.info("%s: %.1f MB, %d classes", path, path.stat().st_size / 1e6, len(trained.class_names))
    return path
