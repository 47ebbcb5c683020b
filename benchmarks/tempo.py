"""How exact is `find_tempo`? Its error beside those of librosa's own two answers, on made-up tracks of known tempo.

    python benchmarks/tempo.py                  # half a minute
    python benchmarks/tempo.py --duration-s 8   # shorter tracks: fewer beats to lay a line through

Errors are in percent, the octave aside: half and double the tempo count as right; `found` is ours for the clicks. Drum
tracks are of the built-in drums: kick on every beat, snare on 2 and 4, closed hat on eighths; the largest error of
N_KITS kits counts. The second table says how often each finds no tempo where there is none.
"""

import argparse
import warnings

import librosa
import numpy as np
import torch

from specgan.captions.tempo import find_tempo
from specgan.data.drums import drum

SAMPLE_RATE = 22050
N_KITS = 3
N_NOISES = 20
NO_BEAT = ("silence", "white noise", "pink noise", "brown noise")


def click_track(tempo: float, duration_s: float) -> np.ndarray:
    t = np.arange(round(0.03 * SAMPLE_RATE)) / SAMPLE_RATE
    click = np.sin(2 * np.pi * 1000 * t) * np.exp(-150 * t)
    track = np.zeros(round((duration_s + 1) * SAMPLE_RATE), dtype=np.float32)
    for beat in range(int(duration_s * tempo / 60)):
        start = round((0.25 + beat * 60 / tempo) * SAMPLE_RATE)
        track[start : start + len(click)] += click
    return track[: round(duration_s * SAMPLE_RATE)]


def drum_track(tempo: float, duration_s: float, seed: int) -> np.ndarray:
    kick, snare, hat = (drum(name, seed=seed, sample_rate=SAMPLE_RATE) for name in ("kick", "snare", "closed_hat"))
    track = torch.zeros(round((duration_s + 2) * SAMPLE_RATE))
    for eighth in range(int(duration_s * tempo / 30)):
        start = round(eighth * 30 / tempo * SAMPLE_RATE)
        for sound, level, sounds in ((hat, 0.3, True), (kick, 0.9, eighth % 2 == 0), (snare, 0.7, eighth % 4 == 2)):
            if sounds:
                track[start : start + len(sound)] += level * sound
    return track[: round(duration_s * SAMPLE_RATE)].numpy()


def no_beat(kind: str, duration_s: float, seed: int) -> np.ndarray:
    n_samples = round(duration_s * SAMPLE_RATE)
    if kind == "silence":
        return np.zeros(n_samples, dtype=np.float32)
    colour = {"white noise": 0, "pink noise": 1, "brown noise": 2}[kind]
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(n_samples))
    noise = np.fft.irfft(spectrum * np.maximum(np.arange(len(spectrum)), 1) ** (-colour / 2), n_samples)
    return (0.5 * noise / np.abs(noise).max()).astype(np.float32)


def ours(track: np.ndarray) -> float | None:
    return find_tempo(track, SAMPLE_RATE)


def beat_track(track: np.ndarray) -> float | None:
    tempo = float(np.atleast_1d(librosa.beat.beat_track(y=track, sr=SAMPLE_RATE)[0])[0])
    return tempo or None  # it says 0 where it finds no onset


def feature_tempo(track: np.ndarray) -> float | None:
    return librosa.feature.tempo(y=track, sr=SAMPLE_RATE)[0].item()


FINDERS = {"ours": ours, "beat_track": beat_track, "feature.tempo": feature_tempo}


def error(found: float | None, tempo: float) -> float:
    """Percent, the octave aside; infinite where nothing was found."""
    return min(abs(found * octave / tempo - 1) for octave in (0.25, 0.5, 1, 2, 4)) * 100 if found else float("inf")


def print_errors(duration_s: float) -> None:
    heads = [f"{name} {kind}" for kind in ("clicks", "drums") for name in FINDERS]
    print(f"error in %, tracks of {duration_s:g} s")
    print(f"{'bpm':>6}  {'found':>6}  " + "  ".join(f"{head:>20}" for head in heads))
    rows = []
    for tempo in range(60, 201, 10):
        clicks = click_track(tempo, duration_s)
        kits = [drum_track(tempo, duration_s, seed) for seed in range(N_KITS)]
        row = [error(find(clicks), tempo) for find in FINDERS.values()]
        row += [max(error(find(kit), tempo) for kit in kits) for find in FINDERS.values()]
        rows.append(row)
        found = ours(clicks)
        print(f"{tempo:>6}  {'none' if found is None else f'{found:.1f}':>6}  " + "  ".join(f"{e:>20.3f}" for e in row))
    for name, summary in (("median", np.median), ("worst", np.max)):
        print(f"{name:>6}  {'':>6}  " + "  ".join(f"{e:>20.3f}" for e in summary(rows, axis=0)))


def print_share_of_none() -> None:
    print(f"\nshare of None, {N_NOISES} sounds each")
    print(f"{'sound':>18}  " + "  ".join(f"{name:>14}" for name in FINDERS))
    for kind in NO_BEAT:
        for duration_s in (3, 10, 30):
            sounds = [no_beat(kind, duration_s, seed) for seed in range(1 if kind == "silence" else N_NOISES)]
            shares = [np.mean([find(sound) is None for sound in sounds]) for find in FINDERS.values()]
            print(f"{kind + f' {duration_s} s':>18}  " + "  ".join(f"{share:>14.0%}" for share in shares))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration-s", type=float, default=20.0, help="length of the tracks")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="librosa")  # an FFT longer than the sound
    print_errors(arguments.duration_s)
    print_share_of_none()
