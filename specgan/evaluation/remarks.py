"""What a reader of a report should know before its figures: warnings, each a plain sentence or two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from specgan.evaluation.copies import DISTANCES, Copies
from specgan.evaluation.glossary import percent_with_interval
from specgan.evaluation.metrics import Figure

FEW_SOUNDS = 100  # in a row, below which its figures are rough
_FEW_TO_COPY = 20  # real clips, below which the nearest 5 % of them are not even one
_FEW_OF_CLASS = 10  # test clips, below which distances say little

_MORE_CLIPS = "record more, or give the split a larger share (such as data.splits=[60,20,20])"
_SMALL_DATA = "docs/how-to/small-data.md"


@dataclass(frozen=True)
class JudgeAccuracy:
    """How often the judge is right.

    Args:
        figure: on real clips that it was not trained on.
        chance: what who always guesses the most frequent class would have.
        n_folds: of the cross-validation that found it; 0: it was measured on the split.
    """

    figure: Figure
    chance: float
    n_folds: int = 0

    @property
    def tells_classes(self) -> bool:
        """Whether its interval is above what guessing gives; of one class there is nothing to tell."""
        return self.chance == 1 or self.figure["low"] > self.chance


def remarks(
    figures: Mapping[str, Mapping[str, Figure]],
    *,
    real: str,
    split: str,
    n_of_class: Mapping[str, int],
    accuracy: JudgeAccuracy,
    copies: Copies,
) -> list[str]:
    """The warnings of a report, but for `specgan.evaluation.fidelity.lost_band`.

    Args:
        figures: by row and name.
        real: the row of real clips.
        split: that they are from.
        n_of_class: how many they are of each class.
        accuracy: of the judge.
        copies: that were found.
    """
    return [
        *_about_judge(accuracy),
        *_about_real_clips(figures[real], real=real, split=split, n_of_class=n_of_class),
        *_about_sounds(figures["generated"]),
        *_about_copies(copies),
    ]


def _about_judge(accuracy: JudgeAccuracy) -> list[str]:
    if accuracy.tells_classes:
        return []
    how = f" by {accuracy.n_folds}-fold cross-validation" if accuracy.n_folds else ""
    return [
        f"The judge cannot tell the classes apart: its accuracy{how} is {percent_with_interval(accuracy.figure)}, and "
        f"guessing has {percent_with_interval(accuracy.chance)}. So conditional accuracy and all distances on its "
        "features say nothing here; listen, record more clips, or join classes that sound alike (data.merge)."
    ]


def _about_real_clips(
    found: Mapping[str, Figure], *, real: str, split: str, n_of_class: Mapping[str, int]
) -> list[str]:
    sentences = []
    if real != "real":
        sentences.append(
            "This data set keeps no sounds of its recordings, so real clips were taken through the vocoder: what the "
            "vocoder costs, and how far generated sounds are from recorded ones, is not known. Make the data set with "
            "keep_sounds to know it."
        )
    if unmeasured := [name for name, n in n_of_class.items() if not n]:
        sentences.append(
            f"No {split} clip is of {_listed(unmeasured)}: not measured. Sounds of such a class are drawn and judged, "
            "but there are no real ones to compare them with, and with one or two recordings copies are likely."
        )
    measured = {name: n for name, n in n_of_class.items() if n}
    few = {name: n for name, n in measured.items() if n < _FEW_OF_CLASS}
    distance = found.get("frechet_distance")
    if distance is None:
        sentences.append(
            f"There are too few real {split} clips to measure distances from: {sum(n_of_class.values())} in all. To "
            f"know more, {_MORE_CLIPS}."
        )
    elif few:
        of = "each class" if len(few) == len(measured) else ", ".join(f"{name!r} ({n})" for name, n in few.items())
        sentences.append(
            f"Fewer than {_FEW_OF_CLASS} {split} clips of {of}: the distances are rough, and what they say of such a "
            f"class is little. Read them beside those of the real clips, and listen. To know more, {_MORE_CLIPS}."
        )
    elif distance["n"] < FEW_SOUNDS:
        few_real = sum(n_of_class.values()) <= distance["n"]
        why = (
            f"because there are no more real {split} clips" if few_real else "because evaluation.n_samples is so small"
        )
        sentences.append(
            f"Distances are measured on {distance['n']} sounds, {why}: they are rough; compare them with those of the "
            "real clips, not with other data sets."
        )
    return sentences


def _about_sounds(generated: Mapping[str, Figure]) -> list[str]:
    sentences = []
    if generated["silent_share"]["value"] > 0.1:
        sentences.append("More than a tenth of the generated sounds are silent.")
    if generated["clipped_share"]["value"] > 0.1:
        sentences.append("More than a tenth of the generated sounds exceed full scale; files are scaled down.")
    if "diversity" in generated and generated["diversity"]["value"] < 0.5:
        sentences.append("Generated sounds of a class differ less than half as much as real ones: it collapses.")
    return sentences


def _about_copies(copies: Copies) -> list[str]:
    if not copies.found_by:
        n = copies.real["near_copy_share"]["n"]
        return [] if n >= _FEW_TO_COPY else [f"{n} real clips are too few to tell what is a copy: listen for yourself."]
    shares = (
        f"by {DISTANCES[name]} {percent_with_interval(copies.generated[name])}, of real clips "
        f"{percent_with_interval(copies.real[name])}"
        for name in copies.found_by
    )
    return [
        f"Many generated sounds are nearly copies of training clips: {'; '.join(shares)}. Listen to the nearest clips "
        "beside them. More clips, augmentation (on by itself with few; augmentation.probability=0.5), variation=small "
        f"where a sound may change a little, or an earlier checkpoint give fewer; see {_SMALL_DATA}."
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
