"""A trained vocoder beside others: on recordings, and on the spectrograms that a generator draws."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from specgan.data.datamodule import SpectrogramDataModule
from specgan.evaluation.asked import against_asked
from specgan.evaluation.fidelity import errors
from specgan.evaluation.vocoder_page import Compared, Tried, write_vocoders
from specgan.files import write_json
from specgan.models.trained import TrainedGenerator
from specgan.spectrogram import LevelRange, SpectrogramParams
from specgan.training.vocoding import in_turn, recordings
from specgan.vocoders.learned import Learned

log = logging.getLogger(__name__)

_MOST_RECORDED = 400  # clips that are measured
_TIMED = 20  # sounds, each by itself
_MOST_CLASSES = 20  # that are shown

MakeVocoder = Callable[[SpectrogramParams, LevelRange], nn.Module]


def on_recordings(data: SpectrogramDataModule, checkpoint: str | Path, beside: Mapping[str, MakeVocoder]) -> Tried:
    """Measures a trained vocoder and others on the test clips of a data set that is set up, or those of val, or train.

    Args:
        data: whose recordings and spectrograms are used.
        checkpoint: that holds the trained vocoder.
        beside: others by name.
    Returns:
        For "learned" and each other: log_spectral_distance_db and attack_error_db on average, see
        `specgan.evaluation.fidelity`, `ms_per_s`, milliseconds for a second of sound, and `n`, clips. Shown are, of
        each class, the clip with the median attack error of "learned" and the one with the largest.
    """
    clips = next(split for split in (data.test, data.val, data.train) if len(split.with_sound))
    recorded, spectrograms, labels = recordings(clips, most=_MOST_RECORDED)
    rate = data.params.sample_rate
    rows, sounds, distances = {}, {"recorded": recorded}, {}
    for name, vocoder in _vocoders(data.params, data.level_range, checkpoint, beside).items():
        sounds[name] = in_turn(vocoder, spectrograms)
        measured = errors(*(x.reshape(-1, x.shape[-1]) for x in (recorded, sounds[name])), sample_rate=rate)
        each = {figure: value.view(len(recorded), -1).nanmean(1) for figure, value in measured.items()}
        distances[name] = each["attack_error_db"]
        rows[name] = {figure: float(value.nanmean()) for figure, value in each.items()}
        rows[name] |= {"ms_per_s": _ms_per_s(vocoder, spectrograms, data.params), "n": float(len(recorded))}
    shown = []
    for label, name in list(enumerate(data.class_names))[:_MOST_CLASSES]:
        of_class = ((labels == label) & distances["learned"].isfinite()).nonzero()[:, 0]
        order = of_class[distances["learned"][of_class].argsort()].tolist()
        chosen = dict.fromkeys([*order[len(order) // 2 :][:1], *order[-1:]])
        for index, text in zip(chosen, ("median error", "largest error"), strict=False):
            captions = {made: f"attack error {float(of[index]):.1f} dB" for made, of in distances.items()}
            shown.append(Compared(f"{name}, {text}", {made: of[index] for made, of in sounds.items()}, captions))
    return Tried(rows, shown)


def on_generated(
    trained: TrainedGenerator, checkpoint: str | Path, beside: Mapping[str, MakeVocoder], *, n_sounds: int = 140
) -> Tried:
    """Measures a trained vocoder and others on what a generator draws, against the spectrograms themselves.

    Args:
        trained: the generator.
        checkpoint: that holds the trained vocoder.
        beside: others by name.
        n_sounds: that are drawn and measured, at least one of each class.
    Returns:
        For "learned" and each other the means of `specgan.evaluation.asked.against_asked`, and `n`, sounds. One of each
        class is shown.
    Raises:
        ValueError: the vocoder was trained on other spectrograms than the generator.
    """
    params, names = trained.params, trained.class_names
    n = max(n_sounds, len(names))
    drawn = trained.sample([names[i % len(names)] for i in range(n)], range(n))
    rows, sounds = {}, {}
    for name, vocoder in _vocoders(params, trained.level_range, checkpoint, beside).items():
        sounds[name] = in_turn(vocoder, drawn)
        measured = against_asked(sounds[name], drawn, params, trained.level_range)
        rows[name] = {figure: float(value.nanmean()) for figure, value in measured.items()} | {"n": float(n)}
    shown = [
        Compared(name, {made: sound[label] for made, sound in sounds.items()}, {})
        for label, name in list(enumerate(names))[:_MOST_CLASSES]
    ]
    return Tried(rows, shown)


def _vocoders(
    params: SpectrogramParams, level_range: LevelRange, checkpoint: str | Path, beside: Mapping[str, MakeVocoder]
) -> dict[str, nn.Module]:
    learned = Learned(params, level_range, path=checkpoint)
    return {"learned": learned, **{name: make(params, level_range) for name, make in beside.items()}}


def _ms_per_s(vocoder: nn.Module, spectrograms: Tensor, params: SpectrogramParams) -> float:
    times_s = []
    for spectrogram in spectrograms[:_TIMED].split(1):
        start_s = time.perf_counter()
        vocoder(spectrogram, seeds=[0])
        times_s.append(time.perf_counter() - start_s)
    duration_s = params.n_samples * spectrograms.shape[1] / params.sample_rate
    return 1000 * sorted(times_s)[len(times_s) // 2] / duration_s


def write_comparison(
    run_dir: Path, tried: Mapping[str, Tried], *, checkpoint: str, generator: str, sample_rate: int
) -> None:
    """Writes vocoder.json and vocoder.html, and logs the figures.

    Args:
        run_dir: where they go.
        tried: "rows", of `on_recordings`, and if there is a generator "generated", of `on_generated`.
        checkpoint: that holds the trained vocoder.
        generator: the checkpoint of the generator.
        sample_rate: of the sounds, Hz.
    """
    headings = {"rows": "Recordings", "generated": f"Generated by {generator}"}
    figures = {name: of.rows for name, of in tried.items()}
    write_json(run_dir / "vocoder.json", {"checkpoint": checkpoint, **figures}, indent=2)
    page = {headings[name]: of for name, of in tried.items()}
    write_vocoders(run_dir / "vocoder.html", page, checkpoint=checkpoint, sample_rate=sample_rate)
    for heading, of in page.items():
        log.info("%s\n%s", heading, _table(of.rows))
    log.info("see and hear it: %s", run_dir / "vocoder.html")


def _table(rows: Mapping[str, Mapping[str, float]]) -> str:
    names = list(next(iter(rows.values())))
    lines = [f"{'':16}" + "".join(f"{name:>28}" for name in names)]
    lines += [f"{row:16}" + "".join(f"{figures[name]:28.2f}" for name in names) for row, figures in rows.items()]
    return "\n".join(lines)
