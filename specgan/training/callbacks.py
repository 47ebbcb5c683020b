"""What is heard, seen and measured while a generator trains, and warnings about a run that goes wrong."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from specgan.audio import AudioError, save_wav, scale_to_peak
from specgan.evaluation.metrics import clipped, silent
from specgan.files import atomic_path, safe_name
from specgan.pictures.figures import to_figure
from specgan.pictures.gallery import Entry, write_gallery
from specgan.spectrogram import Spectrogram, normalise
from specgan.training.dashboards import Exhibit, dashboards

log = logging.getLogger(__name__)

COLLAPSED = 0.1  # of the distance between real clips of a class


class Pace(L.Callback):
    """Logs how far and how fast training is, every epoch: `epoch`, `n_steps` and `train/examples_per_s`.

    `epoch` is the axis of the dashboards. It counts from 1, as previews and curve.json do, where Lightning's own counts
    from 0. The speed is that of all processes together, without what callbacks do at the end of an epoch.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.n_examples, self.start_s = 0, time.monotonic()  # a run that goes on in mid-epoch has no start of it

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.n_examples, self.start_s = 0, time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.n_examples += len(batch[1]) * trainer.world_size
        if pl_module.device.type == "cuda" and batch_idx + 1 == trainer.num_training_batches:
            torch.cuda.synchronize(pl_module.device)  # it may be behind
        self.end_s = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = {"epoch": float(trainer.current_epoch + 1), "n_steps": float(pl_module.n_steps)}
        if self.n_examples:
            metrics["train/examples_per_s"] = self.n_examples / (self.end_s - self.start_s)
        _log(pl_module, metrics)


class Preview(L.Callback):
    """Every few epochs, draws each class from fixed seeds, writes sounds and pictures, logs them, checks them.

    Once, at the start, it does the same with a real clip of each class, as recorded and through the vocoder, so that a
    listener knows what the vocoder costs. Files go to `folder`, whose index.html shows them all, and to the loggers
    that are dashboards. Where `Measure` has a judge, what it hears stands beside each sound.

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
        self.sections: dict[str, list[Entry]] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:  # one process draws
            return
        self.vocoder = self.make_vocoder(pl_module.params, pl_module.level_range)
        self.examples = _examples_by_class(trainer.datamodule.train, len(pl_module.class_names), n_each=16)
        self._show_real(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not _is_due(trainer, self.every_n_epochs):
            return
        metrics = self._show_generated(trainer, pl_module) if trainer.is_global_zero else None
        metrics = trainer.strategy.broadcast(metrics)
        _log(pl_module, {f"val/{name}": value for name, value in metrics.items()})

    def _show_real(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule
        clips = data.val if len(data.val) else data.train
        transform = Spectrogram(data.params)
        exhibits = []
        for index, name in enumerate(pl_module.class_names):
            if index not in clips.labels:
                continue
            position = int((clips.labels == index).nonzero()[0])
            spectrogram = clips[position][0]
            try:
                waveforms = clips.waveform(position)
                (verdict,) = _verdicts(trainer, waveforms)
                exhibits.append(self._write(pl_module, name, "real", 0, None, spectrogram, waveforms[0], verdict))
            except (OSError, AudioError) as err:  # a dataset folder outlives its recordings
                log.warning("no recording of %s to compare with: %s", name, err)
            vocoded = self.vocoder(spectrogram.unsqueeze(0), seeds=[self.seed])
            heard = normalise(transform(vocoded), data.params, data.level_range)
            (verdict,) = _verdicts(trainer, vocoded)
            exhibits.append(
                self._write(pl_module, name, "real, vocoded", 0, None, heard[0].unsqueeze(0), vocoded[0], verdict)
            )
        self._exhibit(trainer, exhibits, epoch=0)

    def _show_generated(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, float]:
        epoch = trainer.current_epoch + 1
        seeds = list(range(self.seed, self.seed + self.n_samples))
        heard, diversity, exhibits = [], {}, []
        for index, name in enumerate(pl_module.class_names):
            spectrograms = pl_module.sample([index] * self.n_samples, seeds)
            waveforms = self.vocoder(spectrograms, seeds=seeds)
            heard.append(waveforms)
            if len(self.examples[index]) > 1:
                diversity[name] = mean_distance(spectrograms) / max(mean_distance(self.examples[index]), 1e-8)
            shown = zip(seeds, spectrograms, waveforms, _verdicts(trainer, waveforms[: self.n_shown]), strict=False)
            exhibits += [self._write(pl_module, name, "generated", epoch, *one) for one in shown]
        self._exhibit(trainer, exhibits, epoch=epoch)
        metrics = {
            "silent_share": float(silent(torch.cat(heard)).float().mean()),
            "clipped_share": float(clipped(torch.cat(heard)).float().mean()),
        }
        if diversity:
            metrics["diversity"] = sum(diversity.values()) / len(diversity)
        log.info("epoch %d: %s", epoch, ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))
        _warn(epoch, metrics, collapsed=[name for name, value in diversity.items() if value < COLLAPSED])
        return metrics

    def _write(
        self,
        pl_module: L.LightningModule,
        name: str,
        kind: str,
        epoch: int,
        seed: int | None,
        spectrogram: Tensor,
        waveform: Tensor,
        verdict: tuple[str, float | None],
    ) -> Exhibit:
        """Writes one sound and its picture."""
        folder, params = safe_name(name), pl_module.params
        of_several = f", seed {seed}" if self.n_shown > 1 else ""
        title = kind if seed is None else f"epoch {epoch}{of_several}"
        stem = f"{folder}/{title.replace(', ', '_').replace(' ', '_')}"
        place = stem if seed is None else f"{folder}/seed_{seed}" if self.n_shown > 1 else folder
        heard_as, probability = verdict
        told = f"heard as {heard_as} ({100 * probability:.0f} %)" if heard_as else ""

        sound, picture = self.folder / f"{stem}.wav", self.folder / f"{stem}.png"
        if waveform.abs().max() > 1:  # here, because `_warn` says it once for all sounds
            waveform = scale_to_peak(waveform, 1.0)
        save_wav(sound, waveform, params.sample_rate)
        with atomic_path(picture) as temporary:
            above = f"{name}, {title}\n{told}".strip()
            temporary.write_bytes(to_figure(spectrogram[0], params, pl_module.level_range, title=above))
        caption = f"{title}, {told}" if told else title
        self.sections.setdefault(name, []).append(Entry(caption, f"{stem}.png", f"{stem}.wav"))
        files = (sound, picture, waveform, params.sample_rate)
        return Exhibit(name, kind, seed, place, caption, *files, *verdict)

    def _exhibit(self, trainer: L.Trainer, exhibits: list[Exhibit], *, epoch: int) -> None:
        write_gallery(
            self.folder / "index.html",
            title="Training preview",
            note="Real clips, the same through the vocoder, and sounds drawn during training from fixed seeds.",
            sections=self.sections,
            pixelated=False,
        )
        for dashboard in dashboards(trainer):
            dashboard.log_exhibits(exhibits, epoch=epoch)


class Measure(L.Callback):
    """Every few epochs, measures sounds drawn from fixed seeds against the training clips.

    Metrics: `val/fad` (Fréchet distance on the features of the data set's judge), beside it `val/fad_real`, what as
    many real clips reach that were not trained on, and `val/conditional_accuracy` (the share of sounds that the judge
    hears as what was asked for). They stand over epochs and time in `curve`, which goes on where a resumed run left
    it. Loggers that are dashboards get the confusion matrix.

    Args:
        evaluation: with `prepare(datamodule)`, `quick(sample, n_samples=...)`, `quick_real(n_samples=...)` and
            `hears(waveforms)`; see specgan.evaluation.judge.Evaluation.
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
        self.fad_real: float | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if trainer.is_global_zero:
            self._prepare(trainer)
        # All processes must know whether there will be val/fad: by it they decide together what is kept.
        self.is_ready = trainer.strategy.broadcast(self.is_ready)

    def _prepare(self, trainer: L.Trainer) -> None:
        try:
            self.evaluation.prepare(trainer.datamodule)
            self.is_ready = True
        except (OSError, AudioError) as err:  # a dataset folder outlives its recordings
            log.warning("sounds are not measured, so there will be no val/fad and no best.ckpt: %s", err)
            return
        try:
            real = self.evaluation.quick_real(n_samples=self.n_samples)
        except (OSError, AudioError) as err:  # the judge was kept, what it learned from was not
            log.warning("real clips are not measured, so val/fad stands alone: %s", err)
            return
        if real is None:
            log.info("real clips: none to measure, because there is no validation or test split; val/fad stands alone")
        else:
            self.fad_real, n_clips = real
            log.info("real clips: fad %.3f (%d that were not trained on)", self.fad_real, n_clips)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        past_s = self.points[-1]["time_s"] if self.points else 0.0
        self.start_s = time.monotonic() - past_s

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.is_ready or not _is_due(trainer, self.every_n_epochs):
            return
        metrics = self._measure(trainer, pl_module) if trainer.is_global_zero else None
        metrics = trainer.strategy.broadcast(metrics)
        _log(pl_module, {f"val/{name}": value for name, value in metrics.items()}, prog_bar=True)

    def _measure(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, float]:
        epoch, time_s = trainer.current_epoch + 1, round(time.monotonic() - self.start_s, 1)
        metrics = self.evaluation.quick(pl_module.sample, n_samples=self.n_samples)
        confusion = metrics.pop("confusion")
        for dashboard in dashboards(trainer):
            dashboard.log_confusion(confusion, pl_module.class_names, epoch=epoch)
        told = {name: f"{name} {value:.3f}" for name, value in metrics.items()}
        if self.fad_real is not None:
            told["fad"] += f" (real clips {self.fad_real:.3f})"
        log.info("epoch %d: %s", epoch, ", ".join(told.values()))
        self.points.append({"epoch": epoch, "time_s": time_s, "n_steps": pl_module.n_steps, **metrics})
        with atomic_path(self.curve) as temporary:
            temporary.write_text(json.dumps(self.points) + "\n")
        return metrics if self.fad_real is None else {**metrics, "fad_real": self.fad_real}

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points = state_dict["points"]


def _is_due(trainer: L.Trainer, every_n_epochs: int) -> bool:
    """Every so many epochs, and at the last one."""
    epoch = trainer.current_epoch + 1
    return trainer.should_stop or epoch == trainer.max_epochs or epoch % every_n_epochs == 0


def _log(pl_module: L.LightningModule, metrics: dict[str, float], **settings: Any) -> None:
    """Logs what all processes know alike: the values need no reduction, but each must have them to decide by."""
    pl_module.log_dict(metrics, sync_dist=True, rank_zero_only=True, **settings)


def _verdicts(trainer: L.Trainer, waveforms: Tensor) -> list[tuple[str, float | None]]:
    """What the judge of `Measure` hears in waveforms (N, T), and how sure it is; ("", None) without a judge."""
    for callback in trainer.callbacks:
        if isinstance(callback, Measure) and callback.is_ready:
            return callback.evaluation.hears(waveforms)
    return [("", None)] * len(waveforms)


def mean_distance(spectrograms: Tensor) -> float:
    """Returns the mean distance between all pairs of (B, 1, n_mels, n_frames), as a root mean square; B >= 2."""
    flat = spectrograms.flatten(1)
    return float(torch.pdist(flat).mean()) / flat.shape[1] ** 0.5


def _examples_by_class(clips: Dataset, n_classes: int, *, n_each: int) -> list[Tensor]:
    chosen = [(clips.labels == label).nonzero()[:n_each, 0].tolist() for label in range(n_classes)]
    return [torch.stack([clips[index][0] for index in indices]) for indices in chosen]


def _warn(epoch: int, metrics: dict[str, float], collapsed: list[str]) -> None:
    if metrics["silent_share"] > 0.1:
        log.warning("epoch %d: %.0f %% of the sounds are silent", epoch, 100 * metrics["silent_share"])
    if metrics["clipped_share"] > 0.1:
        log.warning("epoch %d: %.0f %% of the sounds exceed full scale", epoch, 100 * metrics["clipped_share"])
    if collapsed:
        log.warning("epoch %d: nearly equal sounds for every seed of %s", epoch, ", ".join(collapsed))
