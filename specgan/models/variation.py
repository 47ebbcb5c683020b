"""Variations of few real clips, for the generator to learn: it draws sounds like them instead of copies of them."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.models.augmentation import heard
from specgan.models.draws import Draws

_N_AMOUNTS = 4  # drawn for a spectrogram


class Variation:
    """Changes real spectrograms a little, each time in another way: tempo, pitch, brightness and level.

    Unlike `specgan.models.augmentation.Augmentation`, which changes real and generated spectrograms alike, this is what
    the generator is to learn: the sounds that it draws differ from the clips by as much.

    Args:
        strength: of all changes, 0..1; 0: none.
        stretch: faster or slower by up to this share; the start stays where it is.
        band_shift: lower or higher by up to this share of the bands. 0 where pitch is the label.
        tilt: that is added to the level of the highest band at most, or taken off, and the opposite to the lowest, in
            units of [-1, 1]; silence stays silent.
        gain: that is added to the level at most, or taken off, in units of [-1, 1]; silence stays silent.
        seed: of all choices.
    """

    def __init__(
        self,
        *,
        strength: float = 1.0,
        stretch: float = 0.1,
        band_shift: float = 0.03,
        tilt: float = 0.1,
        gain: float = 0.05,
        seed: int = 0,
    ) -> None:
        given = {"strength": strength, "stretch": stretch, "band_shift": band_shift, "tilt": tilt, "gain": gain}
        for name, value in given.items():
            if not 0 <= value <= 1:
                raise ValueError(f"variation.{name} is {value}; from 0 to 1")
        self.strength = strength
        self.stretch, self.band_shift, self.tilt, self.gain = stretch, band_shift, tilt, gain
        self.draws = Draws(seed)

    def __str__(self) -> str:
        return (
            f"up to {100 * self.strength * self.stretch:.0f} % faster or slower, "
            f"{100 * self.strength * self.band_shift:.0f} % of the bands lower or higher, darker or brighter, and "
            "louder or softer"
        )

    @torch.no_grad()
    def __call__(self, spectrogram: Tensor, *, n_processes: int = 1, rank: int = 0) -> Tensor:
        """Returns changed spectrograms (B, channels, n_mels, n_frames), each changed in its own way.

        Args:
            spectrogram: (B, channels, n_mels, n_frames) in [-1, 1].
            n_processes: that train together, with batches of one size; each has its part of the same draws.
            rank: of this process among them.
        """
        if not self.strength:
            return spectrogram
        n, _, n_mels, _ = spectrogram.shape
        drawn = self.draws.uniform(n, _N_AMOUNTS, device=spectrogram.device, n_processes=n_processes, rank=rank)
        faster, lower, brighter, louder = (self.strength * (2 * drawn - 1)).to(spectrogram.dtype).unbind(1)
        moved = self._moved(spectrogram, faster * math.log1p(self.stretch), lower * self.band_shift)
        slope = torch.linspace(-1, 1, n_mels, device=moved.device, dtype=moved.dtype).view(1, 1, -1, 1)
        added = self.tilt * brighter.view(-1, 1, 1, 1) * slope + self.gain * louder.view(-1, 1, 1, 1)
        return (moved + added * heard(moved)).clamp(-1, 1)

    @staticmethod
    def _moved(spectrogram: Tensor, faster: Tensor, lower: Tensor) -> Tensor:
        """Reads each at other places: in time `exp(faster)` times as fast, `lower` (a share of the bands) higher up."""
        rate = faster.exp()
        grid = torch.zeros(len(spectrogram), 2, 3, device=spectrogram.device, dtype=spectrogram.dtype)
        grid[:, 0, 0], grid[:, 0, 2] = rate, rate - 1  # the start stays
        grid[:, 1, 1], grid[:, 1, 2] = 1, 2 * lower
        places = F.affine_grid(grid, list(spectrogram.shape), align_corners=False)
        # zero is silence, which comes in from outside
        moved = F.grid_sample(spectrogram + 1, places, mode="bicubic", padding_mode="zeros", align_corners=False)
        return (moved - 1).clamp(-1, 1)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a training goes on with the same draws."""
        return {"random_state": self.draws.state()}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Takes over what a checkpoint kept; None: it is from before there was variation."""
        if state:
            self.draws.go_on_from(state["random_state"])
