"""The metrics of a report in words: what each is called, what it means, and when it is good."""

import math
from dataclasses import dataclass

from specgan.evaluation.content import Figure

PERCENT = "\N{NO-BREAK SPACE}%"
# From which loss against real clips a metric is no longer good, and from which it is poor.
POINTS = (0.05, 0.2)  # of a share
RATIOS = {"low": (1.5, 3), "high": (1.2, 2), "like real": (1.2, 2)}
GRADES = ("good", "middling", "poor")

_DIRECTIONS = {"high": "higher is better", "low": "lower is better", "like real": "best if like real", "": ""}


@dataclass(frozen=True)
class Comparison:
    """Generated sounds against real ones, in words; `grade` is one of `GRADES`, or "" where none has a meaning.

    `interval` is of what `text` says, "" where one of the two has none.
    """

    text: str
    grade: str = ""
    interval: str = ""


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

    def compare(self, generated: Figure, of_real: Figure) -> Comparison:
        """Shares by their difference, other metrics by their ratio; graded by how much is lost against real ones.

        Both figures have a value. The interval is that of Donner and Zou: the distances of the two figures' limits
        from their values, of a ratio those of their logarithms, add up as independent errors do.
        """
        value, real = generated["value"], of_real["value"]
        if not self.best or value is None or real is None:
            return Comparison("–")
        if self.is_share:
            gain = value - real
            loss = {"high": -gain, "low": gain, "like real": abs(gain)}[self.best]
            low, high = _difference(generated, of_real)
            interval = "" if math.isnan(low + high) else f"{100 * low:+.1f} to {100 * high:+.1f}"
            return Comparison(f"{100 * gain:+.1f} points", _grade(loss, POINTS), interval)
        if self.has_ratio and real > 0:
            ratio = max(value, 0) / real
            inverse = 1 / ratio if ratio else math.inf
            loss = {"high": inverse, "low": ratio, "like real": max(ratio, inverse)}[self.best]
            interval = _ratio_interval(generated, of_real)
            return Comparison(f"{number(ratio, digits=2)} times", _grade(loss, RATIOS[self.best]), interval)
        low, high = _difference(generated, of_real)
        interval = "" if math.isnan(low + high) else f"{_signed(low)} to {_signed(high)}"
        return Comparison(_signed(value - real), interval=interval)


def _limits(figure: Figure) -> tuple[float, float, float]:
    """Value, low and high; NaN where they are unknown."""
    limits = figure["value"], figure["low"], figure["high"]
    value, low, high = (math.nan if limit is None else limit for limit in limits)
    return value, low, high


def _difference(figure: Figure, of_real: Figure) -> tuple[float, float]:
    """The interval of a difference of two figures; NaN: unknown."""
    (value, low, high), (real, real_low, real_high) = _limits(figure), _limits(of_real)
    gain = value - real
    return gain - math.hypot(value - low, real_high - real), gain + math.hypot(high - value, real - real_low)


def _ratio_interval(figure: Figure, of_real: Figure) -> str:
    """The interval of a ratio of two figures, both above 0, as text; "": unknown."""
    (value, low, high), (real, real_low, real_high) = _limits(figure), _limits(of_real)
    if math.isnan(low + high + real_low + real_high) or value <= 0:
        return ""
    least = 0.0
    if low > 0:
        least = math.exp(math.log(value / real) - math.hypot(math.log(value / low), math.log(real_high / real)))
    if real_low <= 0:
        return f"at least {number(least, digits=2)}"
    most = math.exp(math.log(value / real) + math.hypot(math.log(high / value), math.log(real / real_low)))
    return f"{number(least, digits=2)} to {number(most, digits=2)}"


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else ''}{number(value)}"


def _grade(loss: float, limits: tuple[float, float]) -> str:
    return GRADES[sum(loss > limit + 1e-9 for limit in limits)]


def percent(share: float) -> str:
    """0.255 as 25.5 %."""
    return f"{100 * share:.1f}".removesuffix(".0") + PERCENT


def percent_with_interval(figure: Figure | float) -> str:
    """0.255 of an interval of 0.2 to 0.3 as 25.5 % (20 to 30 %); of a number alone as `percent`."""
    if isinstance(figure, float):
        return percent(figure)
    value, low, high = _limits(figure)
    interval = "" if math.isnan(low + high) else f" ({percent(low).removesuffix(PERCENT)} to {percent(high)})"
    return percent(value) + interval


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
    "near_copy_share_shifted": Metric(
        "Near copies, moved in time", "low", "The same share where each sound may be earlier or later by up to a tenth "
        "of its length: it finds copies that begin at another time.", is_share=True),
    "near_copy_share_judge": Metric(
        "Near copies, to the judge", "low", "The same share in the judge's features, of sounds through the vocoder: it "
        "finds copies that sound like their clip but have another level or length. Sounds that are merely typical of "
        "their class count too.", is_share=True),
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
