"""The classifier that judges generated sounds, and the features that distances are measured in."""

from collections.abc import Sequence
from itertools import pairwise

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specgan.spectrogram import Spectrogram, SpectrogramParams

MOST_FRAMES = 200  # of the analysis: longer examples are analysed in longer steps
FLOOR_DB = -80.0

_AT_ONCE = 256  # sounds in a pass


def analysis_params(sample_rate: int, n_samples: int) -> SpectrogramParams:
    """Settings of the classifier's analysis, whatever the generator's spectrograms are: 64 bands, windows of 25 ms."""
    hop_length = max(round(0.01 * sample_rate), -(-n_samples // MOST_FRAMES))
    win_length = max(round(0.025 * sample_rate), hop_length)
    n_fft = 2 ** max(win_length - 1, round(0.05 * sample_rate)).bit_length()  # fine enough for 64 bands
    return SpectrogramParams(
        sample_rate=sample_rate,
        n_fft=n_fft,
        win_length=win_length,
        hop_length=hop_length,
        n_mels=64,
        n_frames=None,
        floor_db=FLOOR_DB,
        mel_scale="slaney",
    )


class Classifier(L.LightningModule):
    """Tells the class of a waveform. Strided convolutions over its own log-mel analysis, then two linear layers.

    Batches are (levels (B, channels, 64, frames), label (B,)): sounds are analysed once, before the training. Training
    changes each sound's level by up to `gain_db`, moves it by up to `shift` of its length, and hides a band and a
    stretch of it, in all channels alike, so that small data sets suffice. With `stretch` it also changes its length.

    Waveforms are (B, T), or (B, channels, T) of several channels, all of which it listens to.

    Args:
        sample_rate: of the waveforms, Hz.
        n_samples: of the waveforms.
        class_names: labels.
        channels: of the waveforms.
        width: channels of the first layer.
        n_features: size of the vector that distances are measured in.
        dropout: share of the features that are left out in training.
        learning_rate: of AdamW.
        n_steps: batches at most; see `specgan.evaluation.fitting.fit_classifier`.
        gain_db: of augmentation.
        shift: of augmentation, share of the length.
        stretch: of augmentation, the share by which a sound is made longer or shorter, and its bands spread by half as
            much; None: 0, but the judge of few clips has `specgan.evaluation.few_clips.STRETCH`.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        n_samples: int,
        class_names: Sequence[str],
        channels: int = 1,
        width: int = 16,
        n_features: int = 64,
        dropout: float = 0.2,
        learning_rate: float = 2e-3,
        n_steps: int = 1200,
        gain_db: float = 6.0,
        shift: float = 0.05,
        stretch: float | None = None,
    ) -> None:
        super().__init__()
        self.class_names = list(class_names)
        self.learning_rate, self.n_steps = learning_rate, n_steps
        self.gain_db, self.shift, self.stretch = gain_db, shift, stretch or 0.0
        self.analysis = Spectrogram(analysis_params(sample_rate, n_samples))
        n_maps = [channels, width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for before, after in pairwise(n_maps):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        n_bands = self.analysis.params.n_mels // 2 ** (len(n_maps) - 1)
        # not affine: the features have unit variance, so that distances of different data sets are of one scale
        self.embedding = nn.Sequential(
            nn.Linear(2 * n_maps[-1] * n_bands, n_features), nn.BatchNorm1d(n_features, affine=False)
        )
        self.logits = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(n_features, len(class_names)))

    def analyse(self, waveform: Tensor) -> Tensor:
        """Maps waveforms to levels (B, channels, 64, frames), 0 for silence, about 1 at full scale."""
        levels = self.analysis(waveform) / -FLOOR_DB + 1
        return levels if waveform.ndim == 3 else levels.unsqueeze(1)

    @torch.no_grad()
    def analyse_all(self, waveforms: Tensor) -> Tensor:
        """As `analyse`, a few at a time; on the CPU."""
        return torch.cat([self.analyse(batch.to(self.device)).cpu() for batch in waveforms.split(_AT_ONCE)])

    def embed(self, levels: Tensor) -> Tensor:
        """Maps what `analyse` returns to features (B, n_features)."""
        maps = self.layers(levels.contiguous(memory_format=torch.channels_last))
        return self.embedding(torch.cat([maps.mean(dim=3), maps.amax(dim=3)], dim=1).flatten(1))

    def forward(self, waveform: Tensor) -> Tensor:
        """Maps waveforms to logits (B, n_classes)."""
        return self.logits(self.embed(self.analyse(waveform)))

    @torch.inference_mode()
    def judge(self, waveforms: Tensor, *, batch_size: int = _AT_ONCE) -> tuple[Tensor, Tensor]:
        """Maps waveforms to features (N, n_features) and logits (N, n_classes), on the CPU."""
        self.eval()
        features = [self.embed(self.analyse(batch.to(self.device))) for batch in waveforms.split(batch_size)]
        logits = [self.logits(batch) for batch in features]
        return torch.cat(features).cpu(), torch.cat(logits).cpu()

    def predict(self, waveforms: Tensor) -> Tensor:
        """Maps waveforms to their likeliest classes (N,), int64, on the CPU."""
        return self.judge(waveforms)[1].argmax(dim=1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        levels, labels = batch
        loss = F.cross_entropy(self.logits(self.embed(self._augment(levels))), labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        levels, labels = batch
        self.log("val/loss", F.cross_entropy(self.logits(self.embed(levels)), labels))

    def _augment(self, levels: Tensor) -> Tensor:
        """A gain, a shift in time, a hidden band and stretch, drawn for each item of (B, channels, bands, frames)."""
        if self.stretch:
            levels = _stretched(levels, self.stretch)
        n, n_channels, n_bands, n_frames = levels.shape
        gain = (2 * torch.rand(n, 1, 1, 1) - 1).to(levels) * self.gain_db / -FLOOR_DB
        levels = torch.where(levels > 0, levels + gain, levels).clamp_min(0)
        most = round(self.shift * n_frames)
        frames = torch.arange(n_frames) - torch.randint(-most, most + 1, (n, 1))
        inside = ((frames >= 0) & (frames < n_frames)).to(levels.device)
        index = frames.clamp(0, n_frames - 1).to(levels.device)
        levels = levels.gather(3, index[:, None, None].expand(-1, n_channels, n_bands, -1)) * inside[:, None, None]
        bands = _stretch(n, n_bands, n_bands // 8).to(levels.device)
        stretch = _stretch(n, n_frames, n_frames // 8).to(levels.device)
        return levels * ~bands[:, None, :, None] * ~stretch[:, None, None]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=0.01, fused=True)


def _stretched(levels: Tensor, most: float) -> Tensor:
    """Each item longer or shorter by up to `most`, and its bands spread by half as much; its first frame stays."""
    time, bands = (1 + share * (2 * torch.rand(len(levels)) - 1) for share in (most, most / 2))
    zero = torch.zeros(len(levels))
    # places in [-1, 1] are multiplied about -1, the first frame and the lowest band
    rows = [torch.stack([time, zero, time - 1], dim=1), torch.stack([zero, bands, bands - 1], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1).to(levels), list(levels.shape), align_corners=False)
    return F.grid_sample(levels, grid, align_corners=False)  # behind the end is silence


def _stretch(n: int, size: int, most: int) -> Tensor:
    """(n, size) of bool: in each row a stretch of up to `most` is True, at a random place."""
    length = torch.randint(0, most + 1, (n, 1))
    start = (torch.rand(n, 1) * (size - length + 1)).long()
    position = torch.arange(size)
    return (position >= start) & (position < start + length)
