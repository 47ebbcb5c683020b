"""The stages of train.py that train: a model, an encoder, a judge. Each takes the composed configuration."""

import json
import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig, OmegaConf

from specgan.command_line.commands import command
from specgan.data.datamodule import SpectrogramDataModule
from specgan.evaluation.tables import with_interval
from specgan.files import write_json
from specgan.latent.kept import train_encoder
from specgan.models.starting import Start
from specgan.models.trained import TrainedGenerator, level_range_of
from specgan.survey.first_look import first_look
from specgan.survey.presets import read_presets
from specgan.training.settings import write_settings
from specgan.training.survival import end_on_sigterm
from specgan.training.threads import set_threads

log = logging.getLogger(__name__)

_LARGEST_SEED = 2**32 - 1  # of NumPy
# Others of Lightning's give networks half-precision weights, which neither the losses nor the measurements can use.
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


def fit(cfg: DictConfig) -> float | None:
    """Trains, writes `metrics.json` into the run folder and returns the metric that a sweep optimises.

    Raises:
        ValueError: the networks do not fit the spectrograms or `init_from`, nothing trains in the precision, or the run
            has no metric `optimized_metric`.
    """
    begin(cfg)
    _require_precision(cfg)
    # Lightning would refuse a file that is none later, with PyTorch's advice to read it anyway.
    level_range = None if cfg.ckpt_path is None else level_range_of(cfg.ckpt_path)
    settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    datamodule = instantiate(cfg.data, _convert_="all")
    datamodule.fixed_range = level_range
    model = instantiate(cfg.model, _convert_="all")
    start = _start_of(cfg, model)
    with isolate_rng():  # impossible sizes are refused before anything else is done
        networks = model.networks(datamodule.params, n_classes=1, channels=datamodule.channels)
        if start is not None:
            start.into(*networks, params=datamodule.params, class_names=[""])
            model.start = start
    trainer = instantiate(cfg.trainer, _convert_="all")
    run_dir = Path(cfg.paths.run_dir)

    def keep_settings(trainer: L.Trainer, _: L.LightningModule) -> None:
        if trainer.is_global_zero:
            write_settings(cfg, run_dir)

    def look(trainer: L.Trainer, _: L.LightningModule, stage: str) -> None:
        if trainer.is_global_zero:
            _look_at(datamodule)

    # Not before: a checkpoint that does not fit is refused, and then the settings of its run stay.
    trainer.callbacks.append(LambdaCallback(setup=look, on_train_start=keep_settings))
    try:
        for logger in trainer.loggers:
            logger.log_hyperparams(settings)
        trainer.fit(model, datamodule=datamodule, ckpt_path=cfg.ckpt_path, weights_only=True)
    finally:
        _close(trainer.loggers)  # a multirun goes on in this process

    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    if not metrics:
        log.warning(
            "nothing was trained: the checkpoint has all of trainer.max_epochs=%s, or trainer.max_time is over; "
            "raise them to go on",
            trainer.max_epochs,
        )
    if not trainer.is_global_zero:  # of several processes, one writes
        return _optimized(cfg.optimized_metric, metrics)
    # JSON has no word for NaN, which a diverged loss is
    known = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    write_metrics(run_dir, known)
    log.info("hear and see it: %s", run_dir / "previews" / "index.html")
    checkpoints = [run_dir / "checkpoints" / f"{name}.ckpt" for name in ("best", "last")]
    if checkpoint := next((path for path in checkpoints if path.is_file()), None):
        for text, script, arguments in model.commands(str(checkpoint)):
            log.info("%s: %s", text, command(script, **arguments))
    return _optimized(cfg.optimized_metric, metrics)


def fit_encoder(cfg: DictConfig, *, n_steps: int | None) -> None:
    """Trains the encoder of a checkpoint anew and keeps it beside it, as <name>.encoder.safetensors.

    Raises:
        FileNotFoundError, ValueError: no such checkpoint, its generator has no `from_embedding`, or a file that is no
            encoder is in the way.
    """
    end_on_sigterm()
    trained = TrainedGenerator.load(cfg.ckpt_path, network=OmegaConf.select(cfg, "generator._target_"))
    set_threads(cfg.threads)
    train_encoder(trained, cfg.ckpt_path, n_steps=n_steps)
    log.info("sounds like yours: %s", command("generate.py", ckpt_path=cfg.ckpt_path, like="my_sound.wav"))


def fit_judge(cfg: DictConfig) -> None:
    """Trains the judge of a data set anew; writes its accuracy on real clips into `metrics.json`."""
    begin(cfg)
    datamodule = instantiate(cfg.data, _convert_="all")
    datamodule.prepare_data()
    datamodule.setup("fit")
    evaluation = instantiate(cfg.evaluation, judge=cfg.model, _convert_="all")
    evaluator = evaluation.of(datamodule, retrain=True)
    metrics = {f"judge/{name}_accuracy": figure["value"] for name, figure in evaluator.judge.accuracy.items()}
    if found := evaluator.cross_validation():
        figure = found.accuracy
        metrics["judge/cross_validated_accuracy"] = figure["value"]
        log.info("accuracy by %d-fold cross-validation: %s", found.n_folds, with_interval(figure))
    write_json(Path(cfg.paths.run_dir) / "metrics.json", metrics, indent=2, allow_nan=False)


def write_metrics(run_dir: Path, metrics: Mapping[str, float | None]) -> None:
    """Writes the last values of a run; those that a run which goes on has not measured again stay."""
    path = run_dir / "metrics.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    if metrics or before:
        write_json(path, {**before, **metrics}, indent=2, allow_nan=False)


def fastest_precision() -> str:
    """The fastest of Lightning's precisions that trains as well as single precision, on this machine."""
    if torch.cuda.is_available():
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:  # emulated, as on older processors, it would be slower than single precision
        is_native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if is_native else "32-true"


def begin(cfg: DictConfig) -> None:
    """What each stage does first: signals, warnings, threads, seed.

    Raises:
        ValueError: an impossible seed.
    """
    end_on_sigterm()
    # Lightning's tips and device lists, which appear twice under Hydra; its warnings stay.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # inside Lightning, nothing a user can change
    warnings.filterwarnings("ignore", message="Checkpoint directory .* not empty")  # a run that goes on
    warnings.filterwarnings("ignore", message=".*could not find the monitored key.*")  # until the first measurement
    warnings.filterwarnings("ignore", message="Grad strides do not match")  # of DDP: about speed, by a few bytes
    if not isinstance(cfg.seed, int) or not 0 <= cfg.seed <= _LARGEST_SEED:
        raise ValueError(f"seed is {cfg.seed}; a whole number from 0 to {_LARGEST_SEED}")
    set_threads(cfg.threads)
    L.seed_everything(cfg.seed, workers=True, verbose=False)


def _start_of(cfg: DictConfig, model: L.LightningModule) -> Start | None:
    """The weights that a new training starts from, `init_from`; a run that goes on has its own."""
    if cfg.init_from is None:
        return None
    if cfg.ckpt_path is not None:
        log.info("init_from is not used again: the run goes on from %s", cfg.ckpt_path)
        return None
    if not hasattr(model, "start"):
        raise ValueError(
            f"init_from is {cfg.init_from}, and a {type(model).__name__} does not start from a generator's checkpoint; "
            "leave it out, or choose model=cgan (a vocoder starts with model.network.start)"
        )
    return Start.read(cfg.init_from)


def _look_at(data: SpectrogramDataModule) -> None:
    """Logs what there is to train on, and what the spectrogram settings leave out of sounds of one's own."""
    look = first_look(
        data.dataset_dir,
        data.params,
        read_presets(),
        n_frames=torch.cat([split.n_frames_of for split in (data.train, data.val, data.test)]).numpy(),
        crop=data.crop,
        local_dir=data.local_dir,
        may_read=data.audio_dir is not None,
    )
    log.info("%s", look.summary)
    for sentence in () if data.is_built_in else look.warnings:
        log.warning("%s", sentence)


def _require_precision(cfg: DictConfig) -> None:
    precision = OmegaConf.select(cfg, "trainer.precision")
    known = {*_PRECISIONS, *(name.split("-")[0] for name in _PRECISIONS)}  # Lightning's short names
    if isinstance(precision, (str, int)) and str(precision) not in known:
        raise ValueError(f"trainer.precision is {precision}; the models train in {', '.join(_PRECISIONS)}")


def _optimized(name: str | None, metrics: Mapping[str, float]) -> float | None:
    is_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    if name is None or (name not in metrics and not is_sweep):  # a single run is complete without it
        return None
    if name not in metrics:
        raise ValueError(f"optimized_metric is {name!r}; this run has {', '.join(sorted(metrics))}")
    return metrics[name]


def _close(loggers: list[Logger]) -> None:
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
