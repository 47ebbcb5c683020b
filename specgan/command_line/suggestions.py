"""What a misspelt setting may have meant."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

_N_SUGGESTED = 3


def suggestion(error: BaseException | None) -> str | None:
    """Returns a sentence with the settings that are most like the one that Hydra did not find.

    Args:
        error: of Hydra, which carries the configuration that it looked in.
    Returns:
        None: it is another error, or no setting is like it.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError

    cause = error.__cause__ if error else None
    if not isinstance(cause, ConfigAttributeError | ConfigKeyError) or cause.parent_node is None:
        return None
    sought, settings = cause.full_key, OmegaConf.to_container(cause.parent_node._get_root())
    settings.pop("hydra", None)  # its own, which hardly anybody means
    known = list(_names(settings))
    last = sought.rpartition(".")[2]
    found = [name for name in known if name.rpartition(".")[2] == last]  # of the same name, elsewhere
    found = found or get_close_matches(sought, known, n=_N_SUGGESTED, cutoff=0.8)
    if not found:
        return None
    return f"there is no setting {sought}; did you mean {' or '.join(found[:_N_SUGGESTED])}?"


def _names(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings."""
    for key, value in settings.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{key}.")
