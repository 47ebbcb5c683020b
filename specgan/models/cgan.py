"""The class-conditional GAN as a LightningModule."""

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from specgan.models.augmentation import Augmentation
from specgan.models.losses import AdversarialLoss, gradient_penalty
from specgan.models.schedule import Schedule, share_over
from specgan.models.shared import VOCODER_KEY
from specgan.models.starting import Start
from specgan.models.trained import CHECKPOINT_KEY, TrainedGenerator
from specgan.models.variation import Variation
from specgan.spectrogram import LevelRange, SpectrogramParams

log = logging.getLogger(__name__)

_TRIED_STEPS = 10  # after which the length of the training is estimated


class CGAN(L.LightningModule):
    """Discriminator and generator, one step each per batch, and a moving average of the generator.

    The networks are injected as factories: their sizes (n_classes, n_mels, n_frames, channels) come from the data set,
    so `build` calls them, which Lightning reaches through `configure_model`.

    Several processes (Lightning's ddp, with find_unused_parameters, because each step leaves out the other network's
    weights) train as one process would with all their batches: each draws its own part of the same noise.

    Args:
        generator: called with n_classes, n_mels, n_frames, latent_dim, and channels unless it is 1.
        discriminator: called with n_classes, n_mels, n_frames, and channels unless it is 1.
        loss: the adversarial loss and its gradient penalty.
        optimizer_g: called with the generator's parameters; a partial with lr=None gets the schedule's learning rate.
        optimizer_d: the same for the discriminator.
        latent_dim: size of the noise vector z.
        ema_decay: decay per step of the moving average that sampling uses, 0..1; 0: no average; None: the schedule's.
            In the first steps the average is shorter, so that it forgets the initial weights.
        decay_from: share of the training (the trainer's max_epochs or max_time, whichever ends first) after which the
            learning rates fall linearly to 0 at its end; 1: they stay; None: the schedule's.
        channels_last: memory layout of the convolutions; it changes nothing but speed and rounding.
        augmentation: of what the discriminator sees; None: none.
        variation: of the real clips, which the generator learns; None: none.
        compile: use torch.compile, which takes a minute at the start. If it fails, the reason is logged and training
            goes on uncompiled. Steps with a gradient penalty are never compiled: PyTorch cannot differentiate compiled
            networks twice.
        seed: of the training noise.
    """

    def __init__(
        self,
        *,
        generator: Callable[..., nn.Module],
        discriminator: Callable[..., nn.Module],
        loss: AdversarialLoss,
        optimizer_g: Callable[..., Optimizer],
        optimizer_d: Callable[..., Optimizer],
        latent_dim: int = 128,
        ema_decay: float | None = 0.999,
        decay_from: float | None = 1.0,
        channels_last: bool = True,
        augmentation: Augmentation | None = None,
        variation: Variation | None = None,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if ema_decay is not None and not 0 <= ema_decay < 1:
            raise ValueError(f"ema_decay is {ema_decay}; it must be at least 0 and below 1")
        if decay_from is not None and not 0 <= decay_from <= 1:
            raise ValueError(f"decay_from is {decay_from}; a share of the training, from 0 to 1")
        self.automatic_optimization = False
        self.make_generator = generator
        self.make_discriminator = discriminator
        self.loss = loss
        self.make_optimizer_g = optimizer_g
        self.make_optimizer_d = optimizer_d
        self.latent_dim = latent_dim
        self.ema_decay = ema_decay
        self.decay_from = decay_from
        self.channels_last = channels_last
        self.augmentation = augmentation or Augmentation(probability=0.0)
        self.variation = variation or Variation(strength=0.0)
        self.compiles = compile
        self.rate_scale = 1.0  # of the learning rates; a rollback lowers it
        self.noise = torch.Generator().manual_seed(seed)
        self.generator: nn.Module | None = None
        self.start: Start | None = None  # weights that a new training starts from
        self.carried: Mapping[str, Any] | None = None  # a trained vocoder, for its checkpoints to carry
        self.n_steps = 0  # batches seen; Lightning's global_step counts the steps of both players

    def configure_model(self) -> None:
        if self.generator is None:
            data = self.trainer.datamodule
            self.build(
                params=data.params, level_range=data.level_range, class_names=data.class_names, channels=data.channels
            )
            self.augmentation.choose(data.n_clips_of_classes)
            if self.start is not None:
                self._begin_from(self.start)

    def _begin_from(self, start: Start) -> None:
        players = self.generator, self.discriminator
        for sentence in start.into(*players, params=self.params, class_names=self.class_names):
            if self.trainer.is_global_zero:
                log.info("%s", sentence)
        self.ema.load_state_dict(self.generator.state_dict())

    def build(
        self, *, params: SpectrogramParams, level_range: LevelRange, class_names: Sequence[str], channels: int = 1
    ) -> None:
        """Creates the networks for a data set."""
        self.params, self.level_range, self.class_names = params, level_range, list(class_names)
        self.channels = channels
        generator, discriminator = self.networks(params, n_classes=len(class_names), channels=channels)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        self.generator = generator.to(memory_format=layout)
        self.discriminator = discriminator.to(memory_format=layout)
        self.ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.schedule = self._schedule_for(math.inf)  # until the speed of the steps is known

    def networks(self, params: SpectrogramParams, *, n_classes: int, channels: int = 1) -> tuple[nn.Module, nn.Module]:
        """Returns a new generator and a new discriminator for spectrograms of these settings.

        Raises:
            ValueError: their settings do not fit such spectrograms, or one of your own takes no `channels`.
        """
        sizes = {"n_classes": n_classes, "n_mels": params.n_bins, "n_frames": params.n_frames}
        sizes |= {"channels": channels} if channels != 1 else {}  # networks of your own may be of one channel
        try:
            return self.make_generator(**sizes, latent_dim=self.latent_dim), self.make_discriminator(**sizes)
        except TypeError as err:
            if channels == 1 or "'channels'" not in str(err):
                raise
            raise ValueError(f"data.channels is {channels}, and a network takes no channels ({err}); add it") from err

    def on_fit_start(self) -> None:
        if self.trainer.is_global_zero:
            log.info("augmentation of what the discriminator sees: %s", self.augmentation)
            if self.variation.strength:
                log.info("variation of the real clips, which the generator learns: %s", self.variation)
        if self.compiles:
            self._compile()

    def _compile(self) -> None:
        """Compiles both networks and tries them, without a change of their weights."""
        torch.compiler.set_stance("default")
        self.generator.compile()
        self.discriminator.compile()
        n_examples = self.trainer.datamodule.batch_size
        labels = torch.zeros(n_examples, dtype=torch.int64, device=self.device)
        try:
            with self.trainer.precision_plugin.forward_context():
                fake = self.generator(torch.zeros(n_examples, self.latent_dim, device=self.device), labels)
                loss = self._logits_of_real(_single(fake), labels)[0].sum() + self.discriminator(fake, labels).sum()
                torch.autograd.grad(loss, [*self.generator.parameters()], allow_unused=True)
        except RuntimeError as err:  # all errors of torch.compile are
            torch.compiler.set_stance("force_eager")
            # PyTorch's first line may be no more than "backend='inductor' raised:"
            lines = [line for line in str(err).splitlines() if not line.endswith("raised:")] or [type(err).__name__]
            log.warning("torch.compile failed, so training goes on without (model.compile=false): %s", lines[0])

    def _uncompiled(self) -> AbstractContextManager[None]:
        # not without need: it imports the compiler
        return torch.compiler.set_stance("force_eager") if self.compiles else nullcontext()

    def configure_optimizers(self) -> list[Optimizer]:
        first = {"lr": self.schedule.learning_rate}
        return [make(network.parameters(), **(first if _is_rate_open(make) else {})) for make, network in self._players]

    @property
    def _players(self) -> list[tuple[Callable[..., Optimizer], nn.Module]]:
        return [(self.make_optimizer_g, self.generator), (self.make_optimizer_d, self.discriminator)]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """One step of each player; returns its scalars, detached."""
        real, labels = batch
        real = self.variation(real, n_processes=self.trainer.world_size, rank=self.trainer.global_rank)
        optimizer_g, optimizer_d = self.optimizers()
        over = share_over(self.trainer, batch_idx, device=self.device)
        self._set_rates(over)
        self.augmentation.advance(over, self.n_steps)
        # Both players use the same generated batch, and the logits of the real one are computed once.
        fake = self.generator(self._draw_noise(real, self.trainer), labels)
        values = self._discriminator_step(real, fake.detach(), labels, optimizer_d)
        values |= self._generator_step(values["real_logits"], fake, labels, optimizer_g)
        self._update_ema()
        self.n_steps += 1
        if self.augmentation.final:
            values["augmentation"] = torch.tensor(self.augmentation.probability, device=self.device)
        scalars = {name: value.mean() for name, value in values.items()}
        for name, value in scalars.items():
            is_loss = name.startswith("loss")
            self.log(f"train/{name}", value, on_step=False, on_epoch=True, prog_bar=is_loss, sync_dist=True)
        return scalars

    def _set_rates(self, over: float) -> None:
        if self.n_steps == _TRIED_STEPS:  # by now their speed is known
            n_steps = self.n_steps / over if over else math.inf
            self.schedule = self._schedule_for(n_steps)
            if self.trainer.is_global_zero:
                length = f"about {n_steps:.0f}" if over else "any number of"
                log.info("a training of %s steps: %s", length, self.schedule)
        for optimizer, (make, _) in zip(self.optimizers(), self._players, strict=True):
            rate = self.schedule.learning_rate if _is_rate_open(make) else optimizer.defaults["lr"]
            for group in optimizer.param_groups:
                group["lr"] = rate * self.schedule.scale(over) * self.rate_scale

    def _schedule_for(self, n_steps: float) -> Schedule:
        """The schedule of a training of that length, with the settings that were given."""
        return self._with_given(
            Schedule.for_length(n_steps, n_values=self.channels * self.params.n_bins * self.params.n_frames)
        )

    def _with_given(self, schedule: Schedule) -> Schedule:
        given = {
            "learning_rate": getattr(self.make_optimizer_g, "keywords", {}).get("lr"),
            "decay_from": self.decay_from,
            "ema_decay": self.ema_decay,
        }
        return replace(schedule, **{name: value for name, value in given.items() if value is not None})

    def _discriminator_step(
        self, real: Tensor, fake: Tensor, labels: Tensor, optimizer: Optimizer
    ) -> dict[str, Tensor]:
        """Returns its losses, scalars, and the logits (B,), all detached."""
        penalised = self.loss.gamma > 0 and self.n_steps % self.loss.penalty_every == 0
        real, fake = (_single(x.detach()).requires_grad_(penalised) for x in (real, fake))

        with self._uncompiled() if penalised else nullcontext():
            real_logits, classified = self._logits_of_real(self._augmented(real, labels), labels)
            fake_logits = _single(self.discriminator(self._augmented(fake, labels), labels))
        loss = self.loss.discriminator_loss(real_logits, fake_logits)
        values = {"loss_d": loss, "real_logits": real_logits, "fake_logits": fake_logits} | classified
        if classified:
            loss = loss + self.discriminator.class_weight * classified["class_loss"]
        if penalised:
            values["r1"], values["r2"] = gradient_penalty(real_logits, real), gradient_penalty(fake_logits, fake)
            loss = loss + self.loss.penalty_every * self.loss.gamma * (values["r1"] + values["r2"])

        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return {name: value.detach() for name, value in values.items()}

    def _logits_of_real(self, real: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits (B,), and the loss of the discriminator's classification, a scalar, if it classifies."""
        if not getattr(self.discriminator, "class_weight", 0):
            return _single(self.discriminator(real, labels)), {}
        logits, class_logits = self.discriminator(real, labels, with_classes=True)
        return _single(logits), {"class_loss": F.cross_entropy(_single(class_logits), labels)}

    def _generator_step(
        self, real_logits: Tensor, fake: Tensor, labels: Tensor, optimizer: Optimizer
    ) -> dict[str, Tensor]:
        """Returns its loss, a detached scalar."""
        self.toggle_optimizer(optimizer)  # no gradients for the discriminator's weights, which nothing would use
        fake_logits = _single(self.discriminator(self._augmented(fake, labels), labels))
        loss = self.loss.generator_loss(real_logits, fake_logits)

        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.untoggle_optimizer(optimizer)
        return {"loss_g": loss.detach()}

    def _draw_noise(self, real: Tensor, trainer: L.Trainer) -> Tensor:
        n_processes, rank = trainer.world_size, trainer.global_rank
        z = torch.randn(n_processes * len(real), self.latent_dim, generator=self.noise)
        return z[rank * len(real) : (rank + 1) * len(real)].to(real)

    def _augmented(self, spectrogram: Tensor, labels: Tensor) -> Tensor:
        if not self.augmentation.final:
            return spectrogram
        trainer = self.trainer
        return self.augmentation(spectrogram, labels, n_processes=trainer.world_size, rank=trainer.global_rank)

    @torch.no_grad()
    def _update_ema(self) -> None:
        decay = min(self.schedule.ema_decay, (1 + self.n_steps) / (10 + self.n_steps))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.generator.parameters()), 1 - decay)
        for averaged, current in zip(self.ema.buffers(), self.generator.buffers(), strict=True):
            averaged.copy_(current)

    @property
    def trained(self) -> TrainedGenerator:
        """The averaged generator and what its output means. Known after `build`."""
        return TrainedGenerator(
            self.ema, self.params, self.level_range, self.class_names, self.n_steps, vocoder=self.carried
        )

    def sample(self, labels: Sequence[int], seeds: Sequence[int]) -> Tensor:
        """Draws spectrograms (B, channels, n_mels, n_frames) from the averaged generator; see `generators.sample`."""
        return self.trained.sample_indices(labels, seeds)

    def commands(self, checkpoint: str) -> list[tuple[str, str, dict[str, str]]]:
        """What can be done with a checkpoint: what for, the script, and its arguments."""
        return [
            ("new sounds", "generate.py", {"ckpt_path": checkpoint, "label": "all"}),
            ("how good are they", "train.py", {"stage": "test", "ckpt_path": checkpoint}),
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the trained generator, and what a training needs to go on. It loads with weights_only=True."""
        checkpoint[CHECKPOINT_KEY] = self.trained.to_dict() | {
            "noise_state": self.noise.get_state(),
            "rate_scale": self.rate_scale,
            "schedule": asdict(self.schedule),
            "augmentation": self.augmentation.state_dict(),
            "variation": self.variation.state_dict(),
            # PyTorch's own generators: a network may have dropout
            "random_state": torch.get_rng_state(),
            "cuda_random_states": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the noise; a checkpoint of other classes, spectrogram or generator settings is a ValueError."""
        saved = checkpoint[CHECKPOINT_KEY]
        self.trained.require_continues(saved)
        self.n_steps = saved["n_steps"]
        self.carried = self.carried or saved.get(VOCODER_KEY)
        self.rate_scale = saved["rate_scale"]
        if "schedule" in saved:  # not in checkpoints from before there were any
            self.schedule = self._with_given(Schedule(**saved["schedule"]))
        self.augmentation.load_state_dict(saved.get("augmentation"))
        self.variation.load_state_dict(saved.get("variation"))
        self.noise.set_state(saved["noise_state"])
        torch.set_rng_state(saved["random_state"])
        for device, state in zip(range(torch.cuda.device_count()), saved["cuda_random_states"], strict=False):
            torch.cuda.set_rng_state(state, device)


def _is_rate_open(make: Callable[..., Optimizer]) -> bool:
    return isinstance(make, partial) and make.keywords.get("lr", 0) is None


def _single(x: Tensor) -> Tensor:
    """At least single precision: half is too coarse for losses and penalties."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
