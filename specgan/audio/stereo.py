"""A sound of any number of channels -> left and right."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from specgan.audio.decoders import AudioError

_HALF_POWER = 0.5**0.5

# The places of channels by their number, as FLAC and WAV order them: front left and right, centre, low frequencies (-),
# surround (l, r), back centre (B).
_PLACES = {3: "LRC", 4: "LRlr", 5: "LRClr", 6: "LRC-lr", 7: "LRC-Blr", 8: "LRC-lrlr"}
_GAINS = {
    "L": (1, 0),
    "R": (0, 1),
    "C": (_HALF_POWER, _HALF_POWER),
    "-": (0, 0),
    "l": (_HALF_POWER, 0),
    "r": (0, _HALF_POWER),
    "B": (0.5, 0.5),
}


def to_stereo(blocks: Iterable[np.ndarray], path: Path, n_channels: int) -> Iterator[np.ndarray]:
    """Maps the blocks (n_channels, n) of a sound to blocks (2, n).

    One channel is put on both sides. Of 3 to 8, each side gets its front, and the centre and its surround at -3 dB, all
    turned down so that nothing exceeds full scale; low-frequency effects are left out.

    Raises:
        AudioError: more than 8 channels, whose places are not known; names `path`.
    Source: ITU-R BS.775, as `ffmpeg -ac 2` does for 16-bit output.
    """
    if n_channels == 1:
        return (np.repeat(samples, 2, axis=0) for samples in blocks)
    if n_channels == 2:
        return iter(blocks)
    if n_channels not in _PLACES:
        raise AudioError(
            f"{path}: has {n_channels} channels, of which left and right are not known; write it with two channels, or "
            "take it as one (channels=1)"
        )
    gains = np.array([_GAINS[place] for place in _PLACES[n_channels]], np.float32).T  # (2, n_channels)
    gains /= gains[0].sum()
    return (gains @ samples for samples in blocks)
