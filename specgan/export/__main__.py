"""One file from a checkpoint: specgan export ckpt_path=<run>/checkpoints/best.ckpt output=kicks.onnx. See conf/."""

import hydra
from omegaconf import DictConfig, OmegaConf

from specgan.command_line.arguments import run
from specgan.command_line.commands import scripts_folder

CONF = scripts_folder() / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="export")
def main(cfg: DictConfig) -> None:
    """Writes an ONNX model, or a page that draws sounds."""
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # names what is not set
    from hydra.utils import instantiate

    instantiate(cfg.export, _convert_="all")()


if __name__ == "__main__":
    run(main)
