"""Whether sounds are copies of training clips: how near each is to the nearest, by several distances."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.evaluation.metrics import Figure, nearest, share

# The figure of each distance, and what it compares, in words.
DISTANCES = {
    "near_copy_share": "spectrogram",
    "near_copy_share_shifted": "spectrogram moved in time",
    "near_copy_share_judge": "judge",
}

_QUANTILE = 0.05  # of the real clips, which are nearer to a training clip than a near-copy may be
_BANDS, _FRAMES = 32, 64  # of a spectrogram that is moved
_MOST_MOVED = 0.1  # share of the length


@dataclass(frozen=True)
class Sounds:
    """What distances are measured on.

    Args:
        spectrograms: (N, channels, n_mels, n_frames).
        features: (N, n_features), of the judge.
    """

    spectrograms: Tensor
    features: Tensor


@dataclass(frozen=True)
class Copies:
    """What is near to training clips, by distance, a key of `DISTANCES`.

    Args:
        generated: the share of generated sounds that are nearer to a training clip than nearly all real ones are.
        real: the same share of the real clips, about 0.05 unless they are few.
        originals: the index of the training clip that is nearest to each generated sound.
    """

    generated: dict[str, Figure]
    real: dict[str, Figure]
    originals: dict[str, Tensor]

    @property
    def found_by(self) -> list[str]:
        """The distances by which copies are more frequent among generated sounds: the intervals do not overlap."""
        return [name for name in DISTANCES if self.generated[name]["low"] > self.real[name]["high"]]


def find_copies(generated: Sounds, real: Sounds, train: Sounds) -> Copies:
    """Compares generated sounds with training clips, and real clips that were not trained on with the same.

    A copy is a sound that is nearer to a training clip than 95 % of the real clips are. Features of `generated` and
    `real` should both have come through the vocoder, because what it changes would hide copies; spectrograms have not.

    Args:
        generated: to judge.
        real: clips that were not trained on.
        train: the clips that were trained on.
    """
    ways: dict[str, Callable[[Sounds], tuple[Tensor, Tensor]]] = {
        "near_copy_share": lambda sounds: nearest(_contours(sounds), _contours(train)),
        "near_copy_share_shifted": lambda sounds: _nearest_moved(_small(sounds), _small(train)),
        "near_copy_share_judge": lambda sounds: nearest(sounds.features, train.features),
    }
    shares: dict[str, tuple[Figure, Figure]] = {}
    originals = {}
    for name, measure in ways.items():
        of_real, _ = measure(real)
        of_generated, originals[name] = measure(generated)
        limit = torch.quantile(of_real, _QUANTILE)
        shares[name] = share(of_generated < limit), share(of_real < limit)
    return Copies(
        {name: of_generated for name, (of_generated, _) in shares.items()},
        {name: of_real for name, (_, of_real) in shares.items()},
        originals,
    )


def _contours(sounds: Sounds) -> Tensor:
    return F.adaptive_avg_pool2d(sounds.spectrograms, 32).flatten(1)


def _small(sounds: Sounds) -> Tensor:
    """(N, channels, bands, frames), small enough to be compared at many places."""
    *_, n_bands, n_frames = sounds.spectrograms.shape
    return F.adaptive_avg_pool2d(sounds.spectrograms, (min(_BANDS, n_bands), min(_FRAMES, n_frames)))


def _nearest_moved(spectrograms: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """As `nearest`, each spectrogram earlier or later by up to a tenth of its length, wherever it is nearest."""
    most = round(_MOST_MOVED * spectrograms.shape[-1])
    silent = F.pad(spectrograms, (most, most), value=-1.0)
    flat, length = reference.flatten(1), spectrograms.shape[-1]
    found = [nearest(silent[..., start : start + length].flatten(1), flat) for start in range(2 * most + 1)]
    distances, places = (torch.stack(each) for each in zip(*found, strict=True))
    best = distances.argmin(dim=0, keepdim=True)
    return distances.gather(0, best)[0], places.gather(0, best)[0]
