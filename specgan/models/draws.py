"""Random numbers of a training, which are the same for any number of processes and go on after an interruption."""

import torch
from torch import Tensor


class Draws:
    """Uniform random numbers for the examples of a batch.

    Args:
        seed: of all of them.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(
        self, n: int, n_values: int, *, device: torch.device | str = "cpu", n_processes: int = 1, rank: int = 0
    ) -> Tensor:
        """Returns (n, n_values) in 0..1.

        Args:
            n: examples of this process.
            n_values: for each.
            device: where they are needed; they are drawn on the CPU, so that they are the same everywhere.
            n_processes: that train together, with batches of one size; each has its part of the same draws.
            rank: of this process among them.
        """
        drawn = torch.rand(n_processes * n, n_values, generator=self.generator)
        return drawn[rank * n : (rank + 1) * n].to(device)

    def state(self) -> Tensor:
        """What a checkpoint keeps."""
        return self.generator.get_state()

    def go_on_from(self, state: Tensor) -> None:
        """Goes on as the draws of which this was the state."""
        self.generator.set_state(state)
