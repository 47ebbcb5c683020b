"""The full report of a generator: rows of sounds, figures of each, warnings, and examples to listen to."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from rich.progress import track
from torch import Tensor

from specgan.audio import resample
from specgan.evaluation import metrics
from specgan.evaluation.clips import MeasuredClips
from specgan.evaluation.copies import DISTANCES, Copies, Sounds, find_copies
from specgan.evaluation.cross_validation import CrossValidation
from specgan.evaluation.distances import balanced, distances, embedded_distances
from specgan.evaluation.fidelity import losses, lost_band
from specgan.evaluation.fitting import fit_classifier
from specgan.evaluation.judge import Judge, JudgedSounds, JudgeRecipe
from specgan.evaluation.metrics import Figure, share
from specgan.evaluation.page import Example
from specgan.evaluation.remarks import JudgeAccuracy, remarks
from specgan.spectrogram import Spectrogram, normalise_channels, params_at

POOR_ACCURACY = 0.9  # of the judge on real clips, below which its verdicts mean little
_EMBEDDED_TOGETHER = 32  # sounds

Sampler = Callable[[Sequence[int], Sequence[int]], Tensor]
Report = dict[str, object]  # see docs/evaluation.md
Figures = dict[str, dict[str, Figure]]  # by row and name
Examples = dict[str, dict[str, list[Example]]]  # by class and row


class Embedder(Protocol):
    """A model of sound whose features the second Fréchet distance is measured on."""

    sample_rate: int

    def embed(self, waveforms: list[Tensor]) -> Tensor:
        """Maps waveforms (T,) at `sample_rate` to features (N, d)."""


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What a report measures; see `specgan.evaluation.evaluator.Evaluation`.

    Raises:
        ValueError: a setting that is impossible.
    """

    n_samples: int
    n_shown: int
    n_neighbors: int
    classifier_steps: int
    split: str
    listening: bool
    make_embedder: Callable[[], Embedder] | None

    def __post_init__(self) -> None:
        if self.n_samples <= self.n_neighbors:
            raise ValueError(f"n_samples is {self.n_samples}; more than n_neighbors={self.n_neighbors}, better 50")
        if self.split not in ("test", "val"):
            raise ValueError(f"split is {self.split!r}; test or val")
        if self.listening and self.n_shown < 1:
            raise ValueError(f"n_shown is {self.n_shown}; at least 1 sound of each class for listening")


@dataclass(frozen=True)
class Measured:
    """The sounds of a report.

    Args:
        rows: "real" (only if the data set has sounds), "resampled" (only if that is not the same), "vocoded" and
            "generated".
        spectrograms: of the generated sounds, (N, channels, n_mels, n_frames).
        seeds: of the generated sounds.
        train: the clips that were trained on.
        reference: those that distances are measured from: also what `max_clips_per_class` left out.
    """

    rows: dict[str, JudgedSounds]
    spectrograms: Tensor
    seeds: list[int]
    train: JudgedSounds
    reference: JudgedSounds

    @property
    def real(self) -> str:
        """The row by which the generated sounds are judged."""
        return "real" if "real" in self.rows else "vocoded"


def make_report(
    sample: Sampler,
    judge: Judge,
    clips: MeasuredClips,
    recipe: JudgeRecipe,
    settings: ReportSettings,
    *,
    folds: CrossValidation | None = None,
) -> tuple[Report, Examples]:
    """Measures a generator in full.

    Args:
        sample: maps class indices and seeds to spectrograms (B, channels, n_mels, n_frames).
        judge: of the data set.
        clips: of the data set.
        recipe: of the judge.
        settings: what is measured.
        folds: the judge's accuracy where the split is too small to tell it; None: the split tells it.
    Returns:
        What `specgan.evaluation.page.write_report` takes: the figures and the sounds to show.
    Raises:
        ValueError: the split to compare with is empty.
    """
    data, split = clips.data, settings.split
    real_clips = data.test if split == "test" else data.val
    if not len(real_clips):
        raise ValueError(
            f"the {split} split of {data.dataset_dir} is empty: nothing to compare with; make one "
            "(splits=[80,10,10]), or evaluation.split=val"
        )
    names = data.class_names
    measured = _measured(sample, judge, clips, settings, seed=recipe.seed)
    copies = _copies(measured, clips, split)
    figures = _figures(measured, clips, recipe, settings)
    figures[measured.real] |= copies.real
    figures["generated"] |= copies.generated
    labels = measured.rows[measured.real].labels
    counts = dict(zip(names, torch.bincount(labels, minlength=len(names)).tolist(), strict=True))
    accuracy, found = _accuracy(judge, clips, labels, split), {}
    if folds is not None:
        accuracy = JudgeAccuracy(folds.accuracy, folds.chance, folds.n_folds)
        found = {"cross_validated_accuracy": folds.accuracy, "n_folds": folds.n_folds}
    report: Report = {
        "dataset": str(data.dataset_dir),
        "seed": recipe.seed,
        "split": split,
        "class_names": list(names),
        "sample_rate": clips.sample_rate,
        "spectrogram_rate": data.params.sample_rate,
        "judge": {
            **{f"{name}_accuracy": figure for name, figure in judge.accuracy.items()},
            **found,
            "chance": accuracy.chance,
            "trusted": accuracy.figure["value"] >= POOR_ACCURACY,
        },
        "rows": figures,
        "per_class": {row: _per_class(sounds, names) for row, sounds in measured.rows.items()},
        "confusion": {row: confusion(sounds, len(names)) for row, sounds in measured.rows.items()},
        "unmeasured_classes": [name for name, n in counts.items() if not n],
        "warnings": [
            *lost_band(figures, data.params.sample_rate),
            *remarks(figures, real=measured.real, split=split, n_of_class=counts, accuracy=accuracy, copies=copies),
        ],
    }
    return report, _examples(measured, clips, copies.originals, settings)


def _accuracy(judge: Judge, clips: MeasuredClips, labels: Tensor, split: str) -> JudgeAccuracy:
    """How often the judge is right on the real clips of a split, which have these labels."""
    chance = float(torch.bincount(labels).max() / len(labels))
    return JudgeAccuracy(judge.accuracy[split if clips.has_sounds else f"vocoded_{split}"], chance)


def _measured(sample: Sampler, judge: Judge, clips: MeasuredClips, settings: ReportSettings, *, seed: int) -> Measured:
    data = clips.data
    n_classes, n = len(data.class_names), settings.n_samples
    labels = torch.arange(n_classes).repeat_interleave(n)
    seeds = [seed + i for _ in range(n_classes) for i in range(n)]
    spectrograms = sample(labels.tolist(), seeds)
    generated = judge.judge(clips.vocode(spectrograms, seeds), labels)
    real_clips = data.test if settings.split == "test" else data.val
    real_labels = clips.labels(real_clips)
    rows = {"vocoded": judge.judge(clips.vocoded(real_clips), real_labels), "generated": generated}
    if clips.is_band_cut:
        rows = {"resampled": judge.judge(clips.resampled(real_clips), real_labels), **rows}
    if clips.has_sounds:
        rows = {"real": judge.judge(clips.waveforms(real_clips), real_labels), **rows}
    train = reference = judge.judge(clips.waveforms(data.train), clips.labels(data.train))
    if data.whole_train is not data.train:
        reference = judge.judge(clips.waveforms(data.whole_train), clips.labels(data.whole_train))
    return Measured(rows, spectrograms, seeds, train, reference)


def _figures(measured: Measured, clips: MeasuredClips, recipe: JudgeRecipe, settings: ReportSettings) -> Figures:
    rows, reference = measured.rows, measured.reference
    figures: Figures = {
        row: {
            "conditional_accuracy": share(sounds.is_right),
            "silent_share": share(metrics.silent(sounds.waveforms)),
            "clipped_share": share(metrics.clipped(sounds.waveforms)),
        }
        for row, sounds in rows.items()
    }
    measure = partial(distances, real=measured.real, n_neighbors=settings.n_neighbors, seed=recipe.seed)
    for row, found in measure(rows, reference).items():
        figures[row] |= found
    if clips.has_sounds:
        recorded = rows["real"].waveforms
        for row in rows.keys() - {"real", "generated"}:  # the others have no recording of their own
            figures[row] |= losses(recorded, rows[row].waveforms, sample_rate=clips.sample_rate)
    if settings.classifier_steps:
        for row, score in _classification_scores(measured, clips, recipe, settings).items():
            figures[row]["classification_accuracy_score"] = score
    if settings.make_embedder is not None:
        embed = partial(_embed, embedder=settings.make_embedder(), sample_rate=clips.sample_rate)
        for row, distance in embedded_distances(rows, reference, embed, seed=recipe.seed).items():
            if math.isfinite(distance["value"]):
                figures[row]["muq_frechet_distance"] = distance
    return figures


def _copies(measured: Measured, clips: MeasuredClips, split: str) -> Copies:
    """By spectrograms, and by features of sounds that all came through the vocoder, so that it does not hide copies."""
    data = clips.data
    real = clips.spectrograms(data.test if split == "test" else data.val)
    return find_copies(
        Sounds(measured.spectrograms, measured.rows["generated"].features),
        Sounds(real, measured.rows["vocoded"].features),
        Sounds(clips.spectrograms(data.train), measured.train.features),
    )


def _classification_scores(
    measured: Measured, clips: MeasuredClips, recipe: JudgeRecipe, settings: ReportSettings
) -> dict[str, Figure]:
    """The accuracy on real clips of a classifier that was trained on generated ones, and on as many real ones.

    Source: Ravuri, Vinyals, "Classification accuracy score for conditional generative models", 2019.
    """
    real, train, seed = measured.rows[measured.real], measured.train, recipe.seed
    counts = torch.bincount(train.labels, minlength=len(clips.data.class_names)).clamp_max(settings.n_samples)
    scores = {}
    for row, sounds in ((measured.real, train), ("generated", measured.rows["generated"])):
        chosen = sounds[balanced(sounds.labels, counts, seed=seed)]
        classifier = recipe.new_classifier(clips.data, n_steps=settings.classifier_steps)
        fitting = recipe.fitting(clips.data)
        fit_classifier(classifier, chosen.waveforms, chosen.labels, seed=seed, device=clips.device, fitting=fitting)
        scores[row] = share(classifier.predict(real.waveforms) == real.labels)
    return scores


def _embed(waveforms: Tensor, *, embedder: Embedder, sample_rate: int) -> Tensor:
    features = []
    for batch in track(waveforms.split(_EMBEDDED_TOGETHER), description="MuQ", transient=True):
        mono = [torch.atleast_2d(waveform).mean(dim=0, keepdim=True) for waveform in batch]
        features.append(embedder.embed([resample(w, sample_rate, embedder.sample_rate)[0] for w in mono]))
    return torch.cat(features)


def confusion(sounds: JudgedSounds, n_classes: int) -> list[list[int]]:
    """How many sounds of each class (row) the judge takes for which (column)."""
    pairs = sounds.labels * n_classes + sounds.predictions
    return torch.bincount(pairs, minlength=n_classes**2).view(n_classes, n_classes).tolist()


def _per_class(sounds: JudgedSounds, names: Sequence[str]) -> dict[str, Figure]:
    of_class = {name: sounds.is_right[sounds.labels == i] for i, name in enumerate(names)}
    return {name: share(is_right) for name, is_right in of_class.items() if len(is_right)}


def _examples(
    measured: Measured, clips: MeasuredClips, originals: dict[str, Tensor], settings: ReportSettings
) -> Examples:
    data, rows, train = clips.data, measured.rows, measured.train
    # With all of the recordings' band, so that what is missing of it is seen to be missing.
    params, names = params_at(data.params, clips.sample_rate), data.class_names
    transform = Spectrogram(params)

    def picture(waveform: Tensor) -> Tensor:
        return normalise_channels(transform(torch.atleast_2d(waveform)), params, data.level_range)

    def verdict(sounds: JudgedSounds, index: int) -> str:
        return "" if sounds.is_right[index] else f", classified as {names[int(sounds.predictions[index])]}"

    def real(row: str, index: int) -> Example:
        waveform = rows[row].waveforms[index]
        return Example(f"{settings.split} clip {index}{verdict(rows[row], index)}", waveform, picture(waveform))

    def original(index: int, by: Sequence[str]) -> Example:
        waveform = train.waveforms[index]
        how = "all distances" if len(by) == len(originals) else " and ".join(by)
        return Example(f"{names[int(train.labels[index])]}, by {how}", waveform, picture(waveform))

    def generated(index: int) -> Example:
        ways: dict[int, list[str]] = {}
        for name, places in originals.items():
            ways.setdefault(int(places[index]), []).append(DISTANCES[name])
        nearest = [original(origin, by) for origin, by in ways.items()]
        caption = f"seed {measured.seeds[index]}{verdict(rows['generated'], index)}"
        sound = rows["generated"].waveforms[index]
        spectrogram = picture(sound) if clips.is_band_cut else measured.spectrograms[index]
        return Example(caption, sound, spectrogram, nearest=nearest)

    def shown(row: str, label: int) -> list[int]:
        return (rows[row].labels == label).nonzero()[: settings.n_shown, 0].tolist()

    return {
        name: {row: [generated(i) if row == "generated" else real(row, i) for i in shown(row, label)] for row in rows}
        for label, name in enumerate(names)
    }
