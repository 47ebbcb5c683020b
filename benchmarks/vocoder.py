"""How near to a recording is the sound that specgan, torchaudio and librosa make of its mel spectrogram, how fast?

    python benchmarks/vocoder.py                     # made-up drums and tones, 40 s with OMP_NUM_THREADS=1
    python benchmarks/vocoder.py --sounds speech/    # your own: the first second of up to --n-sounds files

Each sound becomes a mel spectrogram of power, and each tool makes sound of that, with 32 iterations of Griffin-Lim:

torchaudio   InverseMelScale(driver="gelsd"), then GriffinLim
librosa      feature.inverse.mel_to_audio, of --n-librosa sounds only: its mel inversion is slow
specgan      as vocoder=griffin_lim does it, and its first guess of the phase alone (n_iter=0)

inverted     mel inversion alone: ||mel(inverted) - mel|| / ||mel||, power, mean and worst sound
seconds      for the mel inversion of all sounds, and for all; the shortest of --repeats
mel          of the final sound against what was asked for: spectral convergence ||a - b|| / ||b|| of magnitudes, and
             log-spectral distance in dB re a full-scale sine, floor -80 dB, RMS in a frame, mean over frames
STFT         the same by FFT bins against the recording, which the mel spectrogram does not hold
level        of the final sound less that of the recording: mean, and the largest error

At last 8 sounds of 6 s at 22.05 kHz (n_fft 2048, window 1024, hop 256, 128 mels), for the time. All tools take the same
threads; one (OMP_NUM_THREADS=1) where others compute beside, because all stall when they share cores.
"""

import argparse
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import librosa
import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.transforms import GriffinLim as TorchaudioGriffinLim
from torchaudio.transforms import InverseMelScale

from specgan.audio import find_audio, load_audio, resample, scale_to_peak
from specgan.data.drums import CLASSES, drum
from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams
from specgan.vocoders.griffin_lim import GriffinLim

N_ITER = 32
PEAK = 0.9
SPEECH = SpectrogramParams(sample_rate=8000, n_fft=512, win_length=512, hop_length=128)  # spectrogram=mel_8k_64x64
SOUNDS = SpectrogramParams()  # spectrogram=mel_64x64
LONG = SpectrogramParams(sample_rate=22050, n_fft=2048, win_length=1024, n_mels=128, n_frames=512)


def fit(waveform: Tensor, params: SpectrogramParams) -> Tensor:
    waveform = scale_to_peak(waveform.flatten()[: params.n_samples], PEAK)
    return F.pad(waveform, (0, params.n_samples - len(waveform)))


def read(folder: Path, params: SpectrogramParams, n_sounds: int) -> Tensor:
    """(n, n_samples): files from the whole folder, evenly."""
    files = find_audio(folder)
    files = [files[i * len(files) // n_sounds] for i in range(n_sounds)] if len(files) > n_sounds else files
    loaded = [load_audio(file) for file in files]
    return torch.stack([fit(resample(waveform, rate, params.sample_rate), params) for waveform, rate in loaded])


def drums(params: SpectrogramParams) -> Tensor:
    sounds = [drum(name, seed=seed, sample_rate=params.sample_rate) for name in CLASSES for seed in range(4)]
    return torch.stack([fit(sound, params) for sound in sounds])


def tones(params: SpectrogramParams) -> Tensor:
    """Steady sines, decaying harmonic notes, a sweep, noise."""
    t = torch.arange(params.n_samples) / params.sample_rate
    sounds = [torch.sin(2 * math.pi * hz * t) for hz in (110, 220, 441, 997, 3000)]
    for hz in (110, 220, 441, 600):
        notes = sum(torch.sin(2 * math.pi * hz * k * t + k) / k for k in range(1, int(4000 / hz)))
        sounds.append(notes * torch.exp(-3 * t))
    sounds.append(torch.sin(2 * math.pi * (200 * t + 1500 * t**2)))
    sounds.append(torch.randn(len(t), generator=torch.Generator().manual_seed(0)))
    return torch.stack([fit(sound, params) for sound in sounds])


def songs(params: SpectrogramParams, n: int) -> Tensor:
    """Decaying notes, two a second, in noise."""
    t = torch.arange(params.n_samples) / params.sample_rate
    beat = (2 * t).long()
    sounds = []
    for seed in range(n):
        generator = torch.Generator().manual_seed(seed)
        hz = (80 + 720 * torch.rand(int(beat[-1]) + 1, generator=generator, dtype=torch.float64))[beat]
        phase = 2 * math.pi * hz.cumsum(0) / params.sample_rate
        notes = sum(torch.sin(k * phase) / k for k in range(1, 6)).float() * torch.exp(-4 * (t - beat / 2))
        sounds.append(fit(notes + 0.05 * torch.randn(len(t), generator=generator), params))
    return torch.stack(sounds)


def torchaudio_steps(params: SpectrogramParams) -> tuple[Callable, Callable]:
    invert = InverseMelScale(
        n_stft=params.n_fft // 2 + 1,
        n_mels=params.n_mels,
        sample_rate=params.sample_rate,
        f_min=params.f_min,
        f_max=params.upper_hz,
        norm=params.norm,
        mel_scale=params.mel_scale,
        driver="gelsd",
    )
    search = TorchaudioGriffinLim(params.n_fft, N_ITER, params.win_length, params.hop_length, power=2)

    def find(power: Tensor, mel_power: Tensor) -> Tensor:
        waveform = search(power)  # a hop shorter
        return F.pad(waveform, (0, mel_power.shape[-1] * params.hop_length - waveform.shape[-1]))

    return invert, find


def specgan_steps(params: SpectrogramParams, mel_power: Tensor, n_iter: int) -> tuple[Callable, Callable]:
    """Whole, as it is used: what it takes is the normalised spectrogram."""
    transform = Spectrogram(params)
    level = transform.to_level(mel_power)
    level_range = LevelRange(params.silence, level.max().item())
    spectrogram = 2 * (level - level_range.low) / (level_range.high - level_range.low) - 1
    vocoder = GriffinLim(params, level_range, n_iter=n_iter)
    seeds = range(len(mel_power))
    # The vocoder inverts by itself, as part of the time for all.
    return vocoder.inversion, lambda power, mel_power: vocoder(spectrogram.unsqueeze(1), seeds=seeds)


def librosa_steps(params: SpectrogramParams) -> tuple[Callable, Callable]:
    settings = {"sr": params.sample_rate, "n_fft": params.n_fft, "power": 2.0}
    filters = {"fmin": params.f_min, "fmax": params.upper_hz, "htk": params.mel_scale == "htk", "norm": params.norm}
    frames = {"hop_length": params.hop_length, "win_length": params.win_length, "pad_mode": "constant"}

    def invert(mel_power: Tensor) -> Tensor:
        inverted = [librosa.feature.inverse.mel_to_stft(mel, **settings, **filters) for mel in mel_power.numpy()]
        return torch.stack([torch.from_numpy(magnitude) for magnitude in inverted]).float() ** 2

    def find(power: Tensor, mel_power: Tensor) -> Tensor:
        found = [
            librosa.griffinlim(magnitude, n_iter=N_ITER, n_fft=params.n_fft, **frames, random_state=0)
            for magnitude in power.sqrt().numpy()
        ]
        waveform = torch.stack([torch.from_numpy(each) for each in found]).float()  # a hop shorter
        return F.pad(waveform, (0, mel_power.shape[-1] * params.hop_length - waveform.shape[-1]))

    return invert, find


def shortest(call: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - start)
    return best, result


def distances(found: Tensor, wanted: Tensor, params: SpectrogramParams) -> tuple[Tensor, Tensor]:
    """Spectral convergence (B,) and log-spectral distance in dB (B,) of power (B, bins, n_frames)."""
    convergence = (found.sqrt() - wanted.sqrt()).norm(dim=(1, 2)) / wanted.sqrt().norm(dim=(1, 2))
    to_level = Spectrogram(params).to_level
    return convergence, (to_level(found) - to_level(wanted)).square().mean(1).sqrt().mean(1)


def stft_power(waveform: Tensor, params: SpectrogramParams) -> Tensor:
    linear = SpectrogramParams(**{**vars(params), "kind": "linear"})
    return Spectrogram(linear).power(waveform)


def energy_db(waveform: Tensor) -> Tensor:
    return 10 * waveform.square().sum(-1).log10()


HEADER = (
    f"{'':28}{'n':>3} | {'inverted':>8} {'worst':>6} {'seconds':>8} {'all':>7} | {'mel':>6} {'dB':>6} "
    f"| {'STFT':>6} {'dB':>6} | {'level dB':>8} {'worst':>6}"
)


def measure(name: str, waveform: Tensor, params: SpectrogramParams, n_librosa: int, repeats: int) -> None:
    transform = Spectrogram(params)
    mel_power = transform.power(waveform)
    tools = {
        "torchaudio": (len(waveform), torchaudio_steps(params)),
        "librosa": (min(n_librosa, len(waveform)), librosa_steps(params)),
        "specgan": (len(waveform), specgan_steps(params, mel_power, N_ITER)),
        "specgan, n_iter=0": (len(waveform), specgan_steps(params, mel_power, 0)),
    }
    for tool, (n, (invert, find)) in tools.items():
        if n == 0:
            continue
        wanted, original = mel_power[:n], waveform[:n]
        n_repeats = 1 if tool == "librosa" else repeats
        inversion_s, power = shortest(lambda wanted=wanted, invert=invert: invert(wanted), n_repeats)
        rest_s, found = shortest(lambda power=power, wanted=wanted, find=find: find(power, wanted), n_repeats)
        all_s = rest_s if tool.startswith("specgan") else inversion_s + rest_s
        residual = (transform.filters @ power - wanted).norm(dim=(1, 2)) / wanted.norm(dim=(1, 2))
        mel, mel_db = distances(transform.power(found), wanted, params)
        stft, stft_db = distances(stft_power(found, params), stft_power(original, params), params)
        level = energy_db(found) - energy_db(original)
        print(
            f"{name + ', ' + tool:28}{n:3} "
            f"| {residual.mean():8.4f} {residual.max():6.3f} {inversion_s:8.3f} {all_s:7.3f} "
            f"| {mel.mean():6.3f} {mel_db.mean():6.2f} | {stft.mean():6.3f} {stft_db.mean():6.2f} "
            f"| {level.mean():8.2f} {level.abs().max():6.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sounds", type=Path, metavar="FOLDER", help="of audio files, in place of the made-up ones")
    parser.add_argument("--n-sounds", type=int, default=40, help="files of the folder, evenly picked")
    parser.add_argument("--rate", type=int, choices=(8000, 16000), default=16000, help="Hz: mel_8k_64x64 or mel_64x64")
    parser.add_argument("--n-librosa", type=int, default=1, help="sounds for librosa; 0 leaves it out")
    parser.add_argument("--repeats", type=int, default=3, help="of what is timed")
    arguments = parser.parse_args()
    if arguments.sounds and not arguments.sounds.is_dir():
        parser.error(f"--sounds is {arguments.sounds}; an existing folder")
    if min(arguments.n_sounds, arguments.repeats) < 1 or arguments.n_librosa < 0:
        parser.error("--n-sounds and --repeats are at least 1, --n-librosa at least 0")
    params = SPEECH if arguments.rate == 8000 else SOUNDS
    if arguments.sounds:
        sets = {arguments.sounds.name: read(arguments.sounds, params, arguments.n_sounds)}
    else:
        sets = {"drums": drums(params), "tones": tones(params)}
    warnings.filterwarnings("ignore", message="Empty filters", category=UserWarning)
    print(f"{torch.get_num_threads()} threads\n{HEADER}")
    with torch.inference_mode():
        for name, waveform in sets.items():
            measure(name, waveform, params, arguments.n_librosa, arguments.repeats)
        measure("8 x 6 s", songs(LONG, 8), LONG, 0, arguments.repeats)


if __name__ == "__main__":
    main()
