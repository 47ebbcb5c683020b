"""A checkpoint that makes sounds for the service, byte by byte those of generate.py."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from specgan.audio import save_wav
from specgan.generation import TrainedGenerator
from specgan.models.generators import morph
from specgan.pictures.figures import to_png


@dataclass(frozen=True)
class Made:
    """The files of a sound."""

    wav: Path
    png: Path


class Sounds:
    """Makes sounds.

    Args:
        ckpt_path: a checkpoint of train.py.
        vocoder: called with the checkpoint's params and level_range, makes what turns spectrograms into sound.
        network: class of the generator where it is your own, see `TrainedGenerator.load`.
    Raises:
        FileNotFoundError, ValueError: as `TrainedGenerator.load`.
    """

    def __init__(self, ckpt_path: str | Path, *, vocoder: Callable[..., nn.Module], network: str | None = None) -> None:
        self._trained = TrainedGenerator.load(ckpt_path, network=network)
        params = self._trained.params
        self._to_sound = vocoder(params, self._trained.level_range)
        self.class_names = list(self._trained.class_names)
        self.sample_rate: int = params.sample_rate
        self.duration_s: float = params.n_samples / params.sample_rate

    def generate(self, label: str, seeds: Sequence[int], folder: Path) -> list[Made]:
        """Writes the sound of each seed into `folder`."""
        return self._write(self._trained.sample([label] * len(seeds), seeds), seeds, folder)

    def morph(self, labels: tuple[str, str], seeds: tuple[int, int], n: int, folder: Path) -> list[Made]:
        """Writes `n` sounds on the way from one label and seed to another into `folder`.

        Raises:
            NotImplementedError: the checkpoint's network cannot do that.
        """
        indices = tuple(self.class_names.index(label) for label in labels)
        try:
            spectrograms = morph(self._trained.network, indices, seeds, n_positions=n)
        except ValueError as err:
            raise NotImplementedError(str(err)) from err
        # The phases of each start as those of the nearer end, so that the ends are what they are alone.
        return self._write(spectrograms, [seeds[2 * i >= n] for i in range(n)], folder)

    def _write(self, spectrograms: Tensor, seeds: Sequence[int], folder: Path) -> list[Made]:
        made = []
        # One sound at a time, as `generate` in specgan.generation: the FFT also rounds by batch size.
        for number, (spectrogram, seed) in enumerate(zip(spectrograms, seeds, strict=True)):
            files = Made(folder / f"{number}.wav", folder / f"{number}.png")
            waveform = self._to_sound(spectrogram.unsqueeze(0), seeds=[seed])[0]
            save_wav(files.wav, waveform, self.sample_rate)
            files.png.write_bytes(to_png(spectrogram[0]))
            made.append(files)
        return made
