"""Uploads a generator: specgan push ckpt_path=<run>/checkpoints/best.ckpt repo=user/name. See conf/push.yaml."""

import hydra
from omegaconf import DictConfig, OmegaConf

from specgan.command_line.arguments import run
from specgan.command_line.commands import scripts_folder

CONF = scripts_folder() / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="push")
def main(cfg: DictConfig) -> None:
    """Uploads a generator, its card and some sounds; or shows what would be uploaded."""
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # names what is not set
    from hydra.utils import instantiate

    instantiate(cfg.push, _convert_="all")()


if __name__ == "__main__":
    run(main)
