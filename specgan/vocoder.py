"""Spectrogram -> waveform: mel inversion, then Griffin-Lim. Torch only, no files."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, denormalise


class GriffinLim(nn.Module):
    """Turns normalised spectrograms into sound.

    Mel bands are spread over FFT bins by non-negative least squares, and the phase that the spectrogram does not
    have is found by the fast Griffin-Lim algorithm, from uniform phases over the full circle.

    Args:
        params: what the spectrograms mean.
        level_range: what their -1 and 1 mean.
        n_iter: Griffin-Lim iterations; more is cleaner and slower.
        momentum: 0 is the original algorithm, 0.99 converges much faster.
        n_inversion_iter: multiplicative updates of the mel inversion.

    Source: Perraudin, Balazs, Søndergaard, "A fast Griffin-Lim algorithm", WASPAA 2013. Lee, Seung, "Algorithms for
    non-negative matrix factorization", NIPS 2000. Our own because torchaudio's GriffinLim takes no generator and
    starts on a quarter of the circle, and its InverseMelScale fails on rank-deficient filter banks.
    """

    def __init__(
        self,
        params: SpectrogramParams,
        level_range: LevelRange,
        *,
        n_iter: int = 32,
        momentum: float = 0.99,
        n_inversion_iter: int = 100,
    ) -> None:
        super().__init__()
        _check_search(n_iter, momentum)
        self.params = params
        self.level_range = level_range
        self.n_iter = n_iter
        self.momentum = momentum
        self.n_inversion_iter = n_inversion_iter
        self.transform = Spectrogram(params)
        inverse = torch.linalg.pinv(self.transform.filters) if params.kind == "mel" else None
        self.register_buffer("pseudo_inverse", inverse, persistent=False)

    @torch.no_grad()
    def forward(self, spectrogram: Tensor, *, seeds: Sequence[int]) -> Tensor:
        """Draws the sound of each spectrogram.

        Args:
            spectrogram: (B, 1, n_bins, n_frames) in [-1, 1].
            seeds: B seeds of the starting phases; a sound depends on its own seed and spectrogram alone.
        Returns:
            waveform (B, n_frames * hop_length). Not limited to [-1, 1]: what writes it decides.
        Raises:
            ValueError: not one seed per spectrogram.
        """
        if len(seeds) != len(spectrogram):
            raise ValueError(f"{len(seeds)} seeds for {len(spectrogram)} spectrograms; give one seed for each")
        level = denormalise(spectrogram.squeeze(1).float(), self.level_range)
        power = self.transform.to_power(level)
        if self.params.kind == "mel":
            power = self.invert_mel(power)
        else:
            bins = self.params.fft_bins
            power = F.pad(power, (0, 0, bins.start, self.params.n_fft // 2 + 1 - bins.stop))
        return self.find_phase(power.sqrt(), seeds=seeds)

    def invert_mel(self, mel_power: Tensor) -> Tensor:
        """Finds FFT-bin power (B, n_fft // 2 + 1, n_frames) >= 0 whose mel power is (B, n_mels, n_frames).

        Multiplicative updates from the clamped pseudo-inverse. They stay non-negative, need no inverse of the filter
        products and so work for any filter bank; bins that no filter covers stay 0.
        """
        filters, transposed = self.transform.filters, self.transform.filters.T
        target = transposed @ mel_power  # constant over the updates
        start = self.pseudo_inverse @ mel_power
        # An exact 0 could never grow again: leave a thousandth of what the bin's own bands hold.
        power = torch.maximum(start, 1e-3 * target / transposed.sum(1, keepdim=True).clamp_min(1e-8))
        for _ in range(self.n_inversion_iter):
            power = power * target / (transposed @ (filters @ power)).clamp_min(1e-20)
        return power

    def find_phase(self, magnitude: Tensor, *, seeds: Sequence[int]) -> Tensor:
        """Finds waveforms (B, n_frames * hop_length) whose STFT magnitude is near (B, n_fft // 2 + 1, n_frames)."""
        turns = [torch.rand(magnitude.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        p = self.params
        return griffin_lim(
            torch.polar(magnitude, 2 * torch.pi * torch.stack(turns).to(magnitude)),
            n_fft=p.n_fft,
            hop_length=p.hop_length,
            win_length=p.win_length,
            n_iter=self.n_iter,
            momentum=self.momentum,
            magnitude=magnitude,
        )


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
    window = torch.hann_window(win_length or n_fft, dtype=spectrum.real.dtype).to(spectrum.device)
    settings = {"n_fft": n_fft, "hop_length": hop_length, "win_length": win_length, "window": window}
    if magnitude is None:
        magnitude = spectrum.abs()
    # The last samples stand between the last frame and the one behind the end, whose magnitude is not known: it
    # follows from the rest. Without it they would be divided by the vanishing edge of a single window.
    spectrum = F.pad(spectrum, (0, 1))
    inertia = momentum / (1 + momentum)
    previous = torch.zeros_like(spectrum)
    for _ in range(n_iter):
        consistent = _stft(_istft(spectrum, **settings), **settings)
        step = consistent - inertia * previous
        step = step[..., :-1]
        known = magnitude * step / step.abs().clamp_min(1e-16)
        spectrum = torch.cat([known, consistent[..., -1:]], dim=-1)
        previous = consistent
    return _istft(spectrum, **settings)


def _check_search(n_iter: int, momentum: float) -> None:
    if n_iter < 0:
        raise ValueError(f"n_iter is {n_iter}; at least 0")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}; it must be at least 0 and below 1")


def _stft(waveform: Tensor, *, hop_length: int, **settings) -> Tensor:
    # one more sample: an odd n_fft needs it to reach the frame behind the end
    padded = F.pad(waveform, (0, 1))
    spectrum = torch.stft(
        padded, hop_length=hop_length, center=True, pad_mode="constant", return_complex=True, **settings
    )
    return spectrum[..., : waveform.shape[-1] // hop_length + 1]


def _istft(spectrum: Tensor, *, hop_length: int, **settings) -> Tensor:
    length = (spectrum.shape[-1] - 1) * hop_length
    return torch.istft(spectrum, hop_length=hop_length, center=True, length=length, **settings)
