"""How often the clips of unequal classes are trained on."""

import torch
from torch import Tensor

_PER_CLASS = 100  # draws of a class in a shuffle, at least in the mean: so rounding changes shares by a hundredth
_SEED_OF_CLASS = 2**40  # from the shuffles of one class to those of the next


class Balance:
    """Draws small classes more often than their number of clips says.

    A class of n clips has a share of the draws that is proportional to n^(1 - balance). Within a class each clip comes
    once before any comes again.

    Args:
        labels: (N,) int64, of the clips.
        balance: from 0, each clip comes equally often, to 1, each class does.
    Attributes:
        n_drawn: clips in a shuffle.

    Source: the shares are those of multilingual training; Conneau et al., "Unsupervised cross-lingual representation
    learning at scale", 2020.
    """

    def __init__(self, labels: Tensor, balance: float) -> None:
        clips_of = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
        weights = torch.tensor([len(clips) for clips in clips_of], dtype=torch.float64) ** (1 - balance)
        n_wanted = max(len(labels), _PER_CLASS * len(clips_of))
        n_of = (weights / weights.sum() * n_wanted).round().long().clamp_min(1).tolist()
        self.n_clips, self.n_drawn = len(labels), sum(n_of)
        self._classes = list(zip(clips_of, n_of, strict=True))

    def copies(self, number: int, *, seed: int) -> Tensor:
        """How often each clip occurs in shuffle `number` = 0, 1, ...: (N,) int64, `n_drawn` in all."""
        copies = torch.zeros(self.n_clips, dtype=torch.int64)
        for index, (clips, n) in enumerate(self._classes):
            # what comes in this shuffle, of an endless sequence of rounds through the clips of the class
            first, last = divmod(number * n, len(clips)), divmod((number + 1) * n, len(clips))
            copies[clips] = last[0] - first[0]
            for (a_round, n_begun), sign in ((first, -1), (last, 1)):
                generator = torch.Generator().manual_seed(seed + _SEED_OF_CLASS * (index + 1) + a_round)
                copies[clips[torch.randperm(len(clips), generator=generator)[:n_begun]]] += sign
        return copies


def shuffled(n: int, generator: torch.Generator, copies: Tensor | None = None) -> Tensor:
    """Returns 0..n-1 in random order, each once, or `copies` (n,) times, and then about evenly spread: int64."""
    if copies is None:
        return torch.randperm(n, generator=generator)
    indices = torch.arange(n).repeat_interleave(copies)
    number = torch.arange(len(indices)) - (copies.cumsum(0) - copies)[indices]  # 0, 1, ... of the copies of an index
    places = (number + torch.rand(len(indices), generator=generator, dtype=torch.float64)) / copies[indices]
    return indices[places.argsort()]
