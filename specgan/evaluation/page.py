"""What the evaluation of a generator found, as one page to read, look at and listen to."""

import io
import math
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from specgan.audio import encode_flac
from specgan.files import atomic_path
from specgan.pictures.figures import to_overview, to_png
from specgan.pictures.gallery import STYLE, player

ROWS = {"real": "Real {split} clips", "vocoded": "The same through the vocoder", "generated": "Generated"}
COLUMNS = ("generated", "real", "vocoded")  # of tables: first what the page is about, a phone shows little more


@dataclass(frozen=True)
class Metric:
    """How a metric is shown. `best` is "high", "low" or "like real"; a share is shown in percent.

    Without `has_ratio` real clips may have about 0, and a multiple of that says nothing.
    """

    label: str
    best: str
    about: str
    is_share: bool = False
    has_ratio: bool = True


# fmt: off
METRICS = {
    "conditional_accuracy": Metric(
        "Heard as asked for", "high", "Of all sounds, how many the judge, a classifier trained on real clips, hears as "
        "the class that was asked for. As many as of the real clips is good.", is_share=True),
    "frechet_distance": Metric(
        "Fréchet distance", "low", "How far these sounds, taken together, are from the training clips in what the "
        "judge hears: their average and their spread. 0 is no difference; the real clips show how low it can get."),
    "muq_frechet_distance": Metric(
        "Fréchet distance (MuQ)", "low", "The same distance in what MuQ hears, a model of music that was trained "
        "elsewhere and does not share the judge's habits."),
    "kernel_distance": Metric(
        "Kernel distance", "low", "The same question as the Fréchet distance, answered in a way that few sounds do not "
        "bias. About 0 is no difference; it may fall a little below.", has_ratio=False),
    "inception_score": Metric(
        "Inception score", "high", "How sure the judge is of each sound, and how evenly the classes come up. From 1 to "
        "the number of classes; it says nothing of variety within a class."),
    "precision": Metric(
        "Precision", "high", "Of all sounds, how many lie where real ones lie: are they plausible?", is_share=True),
    "recall": Metric(
        "Recall", "high", "Of all real sounds, how many lie where these lie: is all the variety there?", is_share=True),
    "density": Metric(
        "Density", "high", "As precision, but counts how many real sounds each one is near. About 1 for real clips; "
        "above 1 where sounds crowd in the most typical places."),
    "coverage": Metric(
        "Coverage", "high", "Of all real sounds, how many have at least one of these near them. Low where kinds of "
        "sound are missing.", is_share=True),
    "diversity": Metric(
        "Diversity", "like real", "How different the sounds of a class are from each other, as a share of the same for "
        "real ones. 1 is good; near 0 every sound is the same."),
    "classification_accuracy_score": Metric(
        "Teaches a classifier", "high", "A classifier that learned from these sounds alone hears so many real "
        "clips right. High only if the sounds are right, varied and realistic at once.", is_share=True),
    "near_copy_share": Metric(
        "Near copies", "low", "Of all sounds, how many are nearer to a training clip than real clips nearly ever are. "
        "Far more than of the real clips: the generator learned clips by heart.", is_share=True),
    "silent_share": Metric("Silent", "low", "Of all sounds, how many cannot be heard. 0 % is good.", is_share=True),
    "clipped_share": Metric(
        "Over full scale", "low", "Of all sounds, how many are louder than a file can hold, and would distort. They "
        "are turned down here. 0 % is good.", is_share=True),
}
# fmt: on

PERCENT = "\N{NO-BREAK SPACE}%"
# From which loss against real clips a figure is no longer good, and from which it is poor.
POINTS = (0.05, 0.2)  # of a share
RATIOS = {"low": (1.5, 3), "high": (1.2, 2), "like real": (1.2, 2)}
GRADES = ("good", "middling", "poor")

_PAGE_STYLE = """
main { max-width: 72rem; margin: auto; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.35; }
h2 { margin-top: 2.5rem; }
small, .dim, dt { color: #aaa; font-weight: normal; }
a { color: #f4a582; }
.note { border-left: .3rem solid #facc15; background: #292536; padding: .6rem 1rem; color: #eee; }
.bad { border-color: #f87171; background: #4c1d24; }
.scroll { overflow: auto; max-height: 85vh; max-width: max-content; overflow-wrap: normal; }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: right; vertical-align: top; border-bottom: 1px solid #34304a; }
th { background: #201d2c; font-weight: 600; }
thead th { position: sticky; top: 0; z-index: 1; }
tbody th, th:first-child { position: sticky; left: 0; text-align: left; min-width: 7rem; max-width: 20rem; }
tbody th { overflow-wrap: anywhere; }
thead th:first-child { z-index: 2; }
td, th small { white-space: nowrap; }
td small, th small { display: block; }
summary { cursor: pointer; }
.matrix { margin-bottom: 1.5rem; }
details p { margin: .4rem 0; font-size: .9rem; font-weight: normal; }
.good { color: #5eead4; } .middling { color: #fde047; } .poor { color: #fca5a5; }
.heat { font-size: .85rem; }
.heat th, .heat td { padding: .25rem .4rem; }
.heat td { text-align: center; min-width: 1.6rem; background: rgb(185 70 20 / var(--heat, 0)); }
.heat td.right { background: rgb(15 118 110 / var(--heat, 0)); }
.heat thead th { vertical-align: bottom; }
.heat thead span { writing-mode: vertical-rl; max-height: 9rem; overflow-wrap: anywhere; }
.figures figure { width: 10rem; min-width: 0; }
.pair { display: flex; gap: .5rem; padding: .5rem; background: #201d2c; border-radius: .5rem; max-width: 100%; }
img { aspect-ratio: 1; image-rendering: pixelated; }
svg { width: 30rem; max-width: 100%; height: auto; }
@media (max-width: 40rem) { th, td { padding: .35rem .4rem; } }
dl { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: .3rem 1rem; } dd { margin: 0; }
"""

# The policy keeps browsers from fetching anything, whatever the report may hold.
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="dark">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:">
<title>Evaluation of {checkpoint}</title>
<style>
{style}
</style>
<main>
<p>Evaluation of {checkpoint}</p>
{body}
</main>
</html>
"""


@dataclass(frozen=True)
class Example:
    """One sound to hear and see.

    Args:
        caption: what tells it from the others, e.g. "seed 7, heard as snare".
        waveform: (T,) float, full scale 1.0; beyond it the sound is turned down, and the page says so.
        spectrogram: (n_mels, n_frames) in [-1, 1].
        nearest: the training clip that is most like it, shown beside it.
    """

    caption: str
    waveform: Tensor
    spectrogram: Tensor
    nearest: "Example | None" = None


def write_report(
    path: str | Path,
    report: Mapping[str, Any],
    *,
    examples: Mapping[str, Mapping[str, Sequence[Example]]],
    sample_rate: int,
) -> None:
    """Writes an evaluation as one HTML file that holds its sounds and pictures and needs nothing else.

    Args:
        path: the page; its folder is created.
        report: the content of report.json. A metric, a row of them, `per_class`, `confusion`, `warnings`, `curve` and
            `split` (then "test") may be missing; what is missing is left out or shown as a dash.
        examples: sounds by class and by row, a key of `ROWS`.
        sample_rate: of the sounds, Hz.
    Raises:
        ValueError: a sound is empty or holds NaN or infinite samples; nothing is written.
    """
    names, rows, confusion = report["class_names"], report["rows"], report.get("confusion", {})
    labels = {row: label.format(split=escape(str(report.get("split", "test")))) for row, label in ROWS.items()}
    parts = [
        f"<h1>{escape(_headline(rows, labels))}</h1>",
        _notes(report["judge"], report.get("warnings", [])),
        _metrics_table(rows, labels),
        _class_table(report.get("per_class", {}), names, labels, anchors=list(examples)),
        *_confusions(confusion, names, labels),
        _curve(report.get("curve", [])),
        *(_class_section(i, name, examples[name], labels, sample_rate) for i, name in enumerate(examples)),
        _settings(report, labels),
    ]
    checkpoint = escape(str(report["checkpoint"]))
    page = _PAGE.format(checkpoint=checkpoint, style=STYLE + _PAGE_STYLE, body="\n".join(filter(None, parts)))
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")  # a class name need not be UTF-8


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
    with atomic_path(path) as temporary:
        temporary.write_bytes(to_overview(rows, list(examples)))


def _headline(rows: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """What was found, in a sentence or two; real clips beside it, because no figure means much alone."""
    sentences = []
    heard, real_heard = (_known(rows, row, "conditional_accuracy") for row in ("generated", "real"))
    if heard:
        beside = f" (real clips: {_percent(real_heard['value'])})" if real_heard else ""
        share = _percent(heard["value"])
        sentences.append(f"{share} of the generated sounds are heard as what was asked for{beside}.")
    distance, real_distance = (_known(rows, row, "frechet_distance") for row in ("generated", "real"))
    if distance and real_distance and real_distance["value"] > 0:
        ratio = _number(distance["value"] / real_distance["value"], digits=2)
        sentences.append(f"Their Fréchet distance is {ratio} times that of {labels['real'].lower()}.")
    return " ".join(sentences) or "The generated sounds were not measured."


def _notes(judge: Mapping[str, Any], warnings: Sequence[str]) -> str:
    clips = {
        "val_accuracy": "of the validation clips",
        "test_accuracy": "of the test clips",
        "vocoded_test_accuracy": "of the test clips through the vocoder",
    }
    heard = ", ".join(f"{_percent(judge[key]['value'])} {text}" for key, text in clips.items() if key in judge)
    if judge["trusted"]:
        about = f"<p>The judge, a classifier that was trained on real clips, hears {heard} right.</p>"
    else:
        about = (
            '<p class="note bad" role="note"><b>The judge is not to be trusted:</b> it is poor on real clips, it hears '
            f"{heard} right. So how many generated sounds are heard as what was asked for means little, and all "
            "figures that rest on what it hears are weaker for it.</p>"
        )
    return "\n".join([about, *(f'<p class="note"><b>Warning:</b> {escape(str(text))}</p>' for text in warnings)])


def _metrics_table(rows: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    found = {name for row in rows.values() for name in row}
    body = []
    for name in [*(name for name in METRICS if name in found), *sorted(found - METRICS.keys())]:
        metric = METRICS.get(name, Metric(name, "", ""))
        generated, real, vocoded = (_known(rows, row, name) for row in COLUMNS)
        best = {"high": "higher is better", "low": "lower is better", "like real": "best if like real"}
        about = f"<p>{escape(metric.about)}</p>" if metric.about else ""
        label = f"<details><summary>{escape(metric.label)}</summary>{about}</details>"
        cells = [_cell(figure, is_share=metric.is_share) for figure in (generated, real, vocoded)]
        cells.insert(1, f"<td>{_compared(metric, generated, real)}</td>")
        body.append(f"<tr><th>{label}<small>{best.get(metric.best, '')}</small></th>{''.join(cells)}</tr>")
    heads = ["Metric", labels["generated"], "Against real", labels["real"], labels["vocoded"]]
    return (
        "<h2>Figures</h2>\n<p>Press a name for what it means. The last column shows what the vocoder alone costs: that "
        f"is no fault of the generator.</p>\n{_table(heads, body)}\n"
        "<p><small>In small print: the interval of uncertainty, and the number of sounds. Good: shares within "
        f"{100 * POINTS[0]:g} percentage points of real, distances up to {RATIOS['low'][0]} times real, others within "
        f"a factor of {RATIOS['high'][0]}. Poor: beyond {100 * POINTS[1]:g} points, {RATIOS['low'][1]} times, a factor "
        f"of {RATIOS['high'][1]}.</small></p>"
    )


def _known(rows: Mapping[str, Any], row: str, name: str) -> Mapping[str, Any] | None:
    figure = rows.get(row, {}).get(name)
    return figure if figure and _is_number(figure["value"]) else None


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _cell(figure: Mapping[str, Any] | None, *, is_share: bool) -> str:
    if figure is None:
        return "<td>–</td>"
    show = _percent if is_share else _number
    low, high = figure["low"], figure["high"]
    is_known = _is_number(low) and _is_number(high)
    interval = f"{show(low)} to {show(high)}".replace(f"{PERCENT} ", " ") if is_known else ""
    return f"<td>{show(figure['value'])}<small>{interval}</small><small>n = {figure['n']}</small></td>"


def _compared(metric: Metric, generated: Mapping[str, Any] | None, real: Mapping[str, Any] | None) -> str:
    """In words, graded where a grade has a meaning: shares by their difference, other figures by their ratio."""
    if not (generated and real and metric.best):
        return "–"
    value, reference = generated["value"], real["value"]
    if metric.is_share:
        gain = value - reference
        loss = {"high": -gain, "low": gain, "like real": abs(gain)}[metric.best]
        text, limits = f"{100 * gain:+.1f} points", POINTS
    elif metric.has_ratio and reference > 0:
        ratio = max(value, 0) / reference
        inverse = 1 / ratio if ratio else math.inf
        loss = {"high": inverse, "low": ratio, "like real": max(ratio, inverse)}[metric.best]
        text, limits = f"{_number(ratio, digits=2)} times", RATIOS[metric.best]
    else:
        return f"{'+' if value >= reference else ''}{_number(value - reference)}"
    grade = GRADES[sum(loss > limit + 1e-9 for limit in limits)]
    return f'{text}<small class="{grade}">{grade}</small>'


def _percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0") + PERCENT


def _number(value: float, *, digits: int = 3) -> str:
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def _table(heads: Sequence[str], body: Sequence[str], *, css: str = "") -> str:
    head, rows = "".join(f"<th>{text}</th>" for text in heads), "\n".join(body)
    return (
        f'<div class="scroll" tabindex="0"><table class="{css}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _class_table(
    per_class: Mapping[str, Any], names: Sequence[str], labels: Mapping[str, str], *, anchors: Sequence[str]
) -> str:
    body = []
    for name in names:
        label = escape(name)
        if name in anchors:
            label = f'<a href="#class-{anchors.index(name)}">{label}</a>'
        cells = "".join(_cell(_known(per_class, row, name), is_share=True) for row in COLUMNS)
        body.append(f"<tr><th>{label}</th>{cells}</tr>")
    heads = ["Class", *(labels[row] for row in COLUMNS)]
    return f"<h2>Heard as asked for, class by class</h2>\n{_table(heads, body)}" if per_class else ""


def _confusions(confusion: Mapping[str, Any], names: Sequence[str], labels: Mapping[str, str]) -> list[str]:
    present = [row for row in COLUMNS if row in confusion]
    heads = ["asked for ↓ heard as →", *(f"<span>{escape(name)}</span>" for name in names)]
    parts = ["<h2>What is heard as what</h2>"] if present else []
    for row in present:
        body = []
        for i, (name, counts) in enumerate(zip(names, confusion[row], strict=True)):
            cells = (_heat(count, sum(counts), is_right=i == j) for j, count in enumerate(counts))
            body.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
        parts.append(f'<details class="matrix"{" open" if row != "vocoded" else ""}><summary>{labels[row]}</summary>')
        parts.append(f"{_misheard(confusion[row], names)}\n{_table(heads, body, css='heat')}</details>")
    return parts


def _heat(count: int, n: int, *, is_right: bool) -> str:
    """A cell as hot as the root of its share: a few in a hundred would not be seen otherwise."""
    css = ' class="right"' if is_right else ""
    return f'<td{css} style="--heat: {math.sqrt(count / n):.2f}">{count}</td>' if count else "<td></td>"


def _misheard(matrix: Sequence[Sequence[int]], names: Sequence[str], *, n_most: int = 5) -> str:
    """The worst of the matrix in words: with many classes nobody finds them in it."""
    wrong = [
        (counts[j] / sum(counts), f"{escape(names[i])} as {escape(names[j])} ({counts[j]} of {sum(counts)})")
        for i, counts in enumerate(matrix)
        for j in range(len(names))
        if i != j and counts[j]
    ]
    most = [text for _, text in sorted(wrong, key=lambda pair: -pair[0])[:n_most]]
    return f"<p>Most often misheard: {', '.join(most)}.</p>" if most else "<p>Every sound is heard as asked for.</p>"


def _curve(curve: Sequence[Mapping[str, Any]]) -> str:
    plots = [_plot(curve, "fad", "Fréchet distance"), _plot(curve, "conditional_accuracy", "heard as asked for")]
    return f'<h2>During training</h2>\n<div class="figures">{"".join(plots)}</div>' if any(plots) else ""


def _plot(curve: Sequence[Mapping[str, Any]], key: str, label: str) -> str:
    """Draws a figure over minutes as SVG, if there are two or more to draw."""
    from matplotlib import style
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    points = [(p["time_s"] / 60, p[key]) for p in curve if _is_number(p.get(key))]
    if len(points) < 2:
        return ""
    minutes, values = zip(*points, strict=True)
    svg = io.StringIO()
    with style.context(["dark_background", {"svg.fonttype": "none", "svg.hashsalt": key}]):
        plot = Figure(figsize=(5, 3), layout="constrained")
        axes = plot.add_subplot(xlabel="minutes of training", ylabel=label)
        axes.plot(minutes, values, ".-", color="#f4a582")
        axes.grid(alpha=0.25)
        if key in METRICS:
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        elif min(values) > 0 and max(values) > 10 * min(values):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")  # 100, not 10 to the power of 2
        plot.savefig(svg, format="svg", transparent=True, metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"]))
    # Inside HTML the names of the formats, which are addresses, have no use.
    drawing = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg.getvalue()[svg.getvalue().index("<svg") :])
    return f'<div role="img" aria-label="{label} over minutes of training">{drawing}</div>'


def _class_section(
    index: int, name: str, rows: Mapping[str, Sequence[Example]], labels: Mapping[str, str], sample_rate: int
) -> str:
    parts = [f'<section id="class-{index}"><h2>{escape(name)}</h2>']
    for row, label in labels.items():
        figures = "\n".join(_example(example, sample_rate) for example in rows.get(row, []))
        if figures:
            parts.append(f'<h3>{label}</h3><div class="figures">\n{figures}\n</div>')
    return "\n".join(parts) + "</section>"


def _example(example: Example, sample_rate: int) -> str:
    caption, sound = example.caption, encode_flac(example.waveform, sample_rate)
    peak = float(example.waveform.detach().abs().max())
    if peak > 1:
        caption += f" (turned down to full scale, its peak was {_number(peak)})"
    shown = player(
        caption,
        picture=_data_uri("image/png", to_png(example.spectrogram.detach())),
        audio=_data_uri("audio/flac", sound),
    )
    if example.nearest is None:
        return shown
    nearest = replace(example.nearest, caption=f"nearest training clip: {example.nearest.caption}", nearest=None)
    return f'<div class="pair">{shown}{_example(nearest, sample_rate)}</div>'


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{b64encode(content).decode()}"


def _settings(report: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    counts = {
        f"Sounds: {label}": max((figure["n"] for figure in report["rows"].get(row, {}).values()), default=0)
        for row, label in labels.items()
    }
    settings = {
        "Checkpoint": report["checkpoint"],
        "Dataset": report["dataset"],
        "Classes": len(report["class_names"]),
        "Steps of training": report["n_steps"],
        "Seed": report["seed"],
        **counts,
    }
    items = "\n".join(f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in settings.items())
    return f"<h2>Settings</h2>\n<dl>\n{items}\n</dl>"
