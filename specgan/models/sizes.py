"""What networks ask of the size of a spectrogram. Both players have to agree on it."""

import math


def require_size(n_mels: int, n_frames: int | None, width: int) -> None:
    """Raises ValueError for a length that is not fixed, and for a width that three halvings do not divide."""
    if n_frames is None:
        raise ValueError("n_frames is None; networks need one length: choose a spectrogram preset that has one")
    if width < 8 or width % 8:
        raise ValueError(f"width is {width}; this network needs a multiple of 8")


def depth_for(n_mels: int, n_frames: int, depth: int | None = None) -> int:
    """How often a network halves or doubles both sides: as told, or until the shorter one is about 4, at least 4 times.

    So a value of the smallest map sees about as large a part of a spectrogram, whatever its size.

    Raises:
        ValueError: `depth` < 4, or so large that nothing is left to halve.
    """
    least, most = 4, max(4, math.ceil(math.log2(max(n_mels, n_frames))))
    if depth is None:
        return max(least, round(math.log2(min(n_mels, n_frames) / 4)))
    if not least <= depth <= most:
        raise ValueError(f"depth is {depth}; {least} to {most} for {n_mels} x {n_frames}, or null for what suits")
    return depth
