"""Power -> dB, and the loudest level and the percentiles of power that comes in pieces."""

import math

import torch
from torch import Tensor

LOWEST_DB = -370  # silence; with HIGHEST_DB what the power of float32 samples can hold
HIGHEST_DB = 386
STEP_DB = 0.01


class Scale:
    """The loudest level of power, and any percentile of its levels.

    Args:
        power: the first piece, of any shape, >= 0; None: none yet.
    """

    def __init__(self, power: Tensor | None = None) -> None:
        self.loudest = float(LOWEST_DB)
        self._counts = torch.zeros(round((HIGHEST_DB - LOWEST_DB) / STEP_DB) + 1, dtype=torch.int64)
        if power is not None:
            self.add(power)

    def add(self, power: Tensor) -> None:
        """Counts one more piece."""
        level = to_db(power)
        self.loudest = max(self.loudest, float(level.max()))
        step = ((level - LOWEST_DB) / STEP_DB).long()
        self._counts += torch.bincount(step.flatten(), minlength=len(self._counts))

    def percentile(self, percent: float) -> float:
        """Returns numpy's percentile in dB, or up to STEP_DB less, so that a value equal to it is not below it."""
        n_up_to = self._counts.cumsum(0)
        rank = (int(n_up_to[-1]) - 1) * percent / 100
        ranks = torch.tensor([math.floor(rank), math.ceil(rank)])
        low, high = (LOWEST_DB + STEP_DB * torch.searchsorted(n_up_to, ranks, right=True)).tolist()
        return low + (rank - math.floor(rank)) * (high - low)


def to_db(power: Tensor) -> Tensor:
    """Maps power to dB, at least LOWEST_DB: power is limited before the logarithm, which has none for 0."""
    return 10 * power.clamp_min(10 ** (LOWEST_DB / 10)).log10()
