"""What is heard of a sound in six numbers, from its spectrogram, so that gradients reach what drew it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, denormalise, mel_filters

# Each name, with what it measures and its unit.
DESCRIPTORS = {
    "brightness": "spectral centroid, octaves re 1 kHz",
    "length": "time until it stays 40 dB below its loudest frame, s",
    "pitch": "frequency of the strongest partial, semitones re 440 Hz",
    "noisiness": "spectral flatness, dB",
    "loudness": "level of its loudest 50 ms, dB re a full-scale sine",
    "attack": "time from 20 dB below its loudest frame to 3 dB below it, s",
}


class Descriptors(nn.Module):
    def __init__(self, params: SpectrogramParams, level_range: LevelRange) -> None:
        super().__init__()
        self.level_range = level_range
        self.analysis = Spectrogram(params)
        hz = params.sample_rate / params.n_fft
        if params.kind == "mel":
            from dataclasses import replace

            filters, triangles = self.analysis.filters, mel_filters(replace(params, norm=None))
            frequencies = torch.arange(filters.shape[1]) * hz
            centres = (triangles @ frequencies) / triangles.sum(1)
            gains, widths = filters.sum(1), triangles.sum(1)
        else:
            centres = torch.arange(params.n_fft // 2 + 1)[params.fft_bins] * hz
            gains = widths = torch.ones(len(centres))
        self.register_buffer("octaves", (centres.clamp_min(hz) / 1000).log2(), persistent=False)
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("gains", gains[:, None], persistent=False)
        self.register_buffer("widths", widths[:, None], persistent=False)
        self.frame_s = params.hop_length / params.sample_rate
        self.n_loud = max(1, round(0.05 / self.frame_s))

    def forward(self, spectrogram: Tensor) -> Tensor:
        level = denormalise(spectrogram, self.level_range)
        a = self.analysis
        power = (a.to_power(level) / a.full_scale).mean(dim=1) / self.gains  # per bin
        total = power * self.widths
        energy = total.sum(1) + 1e-12  # (B, F)
        weights = energy / energy.sum(1, keepdim=True)
        amplitude = (power + 1e-12).sqrt() * self.widths
        centroid = (amplitude * self.centres[:, None]).sum(1) / amplitude.sum(1)
        brightness = (weights * (centroid / 1000 + 1e-6).log2()).sum(1)
        # noisiness
        share = self.widths / self.widths.sum()
        logp = (power + 1e-9).log()
        flat = ((logp * share).sum(1) - ((power + 1e-9) * share).sum(1).log()) * (10 / math.log(10))
        noisiness = (weights * flat).sum(1)
        db = 10 * energy.log10()
        peak = db.amax(1, keepdim=True)
        after = db.flip(1).cummax(1).values.flip(1)
        length = torch.sigmoid((after - peak + 40) / 2).sum(1) * self.frame_s
        before = db.cummax(1).values
        attack = (torch.sigmoid((before - peak + 20) / 1) - torch.sigmoid((before - peak + 3) / 1)).sum(
            1
        ) * self.frame_s
        loud = F.avg_pool1d(energy[:, None], self.n_loud, 1)[:, 0].amax(1)
        loudness = 10 * loud.log10()
        mean = total.sum(2)  # (B, M)
        near = (power.sum(2) + 1e-12).log()
        pitch = 12 * ((near * 3).softmax(1) * (self.centres.clamp_min(1) / 440).log2()).sum(1)
        return torch.stack([brightness, length, pitch, noisiness, loudness, attack], 1)

    def refusals(self, drawn):
        return {}
