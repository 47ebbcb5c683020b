"""What happens around the training of a vocoder: previews, measurements, and its file."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specgan.audio import resample
from specgan.data.dataset import SpectrogramDataset
from specgan.evaluation.fidelity import losses
from specgan.training.cadence import Cadence
from specgan.training.preview import Preview, ShownSound, first_clip
from specgan.vocoders.weights import write_safetensors

_FIRST_S = 60.0  # from the start of the training to the first preview
_MOST_MEASURED = 48  # clips, during the training


class VocoderPreview(Preview):
    """From time to time, what a vocoder in training makes of a real clip of each class, and how far off that is.

    At the start also the clips as recorded, and through the vocoder that it is compared with. Files go to `folder`, as
    those of `Preview`. Metrics: `val/log_spectral_distance_db` and `val/attack_error_db`, see
    `specgan.evaluation.fidelity`.

    Args:
        folder: where the files go.
        vocoder: that it is compared with; called with params and level_range.
        every_n_epochs: epochs from preview to preview; None: by time. The last epoch is shown too.
        share: of the time of the training that previews may take, see `Cadence`.
        seed: of all sounds.
    """

    def __init__(
        self,
        folder: str | Path,
        vocoder: Callable[..., nn.Module],
        *,
        every_n_epochs: int | None = None,
        share: float = 0.03,
        seed: int = 0,
    ) -> None:
        super().__init__(folder, vocoder, every_n_epochs=every_n_epochs, seed=seed)
        self.cadence = Cadence(every_n_epochs, share=share, first_s=_FIRST_S)

    def _show_generated(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, float]:
        clips = trainer.datamodule.val if len(trainer.datamodule.val) else trainer.datamodule.train
        epoch, params, exhibits = trainer.current_epoch + 1, pl_module.params, []
        for label, name in enumerate(pl_module.class_names):
            index = first_clip(clips, label)
            if index is None:
                continue
            spectrogram = clips[index][0]
            waveform = pl_module.sound(spectrogram.unsqueeze(0), seeds=[self.seed])[0]
            shown = (f"epoch {epoch}", spectrogram, params, waveform, ("", None))
            exhibits.append(self._write(pl_module, ShownSound(name, "generated", *shown, seed=self.seed)))
        self._exhibit(trainer, exhibits, epoch=epoch)
        recorded, spectrograms, _ = recordings(clips, most=_MOST_MEASURED)
        made = in_turn(pl_module.sound, spectrograms)
        figures = losses(recorded, made, sample_rate=params.sample_rate)
        return {name: figure["value"] for name, figure in figures.items()}


class KeepVocoder(L.Callback):
    """Writes the trained vocoder at the end of the training, a small file for `vocoder.path` that can be handed on.

    Args:
        path: of the .safetensors file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            write_safetensors(self.path, pl_module.ema.contents())


def recordings(clips: SpectrogramDataset, *, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """The beginnings of clips whose sound is kept, evenly chosen.

    Returns:
        Waveforms (N, n_samples), or (N, channels, n_samples), at their spectrograms' rate, spectrograms (N, channels,
        n_bins, n_frames), and labels (N,).

    Raises:
        ValueError: no sound is kept.
    """
    known = clips.with_sound.tolist()
    if not known:
        raise ValueError(
            f"{clips.folder}: it keeps no sounds, so a vocoder cannot be measured; make it with data=folder"
        )
    n = min(most, len(known))
    places = [(known[i * len(known) // n], 0.0) for i in range(n)]
    n_samples = clips.params.n_samples
    recorded = resample(clips.waveforms(places), clips.sound_rate, clips.params.sample_rate)
    recorded = F.pad(recorded, (0, max(0, n_samples - recorded.shape[-1])))[..., :n_samples]
    return recorded, *clips.__getitems__(places)


def in_turn(vocoder: Callable[..., Tensor], spectrograms: Tensor) -> Tensor:
    """The sounds of spectrograms, a few at a time, so that memory does not grow with their number; seeds 0, 1, ..."""
    seeds = count()
    return torch.cat([vocoder(batch, seeds=[next(seeds) for _ in batch]) for batch in spectrograms.split(8)])
