"""What is taken of clips that are longer than an example, chosen from where their sound is."""

import math

from specgan.data.dataset import SpectrogramDataset
from specgan.spectrogram import Spectrogram

CROPS = ("random", "start")

_LONGER = 1.1  # times an example: what a little more is, no cut loses
_MANY_LONGER = 0.05  # share of the clips from which on it matters
_N_MEASURED = 200  # longer clips at most
_N_FRAMES = 4096  # of a clip at most: every second, third, ... of longer ones, which may be hours
_NEARLY_ALL = 0.9  # of the power of a clip
_MOST = 0.75  # of the longer clips


def crop_for(clips: SpectrogramDataset) -> str:
    """Returns "start" if most longer clips are hits, which are over when the first example ends, else "random".

    Of such clips a random piece is mostly the end of a decay, which is not what the label names. "random" where hardly
    any clip is longer, too.
    """
    longer = (clips.n_frames_of > _LONGER * clips.params.n_frames).nonzero()[:, 0]
    if len(longer) <= _MANY_LONGER * len(clips):
        return "random"
    transform = Spectrogram(clips.params)
    measured = clips.some_of(longer, _N_MEASURED).tolist()
    n_hits = 0
    for index in measured:
        step = math.ceil(int(clips.n_frames_of[index]) / _N_FRAMES)
        power = transform.to_power(clips.level(index)[..., ::step]).flatten(0, -2).sum(dim=0)
        n_hits += bool(power[: math.ceil(clips.params.n_frames / step)].sum() > _NEARLY_ALL * power.sum())
    return "start" if n_hits >= _MOST * len(measured) else "random"
