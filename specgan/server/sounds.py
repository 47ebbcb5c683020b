"""A checkpoint that draws sounds for the service, with the same bytes as generate.py."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from specgan.audio import WavSettings
from specgan.generation import SoundFiles, make_vocoder, sound_info, vocode, write_sound
from specgan.models.generators import morph
from specgan.models.trained import TrainedGenerator, find_class


class SoundGenerator:
    """Draws sounds from one checkpoint.

    Args:
        ckpt_path: a checkpoint of train.py.
        vocoder: called with the checkpoint's params and level_range, returns what turns spectrograms into sound.
        carried_vocoder: use the vocoder that the checkpoint carries instead, if it carries one.
        network: class of the generator if it is your own, see `TrainedGenerator.load`.
    Raises:
        FileNotFoundError, ValueError: as `TrainedGenerator.load`.
    """

    def __init__(
        self,
        ckpt_path: str | Path,
        *,
        vocoder: Callable[..., nn.Module],
        carried_vocoder: bool = True,
        network: str | None = None,
    ) -> None:
        self._trained = TrainedGenerator.load(ckpt_path, network=network)
        params = self._trained.params
        self._vocoder = make_vocoder(self._trained, vocoder, carried=carried_vocoder)
        self._wav = WavSettings()
        self.class_names = list(self._trained.class_names)
        self.sample_rate: int = params.sample_rate
        self.duration_s: float = params.n_samples / params.sample_rate

    def generate(self, label: str, seeds: Sequence[int], folder: Path) -> list[SoundFiles]:
        """Writes the sound of each seed into `folder`."""
        spectrograms = self._trained.sample([label] * len(seeds), seeds)
        return self._write(spectrograms, seeds, [self._info(label, seed) for seed in seeds], folder)

    def morph(self, labels: tuple[str, str], seeds: tuple[int, int], n: int, folder: Path) -> list[SoundFiles]:
        """Writes `n` sounds on the way from one label and seed to another into `folder`.

        Raises:
            NotImplementedError: the checkpoint's network cannot morph.
        """
        start, end = (self.class_names.index(find_class(label, self.class_names)) for label in labels)
        try:
            spectrograms = morph(self._trained.network, (start, end), seeds, n_positions=n)
        except ValueError as err:
            raise NotImplementedError(str(err)) from err
        ends = [self._info(label, seed) for label, seed in zip(labels, seeds, strict=True)]
        way = " to ".join(end["INAM"] for end in ends)
        both = " to ".join(labels)
        between = [sound_info(self._trained, label=both, origin=f"{way}, {i} of {n - 1}") for i in range(1, n - 1)]
        # Each starts from the phases of the nearer end, so that the ends sound as `generate` writes them.
        of_phases = [seeds[2 * i >= n] for i in range(n)]
        return self._write(spectrograms, of_phases, [ends[0], *between, ends[1]], folder)

    def _info(self, label: str, seed: int) -> dict[str, str]:
        """As in the WAVs of generate.py."""
        label = find_class(label, self.class_names)
        return sound_info(self._trained, label=label, origin=f"{label}, seed {seed}")

    def _write(
        self, spectrograms: Tensor, seeds: Sequence[int], infos: Sequence[dict[str, str]], folder: Path
    ) -> list[SoundFiles]:
        waveforms = vocode(spectrograms, self._vocoder, seeds=seeds)
        return [
            write_sound(folder / str(i), spectrogram, waveform, sample_rate=self.sample_rate, wav=self._wav, info=info)
            for i, (spectrogram, waveform, info) in enumerate(zip(spectrograms, waveforms, infos, strict=True))
        ]
