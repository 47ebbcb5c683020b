"""Spectrogram -> waveform by the fast Griffin-Lim algorithm. Torch only, no files."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.spectrogram import LevelRange, SpectrogramParams, squared_magnitude
from specgan.vocoders.envelope import shape
from specgan.vocoders.first_phase import gradient_turns, steady_turns
from specgan.vocoders.frames import Frames
from specgan.vocoders.mel_inversion import BinSearch, MelInversion
from specgan.vocoders.vocoder import Vocoder, faded_frames, in_parts

MOMENTUM = 0.99  # 0 is the original algorithm
N_FIRST_UPDATES = 3  # of the power of a sound that the search goes on from
STARTS = {"steady": steady_turns, "gradient": gradient_turns, "envelope": gradient_turns}


class GriffinLim(Vocoder):
    """Turns normalised spectrograms into sound: mel inversion, then the fast Griffin-Lim algorithm.

    The power of mel bands is spread over FFT bins. The first phase, which a spectrogram lacks, follows tones and
    onsets, and is random in noise. The search for a better one aims at the mel bands, not at one way to spread them, so
    that the bins of a band may share its power as a sound needs it.

    All channels of a sound start from one phase, that of their mean power: of several ways tried, it keeps best how
    alike they are (docs/vocoder.md has the figures).

    Args:
        params: settings of the spectrograms.
        level_range: the levels of their -1 and 1.
        n_iter: Griffin-Lim iterations; more is cleaner and slower.
        momentum: 0 is the original algorithm, 0.99 converges much faster.
        n_inversion_iter: updates of the mel inversion before the first iteration.
        start: the first phase. "gradient" follows tones and onsets, see `first_phase.gradient_turns`; "envelope" is
            that of such a sound after `envelope.shape`; "steady" knows tones alone.
    Raises:
        ValueError: `n_iter` < 0, `momentum` not at least 0 and below 1, another `start`.

    Source: Perraudin, Balazs, Søndergaard, "A fast Griffin-Lim algorithm", WASPAA 2013. Our own because
    torchaudio's GriffinLim takes no generator and starts on a quarter of the circle.
    """

    def __init__(
        self,
        params: SpectrogramParams,
        level_range: LevelRange,
        *,
        n_iter: int = 32,
        momentum: float = MOMENTUM,
        n_inversion_iter: int = 30,
        start: str = "steady",
    ) -> None:
        super().__init__(params, level_range)
        _check_search(n_iter, momentum)
        if start not in STARTS:
            raise ValueError(f"start is {start!r}; steady, gradient or envelope")
        self.n_iter = n_iter
        self.momentum = momentum
        self.start = start
        self.inversion = MelInversion(params, n_iter=n_inversion_iter) if params.kind == "mel" else None

    def waveform(self, power: Tensor, seeds: Sequence[int]) -> Tensor:
        """Maps power (B, n_bins, n_frames) >= 0 to waveforms (B, n_frames * hop_length), a few at a time."""
        return self.channels(power.unsqueeze(1), seeds).squeeze(1)

    def channels(self, power: Tensor, seeds: Sequence[int]) -> Tensor:
        """Maps power (B, channels, n_bins, n_frames) >= 0 to waveforms (B, channels, n_frames * hop_length)."""
        return in_parts(self._waveform, power, seeds, self.params)

    def _waveform(self, power: Tensor, seeds: Sequence[int]) -> Tensor:
        if self.inversion is not None:
            return self.find_phase(self.inversion(power), seeds=seeds, mel_power=power)
        bins = self.params.fft_bins
        return self.find_phase(F.pad(power, (0, 0, bins.start, self.params.n_fft // 2 + 1 - bins.stop)), seeds=seeds)

    def find_phase(self, power: Tensor, *, seeds: Sequence[int], mel_power: Tensor | None = None) -> Tensor:
        """Finds waveforms (B, n_frames * hop_length), faded at both ends, whose STFT has nearly the given power.

        Args:
            power: (B, n_fft // 2 + 1, n_frames) >= 0.
            seeds: of the first phases: one for each, or for all channels of a sound, which follow one another in B.
            mel_power: (B, n_mels, n_frames): if given, the search aims at it, and `power` is only its start.
        """
        power = power.mT.contiguous()
        n_channels = len(power) // len(seeds)
        frames = faded_frames(power.shape[1], self.params, power)
        phase = self._first_phase(power.unflatten(0, (-1, n_channels)).mean(1), frames, seeds)
        spectrum = phase.repeat_interleave(n_channels, 0).mul_(power.sqrt())
        bins = None if mel_power is None else BinSearch(self.inversion, mel_power.mT.contiguous())
        adapt = None if bins is None else partial(_adapt, bins=bins)
        return _search(spectrum, power, frames, self.n_iter, self.momentum, adapt)

    def _first_phase(self, power: Tensor, frames: Frames, seeds: Sequence[int]) -> Tensor:
        """Complex numbers (B, n_frames, bins) on the unit circle, for power (B, n_frames, bins)."""
        turns = STARTS[self.start](power, self.params, seeds)
        if self.start != "envelope":
            return torch.polar(torch.ones_like(power), 2 * torch.pi * turns)
        waveform = frames.synthesise(F.pad(torch.polar(power.sqrt(), 2 * torch.pi * turns), (0, 0, 0, 1)))
        waveform = shape(waveform[:, frames.start : frames.stop], power, self.params)
        return frames.analyse(frames.surround(waveform))[:, :-1].sgn()


@torch.no_grad()
def search_on(
    waveform: Tensor, power: Tensor, params: SpectrogramParams, *, inversion: MelInversion | None, n_iter: int
) -> Tensor:
    """Goes on from a sound: iterations of Griffin-Lim that bring it nearer to a spectrogram.

    Args:
        waveform: (B, n_frames * hop_length).
        power: (B, n_frames, n_bins) >= 0, of mel bands, or of FFT bins.
        params: of the spectrograms.
        inversion: of mel bands; None: `power` is of FFT bins.
        n_iter: iterations; at least 1.
    Returns:
        waveform (B, n_frames * hop_length), faded at both ends.
    """
    frames = faded_frames(power.shape[1], params, power)
    spectrum = frames.analyse(frames.surround(waveform))[:, :-1]
    if inversion is None:
        power, adapt = F.pad(power, (params.fft_bins.start, params.n_fft // 2 + 1 - params.fft_bins.stop)), None
    else:
        bins = BinSearch(inversion, power)
        power, adapt = squared_magnitude(spectrum), partial(_adapt, bins=bins)
        for _ in range(N_FIRST_UPDATES):
            bins.improve(power)
    return _search(spectrum.sgn() * power.sqrt(), power, frames, n_iter, MOMENTUM, adapt)


def _adapt(power: Tensor, found: Tensor, *, bins: BinSearch) -> Tensor:
    """Returns the power to aim at next: that of the same mel bands, and near to what a sound can have.

    From the mean of the last aim, which alone would never change, and of what was found, which alone wanders off.
    """
    power = found.add_(power).mul_(0.5)
    for _ in range(2):
        bins.improve(power)
    return power


def griffin_lim(
    spectrum: Tensor,
    *,
    n_fft: int,
    hop_length: int,
    win_length: int | None = None,
    n_iter: int = 32,
    momentum: float = MOMENTUM,
    magnitude: Tensor | None = None,
) -> Tensor:
    """Finds waveforms whose STFT has nearly the given magnitude, from the given phase on.

    A spectrum that a waveform has stays as it is, if its last n_fft / 2 samples are silent; otherwise these change, for
    the frame behind the end takes part in them and is not given.

    Args:
        spectrum: (B, n_fft // 2 + 1, n_frames) complex. Its magnitude is kept, its phase is where the search starts.
            Frame t is centred on sample t * hop_length, and there is silence around the sound.
        n_fft, hop_length, win_length: of the STFT, samples; the window is a periodic Hann window, win_length None makes
            it n_fft long.
        n_iter: 0 inverts the spectrum as it is.
        momentum: 0 is the original algorithm, 0.99 converges much faster.
        magnitude: of `spectrum`, free of the rounding of its complex numbers, which iterations enlarge; None computes
            it.
    Returns:
        waveform (B, n_frames * hop_length).
    Raises:
        ValueError: `n_iter` < 0, or `momentum` not at least 0 and below 1.
    Source: as `GriffinLim`.
    """
    _check_search(n_iter, momentum)
    spectrum = spectrum.mT
    power = squared_magnitude(spectrum) if magnitude is None else magnitude.mT.square()
    frames = Frames(spectrum.shape[1], n_fft, hop_length, win_length or n_fft, power)
    return _search(spectrum, power, frames, n_iter, momentum)


def _check_search(n_iter: int, momentum: float) -> None:
    if n_iter < 0:
        raise ValueError(f"n_iter is {n_iter}; at least 0")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}; it must be at least 0 and below 1")


def _search(
    spectrum: Tensor,
    power: Tensor,
    frames: Frames,
    n_iter: int,
    momentum: float,
    adapt: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """The fast Griffin-Lim algorithm, from a spectrum (B, n_frames, bins) towards its power (B, n_frames, bins).

    `adapt` maps the power aimed at, and that of the spectrum found, which it may overwrite, to the power to aim at.
    """
    # The last samples lie between the last frame and the one behind the end, whose magnitude is not known: it follows
    # from the rest. Without it they would be divided by the vanishing edge of a single window.
    spectrum = F.pad(spectrum, (0, 0, 0, 1))
    inertia = momentum / (1 + momentum)
    previous = torch.zeros_like(spectrum)
    for _ in range(n_iter):
        consistent = frames.analyse(frames.synthesise(spectrum))
        spectrum = torch.sub(consistent, previous, alpha=inertia)
        known = spectrum[:, :-1]
        if adapt is not None:
            power = adapt(power, squared_magnitude(consistent[:, :-1]))
        known *= (power / squared_magnitude(known).clamp_min_(1e-32)).sqrt_()
        spectrum[:, -1] = consistent[:, -1]
        previous = consistent
    waveform = frames.synthesise(spectrum)
    return waveform[:, frames.start : frames.stop]
