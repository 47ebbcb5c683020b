"""Work that requests ask for: in folders that vanish with them, and only as many at a time as the limits allow."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from specgan.server.errors import RefusedError
from specgan.server.limits import Limits, Results, Slots
from specgan.server.points import KeptPoints
from specgan.server.sounds import SoundGenerator
from specgan.server.training import EncoderTraining
from specgan.server.uploads import Conversion, Plain, convert
from specgan.server.workers import end_workers, run_limited

_Made = TypeVar("_Made")

_NO_CHECKPOINT = (
    "the service was started without a checkpoint, so it makes no sounds; start it with one: "
    "python -m specgan.server ckpt_path=<run>/checkpoints/best.ckpt"
)


class Jobs:
    """Does the work of a service.

    Args:
        limits: what it takes.
        folder: for files; nobody else writes into it.
        sounds: a checkpoint that makes sounds; None: the service only draws those that are sent.
        picture: arguments of `specgan.pictures.render.render` for sent files.
        convert: called in a process of its own, as `specgan.server.uploads.convert` is; tests have others.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        folder: Path,
        sounds: SoundGenerator | None,
        picture: Mapping[str, object],
        convert: Conversion = convert,
    ) -> None:
        self.limits, self.folder, self.sounds = limits, folder, sounds
        self.results = Results(folder, keep_s=limits.keep_s, max_bytes=limits.max_kept_mb * 2**20)
        self.points = KeptPoints()
        self.training = None if sounds is None else EncoderTraining(sounds, folder)
        self._picture, self._convert = dict(picture), convert
        self._converting = Slots(limits.max_jobs, limits.max_waiting, limits.max_wait_s)
        self._generating = Slots(1, limits.max_waiting, limits.max_wait_s)
        # One thread, because each one that uses PyTorch would keep threads of its own.
        self._thread = ThreadPoolExecutor(1, "generator")

    @property
    def n_jobs(self) -> int:
        """Running and waiting."""
        return self._converting.n_jobs + self._generating.n_jobs

    def required_sounds(self) -> SoundGenerator:
        if self.sounds is None:
            raise RefusedError(404, "no_checkpoint", _NO_CHECKPOINT)
        return self.sounds

    @contextmanager
    def job_folder(self) -> Iterator[Path]:
        """A folder of one request. It is removed with all that is left in it, however the request ends."""
        with tempfile.TemporaryDirectory(prefix="job-", dir=self.folder, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    async def convert(self, upload: Path, wav: Path, png: Path, *, plain: Plain | None = None) -> str:
        """Draws a sent file and writes it as a WAV; returns warnings, see `specgan.server.uploads.convert`."""
        converted = partial(
            self._convert, upload, wav, png, max_duration_s=self.limits.max_duration_s, picture=self._picture
        )
        if plain is not None:
            converted = partial(converted, plain=plain)
        async with self._converting():
            return await asyncio.to_thread(
                run_limited,
                converted,
                timeout_s=self.limits.decode_timeout_s,
                max_memory_mb=self.limits.max_memory_mb,
            )

    async def generate(self, make: Callable[[], _Made]) -> _Made:
        """Calls what makes sounds, one call at a time."""
        async with self._generating():
            return await asyncio.get_running_loop().run_in_executor(self._thread, make)

    async def sweep(self) -> None:
        """Removes old results, for ever."""
        while True:
            await asyncio.sleep(1)
            self.results.sweep()

    def close(self) -> None:
        end_workers()
        self._thread.shutdown(wait=False, cancel_futures=True)
