"""Spectrogram -> waveform by a small network that was trained on sounds, your own or those of the base."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from specgan.spectrogram import LevelRange, SpectrogramParams
from specgan.vocoders.refinement import Refiner
from specgan.vocoders.vocoder import Vocoder, in_parts
from specgan.vocoders.weights import find_base, read_vocoder, rebuilt


class Learned(Vocoder):
    """Turns normalised spectrograms into sound by a network of `python train.py model=vocoder`.

    Args:
        params: settings of the spectrograms, which must be those that it was trained on.
        level_range: the levels of their -1 and 1.
        path: a checkpoint of model=vocoder, one that carries a vocoder, or a .safetensors file; None: the base for such
            spectrograms that comes with the package.
        n_steps: corrections of the short-time levels, see `Refiner`; None: as in the file.
        n_iter: iterations of Griffin-Lim that follow; more is better and slower; 0: none; None: as in the file.
        held: in place of `path`, what such a file holds.
    Raises:
        FileNotFoundError: no such file.
        ValueError: `n_steps` < 1 or `n_iter` < 0; or it holds no vocoder, or one for other spectrograms; or there is no
            base for these.
    """

    def __init__(
        self,
        params: SpectrogramParams,
        level_range: LevelRange,
        *,
        path: str | Path | None = None,
        n_steps: int | None = None,
        n_iter: int | None = None,
        held: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(params, level_range)
        if n_steps is not None and n_steps < 1:
            raise ValueError(f"n_steps is {n_steps}; at least 1, or null: as in the file")
        if n_iter is not None and n_iter < 0:
            raise ValueError(f"n_iter is {n_iter}; at least 0, or null: as in the file")
        origin = "the vocoder of the checkpoint"
        if held is None:
            path = find_base(params) if path is None else path
            held, origin = read_vocoder(path), str(path)
        given = {"n_steps": n_steps, "n_iter": n_iter}
        given = {name: value for name, value in given.items() if value is not None}
        self.network: Refiner = rebuilt(held, params, origin=origin, given=given)

    def waveform(self, power: Tensor, seeds: Sequence[int]) -> Tensor:
        """Maps power (B, n_bins, n_frames) >= 0 to waveforms (B, n_frames * hop_length)."""
        return self.channels(power.unsqueeze(1), seeds).squeeze(1)

    def channels(self, power: Tensor, seeds: Sequence[int]) -> Tensor:
        """Maps power (B, channels, n_bins, n_frames) >= 0 to waveforms (B, channels, n_frames * hop_length).

        All channels of a sound start from one phase, as those of `GriffinLim`.
        """
        return in_parts(self.network, power, seeds, self.params)

    @property
    def held(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, plain values: see `Refiner.contents`."""
        return self.network.contents()

    def train(self, mode: bool = True) -> "Learned":
        return super().train(False)  # never trained, also not as a part of another module
