"""What keeps the service alive whatever is sent to it: limits of bodies, of jobs at a time, and of kept results."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from specgan.server.errors import RefusedError

_DRAINED = 4  # times the limit: a larger body is read up to here, because a client that is cut off sees no answer
_SPARE_S = 5.0  # that a file outlives its time, because it may be on its way to a client


@dataclass(frozen=True)
class Limits:
    """The most that clients can make the service do; conf/serve.yaml says what each field means."""

    max_upload_mb: float
    max_duration_s: float
    upload_timeout_s: float
    decode_timeout_s: float
    max_memory_mb: float
    max_jobs: int
    max_waiting: int
    max_wait_s: float
    keep_s: float
    max_kept_mb: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "max_waiting" else 1
            if field.type is int and not (isinstance(value, int) and value >= least):
                raise ValueError(f"{field.name} is {value}; a whole number, at least {least}")
            if not value > 0 and least:
                raise ValueError(f"{field.name} is {value}; above 0")

    @property
    def max_upload_bytes(self) -> int:
        return int(self.max_upload_mb * 2**20)


class BodyLimit:
    """ASGI middleware: refuses a body that is too large while it arrives, whatever Content-Length says.

    Args:
        app: the application.
        limit_of: bytes that the body of a request to a path may have.
    """

    def __init__(self, app: ASGIApp, *, limit_of: Callable[[str], int]) -> None:
        self.app = app
        self.limit_of = limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit, n_bytes = self.limit_of(scope["path"]), 0

        async def limited() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes <= limit:
                return message
            while message.get("more_body") and n_bytes <= _DRAINED * limit:
                message = await receive()
                n_bytes += len(message.get("body", b""))
            raise RefusedError(413, "too_large", f"the request is larger than {limit:,} bytes, the most; send less")

        await self.app(scope, limited, send)


class Slots:
    """Lets a number of jobs run at a time, and others wait. Used as `async with slots():`.

    Args:
        n_running: jobs at a time, at least 1.
        n_waiting: jobs that wait for their turn; more are refused.
        wait_s: seconds that a job waits at most.
    """

    def __init__(self, n_running: int, n_waiting: int, wait_s: float) -> None:
        self._turns = asyncio.Semaphore(n_running)
        self._most, self._wait_s = n_running + n_waiting, wait_s
        self.n_jobs = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        if self.n_jobs >= self._most:
            raise _busy()
        self.n_jobs += 1
        try:
            try:
                await asyncio.wait_for(self._turns.acquire(), self._wait_s)
            except TimeoutError as err:
                raise _busy() from err
            try:
                yield
            finally:
                self._turns.release()
        finally:
            self.n_jobs -= 1


def _busy() -> RefusedError:
    message = "the service has as much to do as it takes; try again soon"
    return RefusedError(503, "busy", message, headers={"Retry-After": "2"})


@dataclass
class _Kept:
    path: Path
    n_bytes: int
    ends: float


class Results:
    """Files that clients can fetch for a while, under names that nobody can guess.

    Args:
        folder: of these files.
        keep_s: seconds until a file goes.
        max_bytes: of all files together; beyond that the oldest go earlier.
    """

    def __init__(self, folder: Path, *, keep_s: float, max_bytes: float) -> None:
        self.folder = folder
        self.keep_s, self.max_bytes = keep_s, max_bytes
        self._kept: dict[str, _Kept] = {}  # by name, the oldest first

    def add(self, path: Path) -> str:
        """Moves a file of the same file system here; returns its address."""
        name = secrets.token_urlsafe(24) + path.suffix
        place = self.folder / name
        os.replace(path, place)
        self._kept[name] = _Kept(place, place.stat().st_size, time.monotonic() + self.keep_s)
        self.sweep()
        return f"/files/{name}"

    def find(self, name: str) -> Path | None:
        kept = self._kept.get(name)
        return kept.path if kept and time.monotonic() < kept.ends else None

    def sweep(self) -> None:
        """Removes files whose time is over, and the oldest where all together are too large."""
        now, n_bytes = time.monotonic(), sum(kept.n_bytes for kept in self._kept.values())
        for name, kept in list(self._kept.items()):
            if now < kept.ends + _SPARE_S and n_bytes <= self.max_bytes:
                break
            n_bytes -= kept.n_bytes
            del self._kept[name]
            kept.path.unlink(missing_ok=True)
