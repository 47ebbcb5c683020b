"""Draws new sounds: python generate.py ckpt_path=<run>/checkpoints/last.ckpt label=kick. See conf/generate.yaml."""

import hydra
from omegaconf import DictConfig, OmegaConf

from specgan.command_line.arguments import run
from specgan.command_line.workers import warm_up


@hydra.main(version_base="1.3", config_path="conf", config_name="generate")
def main(cfg: DictConfig) -> None:
    """Writes sounds, pictures, a page with them all and a manifest into `output`, and perhaps a zip."""
    from hydra.utils import instantiate

    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # names what is not set
    if isinstance(cfg.n_samples, int) and cfg.n_samples >= cfg.workers_from:
        warm_up(cfg.executor)
    instantiate(cfg.generate, _convert_="all")()


if __name__ == "__main__":
    run(main)
