"""The metrics of a report in words: what each is called, what it means, and when it is good."""

import math
from dataclasses import dataclass

PERCENT = "\N{NO-BREAK SPACE}%"
# From which loss against real clips a metric is no longer good, and from which it is poor.
POINTS = (0.05, 0.2)  # of a share
RATIOS = {"low": (1.5, 3), "high": (1.2, 2), "like real": (1.2, 2)}
GRADES = ("good", "middling", "poor")

_DIRECTIONS = {"high": "higher is better", "low": "lower is better", "like real": "best if like real", "": ""}


@dataclass(frozen=True)
class Comparison:
    """Generated sounds against real ones, in words; `grade` is one of `GRADES`, or "" where none has a meaning."""

    text: str
    grade: str = ""


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Args:
        label: its name on the page.
        best: "high", "low", "like real", or "" where nothing is known of it.
        about: what it means.
        is_share: shown in percent.
        has_ratio: whether a multiple of the real clips' value says something; not where that may be about 0.
    """

    label: str
    best: str
    about: str
    is_share: bool = False
    has_ratio: bool = True

    @property
    def direction(self) -> str:
        return _DIRECTIONS[self.best]

    def text(self, value: float) -> str:
        """A value as it is shown."""
        return percent(value) if self.is_share else number(value)

    def compare(self, value: float, real: float) -> Comparison:
        """Shares by their difference, other metrics by their ratio; graded by how much is lost against `real`."""
        if not self.best:
            return Comparison("–")
        if self.is_share:
            gain = value - real
            loss = {"high": -gain, "low": gain, "like real": abs(gain)}[self.best]
            return Comparison(f"{100 * gain:+.1f} points", _grade(loss, POINTS))
        if self.has_ratio and real > 0:
            ratio = max(value, 0) / real
            inverse = 1 / ratio if ratio else math.inf
            loss = {"high": inverse, "low": ratio, "like real": max(ratio, inverse)}[self.best]
            return Comparison(f"{number(ratio, digits=2)} times", _grade(loss, RATIOS[self.best]))
        return Comparison(f"{'+' if value >= real else ''}{number(value - real)}")


def _grade(loss: float, limits: tuple[float, float]) -> str:
    return GRADES[sum(loss > limit + 1e-9 for limit in limits)]


def percent(share: float) -> str:
    """0.255 as 25.5 %."""
    return f"{100 * share:.1f}".removesuffix(".0") + PERCENT


def number(value: float, *, digits: int = 3) -> str:
    """A number with `digits` significant digits, and all digits before its point."""
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


# fmt: off
METRICS = {
    "conditional_accuracy": Metric(
        "Conditional accuracy", "high", "Share of sounds that the judge, a classifier trained on real clips, assigns "
        "to the class that they were generated for. As high as for real clips is good.", is_share=True),
    "frechet_distance": Metric(
        "Fréchet distance", "low", "How far these sounds, taken together, are from the training clips in the judge's "
        "features: their average and their spread. 0 is no difference; the real clips show how low it can get."),
    "muq_frechet_distance": Metric(
        "Fréchet distance (MuQ)", "low", "The same distance in the features of MuQ, a model of music that was trained "
        "elsewhere and does not share the judge's habits."),
    "kernel_distance": Metric(
        "Kernel distance", "low", "The same question as the Fréchet distance, answered in a way that a small number of "
        "sounds does not bias. About 0 is no difference; it may fall a little below.", has_ratio=False),
    "inception_score": Metric(
        "Inception score", "high", "How sure the judge is of each sound, and how evenly the classes come up. From 1 to "
        "the number of classes; it says nothing of variety within a class."),
    "precision": Metric(
        "Precision", "high", "Share of these sounds that lie where real ones lie: are they plausible?", is_share=True),
    "recall": Metric(
        "Recall", "high", "Share of real sounds that lie where these lie: is all their variety covered?",
        is_share=True),
    "density": Metric(
        "Density", "high", "As precision, but counts how many real sounds are near each one. About 1 for real clips; "
        "above 1 where sounds crowd in the most typical places."),
    "coverage": Metric(
        "Coverage", "high", "Share of real sounds that have at least one of these near them. Low where kinds of sound "
        "are missing.", is_share=True),
    "diversity": Metric(
        "Diversity", "like real", "How different the sounds of a class are from each other, as a share of the same for "
        "real ones. 1 is good; near 0 every sound is the same."),
    "classification_accuracy_score": Metric(
        "Classification accuracy score", "high", "Share of real clips that a classifier gets right which was trained "
        "on these sounds alone. High only if the sounds are right, varied and realistic at once.", is_share=True),
    "near_copy_share": Metric(
        "Near copies", "low", "Share of sounds that are nearer to a training clip than real clips almost ever are. Far "
        "more than for the real clips: the generator memorised training clips.", is_share=True),
    "log_spectral_distance_db": Metric(
        "Loss of band (dB)", "low", "How far these sounds are from their own recordings, band by band: log-spectral "
        "distance (Gray and Markel, 1976), the mean over FFTs of 4096, 1024 and 256 samples. What lies above half the "
        "preset's sample rate is lost whatever the generator; generated sounds have no recording to compare with."),
    "attack_error_db": Metric(
        "Loss of attack (dB)", "low", "How far the envelopes of these sounds are from those of their own recordings in "
        "the 60 ms after the onset. A blurred attack makes a drum sound soft."),
    "silent_share": Metric("Silent", "low", "Share of sounds that cannot be heard. 0 % is good.", is_share=True),
    "clipped_share": Metric(
        "Over full scale", "low", "Share of sounds that are louder than a file can hold, and would distort. They are "
        "turned down here. 0 % is good.", is_share=True),
}
# fmt: on
