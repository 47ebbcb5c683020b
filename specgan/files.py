"""Files that appear whole or not at all, under names that every system takes."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary sibling of `path` that takes its place when the block ends without an exception.

    The sibling is hidden and keeps the suffix, because many writers choose the format by it. The parent folder is
    created. When the block raises, the sibling is removed and whatever stood at `path` before stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:  # KeyboardInterrupt included: an interrupted run leaves nothing behind
        temporary.unlink(missing_ok=True)
        raise


def safe_name(name: str) -> str:
    """Makes a label or a stem one visible path component: no separator, no leading dot or dash, nothing unprintable."""
    name = "".join("_" if char in '/\\:*?"<>|' or not char.isprintable() else char for char in name)
    return "_" + name[1:] if name.startswith((".", "-")) else name
