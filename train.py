"""Trains a model: python train.py model=cgan. See conf/train.yaml for what can be set."""

import os
import sys

import hydra
from omegaconf import DictConfig, OmegaConf


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Trains, writes `metrics.json` into the run folder and returns the metric that a sweep optimises."""
    import json
    import logging
    import warnings
    from pathlib import Path

    import lightning as L
    from hydra.utils import instantiate

    log = logging.getLogger(__name__)
    settings = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    # Lightning's tips and device lists, each printed twice under Hydra; its warnings stay.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # inside Lightning, nothing a user can change
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = instantiate(cfg.data, _convert_="all")
    model = instantiate(cfg.model, _convert_="all")
    trainer = instantiate(cfg.trainer, _convert_="all")
    try:
        for logger in trainer.loggers:
            logger.log_hyperparams(settings)
        trainer.fit(model, datamodule=datamodule, ckpt_path=cfg.ckpt_path, weights_only=True)
    finally:
        _close(trainer.loggers)  # a multirun goes on in this process

    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    run_dir = Path(cfg.paths.run_dir)
    (run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    log.info("hear and see it: %s", run_dir / "previews" / "index.html")
    log.info("new sounds: python generate.py ckpt_path=%s label=all", run_dir / "checkpoints" / "last.ckpt")
    if cfg.optimized_metric is None:
        return None
    if cfg.optimized_metric not in metrics:
        raise ValueError(f"optimized_metric is {cfg.optimized_metric!r}; this run has {', '.join(sorted(metrics))}")
    return metrics[cfg.optimized_metric]


def _close(loggers: list) -> None:
    from lightning.pytorch.loggers import WandbLogger

    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


if __name__ == "__main__":
    if "HYDRA_FULL_ERROR" not in os.environ:
        sys.tracebacklimit = 0  # the message alone; Hydra says how to see the rest
    main()
