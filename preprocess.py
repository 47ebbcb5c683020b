"""Runs a task on a folder of audio: python preprocess.py task=spectrograms input=clips output=specs."""

import sys

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict

from specgan.command_line.arguments import run
from specgan.command_line.workers import warm_up


@hydra.main(version_base="1.3", config_path="conf", config_name="preprocess")
def main(cfg: DictConfig) -> None:
    """Runs the task; exits with 1 if a file failed."""
    import logging

    from hydra.utils import instantiate

    with open_dict(cfg):
        ask = cfg.task.pop("ask", None)
    if ask:
        instantiate(ask)(cfg)
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # names what is not set
    warm_up(cfg.task.get("executor"))
    report = instantiate(cfg.task, _convert_="all")()
    logging.getLogger(__name__).info("%s", report)
    if report.failures:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
