"""What is lost between a recording and the same through a lower rate or a vocoder: in band, and in attack."""

from collections.abc import Mapping, Sequence

import torch
from scipy.signal import hilbert
from torch import Tensor

from specgan.evaluation.metrics import Figure, average
from specgan.spectrogram import power_blocks

ATTACK_S = 0.06  # from the onset, whose envelope counts
MUCH_LOST_DB = 2.0  # of log-spectral distance, from which it is said that a preset cuts the band

_N_FFTS = (4096, 1024, 256)  # from fine in pitch to fine in time
_FLOOR_DB = -100  # re a full-scale sine: silence is not infinitely far from the faintest noise
_AUDIBLE_DB = -90  # a frame counts where the recording has a bin above this
_WINDOW_S = 0.001
_ONSET_DB, _FAINTEST_DB = -20, -60  # re the loudest moment of the recording
_MOST, _TOGETHER = 500, 16  # sounds that are measured, and at a time


def losses(recorded: Tensor, others: Tensor, *, sample_rate: int) -> dict[str, Figure]:
    """The mean loss of band and of attack of sounds against their recordings; of many, some are measured.

    Args:
        recorded: (N, T), or (N, channels, T), whose channels count as sounds.
        others: of the same shape, the same sounds, sample by sample at the same place.
        sample_rate: Hz.
    Returns:
        `log_spectral_distance_db` and `attack_error_db`; nothing, if all recordings are silent.
    """
    recorded, others = (waveforms.reshape(-1, waveforms.shape[-1]) for waveforms in (recorded, others))
    n = len(recorded)
    chosen = torch.arange(n) if n <= _MOST else torch.linspace(0, n - 1, _MOST).round().long()
    measured = errors(recorded[chosen], others[chosen], sample_rate=sample_rate)
    known = {name: values[values.isfinite()] for name, values in measured.items()}
    return {name: average(values) for name, values in known.items() if len(values)}


def errors(recorded: Tensor, others: Tensor, *, sample_rate: int) -> dict[str, Tensor]:
    """As `losses`, but (N,) of each sound; NaN: a silent recording."""
    pairs = list(zip(recorded.split(_TOGETHER), others.split(_TOGETHER), strict=True))
    return {
        "log_spectral_distance_db": torch.cat([log_spectral_distance(*pair) for pair in pairs]),
        "attack_error_db": torch.cat([attack_error(*pair, sample_rate=sample_rate) for pair in pairs]),
    }


def lost_band(rows: Mapping[str, Mapping[str, Figure]], sample_rate: int) -> list[str]:
    """A warning, where the rows of a report say that a preset of this rate in Hz loses much; else none."""
    resampled, vocoded = (rows.get(row, {}).get("log_spectral_distance_db") for row in ("resampled", "vocoded"))
    if resampled is None or vocoded is None or resampled["value"] < MUCH_LOST_DB:
        return []
    return [
        f"The preset's {sample_rate} Hz leave out what the recordings have above {sample_rate / 2:g} Hz: that alone is "
        f"a log-spectral distance of {resampled['value']:.1f} dB from the recordings, and {vocoded['value']:.1f} dB "
        "with the vocoder. No training brings it back; a preset with a higher sample_rate does."
    ]


def log_spectral_distance(recorded: Tensor, others: Tensor, *, n_ffts: Sequence[int] = _N_FFTS) -> Tensor:
    """Maps recordings (N, T) and others (N, T) to their log-spectral distances (N,) in dB; NaN: a silent recording.

    That is the root mean square over bins of the difference of two powers in dB, averaged over the frames in which the
    recording is audible, and over FFTs of `n_ffts` samples. A band that is missing counts in full, as far
    down as -100 dB re a full-scale sine.

    Source: A. H. Gray and J. D. Markel, Distance measures for speech processing, IEEE Trans. ASSP 24 (5), 1976. The
    three sizes are those by which recordings were compared with what vocoders make of them.
    """
    distances = []
    for n_fft in n_ffts:
        wanted, found = _levels(recorded, n_fft), _levels(others, n_fft)
        distance = (wanted - found).square().mean(dim=1).sqrt()  # (N, frames)
        is_audible = wanted.amax(dim=1) > _AUDIBLE_DB
        distances.append((distance * is_audible).sum(dim=1) / is_audible.sum(dim=1))
    return torch.stack(distances).mean(dim=0)


def _levels(waveforms: Tensor, n_fft: int) -> Tensor:
    """(N, T) -> (N, bins, frames) in dB re a full-scale sine, whose power is the square of half the window's sum."""
    blocks = power_blocks([waveforms], n_fft=n_fft, win_length=n_fft, hop_length=n_fft // 4)
    power = torch.cat(list(blocks), dim=-1) / (n_fft / 4) ** 2
    return 10 * torch.log10(power + 10 ** (_FLOOR_DB / 10))


def attack_error(recorded: Tensor, others: Tensor, *, sample_rate: int) -> Tensor:
    """Maps recordings (N, T) and others (N, T) to the errors (N,) of their envelopes in dB; NaN: a silent recording.

    The envelope is the magnitude of the analytic signal, as a root mean square over each millisecond. The error is the
    root mean square of its difference in dB in the 60 ms after the onset, which is where the recording comes within
    20 dB of its loudest moment; what is 60 dB below that counts as silence.
    """
    window = _window(sample_rate)
    wanted, found = (_envelope(waveforms, window) for waveforms in (recorded, others))
    faintest = wanted.amax(dim=1, keepdim=True) * 10 ** (_FAINTEST_DB / 10)
    difference = 10 * torch.log10((wanted + faintest) / (found + faintest))
    after = torch.arange(wanted.shape[1]) - _onset_steps(wanted)
    in_attack = (after >= 0) & (after < ATTACK_S * sample_rate / (window // 2))
    return (difference.square() * in_attack).sum(dim=1).div(in_attack.sum(dim=1)).sqrt()


def onsets(waveforms: Tensor, *, sample_rate: int) -> Tensor:
    """Maps waveforms (N, T) to the samples (N,) int64 where they come within 20 dB of their loudest moment."""
    window = _window(sample_rate)
    return _onset_steps(_envelope(waveforms, window))[:, 0] * (window // 2)


def _onset_steps(envelope: Tensor) -> Tensor:
    """(N, steps) -> (N, 1)."""
    loudest = envelope.amax(dim=1, keepdim=True)
    return (envelope > loudest * 10 ** (_ONSET_DB / 10)).int().argmax(dim=1, keepdim=True)


def _window(sample_rate: int) -> int:
    return max(2, round(_WINDOW_S * sample_rate))


def _envelope(waveforms: Tensor, window: int) -> Tensor:
    """(N, T) -> (N, steps of half a window), mean squares; silence behind keeps the end from the beginning."""
    n_samples = waveforms.shape[1]
    analytic = torch.from_numpy(hilbert(waveforms.double().numpy(), N=2 * n_samples)[:, :n_samples])
    return analytic.abs().square().unfold(-1, window, window // 2).mean(dim=-1)
