"""The contract of captioners: waveforms -> captions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

SILENCE = "Silence."
_SILENT_PEAK = 1e-4  # -80 dB re full scale


@dataclass(frozen=True)
class Caption:
    """The caption of one sound.

    Args:
        text: a sentence or more, without tempo.
        tags: scores by word by group, from which the text was put together; empty if the captioner has no scores.
    """

    text: str
    tags: dict[str, dict[str, float]] = field(default_factory=dict)


class Captioner(Protocol):
    """Describes sounds in words. Its model is loaded once, at the first call or by `load`."""

    sample_rate: int  # Hz of the waveforms that it takes
    batch_size: int  # sounds in a call

    def load(self) -> None:
        """Loads the model, unless it is loaded. Raises: hub.MissingWeightsError."""

    def __call__(self, waveforms: Sequence[Tensor]) -> list[Caption]:
        """Describes sounds (n_samples,), full scale 1.0, of any lengths, silent ones included."""


def is_silent(waveform: Tensor) -> bool:
    """Whether a sound of any shape is empty or below -80 dB re full scale throughout."""
    return waveform.numel() == 0 or float(waveform.abs().max()) < _SILENT_PEAK
