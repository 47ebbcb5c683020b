"""Where networks run."""

import torch


def find_device(name: str) -> torch.device:
    """Returns the device of a name; "auto" is a GPU if there is one, else the CPU.

    Raises:
        ValueError: torch cannot use it here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.ones(1, device=device).cpu()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as err:  # AssertionError: torch without CUDA
        reason = str(err).partition("\n")[0]
        raise ValueError(f"device is {name!r}, which torch cannot use here ({reason}); auto, cpu, cuda") from err
    return device
