"""How near is the nearest sound of a checkpoint to a recording, and are variations as far away as they should be?

    python benchmarks/latent.py --checkpoint <run>/checkpoints/best.ckpt --data <dataset folder>

It trains the encoder of a copy of the checkpoint (--keep leaves it there for the next run), and prints

encoder      core-seconds of its training
generated    sounds that the generator draws of noise of its own, encoded and drawn again
recorded     clips of the data set's test split, as WAV files that are read like anyone's
             distance   mean absolute difference of the spectrograms, dB: of what is drawn again from what was encoded
             nearest    the same of the nearest of --n-random random sounds of the class
             ratio      of the two, each averaged over all sounds; goals 0.2 and 0.7
             guessed    share whose class the encoder guesses right
             kept       share that the data set's judge takes for the class, once drawn again and made audible; in
                        brackets of the clips themselves
variations   of recorded clips, at ten distances with --n-seeds seeds each
             rank       Spearman's correlation of the distance asked for and the one heard (as above): in a sound
                        (median), and of all sounds, each relative to its own typical distance
             kept       as above, at distances of 0.2 to 1
seconds      of encoding a recording, and of a variation with its sound and files

One thread per process, unless OMP_NUM_THREADS says another number. The judge is trained by `train.py stage=test`.
"""

import argparse
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from scipy.stats import spearmanr
from torch import Tensor

from specgan.audio import WavSettings, at_rate, resample, save_wav
from specgan.data.dataset import SpectrogramDataset
from specgan.files import load_tensors
from specgan.generation import sound_info, vocode, write_sound
from specgan.latent import LatentSpace, Point
from specgan.latent.kept import encoder_path
from specgan.latent.recording import Recording, read_recording
from specgan.latent.search import N_STEPS, differences
from specgan.latent.search import nearest as search
from specgan.models.classifier import Classifier
from specgan.models.generators import draw
from specgan.vocoders.griffin_lim import GriffinLim

DISTANCES = [(i + 1) / 10 for i in range(10)]
JUDGED = [0.2, 0.6, 1.0]  # of these


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="the dataset folder that it was trained on")
    parser.add_argument("--keep", type=Path, help="a folder for the copy of the checkpoint; default: none is kept")
    parser.add_argument("--n-sounds", type=int, default=60, help="generated, and recorded")
    parser.add_argument("--n-random", type=int, default=1000)
    parser.add_argument("--n-varied", type=int, default=20, help="recorded clips that are varied")
    parser.add_argument("--n-seeds", type=int, default=4)
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        measure(args, args.keep or Path(folder), Path(folder))


def measure(args: argparse.Namespace, home: Path, folder: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    checkpoint = home / args.checkpoint.name
    shutil.copyfile(args.checkpoint, checkpoint)
    is_trained, start_s = encoder_path(checkpoint).is_file(), time.process_time()
    space = LatentSpace.open(checkpoint)
    taken = "there already" if is_trained else f"{time.process_time() - start_s:.0f} core-seconds"
    print(f"encoder: {taken}", flush=True)
    judge = Judge(args.data, space)
    clips = SpectrogramDataset(args.data, "test", space.trained.params, channels=space.trained.channels)
    generator = torch.Generator().manual_seed(0)
    banks = [bank(space, label, args.n_random, generator) for label in range(len(space.trained.class_names))]

    labels = [i % len(banks) for i in range(args.n_sounds)]
    z = torch.randn(args.n_sounds, space.trained.network.latent_dim, generator=generator)
    drawn = draw(space.trained.network, z, embeddings(space, labels))
    show("generated", space, [Recording("x", each[None], [0.0], 1.0, 0.0) for each in drawn], labels, banks, judge)

    order = torch.randperm(len(clips), generator=generator)[: args.n_sounds].tolist()
    waveforms = clips.waveforms([(index, 0.0) for index in order])
    recordings = []
    for i, waveform in enumerate(waveforms):
        save_wav(folder / f"{i}.wav", waveform, clips.sound_rate, subtype="FLOAT")
        recordings.append(read_recording(folder / f"{i}.wav", space.trained, space.typical))
    own = judge.share(waveforms, clips.sound_rate, clips.labels[order].tolist())
    labels = clips.labels[order].tolist()
    points = show("recorded", space, recordings, labels, banks, judge, own=own)
    show_variations(space, points[: args.n_varied], judge, args.n_seeds)
    show_times(space, folder)


class Judge:
    """The data set's judge, and the vocoder that makes spectrograms audible for it."""

    def __init__(self, data: Path, space: LatentSpace) -> None:
        kept = sorted(data.glob("judge-*.pt"), key=lambda path: path.stat().st_mtime)
        if not kept:
            raise SystemExit(f"{data}: no judge; python train.py stage=test ckpt_path=<the checkpoint> trains it")
        self.space, params = space, space.trained.params
        clips = SpectrogramDataset(data, "test", params, channels=space.trained.channels)
        self.rate = clips.sound_rate
        self.n_samples = at_rate(params.n_samples, params.sample_rate, self.rate)
        names = space.trained.class_names
        self.classifier = Classifier(sample_rate=self.rate, n_samples=self.n_samples, class_names=names)
        self.classifier.load_state_dict(load_tensors(kept[-1])["state_dict"])
        self.vocoder = GriffinLim(params, space.trained.level_range)

    def share(self, waveforms: Tensor, sample_rate: int, labels: Sequence[int]) -> float:
        """The share of waveforms that it takes for their labels."""
        heard = resample(waveforms, sample_rate, self.rate)[..., : self.n_samples]
        return float((self.classifier.predict(heard) == torch.tensor(labels)).float().mean())

    def share_of_points(self, points: Sequence[Point], labels: Sequence[int]) -> float:
        """The same, of what is drawn from points."""
        waveforms = vocode(self.space.draw(points), self.vocoder, seeds=[point.seed for point in points])
        return self.share(torch.stack(list(waveforms)), self.space.trained.params.sample_rate, labels)


def embeddings(space: LatentSpace, labels: Sequence[int]) -> Tensor:
    return space.trained.network.embedding(torch.tensor(labels)).detach()


def bank(space: LatentSpace, label: int, n: int, generator: torch.Generator) -> Tensor:
    """Random sounds of a class."""
    z = torch.randn(n, space.trained.network.latent_dim, generator=generator)
    return draw(space.trained.network, z, embeddings(space, [label] * n), chunk_size=50)


def decibels(space: LatentSpace) -> float:
    return (space.trained.level_range.high - space.trained.level_range.low) / 2


def show(
    name: str,
    space: LatentSpace,
    recordings: Sequence[Recording],
    labels: Sequence[int],
    banks: Sequence[Tensor],
    judge: Judge,
    *,
    own: float | None = None,
) -> list[Point]:
    """Encodes sounds of known classes, prints what became of them, and returns their points."""
    names = space.trained.class_names
    right, guesses, targets, wanted = [], [], [], embeddings(space, labels)
    for recording, label, embedding in zip(recordings, labels, wanted, strict=True):
        right.append(int(space.encoder.classify(recording.spectrograms).mean(dim=0).argmax()) == label)
        z = space.encoder(recording.spectrograms, embedding.expand(len(recording.spectrograms), -1))
        off = differences(draw(space.trained.network, z, embedding.expand(len(z), -1)), recording.spectrograms)
        guesses.append(z[off.argmin()])
        targets.append(recording.spectrograms[off.argmin()])
    # As LatentSpace.encode does it, but of many at a time, which takes a quarter of the time.
    groups = zip(*(torch.stack([*each]).split(20) for each in (targets, guesses, wanted)), strict=True)
    found = torch.cat([search(space.trained.network, *group, n_steps=N_STEPS) for group in groups])
    points = [Point(z, e, names[label], name) for z, e, label in zip(found, wanted, labels, strict=True)]
    distances = (differences(space.draw(points), torch.stack(targets)) * decibels(space)).tolist()
    nearest = [
        float(differences(banks[label], target).min()) * decibels(space)
        for label, target in zip(labels, targets, strict=True)
    ]
    ratios = torch.tensor(distances) / torch.tensor(nearest)
    print(
        f"{name}: {len(points)}, distance {mean(distances):.2f} dB, nearest {mean(nearest):.2f} dB, ratio "
        f"{mean(distances) / mean(nearest):.2f} (median {ratios.median():.2f}, worst {ratios.max():.2f}), guessed "
        f"{mean(right):.3f}, kept {judge.share_of_points(points, labels):.3f}"
        + ("" if own is None else f" ({own:.3f})")
        + f", length of z {mean([float(point.z.norm()) for point in points]):.1f}",
        flush=True,
    )
    return points


def show_variations(space: LatentSpace, points: Sequence[Point], judge: Judge, n_seeds: int) -> None:
    names = space.trained.class_names
    ranks, asked, heard = [], [], []
    judged: dict[float, list[Point]] = {distance: [] for distance in JUDGED}
    for point in points:
        origin = space.draw([point])
        found = []
        for distance in DISTANCES:
            varied = space.vary(point, distance=distance, seeds=range(n_seeds))
            found += differences(space.draw(varied), origin).tolist()
            if distance in judged:
                judged[distance] += varied[:1]
        wanted = [distance for distance in DISTANCES for _ in range(n_seeds)]
        ranks.append(float(spearmanr(wanted, found)[0]))
        asked += wanted
        heard += [each / mean(found[-n_seeds:]) for each in found]
    table = torch.tensor(heard).view(len(points), len(DISTANCES), n_seeds).mean(dim=(0, 2)).tolist()
    kept = {
        distance: judge.share_of_points(of_it, [names.index(point.label) for point in of_it])
        for distance, of_it in judged.items()
    }
    print(
        f"variations: of {len(points)}, rank {torch.tensor(ranks).median():.3f} in a sound, worst {min(ranks):.3f}, "
        f"of all {spearmanr(asked, heard)[0]:.3f}; heard at 0.1 to 1: {', '.join(f'{each:.2f}' for each in table)}; "
        f"kept {', '.join(f'{share:.3f} at {distance:g}' for distance, share in kept.items())}",
        flush=True,
    )


def show_times(space: LatentSpace, folder: Path) -> None:
    encoding = seconds(lambda: space.encode(folder / "0.wav"))
    point = space.encode(folder / "0.wav").point
    vocoder, rate = GriffinLim(space.trained.params, space.trained.level_range), space.trained.params.sample_rate

    def variation() -> None:
        points = space.vary(point, distance=0.3, seeds=[1])
        spectrograms = space.draw(points)
        (waveform,) = vocode(spectrograms, vocoder, seeds=[1])
        info = sound_info(space.trained, label=point.label, origin=points[0].origin)
        write_sound(folder / "x", spectrograms[0], waveform, sample_rate=rate, wav=WavSettings(), info=info)

    print(f"seconds: encoding {encoding:.2f}, a variation {seconds(variation):.2f}, {torch.get_num_threads()} threads")


def seconds(work) -> float:
    """The shortest of three."""
    taken = []
    for _ in range(3):
        start_s = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start_s)
    return min(taken)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
