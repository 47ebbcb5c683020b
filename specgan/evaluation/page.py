"""The evaluation of a generator as one page to read, look at and listen to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from specgan.audio import encode_flac
from specgan.evaluation.content import CurvePoint, EvaluationReport, Figure, JudgeQuality
from specgan.evaluation.curve import draw_curve
from specgan.evaluation.glossary import POINTS, RATIOS, number, percent, percent_with_interval
from specgan.evaluation.tables import COLUMNS, class_rows, known, matrices, metric_rows
from specgan.files import write_bytes
from specgan.pictures.figures import to_overview, to_png
from specgan.pictures.pages import data_uri, write_page

ROWS = {
    "real": "Real {split} clips, as recorded",
    "resampled": "The same at the preset's rate",
    "vocoded": "The same through the vocoder",
    "generated": "Generated",
}

_TEMPLATE = Path(__file__).parent / "templates" / "report.html"


@dataclass(frozen=True)
class Example:
    """One sound to hear and see.

    Args:
        caption: what tells it from the others, e.g. "seed 7, classified as snare".
        waveform: (T,) or (channels, T) float, full scale 1.0; beyond it the sound is turned down, and the page says so.
        spectrogram: (n_mels, n_frames) or (channels, n_mels, n_frames) in [-1, 1].
        nearest: the training clips that are most like it, by one distance or another, shown beside it.
    """

    caption: str
    waveform: Tensor
    spectrogram: Tensor
    nearest: "Sequence[Example]" = ()


def write_report(
    path: str | Path,
    report: EvaluationReport,
    *,
    examples: Mapping[str, Mapping[str, Sequence[Example]]],
    sample_rate: int,
) -> None:
    """Writes an evaluation as one HTML file that holds its sounds and pictures and needs nothing else.

    Args:
        path: the page; its folder is created.
        report: the content of report.json. What is missing is left out or shown as a dash.
        examples: sounds by class and by row, a key of `ROWS`.
        sample_rate: of the sounds, Hz.
    Raises:
        ValueError: a sound is empty or holds NaN or infinite samples; nothing is written.
    """
    names, rows, split = report["class_names"], report["rows"], report.get("split", "test")
    labels = {row: label.format(split=split) for row, label in ROWS.items() if row in rows or row != "resampled"}
    write_page(
        path,
        _TEMPLATE,
        checkpoint=report["checkpoint"],
        headline=_headline(rows, f"real {split} clips"),
        is_judge_trusted=report["judge"]["trusted"],
        judge_accuracy=_judge_accuracy(report["judge"]),
        judge_folds=_judge_folds(report["judge"]),
        warnings=report.get("warnings", []),
        labels=labels,
        columns={row: labels[row] for row in COLUMNS if row in labels},
        metrics=metric_rows(rows),
        points=POINTS,
        ratios=RATIOS,
        classes=class_rows(report.get("per_class", {}), names, sections=list(examples)),
        class_names=list(names),
        matrices=matrices(report.get("confusion", {}), names, labels),
        curves=_curves(report.get("curve", [])),
        sections=[_section(name, of_class, labels, sample_rate) for name, of_class in examples.items()],
        settings=_settings(report, labels),
    )


def write_overview(
    path: str | Path, examples: Mapping[str, Mapping[str, Sequence[Example]]], *, kinds: Sequence[str], n_each: int = 3
) -> None:
    """Writes the spectrograms of some rows of a report as one PNG, a column for each class.

    Args:
        path: the picture; its folder is created.
        examples: as in `write_report`.
        kinds: rows, keys of `ROWS`.
        n_each: spectrograms of each row and class at most.
    """
    rows = []
    for kind in kinds:
        for i in range(n_each):
            shown = [of_class.get(kind, [])[i : i + 1] for of_class in examples.values()]
            rows.append((kind, [some[0].spectrogram if some else None for some in shown]))
    write_bytes(path, to_overview(rows, list(examples)))


# What the template shows, in its order. All texts are escaped there.


def _headline(rows: Mapping[str, Mapping[str, Figure]], real_clips: str) -> str:
    """What was found, in a sentence or two; real clips beside it, because no figure means much alone."""
    sentences = []
    accuracy, real_accuracy = (known(rows, row, "conditional_accuracy") for row in ("generated", "real"))
    if accuracy:
        beside = f" (real clips: {percent(real_accuracy['value'])})" if real_accuracy else ""
        share = percent(accuracy["value"])
        sentences.append(f"{share} of the generated sounds are classified as their own class{beside}.")
    distance, real_distance = (known(rows, row, "frechet_distance") for row in ("generated", "real"))
    if distance and real_distance and real_distance["value"] > 0:
        ratio = number(distance["value"] / real_distance["value"], digits=2)
        sentences.append(f"Their Fréchet distance is {ratio} times that of {real_clips}.")
    return " ".join(sentences) or "The generated sounds were not measured."


def _judge_accuracy(judge: JudgeQuality) -> str:
    clips = {
        "of the validation clips": judge.get("val_accuracy"),
        "of the test clips": judge.get("test_accuracy"),
        "of the test clips through the vocoder": judge.get("vocoded_test_accuracy"),
    }
    return ", ".join(f"{percent_with_interval(accuracy)} {text}" for text, accuracy in clips.items() if accuracy)


def _judge_folds(judge: JudgeQuality) -> str:
    """What cross-validation says of the judge, "" if there was none."""
    accuracy, n_folds = judge.get("cross_validated_accuracy"), judge.get("n_folds")
    if not accuracy:
        return ""
    return (
        f"Accuracy by {n_folds}-fold cross-validation: {percent_with_interval(accuracy)}. So many of all "
        f"{accuracy['n']} recordings are classified correctly by classifiers that were trained as the judge, each on "
        "the other recordings; it is the figure to go by, because the splits for validation and test are small."
    )


def _curves(curve: Sequence[CurvePoint]) -> dict[str, str]:
    """SVGs by label."""
    drawn = {
        "Fréchet distance": draw_curve(curve, "fad", "Fréchet distance"),
        "Conditional accuracy": draw_curve(curve, "conditional_accuracy", "conditional accuracy", is_share=True),
    }
    return {label: svg for label, svg in drawn.items() if svg}


@dataclass(frozen=True)
class _Sound:
    """An example with its files as data URIs."""

    caption: str
    picture: str
    audio: str
    nearest: "Sequence[_Sound]" = ()


@dataclass(frozen=True)
class _Section:
    """The sounds of a class by the label of their row."""

    name: str
    sounds: dict[str, list[_Sound]]


def _section(name: str, rows: Mapping[str, Sequence[Example]], labels: Mapping[str, str], sample_rate: int) -> _Section:
    shown = {label: [_sound(example, sample_rate) for example in rows.get(row, [])] for row, label in labels.items()}
    return _Section(name, {label: sounds for label, sounds in shown.items() if sounds})


def _sound(example: Example, sample_rate: int, *, before: str = "") -> _Sound:
    caption, sound = before + example.caption, encode_flac(example.waveform, sample_rate)
    peak = float(example.waveform.detach().abs().max())
    if peak > 1:
        caption += f" (turned down to full scale, its peak was {number(peak)})"
    return _Sound(
        caption,
        picture=data_uri("image/png", to_png(example.spectrogram.detach())),
        audio=data_uri("audio/flac", sound),
        nearest=[_sound(clip, sample_rate, before="nearest training clip: ") for clip in example.nearest],
    )


def _settings(report: EvaluationReport, labels: Mapping[str, str]) -> dict[str, str | int]:
    settings: dict[str, str | int] = {
        "Checkpoint": report["checkpoint"],
        "Dataset": report["dataset"],
        "Classes": len(report["class_names"]),
        "Steps of training": report["n_steps"],
        "Seed": report["seed"],
    }
    if "sample_rate" in report:
        settings["Sample rate of the judge and the sounds"] = f"{report['sample_rate']} Hz"
    if "spectrogram_rate" in report:
        settings["Sample rate of the preset"] = f"{report['spectrogram_rate']} Hz"
    for row, label in labels.items():
        figures = report["rows"].get(row, {}).values()
        settings[f"Sounds: {label}"] = max((figure["n"] for figure in figures), default=0)
    return settings
