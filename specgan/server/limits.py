"""What keeps the service alive whatever is sent to it: bodies that end, jobs that wait their turn, files that go."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_DRAINED = 4  # times the limit: so much too much is read to its end, because who is cut off sees no answer
_SPARE_S = 5.0  # a file that has just been asked for is there until it is sent


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
            raise HTTPException(413, f"the request is larger than {limit:,} bytes, the most; send less")

        await self.app(scope, limited, send)


class Slots:
    """Turns at work. Used as `async with slots():`.

    Args:
        n_at_work: jobs at a time, at least 1.
        n_waiting: jobs that wait for their turn; more are refused.
        wait_s: seconds that a job waits at most.
    """

    def __init__(self, n_at_work: int, n_waiting: int, wait_s: float) -> None:
        self._turns = asyncio.Semaphore(n_at_work)
        self._most, self._wait_s = n_at_work + n_waiting, wait_s
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


def _busy() -> HTTPException:
    return HTTPException(503, "the service has as much to do as it takes; try again soon", {"Retry-After": "2"})


@dataclass
class _Kept:
    path: Path
    n_bytes: int
    ends: float


class Results:
    """Files that can be fetched for a while, under names that nobody can guess.

    Args:
        folder: where they lie.
        keep_s: seconds until a file goes.
        max_bytes: of all files together; beyond that the oldest go earlier.
    """

    def __init__(self, folder: Path, *, keep_s: float, max_bytes: float) -> None:
        self.folder = folder
        self.keep_s, self.max_bytes = keep_s, max_bytes
        self._kept: dict[str, _Kept] = {}  # by name, the oldest first

    def add(self, path: Path) -> str:
        """Takes over a file of the same file system; returns its address."""
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
        """Removes what is over time, or too much."""
        now, n_bytes = time.monotonic(), sum(kept.n_bytes for kept in self._kept.values())
        for name, kept in list(self._kept.items()):
            if now < kept.ends + _SPARE_S and n_bytes <= self.max_bytes:
                break
            n_bytes -= kept.n_bytes
            del self._kept[name]
            kept.path.unlink(missing_ok=True)
