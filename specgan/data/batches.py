"""Which clips come when in a training, and how it goes on there."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from specgan.data.balance import Balance

_SEED_STEP = 1_000_003  # between the seeds of two runs, so that their epochs do not share any


class BatchPlan(Sampler[list[tuple[int, float]]]):
    """Which examples are in which batch, and where each is cut: decided by the seed and the epoch alone.

    Epochs are pieces of an endless sequence, one shuffle of all examples after another: an epoch that is shorter than a
    shuffle goes on where the one before ended. Each process takes its own part of batches that all agree on, so that
    several train as one would.

    Args:
        order: called with a torch.Generator, gives all indices of the examples, shuffled; with a balance also called
            with copies (N,) of each.
        n_examples: how many these are.
        batch_size: examples in a batch of one process.
        epoch_size: examples in an epoch, rounded down to whole batches, but at least one.
        crop: "random" or "start".
        seed: another gives other batches.
        n_processes: that train together.
        rank: of this process among them.
        balance: of the classes; None: each example comes once in a shuffle.
    """

    def __init__(
        self,
        order: Callable[..., Tensor],
        *,
        n_examples: int,
        batch_size: int,
        epoch_size: int,
        crop: str,
        seed: int,
        n_processes: int = 1,
        rank: int = 0,
        balance: Balance | None = None,
    ) -> None:
        self.order, self.crop, self.seed, self.balance = order, crop, seed, balance
        self.n_shuffled = balance.n_drawn if balance else n_examples
        self.batch_size, self.n_processes, self.rank = batch_size, n_processes, rank
        self.n_batches = max(1, epoch_size // (batch_size * n_processes))
        self.epoch, self.n_given = 0, 0  # batches of this epoch that were trained on

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[list[tuple[int, float]]]:
        if self.n_given >= self.n_batches:  # the epoch before went to its end
            self.epoch, self.n_given = self.epoch + 1, 0
        size = self.batch_size * self.n_processes
        order = self._piece(self.epoch * self.n_batches * size, self.n_batches * size)
        places = torch.rand(self.n_batches * size, generator=self._generator(-1 - self.epoch))
        if self.crop == "start":
            places.zero_()
        for index in range(self.n_given, self.n_batches):
            start = index * size + self.rank * self.batch_size
            part = slice(start, start + self.batch_size)
            yield list(zip(order[part].tolist(), places[part].tolist(), strict=True))

    def _piece(self, start: int, length: int) -> Tensor:
        """Indices from place `start` of the sequence of shuffles: (length,) int64."""
        first, last = start // self.n_shuffled, (start + length - 1) // self.n_shuffled
        order = torch.cat([self._shuffle(number) for number in range(first, last + 1)])
        return order[start - first * self.n_shuffled :][:length]

    def _shuffle(self, number: int) -> Tensor:
        if self.balance is None:
            return self.order(self._generator(number))
        return self.order(self._generator(number), self.balance.copies(number, seed=_SEED_STEP * self.seed))

    def _generator(self, number: int) -> torch.Generator:
        """Of a shuffle (0, 1, ...) or of the places of an epoch (-1, -2, ...)."""
        return torch.Generator().manual_seed(_SEED_STEP * self.seed + number)


class TrainLoader(DataLoader):
    """A DataLoader over a `BatchPlan` that can go on in the middle of an epoch.

    Batches that workers have fetched ahead do not count: they were not trained on.
    """

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in super().__iter__():
            self.batch_sampler.n_given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {name: getattr(self.batch_sampler, name) for name in ("seed", "epoch", "n_given")}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        for name, value in state_dict.items():
            setattr(self.batch_sampler, name, value)
