"""A short digest of settings: the name under which what they produce is kept."""

import hashlib
import json
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType


def fingerprint(*, n_digits: int = 8, **settings: object) -> str:
    """Returns hex digits that are equal for equal settings, in every process and on every machine.

    Args:
        n_digits: 1..64; 8 for a few names, 16 for thousands.
        **settings: JSON's types, dataclasses, paths, functions, classes, and `functools.partial` of these. Functions
            and classes count by their dotted name alone.
    Raises:
        TypeError: a setting is none of these, so nothing says when two of it are equal.
    """
    text = json.dumps(settings, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:n_digits]


def _plain(value: object) -> object:
    """What JSON does not know, in what it knows."""
    if isinstance(value, partial):
        return {"function": _plain(value.func), "args": value.args, "keywords": value.keywords}
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no fingerprint of {value!r}: neither plain values, nor a dataclass, a function or a class")
