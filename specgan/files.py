"""Files that appear whole or not at all, under names that every system takes."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

MOST_BYTES = 200  # of a name: file systems take 255, with suffixes

_HOST = secrets.token_hex(4)  # other machines may write into the same folder
_count = count()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary sibling of `path` that takes its place when the block ends without an exception.

    The sibling is hidden and keeps the suffix, because many writers choose the format by it. The parent folder is
    created. When the block raises, the sibling is removed and whatever stood at `path` before stays as it was.
    """
    path = Path(path)
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{_HOST}-{os.getpid()}-{next(_count)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:  # KeyboardInterrupt included: an interrupted run leaves nothing behind
        temporary.unlink(missing_ok=True)
        raise


def safe_name(name: str) -> str:
    """Makes a label or a stem one visible path component: no separator, no leading dot or dash, nothing unprintable.

    A name that leaves no room for a suffix is cut, and gets a digest of the whole, so that two stay two.
    """
    safe = "".join("_" if char in '/\\:*?"<>|' or not char.isprintable() else char for char in name)
    safe = "_" + safe[1:] if safe.startswith((".", "-")) else safe or "_"
    if len(safe.encode(errors="surrogateescape")) > MOST_BYTES:
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
        safe = safe.encode(errors="surrogateescape")[: MOST_BYTES - 9].decode(errors="ignore") + "-" + digest
    return safe
