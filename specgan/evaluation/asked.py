"""How near the spectrogram of a sound is to the one that it was made from, which needs no recording."""

import torch
from torch import Tensor

from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, denormalise

_AUDIBLE_DB = 60  # below the loudest frame, from which on a frame is silence


def against_asked(
    found: Tensor, spectrograms: Tensor, params: SpectrogramParams, level_range: LevelRange
) -> dict[str, Tensor]:
    """What a vocoder fails to do of what spectrograms ask for, for each sound.

    Args:
        found: sounds (B, n_samples), or (B, channels, n_samples), whose channels count as sounds.
        spectrograms: (B, channels, n_bins, n_frames) in [-1, 1].
        params: of the spectrograms.
        level_range: what their -1 and 1 mean.
    Returns:
        Tensors (B * channels,), NaN where silence is asked for. `spectrogram_error`: ||a - b|| / ||b|| of the
        magnitudes of all bands; `envelope_error_db`: root mean square of the difference of the levels of frames;
        `spectrogram_error_db`, of spectrograms in dB: that of all bands in a frame, averaged over frames.
    """
    transform = Spectrogram(params)
    power = transform.power(found.reshape(-1, found.shape[-1]))
    asked = transform.to_power(denormalise(spectrograms, level_range)).flatten(0, 1)
    lack = (power.sqrt() - asked.sqrt()).norm(dim=(1, 2)) / asked.sqrt().norm(dim=(1, 2))
    levels = [frames.sum(1) for frames in (power, asked)]  # (B, n_frames)
    faintest = levels[1].amax(1, keepdim=True) * 10 ** (-_AUDIBLE_DB / 10)
    envelope = 10 * torch.log10((levels[0] + faintest) / (levels[1] + faintest))
    errors = {"spectrogram_error": lack, "envelope_error_db": envelope.square().mean(1).sqrt()}
    if params.level == "db":
        difference = transform.to_level(power) - transform.to_level(asked)
        errors["spectrogram_error_db"] = difference.square().mean(1).sqrt().mean(1)
    return errors
