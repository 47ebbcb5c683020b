"""A checkpoint in Python: sounds of any class as tensors."""

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from specgan.audio import WavSettings
from specgan.generation.sound import repeatable, vocode
from specgan.latent import LatentSpace, Point, Steering, class_points
from specgan.models.devices import find_device
from specgan.models.generators import draw
from specgan.models.trained import TrainedGenerator, find_class
from specgan.vocoders.griffin_lim import GriffinLim


class LoadedGenerator:
    """Draws sounds from a checkpoint, with the samples that generate.py writes.

    Args:
        trained: the generator.
        vocoder: called with its params and level_range, returns what turns spectrograms into sound.
        device: where both run.
        open_space: reads the checkpoint's latent space, see `space`.
    """

    def __init__(
        self,
        trained: TrainedGenerator,
        vocoder: Callable[..., nn.Module],
        device: torch.device,
        open_space: Callable[[], LatentSpace],
    ) -> None:
        self.trained = trained
        self.open_space = open_space
        self.device = device
        self.vocoder = vocoder(trained.params, trained.level_range)
        for part in (trained.network, self.vocoder):
            if isinstance(part, nn.Module):  # a vocoder of one's own may be any function
                part.to(device)

    @property
    def class_names(self) -> list[str]:
        return list(self.trained.class_names)

    @property
    def sample_rate(self) -> int:
        """Of the checkpoint, Hz."""
        return self.trained.params.sample_rate

    @cached_property
    def space(self) -> LatentSpace:
        """Finds and varies sounds like recordings. The first use trains the checkpoint's encoder if there is none.

        Raises:
            ValueError: as `LatentSpace.open`.
        """
        return self.open_space()

    @cached_property
    def steering(self) -> Steering:
        """Moves points in the latent space, and says what can be moved in a class.

        Raises:
            ValueError: the generator has no `from_embedding`.
        """
        return Steering(self.trained)

    def draw_point(self, point: Point, *, wav: WavSettings | None = None) -> tuple[Tensor, int]:
        """Draws the sound of a point in the latent space; `wav` and what is returned as of `draw`."""
        with repeatable():
            spectrograms = draw(self.trained.network, point.z[None], point.embedding[None])
        (waveform,) = vocode(spectrograms, self.vocoder, seeds=[point.seed], device=self.device)
        return (wav or WavSettings()).applied(waveform, self.sample_rate)

    def draw(
        self,
        label: str | Mapping[str, float],
        *,
        seed: int = 0,
        move: Mapping[str, float] | None = None,
        wav: WavSettings | None = None,
    ) -> tuple[Tensor, int]:
        """Draws one sound. The same checkpoint, class and seed give the same samples on the same device.

        Args:
            label: a class, or the weights of a mix, {"kick": 0.7, "tom": 0.3}, see `latent.mixing.class_shares`.
            seed: of the noise and of the vocoder's phases, >= 0.
            move: changes in standard deviations of the class, {"brightness": 1}, see `Steering.steer`; None: none.
            wav: what becomes of the sound, all but the sample format; None: what generate.py does by itself, which cuts
                off the silence at the end. Its file then holds these samples in 16 bits.
        Returns:
            The waveform, (n_samples,) or of a stereo checkpoint (2, n_samples), float32 on the CPU; and its rate in Hz.
        Raises:
            ValueError: no such class, an impossible mix or move, or the generator has no `from_embedding` for these.
        """
        if move or not isinstance(label, str):
            (point,) = class_points(self.trained, label, [seed])
            return self.draw_point(self.steering.steer(point, move or {}).point, wav=wav)
        found = find_class(label, self.class_names)
        if found is None:
            raise ValueError(
                f"label is {label!r}: not a class of this checkpoint; one of {', '.join(self.class_names)}"
            )
        with repeatable():
            spectrograms = self.trained.sample([found], [seed])
        (waveform,) = vocode(spectrograms, self.vocoder, seeds=[seed], device=self.device)
        return (wav or WavSettings()).applied(waveform, self.sample_rate)


def load(
    ckpt_path: str | Path,
    *,
    vocoder: Callable[..., nn.Module] = GriffinLim,
    network: str | None = None,
    device: str = "cpu",
) -> LoadedGenerator:
    """Reads a checkpoint of train.py to draw sounds from it: `load("best.ckpt").draw("kick", seed=7)`.

    Args:
        ckpt_path: the checkpoint.
        vocoder: called with the checkpoint's params and level_range, returns what turns spectrograms into sound.
        network: class of the generator if it is your own, see `TrainedGenerator.load`.
        device: "cpu", "cuda", or "auto", see `find_device`.
    Raises:
        FileNotFoundError, ValueError: no such checkpoint or device.
    """
    place = find_device(device)
    trained = TrainedGenerator.load(ckpt_path, network=network)
    return LoadedGenerator(trained, vocoder, place, partial(LatentSpace.open, ckpt_path, network=network))
