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
        self.register_buffer("of_band", filters.sum(1), persistent=False)
        self.register_buffer("of_bin", filters.sum(0).clamp_min(1e-8), persistent=False)
        self.groups = band_groups(filters)

    @torch.no_grad()
    def forward(self, mel_power: Tensor) -> Tensor:
        """Maps (B, n_mels, n_frames) >= 0 to (B, n_fft // 2 + 1, n_frames) >= 0; bins that no filter covers are 0."""
        search = BinSearch(self, mel_power.mT.contiguous())
        power = search.even()
        for _ in range(self.n_iter):
            search.improve(power)
        return power.mT


class BinSearch:
    """The search for the power of FFT bins that gives one power of mel bands.

    Its updates are many and small: what they share, parts of the filters and memory for results, is made once.

    Args:
        inversion: whose filters are used.
        mel_power: (B, n_frames, n_mels) >= 0.
    """

    def __init__(self, inversion: MelInversion, mel_power: Tensor) -> None:
        self.inversion = inversion
        self.n_sounds = len(mel_power)
        self.mel_power = mel_power.flatten(0, 1)  # (rows, n_mels), a row for each frame of each sound
        self.mel, self.lack = torch.empty_like(self.mel_power), torch.empty_like(self.mel_power)
        self.share = self.mel_power.new_empty(len(self.mel_power), len(inversion.of_bin))
        # Of each group its filters, and its columns of a (rows, bins), of `mel`, `lack` and `share`
        self.groups = [
            (inversion.filters[bands, bins], bins, self.mel[:, bands], self.lack[:, bands], self.share[:, bins])
            for bands, bins in inversion.groups
        ]

    def even(self) -> Tensor:
        """Power (B, n_frames, bins) that is even within each band."""
        torch.div(self.mel_power, self.inversion.of_band, out=self.lack)
        return self._share_out().unflatten(0, (self.n_sounds, -1)).clone()

    def improve(self, power: Tensor) -> Tensor:
        """One update, in place: multiplies bins (B, n_frames, bins) by the share that their bands lack."""
        rows = power.flatten(0, 1)
        for filters, bins, mel, _, _ in self.groups:
            torch.mm(rows[:, bins], filters.T, out=mel)
        torch.div(self.mel_power, self.mel.clamp_min_(1e-20), out=self.lack)
        rows.mul_(self._share_out())
        return power

    def _share_out(self) -> Tensor:
        """What the bands lack (rows, n_mels) -> bins (rows, bins), each the mean of the bands that it is in."""
        self.share.zero_()
        for filters, _, _, lack, share in self.groups:
            share.add_(lack @ filters)
        return self.share.div_(self.inversion.of_bin)
