"""The HTTP service: python -m specgan.server port=8000 ckpt_path=<run>/checkpoints/best.ckpt. See conf/serve.yaml."""

import logging
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 256


@dataclass(frozen=True)
class Limits:
    """What a stranger can make the service do; conf/serve.yaml says what each field means."""

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


def serve(
    *,
    host: str,
    port: int,
    ckpt_path: str | Path | None,
    network: str | None,
    vocoder: Callable[..., Any],
    picture: Mapping[str, Any],
    limits: Limits,
) -> None:
    """Runs the service until Ctrl-C or SIGTERM.

    Args:
        host: address to listen on.
        port: to listen on; 0: any that is free, which is logged.
        ckpt_path: a checkpoint of train.py; None: the service makes no sounds.
        network: class of its generator where it is your own, see `TrainedGenerator.load`.
        vocoder: called with the checkpoint's params and level_range, makes what turns spectrograms into sound.
        picture: arguments of `specgan.render` for sent files.
        limits: what it takes.
    Raises:
        ImportError: the extra `serve` is not installed.
        FileNotFoundError, ValueError: no such checkpoint, or an impossible setting.
    """
    try:
        import python_multipart  # noqa: F401
        import uvicorn

        from specgan.server.app import WEB, make_app
    except ImportError as err:
        raise ImportError(f"the service needs more packages ({err}): pip install -e '.[serve]'") from err
    from specgan.server import workers as server_jobs
    from specgan.server.sounds import SoundGenerator

    server_jobs.start_server()  # first: it imports while this process does
    sounds = None if ckpt_path is None else SoundGenerator(ckpt_path, vocoder=vocoder, network=network)
    if sys.platform != "linux":
        log.warning("max_memory_mb: this system does not keep processes to it")
    if not (WEB / "index.html").is_file():
        log.warning("%s: no page there; the service answers programs alone", WEB)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again once all is answered
    with tempfile.TemporaryDirectory(prefix="specgan-", ignore_cleanup_errors=True) as folder:
        _try_picture(Path(folder), picture, limits)
        app = make_app(limits=limits, folder=Path(folder), sounds=sounds, picture=picture)
        what = f"sounds of {len(sounds.class_names)} classes" if sounds else "no sounds without ckpt_path"
        log.info("draws sent files, makes %s", what)
        uvicorn.run(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=5,
        )


def _try_picture(folder: Path, picture: Mapping[str, Any], limits: Limits) -> None:
    """Draws a second of silence in a worker, so that what is impossible is said at the start."""
    import torch

    from specgan.audio import save_wav
    from specgan.server import workers as server_jobs

    trial = [folder / name for name in ("silence.wav", "out.wav", "out.png")]
    save_wav(trial[0], torch.zeros(44100), 44100)
    try:
        server_jobs.run_limited(
            server_jobs.convert,
            *trial,
            timeout_s=60,  # the worker's first pages and caches
            max_memory_mb=limits.max_memory_mb,
            max_duration_s=1,
            picture=picture,
        )
    except server_jobs.RefusedError as err:
        raise ValueError(f"picture is {dict(picture)}, max_memory_mb {limits.max_memory_mb:g}: {err}") from err
    finally:
        for path in trial:
            path.unlink(missing_ok=True)
