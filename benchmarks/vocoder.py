"""How near to a recording is the sound that vocoders make of its spectrogram, and how fast are they?

    python benchmarks/vocoder.py                                       # built-in drums, 2 minutes
    python benchmarks/vocoder.py --preset mel_8k_64x64 --sounds clips/ # your own: clips/<class>/... or <class>_name.wav
    python benchmarks/vocoder.py --vocoders griffin_lim "griffin_lim start=envelope n_iter=16" "learned path=voc.ckpt"
    python benchmarks/vocoder.py --ckpt <run>/checkpoints/best.ckpt    # what it generates, too: the preset is its own

A vocoder is a name of conf/vocoder and settings, as with train.py but without "vocoder."; or "torchaudio" or "librosa",
whose mel inversion (gelsd, and their own) and Griffin-Lim have 32 iterations. All are tried on every fifth recording,
at most --n-sounds of them, at the preset's rate; --frechet trains a judge on the others, as they were recorded.

attack       error of the envelope in the 60 ms after the onset in dB, against the recording
LSD 256      log-spectral distance in dB against the recording, FFT and window of 256 samples; LSD: of 4096, 1024, 256
mel, mel dB  of its mel bands against those asked for: ||a - b|| / ||b|| of magnitudes, and log-spectral distance
envelope     of generated sounds: error of the level of a frame, against what was asked for, in dB (silence: -60)
PESQ         narrow band, at 8 kHz alone, with pip install -e ".[speech]": 1 to 4.5, higher is better
Fréchet      to the recordings of the judge's training, over that of the recordings themselves; 1 is best
CPU          seconds for a second of sound on one thread
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import librosa
import numpy as np
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor
from torchaudio.transforms import GriffinLim as TorchaudioGriffinLim
from torchaudio.transforms import InverseMelScale

from specgan.audio import find_audio, load_audio, resample
from specgan.data.drums import CLASSES, drum
from specgan.evaluation import fidelity
from specgan.evaluation.asked import against_asked
from specgan.evaluation.fitting import fit_classifier
from specgan.evaluation.metrics import frechet_distance
from specgan.models.classifier import Classifier
from specgan.models.trained import TrainedGenerator
from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, denormalise, normalise

CONF = Path(__file__).resolve().parent.parent / "conf"
HELD_OUT, N_DRUMS = 5, 700  # every fifth; built-in drums
OTHERS_ITER = 32
DEFAULT = ["griffin_lim", "griffin_lim start=envelope n_iter=16", "torchaudio"]

ASKED = {"mel": "spectrogram_error", "mel dB": "spectrogram_error_db", "envelope": "envelope_error_db"}
FIGURES = ("attack", "LSD 256", "LSD", "mel", "mel dB", "PESQ")

Vocoder = Callable[[Tensor, Sequence[int]], Tensor]  # spectrograms (B, 1, n_bins, n_frames), seeds -> (B, T)
Sound = tuple[str, Callable[[], tuple[Tensor, int]]]  # its class, and what loads it, with its rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sounds", type=Path, metavar="FOLDER", help="of audio files; default: built-in drums")
    parser.add_argument("--preset", default="mel_44k_64x64", help="a name of conf/spectrogram")
    parser.add_argument("--vocoders", nargs="+", default=DEFAULT, metavar="NAME", help='default: "%(default)s"')
    parser.add_argument("--ckpt", type=Path, help="of train.py: measures what it generates, too, at its preset")
    parser.add_argument("--n-sounds", type=int, default=40, help="recordings, and generated sounds, at most")
    parser.add_argument("--frechet", action="store_true", help="trains a judge, for some minutes")
    args = parser.parse_args()
    if args.sounds and not args.sounds.is_dir():
        parser.error(f"--sounds is {args.sounds}; an existing folder")
    if args.n_sounds < 1:
        parser.error(f"--n-sounds is {args.n_sounds}; at least 1")
    torch.set_num_threads(1)
    trained = TrainedGenerator.load(args.ckpt) if args.ckpt else None
    params = trained.params if trained else preset(args.preset)
    sounds = folder_sounds(args.sounds) if args.sounds else drum_sounds(params.sample_rate)
    recorded = load(evenly(sounds[::HELD_OUT], args.n_sounds), params)
    level = Spectrogram(params)(recorded)
    level_range = trained.level_range if trained else LevelRange(params.silence, level.max().item())
    spectrograms = normalise(level, params, level_range).unsqueeze(1)
    vocoders = {words: make_vocoder(words, params, level_range) for words in args.vocoders}
    others = [sound for i, sound in enumerate(sounds) if i % HELD_OUT]
    distance = train_judge(others, recorded, params) if args.frechet else None
    print(f"{len(recorded)} recordings of {args.sounds or 'built-in drums'}, {params.sample_rate} Hz")
    print_row("", [*FIGURES, "Fréchet", "CPU"])
    for words, vocoder in vocoders.items():
        found, seconds = timed(vocoder, spectrograms, params)
        figures = against_recordings(recorded, found, params)
        figures |= asked_figures(found, spectrograms, params, level_range)
        print_row(words, [*(figures.get(name) for name in FIGURES), distance and distance(found), seconds])
    if trained:
        print_generated(trained, vocoders, args.n_sounds, distance)
    if params.sample_rate == 8000 and "PESQ" not in figures:
        print("no PESQ, for the package pesq is not installed: pip install -e '.[speech]'")


def print_generated(trained: TrainedGenerator, vocoders: dict[str, Vocoder], n: int, distance: Callable | None) -> None:
    names = [trained.class_names[i % len(trained.class_names)] for i in range(n)]
    drawn = trained.sample(names, range(n))
    print(f"\n{n} sounds that {trained.checkpoint} generates")
    print_row("", ["envelope", "mel", "mel dB", "Fréchet"])
    for words, vocoder in vocoders.items():
        found, _ = timed(vocoder, drawn, trained.params)
        figures = asked_figures(found, drawn, trained.params, trained.level_range)
        columns = [figures.get(name) for name in ("envelope", "mel", "mel dB")]
        print_row(words, [*columns, distance and distance(found)])


def print_row(name: str, columns: Sequence[str | float | None]) -> None:
    cells = ["" if value is None else value if isinstance(value, str) else f"{value:.3f}" for value in columns]
    print(f"{name:44}" + "".join(f"{cell:>9}" for cell in cells), flush=True)


# --- vocoders


def preset(name: str) -> SpectrogramParams:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose("train", [f"spectrogram={name}"]).spectrogram)


def make_vocoder(words: str, params: SpectrogramParams, level_range: LevelRange) -> Vocoder:
    name, *settings = words.split()
    if name in OTHERS:
        return partial(OTHERS[name], params=params, level_range=level_range)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [f"vocoder={name}", *(f"vocoder.{setting}" for setting in settings)])
    vocoder = instantiate(config.vocoder, _convert_="all")(params, level_range)
    return lambda spectrograms, seeds: vocoder(spectrograms, seeds=seeds)


def by_torchaudio(
    spectrograms: Tensor, seeds: Sequence[int], *, params: SpectrogramParams, level_range: LevelRange
) -> Tensor:
    p = params
    filters = {"f_min": p.f_min, "f_max": p.upper_hz, "norm": p.norm, "mel_scale": p.mel_scale}
    invert = InverseMelScale(p.n_fft // 2 + 1, p.n_mels, p.sample_rate, **filters, driver="gelsd")
    search = TorchaudioGriffinLim(p.n_fft, OTHERS_ITER, p.win_length, p.hop_length, power=2)
    torch.manual_seed(seeds[0])
    return search(invert(asked_power(spectrograms, params, level_range)))


def by_librosa(
    spectrograms: Tensor, seeds: Sequence[int], *, params: SpectrogramParams, level_range: LevelRange
) -> Tensor:
    p = params
    filters = {"fmin": p.f_min, "fmax": p.upper_hz, "norm": p.norm, "htk": p.mel_scale == "htk"}
    frames = {"n_fft": p.n_fft, "win_length": p.win_length, "hop_length": p.hop_length, "pad_mode": "constant"}
    found = []
    for mel, seed in zip(asked_power(spectrograms, params, level_range).numpy(), seeds, strict=True):
        magnitude = librosa.feature.inverse.mel_to_stft(mel, sr=p.sample_rate, n_fft=p.n_fft, **filters)
        found.append(librosa.griffinlim(magnitude, n_iter=OTHERS_ITER, **frames, random_state=seed))
    return torch.from_numpy(np.stack(found)).float()


OTHERS = {"torchaudio": by_torchaudio, "librosa": by_librosa}


def timed(vocoder: Vocoder, spectrograms: Tensor, params: SpectrogramParams) -> tuple[Tensor, float]:
    """Waveforms, and seconds of CPU for a second of sound."""
    vocoder(spectrograms[:1], range(1))  # what is done once
    started = time.process_time()
    found = vocoder(spectrograms, range(len(spectrograms)))
    seconds = (time.process_time() - started) * params.sample_rate / params.n_samples / len(found)
    return F.pad(found, (0, params.n_samples - found.shape[-1])), seconds  # those of others lack a hop


# --- figures


def against_recordings(recorded: Tensor, found: Tensor, params: SpectrogramParams) -> dict[str, float]:
    errors = fidelity.attack_error(recorded, found, sample_rate=params.sample_rate)
    figures = {
        "attack": errors.nanmean().item(),
        "LSD 256": fidelity.log_spectral_distance(recorded, found, n_ffts=(256,)).nanmean().item(),
        "LSD": fidelity.log_spectral_distance(recorded, found).nanmean().item(),
    }
    if params.sample_rate == 8000 and find_spec("pesq"):
        from pesq import PesqError, pesq

        pairs = zip(recorded.numpy(), found.numpy(), strict=True)
        scores = [pesq(8000, *pair, "nb", on_error=PesqError.RETURN_VALUES) for pair in pairs]
        heard = [score for score in scores if score > 0]  # in the others it finds no utterance
        figures["PESQ"] = sum(heard) / max(1, len(heard))
    return figures


def asked_figures(
    found: Tensor, spectrograms: Tensor, params: SpectrogramParams, level_range: LevelRange
) -> dict[str, float]:
    errors = against_asked(found, spectrograms, params, level_range)
    return {name: errors[key].nanmean().item() for name, key in ASKED.items() if key in errors}


def asked_power(spectrograms: Tensor, params: SpectrogramParams, level_range: LevelRange) -> Tensor:
    """(B, n_bins, n_frames), >= 0."""
    return Spectrogram(params).to_power(denormalise(spectrograms, level_range)).squeeze(1)


def train_judge(learnt: list[Sound], held_out: Tensor, params: SpectrogramParams) -> Callable[[Tensor], float]:
    """Maps waveforms to their Fréchet distance to recordings, over that of other recordings."""
    names = sorted({name for name, _ in learnt})
    classifier = Classifier(sample_rate=params.sample_rate, n_samples=params.n_samples, class_names=names)
    recorded = load(learnt, params)
    labels = torch.tensor([names.index(name) for name, _ in learnt])
    with torch.enable_grad():
        fit_classifier(classifier, recorded, labels, seed=0, device=torch.device("cpu"), description="judge")
    reference = classifier.judge(recorded)[0]
    of_real = frechet_distance(classifier.judge(held_out)[0], reference)
    return lambda waveforms: frechet_distance(classifier.judge(waveforms)[0], reference) / of_real


# --- recordings


def drum_sounds(sample_rate: int) -> list[Sound]:
    order = [CLASSES[i % len(CLASSES)] for i in range(N_DRUMS)]
    return [
        (name, partial(lambda name, seed: (drum(name, seed=seed, sample_rate=sample_rate)[None], sample_rate), name, i))
        for i, name in enumerate(order)
    ]


def folder_sounds(folder: Path) -> list[Sound]:
    return [
        (path.parent.name if path.parent != folder else path.stem.split("_")[0], partial(load_audio, path))
        for path in find_audio(folder)
    ]


def evenly(sounds: list[Sound], n: int) -> list[Sound]:
    return [sounds[i * len(sounds) // n] for i in range(n)] if len(sounds) > n else sounds


def load(sounds: list[Sound], params: SpectrogramParams) -> Tensor:
    """Their first channels' first n_samples: (n, n_samples)."""
    waveforms = []
    for _, read in sounds:
        waveform, rate = read()
        waveform = resample(waveform[:1], rate, params.sample_rate)[0, : params.n_samples]
        waveforms.append(F.pad(waveform, (0, params.n_samples - len(waveform))))
    return torch.stack(waveforms)


if __name__ == "__main__":
    with torch.no_grad():
        main()
