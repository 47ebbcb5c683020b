"""The sizes of the networks. Generator and discriminator read them from here, so that they agree."""

import math


def require_size(n_frames: int | None, width: int) -> None:
    """Raises ValueError for a length that is not fixed, and for a width that three halvings do not divide."""
    if n_frames is None:
        raise ValueError("n_frames is None; networks need one length: choose a spectrogram preset that has one")
    if width < 8 or width % 8:
        raise ValueError(f"width is {width}; this network needs a multiple of 8")


def depth_for(n_mels: int, n_frames: int, depth: int | None = None) -> int:
    """Returns how often a network halves or doubles both sides of a spectrogram.

    By default until the shorter side is about 4, and at least 4 times. So each value of the smallest map covers about
    the same share of a spectrogram, whatever its size.

    Args:
        n_mels: rows of a spectrogram.
        n_frames: columns of a spectrogram.
        depth: a number to use instead of the default.
    Raises:
        ValueError: `depth` < 4, or the longer side is down to 1 before so many halvings.
    """
    least, most = 4, max(4, math.ceil(math.log2(max(n_mels, n_frames))))
    if depth is None:
        return max(least, round(math.log2(min(n_mels, n_frames) / 4)))
    if not least <= depth <= most:
        raise ValueError(f"depth is {depth}; {least} to {most} for {n_mels} x {n_frames}, or null for the default")
    return depth
