"""Power of mel bands -> power of FFT bins. Torch only, no files."""

import torch
from torch import Tensor, nn

from specgan.spectrogram import SpectrogramParams, band_groups, mel_filters


class MelInversion(nn.Module):
    """Finds the power of FFT bins that gives the power of mel bands, spread as evenly as they allow.

    It works for any filter bank. torchaudio's InverseMelScale finds negative power and cuts it off.

    Args:
        params: kind "mel".
        n_iter: multiplicative updates; 0 spreads the power of each band evenly.

    Source: Lee, Seung, "Algorithms for non-negative matrix factorization", NIPS 2000, update for the divergence.
    """

    def __init__(self, params: SpectrogramParams, *, n_iter: int) -> None:
        super().__init__()
        if n_iter < 0:
            raise ValueError(f"n_inversion_iter is {n_iter}; at least 0")
        self.n_iter = n_iter
        filters = mel_filters(params)
        self.register_buffer("filters", filters, persistent=False)
        self.groups = band_groups(filters)

    @torch.no_grad()
    def forward(self, mel_power: Tensor) -> Tensor:
        """Maps (B, n_mels, n_frames) >= 0 to (B, n_fft // 2 + 1, n_frames) >= 0; bins that no filter covers are 0."""
        mel_power = mel_power.mT.contiguous()
        power = self._to_bins(mel_power / self.filters.sum(1))
        for _ in range(self.n_iter):
            power = self.closer(power, mel_power)
        return power.mT

    def closer(self, power: Tensor, mel_power: Tensor) -> Tensor:
        """One update: multiplies bins (B, n_frames, bins) by the share that their bands (B, n_frames, n_mels) lack."""
        mel = torch.cat([power[..., bins] @ self.filters[bands, bins].T for bands, bins in self.groups], dim=-1)
        return power * self._to_bins(mel_power / mel.clamp_min_(1e-20))

    def _to_bins(self, bands: Tensor) -> Tensor:
        """Bands (B, n_frames, n_mels) -> bins (B, n_frames, bins), each the mean of the bands that it is in."""
        total = bands.new_zeros(*bands.shape[:-1], self.filters.shape[1])
        for some, bins in self.groups:
            total[..., bins] += bands[..., some] @ self.filters[some, bins]
        return total.div_(self.filters.sum(0).clamp_min(1e-8))
