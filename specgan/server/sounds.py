"""A checkpoint that draws sounds for the service, with the same bytes as generate.py."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from specgan.audio import WavSettings
from specgan.generation import SoundFiles, sound_info, vocode, write_sound
from specgan.generation.loaded import LoadedGenerator, Start
from specgan.latent import Encoded, LatentSpace, Point, Spread, Steered
from specgan.latent.kept import encoder_path, load_encoder
from specgan.latent.recording import read_recording
from specgan.models.trained import TrainedGenerator, find_class


class SoundGenerator:
    """Draws sounds from one checkpoint.

    Args:
        ckpt_path: a checkpoint of train.py.
        vocoder: called with the checkpoint's params and level_range, returns what turns spectrograms into sound.
        carried_vocoder: use the vocoder that the checkpoint carries instead, if it carries one.
        network: class of the generator if it is your own, see `TrainedGenerator.load`.
    Raises:
        FileNotFoundError, ValueError: as `TrainedGenerator.load`, or the file that should be its encoder is none.
    """

    def __init__(
        self,
        ckpt_path: str | Path,
        *,
        vocoder: Callable[..., nn.Module],
        carried_vocoder: bool = True,
        network: str | None = None,
    ) -> None:
        self.trained = TrainedGenerator.load(ckpt_path, network=network)
        takes_carried = carried_vocoder and self.trained.vocoder is not None
        chosen = None if takes_carried else vocoder
        self._loaded = LoadedGenerator(self.trained, chosen, torch.device("cpu"), ckpt_path)
        self.ckpt_path = ckpt_path
        params = self.trained.params
        self._wav = WavSettings()
        self.class_names = list(self.trained.class_names)
        self.sample_rate: int = params.sample_rate
        self.channels = self.trained.channels
        self.duration_s: float = params.n_samples / params.sample_rate
        if hasattr(self.trained.network, "from_embedding"):
            self.space.encoder = load_encoder(self.trained, encoder_path(ckpt_path))

    @property
    def has_encoder(self) -> bool:
        """Whether recordings can be found; else `space.encoder` is to be set first."""
        return self.space.encoder is not None

    @property
    def space(self) -> LatentSpace:
        """Raises NotImplementedError if the checkpoint's network cannot do more than draw classes."""
        try:
            return self._loaded.space
        except ValueError as err:
            raise NotImplementedError(str(err)) from err

    def generate(self, label: str, seeds: Sequence[int], folder: Path) -> list[SoundFiles]:
        """Writes the sound of each seed into `folder`."""
        label = find_class(label, self.class_names)
        origins = [f"{label}, seed {seed}" for seed in seeds]
        infos = [sound_info(self.trained, label=label, origin=origin) for origin in origins]
        return self._write(self.trained.sample([label] * len(seeds), seeds), seeds, infos, folder)

    def point(self, start: Start, *, seed: int = 0) -> Point:
        """As `LoadedGenerator.point`. Raises NotImplementedError as `space`."""
        _ = self.space
        return self._loaded.point(start, seed=seed)

    def mixed(self, point: Point, weights: Mapping[str, float]) -> Point:
        """The same noise, in a mix of classes; `weights` as of `LoadedGenerator.point`."""
        mix = self.point(weights)
        return replace(point, embedding=mix.embedding, label=mix.label, origin=f"{point.origin}, as {mix.label}")

    def draw(self, points: Sequence[Point], folder: Path) -> list[SoundFiles]:
        """Writes the sounds of points into `folder`."""
        infos = [sound_info(self.trained, label=point.label, origin=point.origin) for point in points]
        return self._write(self.space.draw(points), [point.seed for point in points], infos, folder)

    def read_and_encode(self, path: Path, *, name: str, label: str | None) -> Encoded | None:
        """Finds the nearest sound to a recording; None: it is one, but the encoder is still to be trained.

        Args:
            path: of the recording.
            name: by which it is called.
            label: its class; None: guessed.
        Raises:
            ValueError: it is silent.
            NotImplementedError: as `space`.
        """
        recording = replace(read_recording(path, self.trained, self.space.typical), name=name)
        return self.space.encode_recording(recording, label=label) if self.has_encoder else None

    def vary(self, start: Point, *, distance: float, seeds: Sequence[int]) -> list[Point]:
        """As `LatentSpace.vary`."""
        return self.space.vary(start, distance=distance, seeds=seeds)

    def morph(self, start: Point, end: Point, n: int) -> list[Point]:
        """`n` points on the way from one to another, both included as they are."""
        between = self.space.morph(start, end, n_positions=n)[1:-1]
        way = f"{start.origin} to {end.origin}"
        return [start, *(replace(p, origin=f"{way}, {i} of {n - 1}") for i, p in enumerate(between, 1)), end]

    def steer(self, start: Point, move: Mapping[str, float]) -> Steered:
        """As `Steering.steer`."""
        return self._loaded.steer(start, move)

    def spread(self, start: Point) -> Spread:
        """As `LoadedGenerator.spread`."""
        return self._loaded.spread(start)

    def _write(
        self, spectrograms: Tensor, seeds: Sequence[int], infos: Sequence[dict[str, str]], folder: Path
    ) -> list[SoundFiles]:
        waveforms = vocode(spectrograms, self._loaded.vocoder, seeds=seeds)
        return [
            write_sound(folder / str(i), spectrogram, waveform, sample_rate=self.sample_rate, wav=self._wav, info=info)
            for i, (spectrogram, waveform, info) in enumerate(zip(spectrograms, waveforms, infos, strict=True))
        ]
