"""What is asked for beyond classes and seeds: sounds of a mix of classes, and sounds that are moved."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.progress import Progress

from specgan.generation.asked import AskedSound
from specgan.latent.mixing import class_points, class_shares, mix_name
from specgan.latent.steering import Steered, Steering
from specgan.models.trained import TrainedGenerator

log = logging.getLogger(__name__)

_FELL_SHORT = 0.5  # of what was asked for: less is said


def mix_of(label: Any) -> dict[str, float] | None:
    """The weights of a request by class, given as a dictionary or as pairs; None: it is no mix.

    Raises:
        ValueError: a class has two weights.
    """
    if isinstance(label, Mapping):
        return {str(name): weight for name, weight in label.items()}
    is_pairs = isinstance(label, Sequence) and not isinstance(label, str) and len(label) > 0
    if not is_pairs or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in label):
        return None
    weights = {str(name): weight for name, weight in label}
    if len(weights) < len(label):
        raise ValueError(f"label is {list(label)}: a class has two weights; give each class one")
    return weights


def sounds_of_mix(
    trained: TrainedGenerator, weights: Mapping[str, float], seeds: Iterable[int], folders: Mapping[str, str]
) -> list[AskedSound]:
    """Sounds of a mix of classes; of a single class those of the class.

    Args:
        trained: the generator.
        weights: by class, see `class_shares`.
        seeds: of the sounds.
        folders: in the output, by class.
    Raises:
        ValueError: as `class_points`.
    """
    shares = class_shares(weights, trained.class_names)
    points = class_points(trained, shares, list(seeds))
    if len(shares) == 1:
        (folder,) = (folders[name] for name in shares)
    else:
        folder = "_".join(f"{folders[name]}_{share:.3g}" for name, share in shares.items())
    stem = f"{folder}/{folder}"
    return [
        AskedSound(mix_name(shares), point.seed, f"{stem}_{point.seed}", f"seed {point.seed}", point)
        for point in points
    ]


def moved_sounds(
    trained: TrainedGenerator, sounds: Sequence[AskedSound], move: Mapping[str, float]
) -> tuple[list[AskedSound], list[str]]:
    """The same sounds, moved; file names, captions and origins say so.

    And what fell short of what was asked for, a line for each part of the move, which is also logged.

    Args:
        trained: the generator.
        sounds: to be drawn.
        move: see `checked_move`, without zeros.
    Raises:
        ValueError: a part of the move makes no sense in the class of a sound, or the generator has no `from_embedding`.
    """
    steering = Steering(trained)
    points = [sound.point or class_points(trained, sound.label, [sound.seed])[0] for sound in sounds]
    for point in points:
        steering.require_steerable(point, move)
    with Progress(transient=True, disable=len(points) < 16) as progress:
        steered = [steering.steer(point, move) for point in progress.track(points, description="steering")]
    notes = list(_shortfalls(move, steered))
    for note in notes:
        log.warning("%s", note)
    parts = [f"{name}{amount:+g}" for name, amount in move.items()]
    said = ", ".join(f"{name} {amount:+g}" for name, amount in move.items())
    moved = [
        replace(sound, stem="_".join([sound.stem, *parts]), caption=f"{sound.caption}, {said}", point=each.point)
        for sound, each in zip(sounds, steered, strict=True)
    ]
    return moved, notes


def _shortfalls(move: Mapping[str, float], steered: Sequence[Steered]) -> Iterator[str]:
    for name, amount in move.items():
        n_short = sum(each.moved[name] / amount < _FELL_SHORT for each in steered)
        if n_short:
            yield (
                f"{name} {amount:+g}: {n_short} of {len(steered)} sounds changed by less than half of it, because the "
                "generator has none that is so and otherwise alike; ask for less, or for other seeds"
            )
