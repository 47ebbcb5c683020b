"""The workers of a script, which start while the script itself still imports."""

from omegaconf import DictConfig


def warm_up(executor: DictConfig | None) -> None:
    """Lets the workers of an executor import torch while this process does, where the executor can.

    Args:
        executor: its settings; None: there is none.
    """
    from hydra.utils import instantiate

    opener = instantiate(executor)
    if getattr(opener, "n_workers", None) != 1 and hasattr(opener, "warm_up"):
        opener.warm_up()
