"""Sound and picture logging during training, and warnings about a run that goes wrong."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor, nn
from torch.utils.data import Dataset

from specgan.audio import AudioError, save_wav, scale_to_peak
from specgan.files import atomic_path, safe_name
from specgan.gallery import Sound, write_gallery
from specgan.metrics import clipped, silent
from specgan.picture import to_figure
from specgan.spectrogram import Spectrogram, normalise

log = logging.getLogger(__name__)

COLLAPSED = 0.1  # of the distance between real clips of a class


class Preview(L.Callback):
    """Every few epochs, draws each class from fixed seeds, writes sounds and pictures, logs them, checks them.

    Once, at the start, it does the same with a real clip of each class, as recorded and through the vocoder, so that a
    listener knows what the vocoder costs. Files go to `folder`, whose index.html shows them all.

    Metrics: `val/silent_share` and `val/clipped_share` (sounds under -60 dB, or over full scale before they are scaled
    down for the file) and `val/diversity` (mean distance between generated spectrograms of a class, as a share of that
    between real ones; near 0 is collapse). A bad value is logged as a warning too.

    Args:
        folder: where the files go.
        vocoder: called with params and level_range, makes what turns spectrograms into sound.
        every_n_epochs: epochs from preview to preview.
        n_samples: sounds of each class that are drawn and checked.
        n_shown: how many of these are written and logged.
        seed: of the first sound of each class.
    """

    def __init__(
        self,
        folder: str | Path,
        vocoder: Callable[..., nn.Module],
        *,
        every_n_epochs: int = 10,
        n_samples: int = 4,
        n_shown: int = 1,
        seed: int = 0,
    ) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs is {every_n_epochs}; at least 1")
        if not 1 <= n_shown <= n_samples or n_samples < 2:
            raise ValueError(f"n_shown is {n_shown}, n_samples {n_samples}; 1 <= n_shown <= n_samples, n_samples >= 2")
        self.folder = Path(folder)
        self.make_vocoder = vocoder
        self.every_n_epochs, self.n_samples, self.n_shown, self.seed = every_n_epochs, n_samples, n_shown, seed
        self.sections: dict[str, list[Sound]] = {}
        self.table = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.vocoder = self.make_vocoder(pl_module.params, pl_module.level_range)
        self.examples = _examples_by_class(trainer.datamodule.train, len(pl_module.class_names), n_each=16)
        if trainer.is_global_zero:
            self._show_real(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        is_last = trainer.should_stop or epoch == trainer.max_epochs
        if trainer.is_global_zero and (is_last or epoch % self.every_n_epochs == 0):
            metrics = self._show_generated(trainer, pl_module, epoch)
            pl_module.log_dict({f"val/{name}": value for name, value in metrics.items()}, rank_zero_only=True)

    def _show_real(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule
        clips = data.val if len(data.val) else data.train
        transform = Spectrogram(data.params)
        for index, name in enumerate(pl_module.class_names):
            if index not in clips.labels:
                continue
            position = clips.labels.index(index)
            spectrogram = clips[position][0]
            try:
                self._show(trainer, pl_module, name, "real", 0, spectrogram, clips.waveform(position)[0])
            except (OSError, AudioError) as err:  # a dataset folder outlives its recordings
                log.warning("no recording of %s to compare with: %s", name, err)
            vocoded = self.vocoder(spectrogram.unsqueeze(0), seeds=[self.seed])
            heard = normalise(transform(vocoded), data.params, data.level_range)
            self._show(trainer, pl_module, name, "real, vocoded", 0, heard[0].unsqueeze(0), vocoded[0])
        self._finish(trainer)

    def _show_generated(self, trainer: L.Trainer, pl_module: L.LightningModule, epoch: int) -> dict[str, float]:
        seeds = list(range(self.seed, self.seed + self.n_samples))
        heard, diversity = [], {}
        for index, name in enumerate(pl_module.class_names):
            spectrograms = pl_module.sample([index] * self.n_samples, seeds)
            waveforms = self.vocoder(spectrograms, seeds=seeds)
            heard.append(waveforms)
            if len(self.examples[index]) > 1:
                diversity[name] = mean_distance(spectrograms) / max(mean_distance(self.examples[index]), 1e-8)
            for seed, spectrogram, waveform in list(zip(seeds, spectrograms, waveforms, strict=True))[: self.n_shown]:
                kind = f"epoch {epoch}" + (f", seed {seed}" if self.n_shown > 1 else "")
                self._show(trainer, pl_module, name, kind, epoch, spectrogram, waveform)
        self._finish(trainer)
        metrics = {
            "silent_share": float(silent(torch.cat(heard)).float().mean()),
            "clipped_share": float(clipped(torch.cat(heard)).float().mean()),
        }
        if diversity:
            metrics["diversity"] = sum(diversity.values()) / len(diversity)
        log.info("epoch %d: %s", epoch, ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))
        _warn(epoch, metrics, collapsed=[name for name, value in diversity.items() if value < COLLAPSED])
        return metrics

    def _show(self, trainer, pl_module, name: str, kind: str, epoch: int, spectrogram: Tensor, waveform: Tensor):
        """Writes one sound and its picture, and hands them to W&B."""
        stem = f"{safe_name(name)}/{safe_name(kind).replace(', ', '_').replace(' ', '_')}"
        sound, picture = self.folder / f"{stem}.wav", self.folder / f"{stem}.png"
        params = pl_module.params
        if waveform.abs().max() > 1:  # here, because `_warn` says it once for all sounds
            waveform = scale_to_peak(waveform, 1.0)
        save_wav(sound, waveform, params.sample_rate)
        with atomic_path(picture) as temporary:
            figure = to_figure(spectrogram[0], params, pl_module.level_range, title=f"{name}, {kind}")
            temporary.write_bytes(figure)
        self.sections.setdefault(name, []).append(Sound(kind, f"{stem}.png", f"{stem}.wav"))

        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                import wandb

                audio, image = wandb.Audio(str(sound), caption=kind), wandb.Image(str(picture), caption=kind)
                place = name if epoch else f"{name}/{kind}"
                logger.experiment.log({f"audio/{place}": audio, f"spectrogram/{place}": image, "epoch": epoch})
                if self.table is None:
                    self.table = wandb.Table(
                        columns=["class", "epoch", "kind", "sound", "picture"], log_mode="INCREMENTAL"
                    )
                self.table.add_data(name, epoch, kind, audio, image)

    def _finish(self, trainer: L.Trainer) -> None:
        write_gallery(
            self.folder / "index.html",
            title="Training preview",
            note="Real clips, the same through the vocoder, and sounds drawn during training from fixed seeds.",
            sections=self.sections,
            pixelated=False,
        )
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and self.table is not None:
                logger.experiment.log({"sounds": self.table})


class Measure(L.Callback):
    """Every few epochs, measures sounds drawn from fixed seeds against the training clips.

    Metrics: `val/fad` (Fréchet distance on the features of the data set's judge) and `val/conditional_accuracy` (the
    share of sounds that the judge hears as what was asked for). They stand over epochs and time in `curve`, which goes
    on where a resumed run left it.

    Args:
        evaluation: with `prepare(datamodule)` and `quick(sample, n_samples=...)`; see specgan.evaluation.Evaluation.
        curve: path of a JSON file, a list of {epoch, time_s, n_steps, <metric>: ...}.
        every_n_epochs: epochs from measurement to measurement; the last epoch is measured too.
        n_samples: sounds of a class on average.
    """

    def __init__(self, evaluation: Any, curve: str | Path, *, every_n_epochs: int = 10, n_samples: int = 20) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs is {every_n_epochs}; at least 1")
        if n_samples < 1:
            raise ValueError(f"n_samples is {n_samples}; at least 1")
        self.evaluation, self.curve = evaluation, Path(curve)
        self.every_n_epochs, self.n_samples = every_n_epochs, n_samples
        self.points: list[dict[str, float]] = []
        self.is_ready = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit" or not trainer.is_global_zero:
            return
        try:
            self.evaluation.prepare(trainer.datamodule)
            self.is_ready = True
        except (OSError, AudioError) as err:  # a dataset folder outlives its recordings
            log.warning("sounds are not measured, so there will be no val/fad and no best.ckpt: %s", err)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        past_s = self.points[-1]["time_s"] if self.points else 0.0
        self.start_s = time.monotonic() - past_s

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        is_last = trainer.should_stop or epoch == trainer.max_epochs
        if not self.is_ready or not (is_last or epoch % self.every_n_epochs == 0):
            return
        time_s = round(time.monotonic() - self.start_s, 1)
        metrics = self.evaluation.quick(pl_module.sample, n_samples=self.n_samples)
        logged = {f"val/{name}": value for name, value in metrics.items()}
        pl_module.log_dict(logged, rank_zero_only=True, prog_bar=True)
        log.info("epoch %d: %s", epoch, ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))
        self.points.append({"epoch": epoch, "time_s": time_s, "n_steps": pl_module.n_steps, **metrics})
        with atomic_path(self.curve) as temporary:
            temporary.write_text(json.dumps(self.points) + "\n")

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points = state_dict["points"]


def mean_distance(spectrograms: Tensor) -> float:
    """Returns the mean distance between all pairs of (B, 1, n_mels, n_frames), as a root mean square; B >= 2."""
    flat = spectrograms.flatten(1)
    return float(torch.pdist(flat).mean()) / flat.shape[1] ** 0.5


def _examples_by_class(clips: Dataset, n_classes: int, *, n_each: int) -> list[Tensor]:
    chosen: list[list[Tensor]] = [[] for _ in range(n_classes)]
    for index, label in enumerate(clips.labels):
        if len(chosen[label]) < n_each:
            chosen[label].append(clips[index][0])
    return [torch.stack(examples) for examples in chosen]


def _warn(epoch: int, metrics: dict[str, float], collapsed: list[str]) -> None:
    if metrics["silent_share"] > 0.1:
        log.warning("epoch %d: %.0f %% of the sounds are silent", epoch, 100 * metrics["silent_share"])
    if metrics["clipped_share"] > 0.1:
        log.warning("epoch %d: %.0f %% of the sounds exceed full scale", epoch, 100 * metrics["clipped_share"])
    if collapsed:
        log.warning("epoch %d: nearly equal sounds for every seed of %s", epoch, ", ".join(collapsed))
