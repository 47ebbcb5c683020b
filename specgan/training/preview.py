"""From time to time, sounds and pictures of each class, and warnings about a run that goes wrong."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning as L
import torch
from torch import Tensor, nn

from specgan.audio import note_results, resample, save_wav, scale_to_peak
from specgan.data.dataset import SpectrogramDataset
from specgan.evaluation.evaluator import Evaluation
from specgan.evaluation.judge import Judge
from specgan.evaluation.metrics import clipped, silent
from specgan.files import write_bytes, write_json
from specgan.generation import class_folders
from specgan.pictures.figures import to_figure
from specgan.pictures.gallery import Entry, write_gallery
from specgan.spectrogram import Spectrogram, SpectrogramParams, normalise_channels, params_at
from specgan.training.cadence import Cadence
from specgan.training.dashboards import Exhibit, dashboards
from specgan.training.pace import log_known

log = logging.getLogger(__name__)

_ENTRIES_NAME = "entries.json"  # beside index.html: what it lists, for a run that goes on

_FIRST_S = 60.0  # from the start of the training to the first preview
COLLAPSED = 0.1  # of the distance between real clips of a class


@dataclass(frozen=True)
class ShownSound:
    """A sound to be shown, and the class that the judge takes it for with its probability."""

    class_name: str
    kind: str  # which also names its files
    title: str
    spectrogram: Tensor  # (channels, n_mels, n_frames)
    params: SpectrogramParams  # of the spectrogram
    waveform: Tensor  # (T,), or (channels, T) of several, at their rate
    verdict: tuple[str, float | None]
    seed: int | None = None


class Preview(L.Callback):
    """From time to time, draws each class from fixed seeds, writes sounds and pictures, logs them, checks them.

    Once, at the start, it does the same with a real clip of each class: as recorded (if the data set keeps its sound),
    at the preset's sample rate (if the sound has a higher one), and through the vocoder, so that a listener knows what
    each of these costs. Files go to `folder`, whose index.html shows them all, and to the loggers that are dashboards.
    Each sound has the class that the judge takes it for.

    Metrics: `val/silent_share` and `val/clipped_share` (sounds under -60 dB, or over full scale before they are scaled
    down for the file) and `val/diversity` (mean distance between generated spectrograms of a class, as a share of that
    between real ones; near 0 is collapse). A bad value is logged as a warning too.

    Args:
        folder: where the files go.
        vocoder: called with params and level_range, makes what turns spectrograms into sound.
        evaluation: gives the data set's judge, if it has been trained; None: sounds are not classified.
        every_n_epochs: epochs from preview to preview; None: by time. The last epoch is shown too.
        share: of the time of the training that previews may take, see `Cadence`.
        n_samples: sounds of each class that are drawn and checked.
        n_shown: how many of these are written and logged.
        seed: of the first sound of each class.
    """

    def __init__(
        self,
        folder: str | Path,
        vocoder: Callable[..., nn.Module],
        *,
        evaluation: Evaluation | None = None,
        every_n_epochs: int | None = None,
        share: float = 0.01,
        n_samples: int = 4,
        n_shown: int = 1,
        seed: int = 0,
    ) -> None:
        if not 1 <= n_shown <= n_samples or n_samples < 2:
            raise ValueError(f"n_shown is {n_shown}, n_samples {n_samples}; 1 <= n_shown <= n_samples, n_samples >= 2")
        self.folder = Path(folder)
        self.make_vocoder, self.evaluation = vocoder, evaluation
        self.cadence = Cadence(every_n_epochs, share=share, first_s=_FIRST_S)
        self.n_samples, self.n_shown, self.seed = n_samples, n_shown, seed
        self.entries: dict[str, dict[str, Entry]] = {}  # by class name and file
        self.judge: Judge | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:  # one process draws
            return
        self.vocoder = self.make_vocoder(pl_module.params, pl_module.level_range)
        if self.evaluation is not None:
            self.judge = self.evaluation.find_judge(trainer.datamodule)
        self.entries = _read_entries(self.folder)  # of the run that goes on
        self.examples = _examples_by_class(trainer.datamodule.train, len(pl_module.class_names), n_each=16)
        self._show_real(trainer, pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.cadence.start()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.cadence.is_due(trainer):
            return
        with self.cadence.timed():
            metrics = self._show_generated(trainer, pl_module) if trainer.is_global_zero else None
            metrics = trainer.strategy.broadcast(metrics)
        log_known(pl_module, {f"val/{name}": value for name, value in metrics.items()})

    def _show_real(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule
        clips = data.val if len(data.val) else data.train
        params, rate = data.params, clips.sound_rate
        exhibits = []
        for label, name in enumerate(pl_module.class_names):
            index = first_clip(clips, label)
            if index is None:
                continue
            spectrogram = clips[index][0]
            rows = []  # kind, title, waveform (1, T) or (1, channels, T), its rate
            if index in clips.with_sound:
                recorded = clips.waveforms([(index, 0.0)])
                rows.append(("real", "as recorded", recorded, rate))
                if rate > params.sample_rate:
                    lower = resample(recorded, rate, params.sample_rate)
                    title = f"at the preset's rate, {params.sample_rate} Hz"
                    rows.append(("real, resampled", title, lower, params.sample_rate))
            vocoded = self.vocoder(spectrogram.unsqueeze(0), seeds=[self.seed])
            rows.append(("real, vocoded", "through the vocoder", vocoded, params.sample_rate))
            for kind, title, waveform, of_rate in rows:
                shown = params_at(params, of_rate)
                (verdict,) = self._classify(waveform, of_rate)
                level = spectrogram
                if kind == "real, vocoded" or shown != params:
                    levels = Spectrogram(shown)(torch.atleast_2d(waveform[0]))
                    level = normalise_channels(levels, shown, data.level_range)
                sample = ShownSound(name, kind, title, level, shown, waveform[0], verdict)
                exhibits.append(self._write(pl_module, sample))
        self._exhibit(trainer, exhibits, epoch=0)

    def _show_generated(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, float]:
        epoch = trainer.current_epoch + 1
        seeds = list(range(self.seed, self.seed + self.n_samples))
        drawn, diversity, exhibits = [], {}, []
        for label, name in enumerate(pl_module.class_names):
            spectrograms = pl_module.sample([label] * self.n_samples, seeds)
            waveforms = self.vocoder(spectrograms, seeds=seeds)
            drawn.append(waveforms)
            if len(self.examples[label]) > 1:
                real_distance = mean_distance(self.examples[label])
                diversity[name] = mean_distance(spectrograms) / max(real_distance, 1e-8)
            params = pl_module.params
            for i, verdict in enumerate(self._classify(waveforms[: self.n_shown], params.sample_rate)):
                of_several = f", seed {seeds[i]}" if self.n_shown > 1 else ""
                shown = (f"epoch {epoch}{of_several}", spectrograms[i], params, waveforms[i], verdict)
                sample = ShownSound(name, "generated", *shown, seed=seeds[i])
                exhibits.append(self._write(pl_module, sample))
        self._exhibit(trainer, exhibits, epoch=epoch)
        metrics = {
            "silent_share": float(silent(torch.cat(drawn)).float().mean()),
            "clipped_share": float(clipped(torch.cat(drawn)).float().mean()),
        }
        if diversity:
            metrics["diversity"] = sum(diversity.values()) / len(diversity)
        log.info("epoch %d: %s", epoch, ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))
        _warn(epoch, metrics, collapsed=[name for name, value in diversity.items() if value < COLLAPSED])
        return metrics

    def _classify(self, waveforms: Tensor, sample_rate: int) -> list[tuple[str, float | None]]:
        """The class that the judge takes each waveform for, and its probability; ("", None) without a judge."""
        return [("", None)] * len(waveforms) if self.judge is None else self.judge.classify(waveforms, sample_rate)

    def _write(self, pl_module: L.LightningModule, sample: ShownSound) -> Exhibit:
        """Writes one sound and its picture."""
        folder, params, seed = class_folders(pl_module.class_names)[sample.class_name], sample.params, sample.seed
        title = sample.title
        stem = f"{folder}/{(sample.kind if seed is None else title).replace(', ', '_').replace(' ', '_')}"
        place = stem if seed is None else f"{folder}/seed_{seed}" if self.n_shown > 1 else folder
        heard_as, probability = sample.verdict
        verdict = f"classified as {heard_as} ({100 * probability:.0f} %)" if heard_as else ""

        sound, picture, waveform = self.folder / f"{stem}.wav", self.folder / f"{stem}.png", sample.waveform
        if waveform.abs().max() > 1:  # here, because `_warn` says it once for all sounds
            waveform = scale_to_peak(waveform, 1.0)
        note_results(self.folder, [f"{stem}.wav"])
        save_wav(sound, waveform, params.sample_rate)
        above = f"{sample.class_name}, {title}\n{verdict}".strip()
        write_bytes(picture, to_figure(sample.spectrogram, params, pl_module.level_range, title=above))
        caption = f"{title}, {verdict}" if verdict else title
        entries = self.entries.setdefault(sample.class_name, {})
        entries[stem] = Entry(caption, f"{stem}.png", f"{stem}.wav")
        files = (sound, picture, waveform, params.sample_rate)
        return Exhibit(sample.class_name, sample.kind, seed, place, caption, *files, *sample.verdict)

    def _exhibit(self, trainer: L.Trainer, exhibits: list[Exhibit], *, epoch: int) -> None:
        _write_entries(self.folder, self.entries)
        write_gallery(
            self.folder / "index.html",
            title="Training preview",
            note="Real clips as recorded, what the preset and the vocoder leave of them, and sounds drawn during "
            "training from fixed seeds.",
            sections={name: list(entries.values()) for name, entries in self.entries.items()},
            pixelated=False,
        )
        for dashboard in dashboards(trainer):
            dashboard.log_exhibits(exhibits, epoch=epoch)


def _write_entries(folder: Path, entries: Mapping[str, Mapping[str, Entry]]) -> None:
    kept = {name: {stem: asdict(entry) for stem, entry in of_class.items()} for name, of_class in entries.items()}
    write_json(folder / _ENTRIES_NAME, kept, indent=1)


def _read_entries(folder: Path) -> dict[str, dict[str, Entry]]:
    """What index.html lists already; nothing in a new folder."""
    path = folder / _ENTRIES_NAME
    kept = json.loads(path.read_text()) if path.is_file() else {}
    return {name: {stem: Entry(**entry) for stem, entry in of_class.items()} for name, of_class in kept.items()}


def mean_distance(spectrograms: Tensor) -> float:
    """Returns the mean distance between all pairs of (B, channels, n_mels, n_frames), as a root mean square; B >= 2."""
    flat = spectrograms.flatten(1)
    return float(torch.pdist(flat).mean()) / flat.shape[1] ** 0.5


def first_clip(clips: SpectrogramDataset, label: int) -> int | None:
    """The first clip of a class, of those with sound if there are such."""
    of_class = (clips.labels == label).nonzero()[:, 0]
    with_sound = of_class[torch.isin(of_class, clips.with_sound)]
    first = [*with_sound[:1].tolist(), *of_class[:1].tolist()]
    return first[0] if first else None


def _examples_by_class(clips: SpectrogramDataset, n_classes: int, *, n_each: int) -> list[Tensor]:
    chosen = [(clips.labels == label).nonzero()[:n_each, 0].tolist() for label in range(n_classes)]
    return [torch.stack([clips[index][0] for index in indices]) for indices in chosen]


def _warn(epoch: int, metrics: dict[str, float], collapsed: list[str]) -> None:
    if metrics["silent_share"] > 0.1:
        log.warning("epoch %d: %.0f %% of the sounds are silent", epoch, 100 * metrics["silent_share"])
    if metrics["clipped_share"] > 0.1:
        log.warning("epoch %d: %.0f %% of the sounds exceed full scale", epoch, 100 * metrics["clipped_share"])
    if collapsed:
        log.warning("epoch %d: nearly equal sounds for every seed of %s", epoch, ", ".join(collapsed))
