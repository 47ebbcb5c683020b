"""Vocoders that are networks, written so that an ONNX model can hold them: real numbers, noise as an input."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specgan.export.transforms import RealFrames
from specgan.vocoders.first_phase import steady_turns_from
from specgan.vocoders.frames import Frames
from specgan.vocoders.griffin_lim import MOMENTUM, N_FIRST_UPDATES, GriffinLim
from specgan.vocoders.learned import Learned
from specgan.vocoders.mel_inversion import MelInversion
from specgan.vocoders.refinement import DB_PER_LOG, LEAST, LOWEST, Refiner
from specgan.vocoders.vocoder import edge_fade, faded_frames
from specgan.vocoders.vocos import LOWEST_MAGNITUDE, Vocos

_INERTIA = MOMENTUM / (1 + MOMENTUM)


def graph_of(vocoder: nn.Module, n_frames: int) -> nn.Module | None:
    """The part of an ONNX model that turns power into sound; None: Griffin-Lim, which is no network.

    The part maps power (B, channels, n_bins, n_frames), and if its `takes_noise` also noise (B, n_frames,
    n_fft // 2 + 1), to waveforms (B, channels, n_frames * hop_length).

    Raises:
        ValueError: a vocoder of one's own.
    """
    if isinstance(vocoder, GriffinLim):
        return None
    if isinstance(vocoder, Learned):
        return LearnedGraph(vocoder.network, n_frames)
    if isinstance(vocoder, Vocos):
        return VocosGraph(vocoder, n_frames)
    raise ValueError(
        f"vocoder is {type(vocoder).__name__}, and what it does cannot be written into a file; "
        "vocoder=griffin_lim, learned or vocos"
    )


class LearnedGraph(nn.Module):
    """What `Refiner` does; the tests hold both together.

    Args:
        network: the trained vocoder.
        n_frames: of the spectrograms.
    """

    takes_noise = True

    def __init__(self, network: Refiner, n_frames: int) -> None:
        super().__init__()
        p = network.params
        self.network = network
        self.inversion = None if network.inversion is None else InversionGraph(network.inversion)
        self.register_buffer("to_short", network.bands.T.contiguous())
        example = torch.zeros(1, n_frames * p.hop_length)
        self.frames = RealFrames(faded_frames(n_frames, p, example))
        self.short_frames = RealFrames(network.short_frames(example))

    def forward(self, power: Tensor, noise: Tensor) -> Tensor:
        n_channels = power.shape[1]
        power = power.flatten(0, 1)
        loudest = power.amax((1, 2)).clamp_min(1e-30)
        power = (power / loudest[:, None, None]).transpose(-1, -2)  # (B, n_frames, n_bins)
        waveform = self._synthesise(power, self.network.predict(power), noise, n_channels)
        if self.network.n_iter:
            waveform = self._search_on(waveform, power)
        return (waveform * loudest.sqrt().unsqueeze(1)).unflatten(0, (-1, n_channels))

    def _synthesise(self, power: Tensor, short: Tensor, noise: Tensor, n_channels: int) -> Tensor:
        waveform = self._first_guess(power, noise, n_channels)
        wanted, bands = torch.exp(short / DB_PER_LOG), self.network.bands
        for step in range(1, self.network.n_steps + 1):
            real, imag = self.short_frames.analyse(waveform)
            found = _power(real, imag) @ self.to_short
            gain = torch.log((wanted + LOWEST) / (found + LOWEST)).clamp(-8, 8)
            waveform = _scaled(self.short_frames, real, imag, torch.exp(0.5 * gain @ bands))
            for _ in range(self.network.n_last if step == self.network.n_steps else 1):
                real, imag = self.frames.analyse(waveform)
                gain = self._lack(power, _power(real, imag)).clamp(1e-8, 1e4).sqrt()
                waveform = _scaled(self.frames, real, imag, gain)
        return waveform

    def _first_guess(self, power: Tensor, noise: Tensor, n_channels: int) -> Tensor:
        p = self.network.params
        if self.inversion is None:
            bins = F.pad(power, (p.fft_bins.start, p.n_fft // 2 + 1 - p.fft_bins.stop))
        else:
            bins = self.inversion(power)
        mean = bins.unflatten(0, (-1, n_channels)).mean(1)
        turns = steady_turns_from(noise.clone(), mean, p)
        turns = turns.unsqueeze(1).expand(-1, n_channels, -1, -1).flatten(0, 1)
        angle, magnitude = 2 * torch.pi * turns, bins.sqrt()
        return self.frames.sound(*(F.pad(magnitude * part, (0, 0, 0, 1)) for part in (angle.cos(), angle.sin())))

    def _search_on(self, waveform: Tensor, asked: Tensor) -> Tensor:
        """As `griffin_lim.search_on`."""
        real, imag = (part[:, :-1] for part in self.frames.analyse(waveform))
        if self.inversion is None:
            bins = self.network.params.fft_bins
            power = F.pad(asked, (bins.start, real.shape[-1] - bins.stop))
        else:
            power = real.square() + imag.square()
            for _ in range(N_FIRST_UPDATES):
                power = self.inversion.improved(power, asked)
        real, imag = (F.pad(part, (0, 0, 0, 1)) for part in _with_power(real, imag, power))
        before = torch.zeros_like(real), torch.zeros_like(imag)
        for _ in range(self.network.n_iter):
            found = self.frames.analyse(self.frames.sound(real, imag))
            real, imag = (now - _INERTIA * was for now, was in zip(found, before, strict=True))
            if self.inversion is not None:
                power = 0.5 * (power + _power(*found))
                for _ in range(2):
                    power = self.inversion.improved(power, asked)
            known = _with_power(real[:, :-1], imag[:, :-1], power)
            real, imag = (torch.cat([k, f[:, -1:]], 1) for k, f in zip(known, found, strict=True))
            before = found
        return self.frames.sound(real, imag)

    def _lack(self, power: Tensor, found: Tensor) -> Tensor:
        if self.inversion is not None:
            lack = (power + LEAST) / (found @ self.inversion.to_bands + LEAST)
            return lack @ self.inversion.to_bins
        bins = self.network.params.fft_bins
        return F.pad((power + LEAST) / (found[..., bins] + LEAST), (bins.start, found.shape[-1] - bins.stop))


class InversionGraph(nn.Module):
    """What `MelInversion` does, (B, n_frames, n_mels) -> (B, n_frames, n_fft // 2 + 1)."""

    def __init__(self, inversion: MelInversion) -> None:
        super().__init__()
        self.n_iter = inversion.n_iter
        for name, matrix in (
            ("of_band", inversion.of_band),
            ("to_bands", inversion.filters.T.contiguous()),
            ("to_bins", inversion.filters / inversion.of_bin),  # each the mean of the bands that it is in
        ):
            self.register_buffer(name, matrix)

    def forward(self, mel_power: Tensor) -> Tensor:
        power = (mel_power / self.of_band) @ self.to_bins
        for _ in range(self.n_iter):
            power = self.improved(power, mel_power)
        return power

    def improved(self, power: Tensor, mel_power: Tensor) -> Tensor:
        """As `BinSearch.improve`."""
        return power * ((mel_power / (power @ self.to_bands).clamp_min(1e-20)) @ self.to_bins)


class VocosGraph(nn.Module):
    """What `Vocos` does: its backbone as it is, its inverse STFT in real numbers.

    Args:
        vocos: the vocoder.
        n_frames: of the spectrograms.
    """

    takes_noise = False

    def __init__(self, vocos: Vocos, n_frames: int) -> None:
        super().__init__()
        p = vocos.params
        self.backbone, self.out = vocos.backbone, vocos.head.out
        self.inversion = InversionGraph(vocos.inversion)
        self.frames = RealFrames(Frames(n_frames, p.n_fft, p.hop_length, p.win_length, torch.zeros(1)))
        fade = edge_fade(n_frames * p.hop_length, p.sample_rate)
        self.register_buffer("fade", fade)

    def forward(self, power: Tensor) -> Tensor:
        n_channels = power.shape[1]
        bins = self.inversion(power.flatten(0, 1).transpose(-1, -2))
        features = (bins.sqrt() @ self.inversion.to_bands).clamp_min(LOWEST_MAGNITUDE).log().transpose(-1, -2)
        features = torch.cat([features, features[..., -1:]], -1)
        log_magnitude, phase = self.out(self.backbone(features)).chunk(2, dim=-1)
        magnitude = log_magnitude.exp().clamp_max(1e2)  # as in vocos.heads.ISTFTHead
        waveform = self.frames.sound(magnitude * phase.cos(), magnitude * phase.sin())
        return (waveform * self.fade).unflatten(0, (-1, n_channels))


def _power(real: Tensor, imag: Tensor) -> Tensor:
    """Of all frames but the one behind the end, which no spectrogram shows."""
    return real[:, :-1].square() + imag[:, :-1].square()


def _with_power(real: Tensor, imag: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
    """The same phases with another power."""
    gain = (power / (real.square() + imag.square()).clamp_min(1e-32)).sqrt()
    return real * gain, imag * gain


def _scaled(frames: RealFrames, real: Tensor, imag: Tensor, gain: Tensor) -> Tensor:
    """The sound of a spectrum after gains (B, n_frames, bins); the frame behind the end stays as it is."""
    gain = F.pad(gain, (0, 0, 0, 1), value=1.0)
    return frames.sound(real * gain, imag * gain)
