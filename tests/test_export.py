"""specgan export: the file computes what PyTorch does, says how it is used, and replaces nothing of others."""

import json
import re
import shutil
import sys
import tarfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch
from checkpoints import CLASSES, PARAMS, save_checkpoint
from torch import nn

import specgan
from specgan.export.exporting import export
from specgan.export.runtime import SHA256, MissingRuntimeError, find_runtime
from specgan.export.transforms import Fourier
from specgan.files import OUTPUTS_NAME
from specgan.models.generators import noise
from specgan.models.trained import CHECKPOINT_KEY, EMA, TrainedGenerator
from specgan.spectrogram import denormalise
from specgan.vocoders.griffin_lim import GriffinLim
from specgan.vocoders.learned import Learned
from specgan.vocoders.refinement import Refiner

DOCS = Path(__file__).parents[1] / "docs"
CLASSIC = replace(PARAMS, kind="linear", f_min=60.0, level="log1p")
UNEVEN = replace(PARAMS, n_fft=500, win_length=300, hop_length=72, n_mels=24, n_frames=18)


def opened(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    return session, {name: json.loads(value) for name, value in about.items()}


def tiny_vocoder(params):
    torch.manual_seed(0)
    return partial(Learned, held=Refiner(params, width=16, n_blocks=1, n_bands=12, n_iter=3).contents())


@pytest.mark.parametrize("n_fft", [512, 300, 77, 13])
def test_the_transform_in_real_numbers_is_that_of_torch(n_fft):
    samples, n_bins = torch.randn(3, n_fft), n_fft // 2 + 1
    expected, fourier = torch.fft.rfft(samples), Fourier(n_fft)
    torch.testing.assert_close(torch.complex(*fourier(samples)), expected, rtol=0, atol=1e-4)
    spectrum = torch.randn(2, n_bins, dtype=torch.complex64)
    torch.testing.assert_close(fourier.inverse(spectrum.real, spectrum.imag), torch.fft.irfft(spectrum, n_fft))


@pytest.mark.parametrize(("params", "channels"), [(UNEVEN, 2), (CLASSIC, 1)], ids=["uneven stereo", "linear log1p"])
def test_a_model_computes_what_pytorch_does(params, channels, tmp_path, monkeypatch):
    ckpt_path = save_checkpoint(tmp_path / "best.ckpt", params=params, channels=channels)
    make = tiny_vocoder(params)
    session, _ = opened(export(ckpt_path, output=tmp_path / "kicks.onnx", vocoder=make))
    trained, seeds, labels = TrainedGenerator.load(ckpt_path), [3, 4, 5], [0, 1, 2]
    spectrograms = trained.sample_indices(labels, seeds)
    expected = make(params, trained.level_range)(spectrograms, seeds=seeds).view(3, channels, -1)
    level = denormalise(spectrograms, trained.level_range)
    size = (params.n_frames, params.n_fft // 2 + 1)
    uniform = [torch.rand(size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    for chosen in ([0, 1, 2], [1]):  # any size of a batch
        given = {
            "z": torch.stack([noise(trained.network, seeds[i]) for i in chosen]),
            "label": torch.tensor([labels[i] for i in chosen]),
            "noise": torch.stack([uniform[i] for i in chosen]),
        }
        drawn, waveform = session.run(["spectrogram", "waveform"], {name: x.numpy() for name, x in given.items()})
        half = (trained.level_range.high - trained.level_range.low) / 2  # 1 of the network's output
        np.testing.assert_allclose(drawn / half, level[chosen] / half, rtol=0, atol=1e-4)
        np.testing.assert_allclose(waveform, expected[chosen], rtol=0, atol=1e-4 * max(1, float(expected.abs().max())))
    assert expected.abs().max() > 0.01
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", (DOCS / "how-to" / "export.md").read_text(), re.DOTALL)[1], {})
    assert soundfile.info("kick.wav").frames == params.n_samples


def test_a_model_says_what_it_is(tmp_path):
    ckpt_path = save_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    rows = {"generated": {"coverage": {"value": 0.5}}}
    report = {"checkpoint": "elsewhere/best.ckpt", "n_steps": 12, "split": "test", "rows": rows, "dataset": "/home/me"}
    (tmp_path / "run" / "report.json").write_text(json.dumps(report))
    presets = {"other": UNEVEN, "mine": PARAMS}
    path = export(ckpt_path, output=tmp_path / "sounds.onnx", vocoder=GriffinLim, presets=lambda: presets)
    session, about = opened(path)
    assert [(each.name, each.shape) for each in session.get_inputs()] == [("z", ["batch", 16]), ("label", ["batch"])]
    assert [(each.name, each.shape) for each in session.get_outputs()] == [("spectrogram", ["batch", 1, 32, 32])]
    assert about == {
        "class_names": CLASSES,
        "sample_rate": 8000,
        "n_samples": 4096,
        "channels": 1,
        "spectrogram": asdict(PARAMS),
        "preset": "mine",
        "level_range": {"low": -80.0, "high": -10.0},
        "latent_dim": 16,
        "n_steps": 12,
        "checkpoint": "best.ckpt",
        "vocoder": about["vocoder"],
        "specgan_version": specgan.__version__,
        "figures": {"split": "test", "rows": rows},
    }
    assert about["vocoder"]["name"] == "griffin_lim" and not about["vocoder"]["in_model"]
    (tmp_path / "run" / "report.json").write_text(json.dumps({**report, "n_steps": 11}))  # of another checkpoint
    assert opened(export(ckpt_path, output=path, vocoder=GriffinLim))[1]["figures"] is None
    (tmp_path / "run" / "report.json").write_text("{")
    with pytest.raises(ValueError, match=r"report\.json: not a report of train\.py stage=test"):
        export(ckpt_path, output=path, vocoder=GriffinLim)


class OwnNetwork(nn.Module):
    """A network of a user's own, with a layer that ONNX has not if `odd`."""

    def __init__(self, odd=False):
        super().__init__()
        self.settings, self.latent_dim, self.odd = {"odd": odd}, 4, odd
        self.linear = nn.Linear(4, PARAMS.n_mels * PARAMS.n_frames)

    def forward(self, z, labels):
        made = torch.tanh(self.linear(z) + labels[:, None]).view(-1, 1, PARAMS.n_mels, PARAMS.n_frames)
        return torch.special.bessel_j0(made) if self.odd else made


@pytest.mark.parametrize("odd", [False, True])
def test_a_network_of_ones_own(odd, tmp_path):
    ckpt_path = save_checkpoint(tmp_path / "best.ckpt")
    checkpoint, own = torch.load(ckpt_path, weights_only=True), OwnNetwork(odd)
    checkpoint[CHECKPOINT_KEY]["generator"] = {"_target_": f"{__name__}.OwnNetwork", "odd": odd}
    checkpoint["state_dict"] = {f"{EMA}.{name}": weight for name, weight in own.state_dict().items()}
    torch.save(checkpoint, ckpt_path)
    export_it = partial(export, ckpt_path, output=tmp_path / "own.onnx", vocoder=GriffinLim)
    with pytest.raises(ValueError, match="name it: network="):
        export_it()
    if odd:
        with pytest.raises(ValueError, match=r"OwnNetwork cannot be written as ONNX with opset 18: .*bessel_j0"):
            export_it(network=f"{__name__}.OwnNetwork")
        assert not (tmp_path / "own.onnx").exists()
        return
    session, _ = opened(export_it(network=f"{__name__}.OwnNetwork"))
    z, label = torch.randn(5, 4), torch.arange(5)
    (drawn,) = session.run(None, {"z": z.numpy(), "label": label.numpy()})
    trained = TrainedGenerator.load(ckpt_path, network=f"{__name__}.OwnNetwork")
    np.testing.assert_allclose(drawn, denormalise(own(z, label), trained.level_range).detach(), rtol=0, atol=1e-4)


class OwnVocoder(nn.Module):
    def __init__(self, params, level_range):
        super().__init__()


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    ckpt_path = save_checkpoint(tmp_path / "best.ckpt")
    export_it = partial(export, ckpt_path, vocoder=GriffinLim)
    with pytest.raises(ValueError, match=r"output is sounds\.wav; a file whose name ends in \.onnx"):
        export_it(output="sounds.wav")
    with pytest.raises(ValueError, match="vocoder is OwnVocoder"):
        export_it(output=tmp_path / "x.onnx", vocoder=OwnVocoder)
    with pytest.raises(ValueError, match="with opset 3"):
        export_it(output=tmp_path / "x.onnx", opset=3)
    (tmp_path / "mine.onnx").write_text("mine")
    with pytest.raises(ValueError, match=r"mine\.onnx: is in the way"):
        export_it(output=tmp_path / "mine.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'specgan\[export\]'"):
        export_it(output=tmp_path / "x.onnx")
    assert {path.name for path in tmp_path.iterdir()} - {OUTPUTS_NAME} == {"best.ckpt", "mine.onnx"}
    assert (tmp_path / "mine.onnx").read_text() == "mine"


# --- what a page needs


def test_without_npm_or_a_folder_the_message_says_what_is_lacking_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    ckpt_path = save_checkpoint(tmp_path / "best.ckpt")
    with pytest.raises(MissingRuntimeError, match=r"there is no npm to fetch it\.(.|\n)*npm pack onnxruntime-web@"):
        export(ckpt_path, output=tmp_path / "x.html", vocoder=GriffinLim)
    with pytest.raises(MissingRuntimeError, match=r"runtime is .*: no ort\.wasm(.|\n)*npm pack"):
        find_runtime(tmp_path)
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(MissingRuntimeError, match=r"npm cannot fetch onnxruntime-web \(no network\)"):
        find_runtime(None)
    assert not (tmp_path / "x.html").exists()


def test_files_other_than_the_published_ones_are_not_used(tmp_path, monkeypatch):
    for name in SHA256:
        path = tmp_path / "package" / "dist" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("something else")
    assert find_runtime(tmp_path / "package").code == b"something else"  # that of a folder of one's own is
    with tarfile.open(tmp_path / "packed.tgz", "w:gz") as archive:
        archive.add(tmp_path / "package", "package")
    npm = tmp_path / "npm"
    npm.write_text(f'#!/bin/sh\n{shutil.which("cp")} {tmp_path}/packed.tgz "$5"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="that npm fetched is not that of onnxruntime-web"):
        find_runtime(None)
    assert not (tmp_path / "cache").exists()


def test_griffin_lim_that_a_page_has_not_is_refused(tmp_path):
    ckpt_path = save_checkpoint(tmp_path / "best.ckpt", params=UNEVEN)
    export_it = partial(export, ckpt_path, output=tmp_path / "x.html")
    with pytest.raises(ValueError, match=r"vocoder\.start is 'gradient'"):
        export_it(vocoder=partial(GriffinLim, start="gradient"))
    with pytest.raises(ValueError, match="n_fft is 500; Griffin-Lim in a page takes a power of two"):
        export_it(vocoder=GriffinLim)
