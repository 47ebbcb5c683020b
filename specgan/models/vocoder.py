"""The training of a vocoder as a LightningModule."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from specgan.models.mixtures import Mixtures
from specgan.models.schedule import share_over
from specgan.models.shared import VOCODER_KEY
from specgan.models.sound_losses import envelope_loss, mel_loss, spectral_loss
from specgan.models.trained import CHECKPOINT_KEY
from specgan.spectrogram import LevelRange, Spectrogram, SpectrogramParams, denormalise

_LOWEST_DB = -70.0  # short-time levels re the loudest value of a spectrogram, below which they do not matter
_WARM_UP = 100  # steps in which the learning rate rises
_LARGEST_NORM = 1.0  # of the gradient
_MOST_TOGETHER = 64  # recordings that are read at a time


class VocoderTraining(L.LightningModule):
    """Trains a network that turns power of mel bands into sound, on the sounds that a data set keeps.

    A step draws its own examples from these sounds, at the spectrograms' rate: an attack needs its samples, not the
    spectrograms that batches of the data module hold. Those only say how long an epoch is.

    Args:
        network: called with the params of the spectrograms, returns a `specgan.vocoders.refinement.Refiner`.
        optimizer: called with its parameters.
        batch_size: sounds in a step.
        n_frames: of each.
        most_sounds: examples of the data set at most that are held in memory.
        resample: called with waveforms (N, T), their rate and the wanted one, both in Hz.
        synthetic: share of synthesised sounds among them, 0..1.
        ema_decay: per step, of the moving average of the weights that is kept.
        envelope_weight: of the loss on envelopes, beside those on spectra and short-time levels.
        mel_weight: of the loss on mel bands.
        sound_every: steps from one that also makes sound, to the next; the others learn the short-time levels alone.
        jitter_db: spectrograms are changed by normal noise of this standard deviation, as a generator's would be.
        seed: of the examples and phases.
    """

    def __init__(
        self,
        *,
        network: Callable[[SpectrogramParams], nn.Module],
        optimizer: Callable[..., Optimizer],
        resample: Callable[[Tensor, int, int], Tensor],
        batch_size: int = 8,
        n_frames: int = 24,
        most_sounds: int = 1000,
        synthetic: float = 0.2,
        ema_decay: float = 0.995,
        envelope_weight: float = 0.5,
        mel_weight: float = 1.0,
        sound_every: int = 3,
        jitter_db: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        sizes = {"batch_size": batch_size, "n_frames": n_frames, "most_sounds": most_sounds, "sound_every": sound_every}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; at least 1")
        self.make_network, self.make_optimizer, self.resample = network, optimizer, resample
        self.batch_size, self.n_frames, self.most_sounds = batch_size, n_frames, most_sounds
        self.ema_decay, self.jitter_db = ema_decay, jitter_db
        self.envelope_weight, self.mel_weight = envelope_weight, mel_weight
        self.sound_every, self.synthetic = sound_every, synthetic
        self.generator = torch.Generator().manual_seed(seed)
        self.rate_scale = 1.0  # of the learning rate; a rollback lowers it
        self.n_steps = 0
        self.network: nn.Module | None = None
        self.mixtures: Mixtures | None = None

    def networks(self, params: SpectrogramParams, *, n_classes: int = 1, channels: int = 1) -> nn.Module:
        """Returns a new network for spectrograms of these settings; classes and channels do not matter to it.

        Raises:
            ValueError: its settings do not fit such spectrograms.
        """
        return self.make_network(params)

    def configure_model(self) -> None:
        if self.network is None:
            data = self.trainer.datamodule
            self.build(params=data.params, level_range=data.level_range, class_names=data.class_names)

    def build(self, *, params: SpectrogramParams, level_range: LevelRange, class_names: Sequence[str] = ()) -> None:
        """Creates the network for a data set."""
        self.params, self.level_range, self.class_names = params, level_range, list(class_names)
        self.network = self.networks(params)
        self.ema = copy.deepcopy(self.network).requires_grad_(False)
        self.transform = Spectrogram(params)
        # three windows, from the pitch of a tone to the moment of an attack
        self.n_ffts = tuple(2 ** (params.n_fft // k).bit_length() // 2 for k in (1, 4, 16))

    def configure_optimizers(self) -> Optimizer:
        return self.make_optimizer(self.network.parameters())

    def on_fit_start(self) -> None:
        self.mixtures = Mixtures(
            self._recordings(),
            sample_rate=self.params.sample_rate,
            n_samples=self.n_frames * self.params.hop_length,
            synthetic=self.synthetic,
        )

    def _recordings(self) -> Tensor:
        """The sounds (N, T) of training clips, at the spectrograms' rate; several channels are several sounds."""
        clips = self.trainer.datamodule.train
        known = clips.with_sound.tolist()
        if not known:
            raise ValueError(
                f"{clips.folder}: it keeps no sounds, and a vocoder learns from them; make it with data=folder, or "
                "preprocess.py task=spectrograms task.keep_sounds=4000"
            )
        n_each = max(1, self.most_sounds // len(known))
        places = []
        for index in known[:: -(-len(known) // self.most_sounds)]:
            n = min(n_each, -(-int(clips.n_frames_of[index]) // self.params.n_frames))
            places += [(index, i / max(1, n - 1)) for i in range(n)]
        parts = [places[i : i + _MOST_TOGETHER] for i in range(0, len(places), _MOST_TOGETHER)]
        read = [clips.waveforms(part).flatten(0, -2) for part in parts]
        return torch.cat([self.resample(sounds, clips.sound_rate, self.params.sample_rate) for sounds in read])

    def training_step(self, batch: object, batch_idx: int) -> dict[str, Tensor]:
        """A step on sounds of its own; returns its losses."""
        self._set_rate(batch_idx)
        wanted = self.mixtures.draw(self.batch_size, self.generator).to(self.device)
        with torch.autocast(self.device.type, enabled=False):  # half is too coarse for spectra
            values = self.losses(wanted, with_sound=self.n_steps % self.sound_every == 0)
        for name, value in values.items():
            self.log(f"train/{name}", value.detach(), on_step=False, on_epoch=True, prog_bar=name == "loss")
        return values

    def losses(self, wanted: Tensor, *, with_sound: bool = True) -> dict[str, Tensor]:
        """The losses on sounds (B, T); `loss` is what is learned.

        Without sound only that on the short-time levels, which is much faster.
        """
        seeds = torch.randint(2**31, (len(wanted),), generator=self.generator).tolist()
        power = self.seen(wanted)
        loudest = power.amax((1, 2)).clamp_min(1e-20)
        power = (power / loudest[:, None, None]).mT.contiguous()  # (B, n_frames, n_bins)
        wanted = wanted / loudest.sqrt()[:, None]
        short = self.network.predict(power)
        levels = F.l1_loss(short.clamp_min(_LOWEST_DB), self.network.short_levels(wanted).clamp_min(_LOWEST_DB)) / 10
        if not with_sound:
            return {"loss": levels, "levels": levels}
        found = self.network.synthesise(power, short, seeds)
        spectral = spectral_loss(found, wanted, n_ffts=self.n_ffts)
        bands = mel_loss(found, wanted, sample_rate=self.params.sample_rate)
        envelope = envelope_loss(found, wanted, sample_rate=self.params.sample_rate)
        loss = levels + spectral + self.mel_weight * bands + self.envelope_weight * envelope
        return {"loss": loss, "levels": levels, "spectral": spectral, "bands": bands, "envelope": envelope}

    @torch.no_grad()
    def seen(self, waveforms: Tensor) -> Tensor:
        """The power (B, n_bins, n_frames) that a spectrogram of waveforms holds, not quite exact."""
        level = self.transform(waveforms)
        if self.params.level == "db":
            noise = torch.randn(level.shape, generator=self.generator).to(level)
            scale = torch.rand(len(level), 1, 1, generator=self.generator).to(level)
            level = (level + 2 * self.jitter_db * scale * noise).clamp_min(self.params.silence)
        return self.transform.to_power(level)

    @torch.no_grad()
    def sound(self, spectrogram: Tensor, *, seeds: Sequence[int]) -> Tensor:
        """Maps spectrograms (B, channels, n_bins, n_frames) in [-1, 1] to waveforms, as `Vocoder` does, on the CPU."""
        power = self.transform.to_power(denormalise(spectrogram.to(self.device).float(), self.level_range))
        waveforms = self.ema(power.flatten(0, 1), seeds).unflatten(0, power.shape[:2]).cpu()
        return waveforms.squeeze(1) if power.shape[1] == 1 else waveforms

    def _set_rate(self, batch_idx: int) -> None:
        over = share_over(self.trainer, batch_idx, device=self.device)
        for group in self.optimizers().param_groups:
            rise = min(1.0, (self.n_steps + 1) / _WARM_UP)
            group["lr"] = self.optimizers().defaults["lr"] * rise * min(1.0, 1.25 * (1 - over)) * self.rate_scale

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_NORM)

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.n_steps += 1
        decay = min(self.ema_decay, (1 + self.n_steps) / (10 + self.n_steps))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.network.parameters()), 1 - decay)

    def commands(self, checkpoint: str) -> list[tuple[str, str, dict[str, str]]]:
        """As `CGAN.commands`."""
        used = {"vocoder": "learned", "vocoder.path": checkpoint}
        return [
            ("new sounds through it", "generate.py", {"ckpt_path": "RUN/checkpoints/best.ckpt", **used}),
            ("how good is it", "train.py", {"stage": "test", "ckpt_path": checkpoint}),
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the trained network as plain values, and what a training needs to go on."""
        checkpoint[CHECKPOINT_KEY] = {
            VOCODER_KEY: self.ema.contents(),
            "level_range": vars(self.level_range),
            "n_steps": self.n_steps,
            "rate_scale": self.rate_scale,
            "generator_state": self.generator.get_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the examples; a checkpoint of another network or other spectrograms is a ValueError."""
        saved = checkpoint[CHECKPOINT_KEY]
        if VOCODER_KEY not in saved or "generator_state" not in saved:
            raise ValueError("the checkpoint is not one of model=vocoder; start without ckpt_path")
        there, here = ({**of["params"], **of["settings"]} for of in (saved[VOCODER_KEY], self.ema.contents()))
        here.pop("n_iter", None)  # nothing is learned in these iterations
        differing = [f"{name}: checkpoint {there.get(name)!r}, this run {here[name]!r}" for name in here]
        differing = [text for text, name in zip(differing, here, strict=True) if there.get(name) != here[name]]
        if differing:
            raise ValueError(f"the checkpoint does not fit this run; they differ in {'; '.join(differing)}")
        self.n_steps, self.rate_scale = saved["n_steps"], saved["rate_scale"]
        self.generator.set_state(saved["generator_state"])
