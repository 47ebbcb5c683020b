"""Spectrogram -> waveform by the fast Griffin-Lim algorithm. Torch only, no files."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from specgan.spectrogram import LevelRange, SpectrogramParams, squared_magnitude
from specgan.vocoders.mel_inversion import BinSearch, MelInversion
from specgan.vocoders.vocoder import Vocoder, edge_fade

CACHED_VALUES = 2**18  # of a spectrum, worked on at a time on a CPU, so that they stay in its cache

_HANN_SPREAD = 0.25645  # of the Gaussian window nearest to a Hann window, see _steady_turns
_TONE, _NOISE = 0.2, 0.5  # mean power around a bin, as a share of the highest, of a single tone and of noise


class GriffinLim(Vocoder):
    """Turns normalised spectrograms into sound: mel inversion, then the fast Griffin-Lim algorithm.

    The power of mel bands is spread over FFT bins. The first phase, which a spectrogram lacks, is that of steady tones,
    and random in noise. The search for a better one aims at the mel bands, not at one way to spread them, so that the
    bins of a band may share its power as a sound needs it.

    All channels of a sound start from one phase, that of their mean power: of several ways tried, it keeps best how
    alike they are (docs/vocoder.md has the figures).

    Args:
        params: settings of the spectrograms.
        level_range: the levels of their -1 and 1.
        n_iter: Griffin-Lim iterations; more is cleaner and slower.
        momentum: 0 is the original algorithm, 0.99 converges much faster.
        n_inversion_iter: updates of the mel inversion before the first iteration.

    Source: Perraudin, Balazs, Søndergaard, "A fast Griffin-Lim algorithm", WASPAA 2013. Průša, Balazs, Søndergaard, "A
    noniterative method for reconstruction of phase from STFT magnitude", IEEE/ACM TASLP 2017, for the first phase. Our
    own because torchaudio's GriffinLim takes no generator and starts on a quarter of the circle.
    """

    def __init__(
        self,
        params: SpectrogramParams,
        level_range: LevelRange,
        *,
        n_iter: int = 32,
        momentum: float = 0.99,
        n_inversion_iter: int = 30,
    ) -> None:
        super().__init__(params, level_range)
        _check_search(n_iter, momentum)
        self.n_iter = n_iter
        self.momentum = momentum
        self.inversion = MelInversion(params, n_iter=n_inversion_iter) if params.kind == "mel" else None

    def waveform(self, power: Tensor, seeds: Sequence[int]) -> Tensor:
        """Maps power (B, n_bins, n_frames) >= 0 to waveforms (B, n_frames * hop_length), a few at a time."""
        return self.channels(power.unsqueeze(1), seeds).squeeze(1)

    def channels(self, power: Tensor, seeds: Sequence[int]) -> Tensor:
        """Maps power (B, channels, n_bins, n_frames) >= 0 to waveforms (B, channels, n_frames * hop_length)."""
        n_at_once, n_channels = max(1, len(power)), power.shape[1]
        if power.device.type == "cpu":
            n_at_once = max(1, CACHED_VALUES // (self.params.n_fft // 2 * power.shape[-1] * n_channels))
        starts = range(0, len(power), n_at_once)
        parts = [self._waveform(power[i : i + n_at_once].flatten(0, 1), seeds[i : i + n_at_once]) for i in starts]
        n_samples = power.shape[-1] * self.params.hop_length
        return (torch.cat(parts) if parts else power.new_zeros(0, n_samples)).unflatten(0, (len(power), n_channels))

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
        p = self.params
        power = power.mT.contiguous()
        n_channels = len(power) // len(seeds)
        turns = _start_turns(power.unflatten(0, (-1, n_channels)).mean(1), p, seeds).repeat_interleave(n_channels, 0)
        spectrum = torch.polar(power.sqrt(), 2 * torch.pi * turns)
        frames = _Frames(power.shape[1], p.n_fft, p.hop_length, p.win_length, power)
        # Within the search, which makes up for what a fade takes away: the mel error of drums is half of that without.
        frames.scale[:, frames.start : frames.stop] *= edge_fade(frames.stop - frames.start, p.sample_rate).to(power)
        bins = None if mel_power is None else BinSearch(self.inversion, mel_power.mT.contiguous())
        adapt = None if bins is None else partial(_adapt, bins=bins)
        return _search(spectrum, power, frames, self.n_iter, self.momentum, adapt)


def _adapt(power: Tensor, found: Tensor, *, bins: BinSearch) -> Tensor:
    """Returns the power to aim at next: that of the same mel bands, and near to what a sound can have.

    From the mean of the last aim, which alone would never change, and of what was found, which alone wanders off.
    """
    power = found.add_(power).mul_(0.5)
    for _ in range(2):
        bins.improve(power)
    return power


def _start_turns(power: Tensor, params: SpectrogramParams, seeds: Sequence[int]) -> Tensor:
    """Phases to start from, in turns, for power (B, n_frames, bins): steady tones, random in noise."""
    random = [torch.rand(power.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    random = torch.stack(random).to(power)
    # Around a tone, power falls steeply to both sides; where it is even, or the bands too wide to tell, it is noise.
    # There steady phases would repeat after n_fft samples, which is heard as a pitch.
    reach = 4 * params.n_fft // params.win_length
    highest = F.max_pool1d(power, 2 * reach + 1, 1, reach)
    mean = F.avg_pool1d(power, 2 * reach + 1, 1, reach, count_include_pad=False)
    noisy = ((mean / highest.clamp_min(1e-30) - _TONE) / (_NOISE - _TONE)).clamp_(0, 1)
    random[:, 1:] = (random[:, 1:] - 0.5) * noisy[:, 1:]
    return random.cumsum_(1).add_(_steady_turns(power, params))


def _steady_turns(power: Tensor, params: SpectrogramParams) -> Tensor:
    """Turns that the phase advances from the first frame on (B, n_frames, bins), if bins hold parts of tones.

    A tone beside a bin shows in how the logarithm of the magnitude rises towards it; exact for a Gaussian window.
    """
    log = power.add(1e-10 * power.amax((1, 2), keepdim=True) + 1e-30).log_()
    rise = F.pad(log[..., 2:] - log[..., :-2], (1, 1)) / 4  # of the log magnitude, by bin
    beside = rise * (params.n_fft / params.win_length) ** 2 / (2 * torch.pi * _HANN_SPREAD)  # bins up to the tone
    beside[:, 1:] = (beside[:, 1:] + beside[:, :-1]) / 2  # from frame to frame
    beside[:, 0] = 0
    n_frames, n_bins = power.shape[1:]
    frame, bin_ = (torch.arange(n, device=power.device) for n in (n_frames, n_bins))
    # whole numbers, for the turns of an hour are too many for a float's digits
    of_bin = torch.outer(frame * params.hop_length, bin_) % params.n_fft
    return (beside * params.hop_length).cumsum_(1).add_(of_bin).div_(params.n_fft)


def griffin_lim(
    spectrum: Tensor,
    *,
    n_fft: int,
    hop_length: int,
    win_length: int | None = None,
    n_iter: int = 32,
    momentum: float = 0.99,
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
    frames = _Frames(spectrum.shape[1], n_fft, hop_length, win_length or n_fft, power)
    return _search(spectrum, power, frames, n_iter, momentum)


def _check_search(n_iter: int, momentum: float) -> None:
    if n_iter < 0:
        raise ValueError(f"n_iter is {n_iter}; at least 0")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}; it must be at least 0 and below 1")


def _search(
    spectrum: Tensor,
    power: Tensor,
    frames: "_Frames",
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


class _Frames:
    """The STFT of sounds with silence around them, and its least-squares inverse.

    torch.stft and torch.istft say the same, but go by bins and copy more: half as fast. `start` and `stop` are where
    the n_frames * hop_length samples of a sound lie between what the outer windows reach.
    """

    def __init__(self, n_frames: int, n_fft: int, hop_length: int, win_length: int, like: Tensor) -> None:
        self.n_fft, self.hop_length, self.win_length = n_fft, hop_length, win_length
        self.left = (n_fft - win_length) // 2  # of the window in its frame
        self.start = n_fft // 2 - self.left
        self.stop = self.start + n_frames * hop_length
        self.window = torch.hann_window(win_length, dtype=like.dtype).to(like.device)
        overlap = self._add(self.window.square().expand(1, n_frames + 1, win_length))
        self.scale = torch.where(overlap > 1e-8, 1 / overlap, 0)
        self.scale[:, : self.start] = 0
        self.scale[:, self.stop :] = 0

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """(B, n_frames + 1, bins) -> samples (B, more than `stop`), silent but between `start` and `stop`."""
        frames = torch.fft.irfft(spectrum, self.n_fft)[..., self.left : self.left + self.win_length]
        return self._add(frames.mul_(self.window)).mul_(self.scale)

    def analyse(self, samples: Tensor) -> Tensor:
        frames = samples.unfold(-1, self.win_length, self.hop_length) * self.window
        if self.win_length < self.n_fft:  # otherwise it would be a copy
            frames = F.pad(frames, (self.left, self.n_fft - self.win_length - self.left))
        return torch.fft.rfft(frames)

    def _add(self, frames: Tensor) -> Tensor:
        """Adds frames (B, n, win_length) where they overlap."""
        hop, n_frames = self.hop_length, frames.shape[1]
        n_hops = -(-self.win_length // hop)
        samples = frames.new_zeros(len(frames), n_frames + n_hops - 1, hop)
        for i in range(n_hops):
            part = frames[..., i * hop : (i + 1) * hop]
            samples[:, i : i + n_frames, : part.shape[-1]].add_(part)  # += on a slice also copies it onto itself
        return samples.flatten(1)
