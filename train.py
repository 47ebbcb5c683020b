"""Trains a model: python train.py model=cgan. See conf/train.yaml for what can be set."""

import warnings

import hydra
from omegaconf import DictConfig

from specgan.command_line.arguments import run


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Trains (stage=fit), or measures what was trained (stage=test); returns the metric that a sweep optimises."""
    from hydra.utils import instantiate

    return instantiate(cfg.stage)(cfg)


if __name__ == "__main__":
    # Said of our launchers, which have the names of the plugins' own; what misspelt settings need is meant.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
    run(main)
