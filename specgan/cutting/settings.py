"""How recordings are cut into clips."""

import math
from dataclasses import dataclass

PLACES = ("onsets", "silence", "length")
FORMATS = ("wav", "flac")


@dataclass(frozen=True, kw_only=True)
class CutSettings:
    """Where a recording is cut, and how the clips begin and end.

    Args:
        at: "onsets": before each sound that begins. "silence": in pauses. "length": into pieces of `most_s`.
        least_s: seconds, >= 0. Onsets closer than this to the one before start no clip; a shorter sound between two
            pauses gets what follows it, up to this length, and is left out if that is another sound.
        most_s: seconds, above `least_s`. At onsets, what follows in a clip is left out; a longer sound between two
            pauses is cut into equal pieces.
        pre_roll_ms: milliseconds that are kept before an onset, or before a sound that follows a pause, >= 0.
        fade_in_ms: milliseconds at the start of each clip that are faded in, >= 0.
        fade_out_ms: milliseconds at its end that are faded out, >= 0; where a clip ends at a pause, so much of the
            pause is kept for it.
        silence_db: dB below the loudest 10 ms of the recording, below 0: what is quieter counts as silence.
        pause_s: seconds; a shorter silence is no pause, > 0.
        trim: cut silence off both ends of the clips. False: at onsets clips last until the next onset, at silence they
            are cut in the middle of each pause. None: True, but False at length.
        sensitivity: to onsets, 0..1: how much more an onset's strength is than the mean around it, re the strongest of
            the recording (`delta` of librosa.util.peak_pick). Lower finds more.
        format: "wav" or "flac".
    Raises:
        ValueError: an impossible setting; the message names it.
    """

    at: str = "onsets"
    least_s: float = 0.1
    most_s: float = 10.0
    pre_roll_ms: float = 10.0
    fade_in_ms: float = 2.0
    fade_out_ms: float = 10.0
    silence_db: float = -50.0
    pause_s: float = 0.2
    trim: bool | None = None
    sensitivity: float = 0.07
    format: str = "wav"

    def __post_init__(self) -> None:
        if self.at not in PLACES:
            raise ValueError(f"at is {self.at!r}; one of {', '.join(PLACES)}")
        for name in ("least_s", "pre_roll_ms", "fade_in_ms", "fade_out_ms"):
            value, unit = getattr(self, name), "seconds" if name.endswith("_s") else "milliseconds"
            if not (_is_number(value) and 0 <= value < math.inf):
                raise ValueError(f"{name} is {value!r}; {unit}, at least 0")
        if not (_is_number(self.most_s) and self.least_s < self.most_s < math.inf):
            raise ValueError(f"most_s is {self.most_s!r}; seconds, above least_s ({self.least_s:g})")
        if not (_is_number(self.silence_db) and self.silence_db < 0):
            raise ValueError(f"silence_db is {self.silence_db!r}; dB below the loudest part, e.g. -50")
        if not (_is_number(self.pause_s) and 0 < self.pause_s < math.inf):
            raise ValueError(f"pause_s is {self.pause_s!r}; seconds, above 0")
        if self.trim not in (None, True, False):
            raise ValueError(f"trim is {self.trim!r}; true, false, or null for true, but false at length")
        if not (_is_number(self.sensitivity) and 0 <= self.sensitivity <= 1):
            raise ValueError(f"sensitivity is {self.sensitivity!r}; in 0..1")
        if self.format not in FORMATS:
            raise ValueError(f"format is {self.format!r}; one of {', '.join(FORMATS)}")

    @property
    def is_trimmed(self) -> bool:
        """Whether silence is cut off the ends of clips."""
        return self.at != "length" if self.trim is None else self.trim


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
