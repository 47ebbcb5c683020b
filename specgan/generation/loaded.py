"""A checkpoint in Python: sounds of any class as tensors."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from specgan.audio import WavSettings
from specgan.generation.sound import make_vocoder, repeatable, vocode
from specgan.latent import Encoded, LatentSpace, Point, Spread, Steered, Steering, class_points
from specgan.latent.kept import load_or_train_encoder
from specgan.latent.recording import read_recording
from specgan.models.devices import find_device
from specgan.models.generators import draw
from specgan.models.trained import TrainedGenerator, find_class
from specgan.vocoders.griffin_lim import GriffinLim

# A class, the weights of a mix of classes, or what `encode`, `vary`, `morph`, `steer` and `point` return.
Start = str | Mapping[str, float] | Point | Encoded | Steered


class LoadedGenerator:
    """Draws sounds from a checkpoint, with the samples that generate.py writes.

    Args:
        trained: the generator.
        vocoder: called with its params and level_range, returns what turns spectrograms into sound; None: the one that
            its checkpoint carries, or Griffin-Lim.
        device: where both draw. Recordings are found, and sounds steered, on the CPU.
        ckpt_path: the checkpoint, beside which its encoder is kept.
    """

    def __init__(
        self,
        trained: TrainedGenerator,
        vocoder: Callable[..., nn.Module] | None,
        device: torch.device,
        ckpt_path: str | Path,
    ) -> None:
        self.trained, self.ckpt_path = trained, ckpt_path
        self._on_cpu = trained if device.type == "cpu" else replace(trained, network=deepcopy(trained.network))
        self.device = device
        self.vocoder = make_vocoder(trained, vocoder or GriffinLim, carried=vocoder is None)
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
        """Ways through its latent space; the encoder comes with the first recording.

        Raises:
            ValueError: the generator has no `from_embedding`.
        """
        return LatentSpace(self._on_cpu)

    @cached_property
    def steering(self) -> Steering:
        """What moves its sounds. Raises ValueError as `space`."""
        return Steering(self._on_cpu)

    def encode(self, path: str | Path, *, label: str | None = None) -> Encoded:
        """Finds the sound that is nearest to a recording.

        The first time, the encoder is trained if the checkpoint has none yet, in two minutes, and kept beside it.

        Args:
            path, label: see `LatentSpace.encode`.
        Raises:
            FileNotFoundError, AudioError: no such file, or nothing that can be read as sound.
            ValueError: it is silent, `label` is no class, or the generator has no `from_embedding`.
        """
        recording = read_recording(path, self._on_cpu, self.space.typical)  # its errors come before two minutes do
        if self.space.encoder is None:
            self.space.encoder = load_or_train_encoder(self._on_cpu, self.ckpt_path)
        return self.space.encode_recording(recording, label=label)

    def point(self, start: Start, *, seed: int = 0) -> Point:
        """What a sound is drawn from.

        Args:
            start: a class, a mix as {"kick": 0.7, "tom": 0.3}, or what other methods return.
            seed: of a class or a mix.
        Raises:
            ValueError: not a class, a weight makes no sense, or the generator has no `from_embedding`.
        """
        if isinstance(start, Point):
            return start
        if isinstance(start, (Encoded, Steered)):
            return start.point
        (point,) = class_points(self._on_cpu, start, [seed])
        return point

    def vary(self, start: Start, *, distance: float = 0.3, n: int = 4, seed: int = 0) -> list[Point]:
        """Points around one, in its class.

        Args:
            start: what is varied; of a class or a mix the sound with seed 0.
            distance: 0 is `start` itself, 1 any sound of the class, see `LatentSpace.vary`.
            n: points; number i has the seed `seed` + i.
            seed: of the first.
        Raises:
            ValueError: as `point`, or `distance` is not in 0..1.
        """
        return self.space.vary(self.point(start), distance=distance, seeds=range(seed, seed + n))

    def morph(self, start: Start, end: Start, *, n: int = 9) -> list[Point]:
        """Points on the way from one to another, both included.

        Args:
            start, end: of any classes; of a class or a mix the sound with seed 0.
            n: points, at least 2.
        Raises:
            ValueError: as `point`, or `n` < 2.
        """
        return self.space.morph(self.point(start), self.point(end), n_positions=n)

    def steer(self, start: Start, move: Mapping[str, float]) -> Steered:
        """Moves a sound: {"brightness": 1.5, "length": -1} in standard deviations of its class.

        Args:
            start: what is moved; of a class or a mix the sound with seed 0.
            move: see `Steering.steer`. What can be moved in a class, `spread` says.
        Raises:
            ValueError: as `point`, or part of the move makes no sense in the class.
        """
        return self.steering.steer(self.point(start), move)

    def spread(self, start: Start) -> Spread:
        """How the sounds of the class of a start differ: what can be steered, why other things cannot."""
        return self.steering.spread(self.point(start).embedding)

    def draw(
        self,
        start: Start,
        *,
        seed: int = 0,
        move: Mapping[str, float] | None = None,
        wav: WavSettings | None = None,
    ) -> tuple[Tensor, int]:
        """Draws one sound. The same checkpoint, class and seed give the same samples on the same device.

        Args:
            start: a class, a mix of classes as {"kick": 0.7, "tom": 0.3}, or what other methods return.
            seed: of the noise and of the vocoder's phases, >= 0; points have their own.
            move: changes in standard deviations of the class, {"brightness": 1}, see `steer`; None: none.
            wav: what becomes of the sound, all but the sample format; None: what generate.py does by itself, which cuts
                off the silence at the end. Its file then holds these samples in 16 bits.
        Returns:
            The waveform, (n_samples,) or of a stereo checkpoint (2, n_samples), float32 on the CPU; and its rate in Hz.
        Raises:
            ValueError: no such class, or as `point` and `steer`.
        """
        if isinstance(start, str) and not move:  # which any generator can draw
            found = find_class(start, self.class_names)
            if found is None:
                raise ValueError(
                    f"label is {start!r}: not a class of this checkpoint; one of {', '.join(self.class_names)}"
                )
            with repeatable():
                spectrograms = self.trained.sample([found], [seed])
        else:
            point = self.steer(self.point(start, seed=seed), move or {}).point
            seed = point.seed
            with repeatable():
                spectrograms = draw(self.trained.network, point.z[None], point.embedding[None])
        (waveform,) = vocode(spectrograms, self.vocoder, seeds=[seed], device=self.device)
        return (wav or WavSettings()).applied(waveform, self.sample_rate)


def load(
    ckpt_path: str | Path,
    *,
    vocoder: Callable[..., nn.Module] | None = None,
    network: str | None = None,
    device: str = "cpu",
) -> LoadedGenerator:
    """Reads a checkpoint of train.py to draw sounds from it: `load("best.ckpt").draw("kick", seed=7)`.

    Args:
        ckpt_path: the checkpoint; or a shared generator, hf://user/name or its folder, see `TrainedGenerator.load`.
        vocoder: called with the checkpoint's params and level_range, returns what turns spectrograms into sound; None:
            the one that the checkpoint carries, or Griffin-Lim.
        network: class of the generator if it is your own, see `TrainedGenerator.load`.
        device: "cpu", "cuda", or "auto", see `find_device`.
    Raises:
        FileNotFoundError, ValueError: no such checkpoint or device.
        ImportError: hf:// without the package huggingface_hub.
    """
    place = find_device(device)
    return LoadedGenerator(TrainedGenerator.load(ckpt_path, network=network), vocoder, place, ckpt_path)
