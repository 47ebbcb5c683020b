"""What is asked for: sounds of classes by their seeds, or sounds like recordings of one's own."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from specgan.files import safe_name
from specgan.latent.arcs import require_distance
from specgan.latent.kept import load_or_train_encoder
from specgan.latent.points import Encoded, Point
from specgan.latent.recording import Typical, read_recording
from specgan.latent.space import LatentSpace
from specgan.models.generators import require_embedding
from specgan.models.trained import TrainedGenerator, find_class

log = logging.getLogger(__name__)

_MOST_BYTES = 80  # of a recording's name in those of files


@dataclass(frozen=True)
class AskedSound:
    """A sound to draw.

    Args:
        label: its class.
        seed: of its noise, and of the vocoder's phases.
        stem: its path in the output, without a suffix.
        caption: under it on the page.
        point: what it is drawn from; None: its class and seed.
    """

    label: str
    seed: int
    stem: str
    caption: str
    point: Point | None = None

    @property
    def origin(self) -> str:
        """What it is, for people."""
        return f"{self.label}, seed {self.seed}" if self.point is None else self.point.origin

    @property
    def wav(self) -> str:
        return f"{self.stem}.wav"

    @property
    def png(self) -> str:
        return f"{self.stem}.png"

    @property
    def source(self) -> Path:
        return Path(self.wav)


def sounds_of_classes(labels: Sequence[str], seeds: Iterable[int], folders: Mapping[str, str]) -> list[AskedSound]:
    """Sounds of each class with each seed; `folders` by class."""
    return [
        AskedSound(name, seed, f"{folders[name]}/{folders[name]}_{seed}", f"seed {seed}")
        for name in labels
        for seed in seeds
    ]


def sounds_like(
    trained: TrainedGenerator,
    ckpt_path: str | Path,
    *,
    like: str | Path,
    to: str | Path | None,
    labels: Sequence[str | None],
    distance: float,
    n_samples: int,
    seed: int,
    folders: Mapping[str, str],
) -> tuple[list[AskedSound], list[str]]:
    """The sound nearest to a recording and variations of it, or sounds on the way from one recording to another.

    And what was found out about each recording, a line each, which is also logged. Whatever can be wrong is found
    before the encoder is trained, if the checkpoint has none yet.

    Args:
        trained: the generator.
        ckpt_path: it was read from.
        like: the recording.
        to: another one, to morph to; None: `like` is varied.
        labels: classes of `like` and `to`; None: guessed.
        distance: of variations, see `LatentSpace.vary`; 0: the nearest sound alone.
        n_samples: of variations, beside the nearest sound; or on the way, both ends included.
        seed: of the first variation.
        folders: in the output, by class.
    Raises:
        FileNotFoundError, AudioError: no such recording, or nothing that can be read as sound.
        ValueError: a recording is silent, the generator has no `from_embedding`, or a number is impossible.
    """
    require_embedding(trained.network, "like=")
    require_distance(distance)
    if to is not None and n_samples < 2:
        raise ValueError(f"n_samples is {n_samples}; at least 2 with to=, the two ends")
    paths = [path for path in (like, to) if path is not None]
    typical = Typical.of(trained)
    recordings = [read_recording(path, trained, typical) for path in paths]
    space = LatentSpace(trained, load_or_train_encoder(trained, ckpt_path))
    found = [space.encode_recording(each, label=label) for each, label in zip(recordings, labels, strict=True)]
    notes = [str(encoded) for encoded in found]
    for note in notes:
        log.info("%s", note)
    if to is not None:
        return _morph(space, found, n_samples, folders), notes
    return _variations(space, found[0], distance, range(seed, seed + n_samples), folders), notes


def _variations(
    space: LatentSpace, found: Encoded, distance: float, seeds: Sequence[int], folders: Mapping[str, str]
) -> list[AskedSound]:
    nearest = found.point
    points = space.vary(nearest, distance=distance, seeds=seeds if distance else [])
    stem = f"{folders[nearest.label]}/{_stem(found)}"
    return [
        _asked(f"{stem}_nearest", nearest),
        *(_asked(f"{stem}_{distance:g}_{point.seed}", point) for point in points),
    ]


def _morph(
    space: LatentSpace, found: Sequence[Encoded], n_positions: int, folders: Mapping[str, str]
) -> list[AskedSound]:
    start, end = found
    points = space.morph(start.point, end.point, n_positions=n_positions)
    folder = "_to_".join(dict.fromkeys(folders[each.point.label] for each in found))
    stem, n_digits = "_to_".join(map(_stem, found)), len(str(n_positions))
    return [_asked(f"{folder}/{stem}_{i:0{n_digits}}", point) for i, point in enumerate(points, 1)]


def _stem(found: Encoded) -> str:
    """The recording's name in those of files, of which it leaves some room."""
    return safe_name(Path(found.name).stem).encode()[:_MOST_BYTES].decode(errors="ignore")


def _asked(stem: str, point: Point) -> AskedSound:
    return AskedSound(point.label, point.seed, stem, point.origin, point)


def classes_named(label: str | int | Sequence[str | int], class_names: Sequence[str]) -> list[str]:
    """The classes of a request: "all", one, or several.

    Raises:
        ValueError: none, or not classes of the checkpoint.
    """
    if label == "all":
        return list(class_names)
    asked_for = [str(name) for name in ([label] if isinstance(label, (str, int)) else label)]
    found = {name: find_class(name, class_names) for name in asked_for}
    unknown = [name for name, known in found.items() if known is None]
    if unknown or not found:
        raise ValueError(
            f"label is {', '.join(unknown) or 'empty'}: not a class of this checkpoint; "
            f"choose all or some of: {', '.join(class_names)}"
        )
    return list(dict.fromkeys(known for known in found.values() if known is not None))


def classes_of_recordings(
    label: str | int | Sequence[str | int], class_names: Sequence[str], n_recordings: int
) -> list[str | None]:
    """The class of each recording: of "all" unknown, of one the same for all, or one for each.

    Raises:
        ValueError: not classes of the checkpoint, or not one for each.
    """
    if label == "all":
        return [None] * n_recordings
    each = [label] if isinstance(label, (str, int)) else list(label)
    names = [classes_named([name], class_names)[0] for name in each] or classes_named([], class_names)
    if len(names) not in (1, n_recordings):
        raise ValueError(f"label is {', '.join(names)}; one class{' or two, of like and to' * (n_recordings == 2)}")
    return [names[0]] * n_recordings if len(names) == 1 else [*names]
