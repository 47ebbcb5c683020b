"""Do sounds change as they are asked to, and in nothing else?

    python benchmarks/directions.py --checkpoint <run>/checkpoints/best.ckpt --data <dataset folder>

Sounds of each class are moved in each direction by -2 to 2 standard deviations, made audible, and measured by librosa,
not by the descriptors that they were steered with. For each direction it prints, over all classes that have it,

rank        Spearman's correlation of what was asked for and the change that was measured, of a class; median and worst
reached     the slope of that change, in standard deviations of the class as librosa measures it; median of the classes
others      by how much the other descriptors change meanwhile, as a share of what this one does: medians over a class;
            mean and largest of the others; median of the classes
kept        share of the moved sounds that the data set's judge takes for their class, and of those as they were
agree       rank correlation of the descriptor with librosa, of sounds that were not moved; median of the classes

and the core-seconds that a class and a sound take. One thread per process, unless OMP_NUM_THREADS says another number.
The judge is trained by `train.py stage=test`.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import librosa
import numpy as np
import torch
from scipy.stats import spearmanr

from specgan.audio import at_rate, resample
from specgan.data.dataset import SpectrogramDataset
from specgan.files import load_tensors
from specgan.generation import vocode
from specgan.latent.descriptors import DESCRIPTORS
from specgan.latent.mixing import class_points
from specgan.latent.points import Point
from specgan.latent.steering import Steering
from specgan.models.classifier import Classifier
from specgan.models.generators import draw
from specgan.models.trained import TrainedGenerator
from specgan.vocoders.griffin_lim import GriffinLim

AMOUNTS = [-2.0, -1.0, 1.0, 2.0]
NAMES = list(DESCRIPTORS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="the dataset folder that it was trained on")
    parser.add_argument("--n-sounds", type=int, default=6, help="of each class, that are moved")
    parser.add_argument("--n-still", type=int, default=24, help="of each class, that are measured as they are")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of pYIN, about short sounds
    listener = Listener(args.checkpoint, args.data)
    rows = [listener.measure(label, args.n_sounds, args.n_still) for label in listener.trained.class_names]
    print(
        f"{'':11}{'classes':>8}{'rank':>7}{'worst':>7}{'reached':>9}{'others':>8}{'largest':>9}{'kept':>7}{'agree':>7}"
    )
    for name in NAMES:
        found = np.array([row[name] for row in rows if name in row])
        if len(found):
            rank, reached, others, largest, _, agree = np.nanmedian(found, axis=0)
            print(
                f"{name:11}{len(found):8}{rank:7.2f}{np.nanmin(found[:, 0]):7.2f}{reached:9.2f}{others:8.2f}"
                f"{largest:9.2f}{np.nanmean(found[:, 4]):7.3f}{agree:7.2f}"
            )
    print(f"kept unmoved {np.mean([row['kept'] for row in rows]):.3f}; {listener.times()}")


class Listener:
    """A checkpoint whose sounds are steered, made audible, measured and classified."""

    def __init__(self, checkpoint: Path, data: Path) -> None:
        judges = sorted(data.glob("judge-*.pt"), key=lambda path: path.stat().st_mtime)
        if not judges:
            raise SystemExit(f"{data}: no judge; python train.py stage=test ckpt_path=<the checkpoint> trains it")
        self.trained = trained = TrainedGenerator.load(checkpoint)
        self.steering, self.vocoder = Steering(trained), GriffinLim(trained.params, trained.level_range)
        self.rate = SpectrogramDataset(data, "test", trained.params, channels=trained.channels).sound_rate
        self.n_samples = at_rate(trained.params.n_samples, trained.params.sample_rate, self.rate)
        self.judge = Classifier(sample_rate=self.rate, n_samples=self.n_samples, class_names=trained.class_names)
        self.judge.load_state_dict(load_tensors(judges[-1])["state_dict"])
        self.judge.eval()
        self.spread_s, self.steer_s = [], []

    def measure(self, label: str, n_sounds: int, n_still: int) -> dict[str, tuple[float, ...]]:
        """The figures of each direction of a class, see the table, and "kept" of the sounds as they were."""
        points = class_points(self.trained, label, range(n_still))
        start_s = time.process_time()
        steerable = self.steering.spread(points[0].embedding).steerable
        self.spread_s.append(time.process_time() - start_s)
        still, kept = self.heard(points)
        own = np.array([list(self.steering.describe(point).values()) for point in points])
        units, figures = np.nanstd(still, axis=0), {"kept": float(np.mean(kept))}
        for name in steerable:
            asked, changes, right = [], [], []
            for i, point in enumerate(points[:n_sounds]):
                start_s = time.process_time()
                moved = [self.steering.steer(point, {name: amount}).point for amount in AMOUNTS]
                self.steer_s.append((time.process_time() - start_s) / len(AMOUNTS))
                values, own_right = self.heard(moved)
                asked += AMOUNTS
                changes += list((values - still[i]) / units)
                right += own_right
            figures[name] = (*shown(name, steerable, np.array(asked), np.array(changes)), float(np.mean(right)))
            figures[name] += (rank_correlation(own[:, NAMES.index(name)], still[:, NAMES.index(name)]),)
        text = ", ".join(f"{name} {figures[name][0]:.2f} x{figures[name][1]:.2f}" for name in steerable)
        print(f"{label}: {text}", flush=True)
        return figures

    def heard(self, points: list[Point]) -> tuple[np.ndarray, list[bool]]:
        """What librosa measures of points' sounds (n, descriptors), and whether the judge takes each for its class."""
        drawn = draw(
            self.trained.network, *(torch.stack([getattr(p, of) for p in points]) for of in ("z", "embedding"))
        )
        waveforms = torch.stack(list(vocode(drawn, self.vocoder, seeds=[point.seed for point in points])))
        rate = self.trained.params.sample_rate
        found = self.judge.predict(resample(waveforms, rate, self.rate)[..., : self.n_samples]).tolist()
        right = [self.trained.class_names[each] == point.label for each, point in zip(found, points, strict=True)]
        mono = waveforms if waveforms.ndim == 2 else waveforms.mean(dim=1)
        return np.array([measured(waveform, rate) for waveform in mono.numpy()]), right

    def times(self) -> str:
        return (
            f"a class takes {np.mean(self.spread_s):.2f} core-seconds once, a moved sound {np.mean(self.steer_s):.2f}"
        )


def shown(name: str, steerable: list[str], asked: np.ndarray, changes: np.ndarray) -> tuple[float, ...]:
    """Rank correlation and slope of a direction, and what the others change by: mean and largest."""
    here = changes[:, NAMES.index(name)]
    known = np.isfinite(here)
    slope = float((asked[known] * here[known]).sum() / np.square(asked[known]).sum())
    sizes = np.nanmedian(np.abs(changes), axis=0)
    others = [sizes[NAMES.index(other)] / sizes[NAMES.index(name)] for other in steerable if other != name]
    return rank_correlation(asked, here), slope, float(np.mean(others)), float(np.max(others))


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    known = np.isfinite(one) & np.isfinite(other)
    return float(spearmanr(one[known], other[known])[0]) if known.sum() > 2 else float("nan")


def measured(waveform: np.ndarray, rate: int) -> list[float]:
    """What librosa makes of a waveform (T,), in the order of the descriptors; no pitch is NaN."""
    n_fft = 2048 if rate > 24000 else 512
    hop = n_fft // 8
    magnitude = np.abs(librosa.stft(waveform, n_fft=n_fft, hop_length=hop))
    power = np.square(magnitude).sum(axis=0) + 1e-20
    weight, level = power / power.sum(), 10 * np.log10(power / power.max())
    centroid = librosa.feature.spectral_centroid(S=magnitude, sr=rate)[0]
    bands = librosa.feature.melspectrogram(S=np.square(magnitude), sr=rate, n_mels=40, norm="slaney")
    flatness = librosa.feature.spectral_flatness(S=bands / (bands.max(axis=0) + 1e-20), power=1, amin=1e-6)[0]
    n_loud = round(0.05 * rate)
    loudest = librosa.feature.rms(y=waveform, frame_length=n_loud, hop_length=n_loud // 8).max()
    frame = 2048 if rate > 24000 else 1024
    pitches, voiced, _ = librosa.pyin(
        waveform, fmin=44, fmax=2000, sr=rate, frame_length=frame, hop_length=frame // 2, resolution=0.2
    )
    start, full = (int(np.argmax(level >= below)) for below in (-20, -3))
    return [
        float((weight * np.log2(np.maximum(centroid, 1) / 1000)).sum()),
        float((np.flatnonzero(level > -40)[-1] + 1) * hop / rate),
        12 * np.log2(np.median(pitches[voiced]) / 440) if voiced.sum() > 2 else np.nan,
        float((weight * 10 * np.log10(flatness)).sum()),
        20 * np.log10(loudest + 1e-9) + 3.01,
        (full - start) * hop / rate,
    ]


if __name__ == "__main__":
    main()
