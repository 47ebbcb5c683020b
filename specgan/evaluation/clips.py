"""The clips that a generator is measured against: which, cut where, as recorded and through the vocoder.

All waveforms are at the rate of the kept sounds, at which the judge listens: so it hears what a preset of a lower rate
leaves out.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import count, islice

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn

from specgan.audio import at_rate, resample
from specgan.data.datamodule import SpectrogramDataModule
from specgan.data.dataset import SpectrogramDataset

Place = tuple[int, float]  # the index of a clip, and where it is cut, from 0 (its start) to 1 (its end)

_BATCH_SIZE = 32  # sounds that go through the vocoder together


def has_sounds(data: SpectrogramDataModule) -> bool:
    """Whether the data set keeps sounds of recordings, in every split that has clips."""
    return all(len(clips.with_sound) > 0 for clips in (data.whole_train, data.val, data.test) if len(clips))


def judged_rate(data: SpectrogramDataModule) -> int:
    """The rate in Hz at which sounds are judged: that of the kept sounds, or without them of the spectrograms."""
    return data.whole_train.sound_rate if has_sounds(data) else data.params.sample_rate


class MeasuredClips:
    """Waveforms and spectrograms of a data set's clips, cut as training cuts them.

    Of several channels, waveforms are (N, channels, T) instead of (N, T).

    Args:
        data: set up.
        vocoder: called with spectrograms (B, channels, n_mels, n_frames) and seeds, gives waveforms.
        most_clips: examples of a split at most; longer clips give several.
        seed: of the choice and the cuts.
        device: where the vocoder runs.
    Attributes:
        has_sounds: see the function. Without them clips sound as the vocoder makes them of their
            spectrograms, and what the vocoder costs is not known.
        sample_rate: of all waveforms, see `judged_rate`.
        n_samples: of all waveforms.
    """

    def __init__(
        self, data: SpectrogramDataModule, vocoder: nn.Module, *, most_clips: int, seed: int, device: torch.device
    ) -> None:
        self.data, self.vocoder = data, vocoder.to(device)
        self.most_clips, self.seed, self.device = most_clips, seed, device
        self.has_sounds, self.sample_rate = has_sounds(data), judged_rate(data)
        self.n_samples = at_rate(data.params.n_samples, data.params.sample_rate, self.sample_rate)

    @property
    def is_band_cut(self) -> bool:
        """Whether the spectrograms have a lower rate than the recordings, and so less than their band."""
        return self.data.params.sample_rate < self.sample_rate

    def places(self, clips: SpectrogramDataset) -> list[Place]:
        """The examples of a split."""
        generator = torch.Generator().manual_seed(self.seed)
        length = self.data.params.n_frames
        places = []
        for index in (clips.with_sound if self.has_sounds else torch.arange(len(clips))).tolist():
            n_pieces = 1 if self.data.crop == "start" else max(1, math.ceil(int(clips.n_frames_of[index]) / length))
            positions = torch.rand(n_pieces, generator=generator)
            places += [(index, position) for position in positions.tolist()]
        if len(places) > self.most_clips:
            chosen = torch.randperm(len(places), generator=generator)[: self.most_clips].sort().values
            places = [places[index] for index in chosen.tolist()]
        return places if self.data.crop == "random" else [(index, 0.0) for index, _ in places]

    def labels(self, clips: SpectrogramDataset, places: Sequence[Place] | None = None) -> Tensor:
        """The labels (N,) of the examples of a split, or of those at `places`."""
        return clips.labels[[index for index, _ in (self.places(clips) if places is None else places)]]

    def spectrograms(self, clips: SpectrogramDataset, places: Sequence[Place] | None = None) -> Tensor:
        """The examples of a split, or those at `places`: (N, channels, n_mels, n_frames)."""
        return clips.__getitems__(self.places(clips) if places is None else places)[0]  # all at once

    def waveforms(self, clips: SpectrogramDataset, places: Sequence[Place] | None = None) -> Tensor:
        """The same as sound, (N, T): as recorded if the data set has sounds, else through the vocoder."""
        if not self.has_sounds:
            return self.vocoded(clips, places)
        return clips.waveforms(self.places(clips) if places is None else places)

    def resampled(self, clips: SpectrogramDataset, places: Sequence[Place] | None = None) -> Tensor:
        """As `waveforms`, without what the rate of the spectrograms leaves out: resampled to it and back."""
        recorded = self.waveforms(clips, places)
        if not self.is_band_cut:
            return recorded
        return self._at_rate(_resampled(recorded, self.sample_rate, self.data.params.sample_rate))

    def vocoded(
        self, clips: SpectrogramDataset, places: Sequence[Place] | None = None, *, description: str | None = None
    ) -> Tensor:
        """The same through the vocoder, (N, T). `description` is of a progress bar; None: there is none."""
        return self.vocode(self.spectrograms(clips, places), count(), description=description)

    @torch.no_grad()
    def vocode(self, spectrograms: Tensor, seeds: Iterable[int], *, description: str | None = None) -> Tensor:
        """Turns spectrograms (N, channels, n_mels, n_frames) into waveforms at `sample_rate`, on the CPU.

        Args:
            spectrograms: in [-1, 1].
            seeds: of each.
            description: of a progress bar; None: there is none.
        """
        batches, seeds = spectrograms.split(_BATCH_SIZE), iter(seeds)
        shown = track(batches, description or "", transient=True, disable=description is None)
        return torch.cat(
            [
                self._at_rate(self.vocoder(batch.to(self.device), seeds=list(islice(seeds, len(batch)))).cpu())
                for batch in shown
            ]
        )

    def _at_rate(self, waveforms: Tensor) -> Tensor:
        """Resamples (..., T) from the spectrograms' rate to (..., n_samples) at `sample_rate`."""
        if not self.is_band_cut:
            return waveforms
        waveforms = _resampled(waveforms, self.data.params.sample_rate, self.sample_rate)
        return F.pad(waveforms, (0, self.n_samples - waveforms.shape[-1]))


def _resampled(waveforms: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resamples (..., T), a few at a time."""
    flat = waveforms.reshape(-1, waveforms.shape[-1])
    resampled = torch.cat([resample(batch, from_rate, to_rate) for batch in flat.split(_BATCH_SIZE)])
    return resampled.view(*waveforms.shape[:-1], -1)
