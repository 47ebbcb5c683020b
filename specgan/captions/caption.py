"""What a captioner says of a piece of sound, and what all captioners share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

SILENCE = "Silence."
_SILENT_PEAK = 1e-4  # -80 dB re full scale


@dataclass(frozen=True)
class Caption:
    """Of one piece of sound.

    Args:
        text: a sentence or more, without tempo.
        tags: what the text was made from, of JSON's types; empty where there is none.
    """

    text: str
    tags: dict[str, Any] = field(default_factory=dict)


class Captioner(Protocol):
    """Makes captions. It is loaded once, at its first call or before, and then does batch after batch."""

    sample_rate: int  # Hz that it wants
    batch_size: int  # pieces of sound at a time

    def load(self) -> None:
        """Loads the model, if it is not loaded yet. Raises: MissingWeightsError."""

    def __call__(self, waveforms: Sequence[Tensor]) -> list[Caption]:
        """Describes sounds (n_samples,), full scale 1.0, of any lengths, silent ones included."""


class MissingWeightsError(RuntimeError):
    """A model's weights are neither here nor to be had. The message says what, how large, which licence, and how."""


def is_silent(waveform: Tensor) -> bool:
    """Whether nothing is to be heard in a sound of any shape."""
    return waveform.numel() == 0 or float(waveform.abs().max()) < _SILENT_PEAK
