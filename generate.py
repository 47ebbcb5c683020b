"""Draws new sounds: python generate.py ckpt_path=<run>/checkpoints/last.ckpt label=kick. See conf/generate.yaml."""

import hydra
from omegaconf import DictConfig, OmegaConf

from specgan.command_line.arguments import run


@hydra.main(version_base="1.3", config_path="conf", config_name="generate")
def main(cfg: DictConfig) -> None:
    """Writes sounds, pictures and a page with them all into `output`."""
    from hydra.utils import instantiate

    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # names what is not set
    instantiate(cfg.generate, _convert_="all")()


if __name__ == "__main__":
    run(main)
