"""The HTTP service: python -m specgan.server port=8000 ckpt_path=<run>/checkpoints/best.ckpt. See conf/serve.yaml."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from specgan.command_line.arguments import run

CONF = Path(__file__).parents[2] / "conf"


@hydra.main(version_base="1.3", config_path="../../conf", config_name="serve")
def main(cfg: DictConfig) -> None:
    """Runs the service."""
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # names what is not set
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as err:
        raise ImportError(f"the service needs more packages ({err}): pip install -e '.[serve]'") from err
    from hydra.utils import instantiate

    from specgan.server.workers import start_server

    start_server()  # first: it imports while this process does
    instantiate(cfg.serve, _convert_="all")()


if __name__ == "__main__":
    if not (CONF / "serve.yaml").is_file():
        sys.exit(f"{CONF}/serve.yaml: no such file; run the service from a clone of specgan, installed with pip -e")
    run(main)
