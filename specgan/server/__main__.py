"""The HTTP service: python -m specgan.server port=8000 ckpt_path=<run>/checkpoints/best.ckpt. See conf/serve.yaml."""

import hydra
from omegaconf import DictConfig, OmegaConf

from specgan.command_line.arguments import run
from specgan.command_line.commands import scripts_folder

CONF = scripts_folder() / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="serve")
def main(cfg: DictConfig) -> None:
    """Runs the service."""
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # names what is not set
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as err:
        raise ImportError(f"the service needs more packages ({err}): pip install 'specgan[serve]'") from err
    from hydra.utils import instantiate

    from specgan.server.workers import start_server

    start_server()  # first: it imports while this process does
    instantiate(cfg.serve, _convert_="all")()


if __name__ == "__main__":
    run(main)
