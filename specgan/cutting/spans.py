"""Which stretches of a recording become clips."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from specgan.cutting.scan import INAUDIBLE_DB, Scan
from specgan.cutting.settings import CutSettings

Span = tuple[int, int]  # the first sample, and the one behind the last


@dataclass(frozen=True)
class Spans:
    """What becomes of a recording.

    Args:
        clips: ascending stretches that do not overlap.
        remark: what a user should know: why there is no clip, or what is left out; "" if there is nothing to say.
    """

    clips: list[Span]
    remark: str = ""


def find_spans(found: Scan, settings: CutSettings) -> Spans:
    """Decides where a recording is cut; silence alone is never a clip, but at length without `trim`."""
    n_samples, least, most = found.n_samples, _samples(settings.least_s, found), _samples(settings.most_s, found)
    most = max(1, most)
    if n_samples < least:
        length = f"{n_samples} samples at {found.sample_rate} Hz"
        return Spans([], f"no clip: it has {length}, and least_s is {settings.least_s:g}")
    if settings.at == "length" and not settings.is_trimmed:
        return Spans(_equal(n_samples, least, most))
    sound = _Sound(found, settings)
    if not sound.is_audible.any():
        return Spans([], f"no clip: it is silent, below {INAUDIBLE_DB:g} dB re full scale throughout")
    if settings.at == "length":
        spans, remark = [sound.trimmed(*span, least) for span in _equal(n_samples, least, most)], ""
    elif settings.at == "silence":
        spans, remark = _between_pauses(sound, least, most)
    else:
        spans, remark = _from_onsets(sound, least, most)
    spans = [span for span in spans if sound.is_heard(*span)]
    n_short = sum(end - start < least for start, end in spans)
    if n_short:
        short = f"left out {n_short} that would be shorter than least_s={settings.least_s:g}"
        remark = f"{remark}; {short}" if remark else short
    spans = [(start, end) for start, end in spans if end - start >= max(1, least)]
    return Spans(spans, remark if spans else f"no clip: {remark or 'nothing in it is above the threshold of silence'}")


def _samples(seconds: float, found: Scan) -> int:
    return round(seconds * found.sample_rate)


def _equal(n_samples: int, least: int, most: int) -> list[Span]:
    """Pieces of `most` samples; a rest shorter than `least` stays with the last one."""
    starts = list(range(0, n_samples, most))
    if len(starts) > 1 and n_samples - starts[-1] < least:
        starts.pop()
    return list(pairwise([*starts, n_samples]))


class _Sound:
    """Which stretches of a recording are heard."""

    def __init__(self, found: Scan, settings: CutSettings) -> None:
        self.found, self.settings = found, settings
        threshold = max(float(found.levels.max()) + settings.silence_db, INAUDIBLE_DB)
        self.is_audible = found.levels > threshold
        self.pre_roll = _samples(settings.pre_roll_ms / 1000, found)
        self.fade_out = _samples(settings.fade_out_ms / 1000, found)

    def is_heard(self, start: int, end: int) -> bool:
        """Whether anything in a stretch is above the threshold; what it only touches does not count."""
        hop = self.found.hop
        first, last = -(-start // hop), end // hop
        if last <= first:  # shorter than a level
            first, last = start // hop, -(-end // hop)
        return bool(self.is_audible[first:last].any())

    def trimmed(self, start: int, end: int, least: int) -> Span:
        """A stretch without silence at its ends, but for the pre-roll and the fade; `least` long if it was so."""
        hop = self.found.hop
        heard = np.flatnonzero(self.is_audible[start // hop : -(-end // hop)]) + start // hop
        if not len(heard):
            return start, end
        first, last = int(heard[0]) * hop, (int(heard[-1]) + 1) * hop
        first = max(start, first - self.pre_roll)
        return first, min(end, max(last + self.fade_out, first + least))

    def between_pauses(self) -> list[Span]:
        """Stretches of sound, with silences in them that are shorter than a pause."""
        hop, pause = self.found.hop, self.settings.pause_s * self.found.sample_rate
        edges = np.flatnonzero(np.diff(self.is_audible, prepend=False, append=False)) * hop
        joined: list[Span] = []
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if joined and start - joined[-1][1] < pause:
                start = joined.pop()[0]
            joined.append((start, min(end, self.found.n_samples)))
        return joined


def _between_pauses(sound: _Sound, least: int, most: int) -> tuple[list[Span], str]:
    sounds, n_samples = sound.between_pauses(), sound.found.n_samples
    if sound.settings.is_trimmed:
        starts = [max(0, start - sound.pre_roll) for start, _ in sounds]
        limits = [*starts[1:], n_samples]
        ends = [
            min(limit, max(end + sound.fade_out, start + least))
            for start, (_, end), limit in zip(starts, sounds, limits, strict=True)
        ]
        wholes = list(zip(starts, ends, strict=True))
    else:
        middles = [(before[1] + after[0]) // 2 for before, after in pairwise(sounds)]
        wholes = list(pairwise([0, *middles, n_samples]))
    return [piece for whole in wholes for piece in _pieces(*whole, most)], ""


def _pieces(start: int, end: int, most: int) -> Iterator[Span]:
    """Equal pieces of a stretch, none longer than `most`."""
    n = -(-(end - start) // most)
    yield from pairwise([start + (end - start) * number // n for number in range(n + 1)])


def _from_onsets(sound: _Sound, least: int, most: int) -> tuple[list[Span], str]:
    onsets = [onset for onset in sound.found.onsets if _begins_audibly(sound, onset)]
    remark = ""
    if not onsets:
        first = int(np.argmax(sound.is_audible)) * sound.found.hop
        onsets, remark = [first], "no onset in it: one clip, from where it can be heard"
    starts: list[int] = []
    for onset in onsets:
        start = max(0, onset - sound.pre_roll)
        if not starts or start - starts[-1] >= max(1, least):
            starts.append(start)
    spans, n_cut = [], 0
    for start, following in pairwise([*starts, sound.found.n_samples]):
        end = following
        if sound.settings.is_trimmed:
            last = sound.trimmed(start, end, least)[1]
            end = min(end, last)
        n_cut += end - start > most
        spans.append((start, min(end, start + most)))
    if n_cut:
        longer = f"{n_cut} of {len(spans)} clips would be longer and end after most_s={sound.settings.most_s:g}"
        remark = f"{remark}; {longer}" if remark else longer
    return spans, remark


def _begins_audibly(sound: _Sound, onset: int) -> bool:
    """Whether what follows an onset within 50 ms is above the threshold of silence."""
    return sound.is_heard(onset, min(sound.found.n_samples, onset + round(0.05 * sound.found.sample_rate)))
