"""Waiting for other processes, and finding them."""

import time
from pathlib import Path


def wait_until(is_so, *, seconds: float = 60) -> None:
    """Waits for a condition, and fails after `seconds`."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"still not so after {seconds} s"
        time.sleep(0.005)


def processes_of_group(group: int) -> list[int]:
    """Ids of the processes in a group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_group) == group and state != "Z":  # Z: ended, its exit status not yet read
            found.append(int(path.parent.name))
    return found
