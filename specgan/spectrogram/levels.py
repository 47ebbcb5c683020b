"""Levels <-> values in [-1, 1]."""

from dataclasses import dataclass

from torch import Tensor

from specgan.spectrogram.params import SpectrogramParams


@dataclass(frozen=True)
class LevelRange:
    """The levels that -1 and 1 stand for, taken from the training split.

    Args:
        low: level of silence.
        high: the loudest level of the training clips; with level "log1p" the mean of their loudest levels.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(
                f"the training clips reach level {self.high:g}, silence is {self.low:g}: they are all silent; "
                "check the recordings, or lower floor_db"
            )


def normalise(level: Tensor, params: SpectrogramParams, level_range: LevelRange) -> Tensor:
    """Maps levels to [-1, 1].

    Args:
        level: (..., n_mels, n_frames).
    Returns:
        Same shape. With level "db" scaled by `level_range` and cut at both ends; with "log1p" each item is scaled by
        its own extremes (an item of a single level becomes -1).
    """
    if params.level == "log1p":
        low, high = level.amin((-2, -1), keepdim=True), level.amax((-2, -1), keepdim=True)
        return 2 * (level - low) / (high - low).clamp_min(1e-8) - 1
    span = level_range.high - level_range.low
    return (
        (level - level_range.low).mul_(2 / span).sub_(1).clamp_(-1, 1)
    )  # in place, because a level may be an hour long


def normalise_channels(level: Tensor, params: SpectrogramParams, level_range: LevelRange) -> Tensor:
    """As `normalise`, of sounds (..., channels, n_mels, n_frames), whose channels share one scale with "log1p"."""
    return normalise(level.flatten(-3, -2), params, level_range).view_as(level)


def denormalise(spectrogram: Tensor, level_range: LevelRange) -> Tensor:
    """Maps [-1, 1] to levels: the inverse of `normalise`, unless the level was lost (see SpectrogramParams)."""
    return level_range.low + (spectrogram + 1) / 2 * (level_range.high - level_range.low)
