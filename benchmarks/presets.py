"""How much of a sound is lost in each spectrogram preset, in band and in attack?

    python benchmarks/presets.py                          # built-in drums, 2 minutes
    python benchmarks/presets.py --sounds clips/          # your own: the first second of up to --n-sounds files
    python benchmarks/presets.py --settings n_mels=96,n_frames=96,hop_length=460   # and of mel_44k_64x64 changed so

Each sound is taken at its own rate, or at 48 kHz at most, through two rows:

rate         to the sample rate of the preset and back: what no generator can bring back
vocoder      from there to the spectrogram, and by vocoder=griffin_lim to sound: the best that a generator can do

band         log-spectral distance from the recording in dB, mean of FFTs of 4096, 1024 and 256 samples
attack       error of the envelope in the 60 ms after the onset in dB
values       of a spectrogram over those of mel_64x64, which is roughly what a training step costs
seconds      of the vocoder for a sound
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from specgan.audio import find_audio, load_audio, resample, scale_to_peak
from specgan.data.drums import CLASSES, drum
from specgan.evaluation.fidelity import losses
from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, normalise
from specgan.vocoders.griffin_lim import GriffinLim

CONF = Path(__file__).resolve().parent.parent / "conf"
PEAK, LENGTH_S, HIGHEST_RATE = 0.5, 1.0, 48000
CHANGED = "mel_44k_64x64"  # the preset that --settings change


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sounds", type=Path, help="folder of audio files; default: built-in drums")
    parser.add_argument("--n-sounds", type=int, default=35)
    parser.add_argument("--settings", nargs="*", default=[], help="name=value,name=value")
    args = parser.parse_args()
    sounds = read(args.sounds, args.n_sounds) if args.sounds else synthesise(args.n_sounds)
    presets = all_presets()
    presets |= {words: replace(presets[CHANGED], **yaml.safe_load(as_yaml(words))) for words in args.settings}
    print(f"{len(sounds)} sounds of {args.sounds or 'built-in drums'}, the first {LENGTH_S:g} s")
    print(f"{'':24}{'values':>8}{'rate: band':>12}{'attack':>8}{'vocoder: band':>15}{'attack':>8}{'seconds':>9}")
    for name, params in presets.items():
        print(f"{name:24}" + measured(sounds, params), flush=True)


def all_presets() -> dict[str, SpectrogramParams]:
    names = sorted(path.stem for path in (CONF / "spectrogram").glob("*.yaml"))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = {name: compose("train", [f"spectrogram={name}"]).spectrogram for name in names}
    presets = {name: instantiate(settings) for name, settings in composed.items()}
    return {name: params for name, params in presets.items() if params.n_frames}


def as_yaml(words: str) -> str:
    return words.replace("=", ": ").replace(",", "\n")


def synthesise(n_sounds: int) -> list[tuple[Tensor, int]]:
    names = [CLASSES[i % len(CLASSES)] for i in range(n_sounds)]
    return [(drum(name, seed=seed)[None], 44100) for seed, name in enumerate(names)]


def read(folder: Path, n_sounds: int) -> list[tuple[Tensor, int]]:
    """Waveforms (1, T) and rates of files from the whole folder, evenly."""
    files = find_audio(folder)
    files = [files[i * len(files) // n_sounds] for i in range(n_sounds)] if len(files) > n_sounds else files
    loaded = [load_audio(file) for file in files]
    return [(resample(w, rate, min(rate, HIGHEST_RATE)), min(rate, HIGHEST_RATE)) for w, rate in loaded]


def measured(sounds: list[tuple[Tensor, int]], params: SpectrogramParams) -> str:
    cut = [scale_to_peak(waveform[:, : round(LENGTH_S * rate)], PEAK) for waveform, rate in sounds]
    rates = [rate for _, rate in sounds]
    at_rate = [resample(waveform, rate, params.sample_rate) for waveform, rate in zip(cut, rates, strict=True)]
    n_samples = -(-round(LENGTH_S * params.sample_rate) // params.n_samples) * params.n_samples
    transform = Spectrogram(replace(params, n_frames=None))
    levels = [transform(F.pad(waveform, (0, n_samples - waveform.shape[1]))) for waveform in at_rate]
    level_range = LevelRange(low=params.silence, high=max(float(level.max()) for level in levels))
    vocoder = GriffinLim(params, level_range)
    started = time.perf_counter()
    vocoded = [vocoder(normalise(level, params, level_range).unsqueeze(0), seeds=[0]) for level in levels]
    seconds = (time.perf_counter() - started) / len(sounds)
    rows = []
    for found in (at_rate, vocoded):
        back = [resample(w, params.sample_rate, rate) for w, rate in zip(found, rates, strict=True)]
        pairs = [losses(a, fitted(b, a.shape[1]), sample_rate=r) for a, b, r in zip(cut, back, rates, strict=True)]
        rows.append([mean(pairs, name) for name in ("log_spectral_distance_db", "attack_error_db")])
    values = params.n_mels * params.n_frames / 64**2
    (band, attack), (vocoded_band, vocoded_attack) = rows
    return f"{values:8.1f}{band:12.1f}{attack:8.1f}{vocoded_band:15.1f}{vocoded_attack:8.1f}{seconds:9.3f}"


def fitted(waveform: Tensor, n_samples: int) -> Tensor:
    return F.pad(waveform[:, :n_samples], (0, max(0, n_samples - waveform.shape[1])))


def mean(pairs: list[dict[str, dict[str, float]]], name: str) -> float:
    known = [pair[name]["value"] for pair in pairs if name in pair]
    return sum(known) / len(known)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
