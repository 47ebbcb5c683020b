"""The full report of a generator: rows of sounds, figures of each, warnings, and examples to listen to."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from rich.progress import track
from torch import Tensor, nn

from specgan.audio import resample
from specgan.evaluation import metrics
from specgan.evaluation.clips import MeasuredClips
from specgan.evaluation.distances import balanced, distances, embedded_distances
from specgan.evaluation.fidelity import losses, lost_band
from specgan.evaluation.fitting import fit_classifier
from specgan.evaluation.judge import Judge, JudgedSounds, JudgeRecipe
from specgan.evaluation.metrics import Figure, share
from specgan.evaluation.page import Example
from specgan.spectrogram import Spectrogram, normalise_channels, params_at

POOR_ACCURACY = 0.9  # of the judge on real clips, below which its verdicts mean little
FEW_SOUNDS = 100  # in a row, below which its figures are rough

_COPY_QUANTILE = 0.05  # of the real clips, which are nearer to a training clip than a near-copy may be
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
    sample: Sampler, judge: Judge, clips: MeasuredClips, recipe: JudgeRecipe, settings: ReportSettings
) -> tuple[Report, Examples]:
    """Measures a generator in full.

    Args:
        sample: maps class indices and seeds to spectrograms (B, channels, n_mels, n_frames).
        judge: of the data set.
        clips: of the data set.
        recipe: of the judge.
        settings: what is measured.
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
    copies, originals = _copies(measured, clips, split)
    figures = _figures(measured, clips, recipe, settings)
    for row, copy_share in copies.items():
        figures[row]["near_copy_share"] = copy_share
    accuracy = judge.accuracy[split if clips.has_sounds else f"vocoded_{split}"]
    report: Report = {
        "dataset": str(data.dataset_dir),
        "seed": recipe.seed,
        "split": split,
        "class_names": list(names),
        "sample_rate": clips.sample_rate,
        "spectrogram_rate": data.params.sample_rate,
        "judge": {
            **{f"{name}_accuracy": figure for name, figure in judge.accuracy.items()},
            "trusted": accuracy["value"] >= POOR_ACCURACY,
        },
        "rows": figures,
        "per_class": {row: _per_class(sounds, names) for row, sounds in measured.rows.items()},
        "confusion": {row: confusion(sounds, len(names)) for row, sounds in measured.rows.items()},
        "warnings": [*lost_band(figures, data.params.sample_rate), *_warnings(figures, measured.real, split)],
    }
    return report, _examples(measured, clips, originals, settings)


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


def _copies(measured: Measured, clips: MeasuredClips, split: str) -> tuple[dict[str, Figure], Tensor]:
    """The share of spectrograms that are nearer to a training clip than nearly all real ones are.

    Not of sounds: what the vocoder changes would hide copies. Also the index of the training clip that is nearest to
    each generated spectrogram.
    """
    data = clips.data

    def contours(spectrograms: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(spectrograms, 32).flatten(1)

    reference = contours(clips.spectrograms(data.train))
    real, _ = metrics.nearest(contours(clips.spectrograms(data.test if split == "test" else data.val)), reference)
    generated, originals = metrics.nearest(contours(measured.spectrograms), reference)
    limit = torch.quantile(real, _COPY_QUANTILE)
    return {measured.real: share(real < limit), "generated": share(generated < limit)}, originals


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


def _warnings(figures: Mapping[str, Mapping[str, Figure]], real: str, split: str) -> list[str]:
    warnings = []
    if real != "real":
        warnings.append(
            "This data set keeps no sounds of its recordings, so real clips were taken through the vocoder: what the "
            "vocoder costs, and how far generated sounds are from recorded ones, is not known. Make the data set with "
            "keep_sounds to know it."
        )
    distance = figures[real].get("frechet_distance")
    if distance is None:
        warnings.append(f"There are too few real {split} clips to measure distances from.")
    elif distance["n"] < FEW_SOUNDS:
        warnings.append(
            f"Distances are measured on {distance['n']} sounds, because there are no more real {split} clips: they are "
            "rough; compare them with those of the real clips, not with other data sets."
        )
    generated = figures["generated"]
    if generated["silent_share"]["value"] > 0.1:
        warnings.append("More than a tenth of the generated sounds are silent.")
    if generated["clipped_share"]["value"] > 0.1:
        warnings.append("More than a tenth of the generated sounds exceed full scale; files are scaled down.")
    if "diversity" in generated and generated["diversity"]["value"] < 0.5:
        warnings.append("Generated sounds of a class differ less than half as much as real ones: it collapses.")
    if generated["near_copy_share"]["low"] > figures[real]["near_copy_share"]["high"]:
        warnings.append("Many generated sounds are nearly copies of training clips; listen to the nearest ones.")
    return warnings


def _examples(measured: Measured, clips: MeasuredClips, originals: Tensor, settings: ReportSettings) -> Examples:
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

    def generated(index: int) -> Example:
        origin = int(originals[index])
        waveform = train.waveforms[origin]
        nearest = Example(names[int(train.labels[origin])], waveform, picture(waveform))
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
