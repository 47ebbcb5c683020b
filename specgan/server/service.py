"""Starts the service. conf/serve.yaml says what can be set."""

import logging
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
import uvicorn
from torch import nn

from specgan.audio import save_wav
from specgan.server.app import WEB, make_app
from specgan.server.errors import RefusedError
from specgan.server.limits import Limits
from specgan.server.sounds import SoundGenerator
from specgan.server.uploads import convert
from specgan.server.workers import run_limited

log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 256


def serve(
    *,
    host: str,
    port: int,
    ckpt_path: str | Path | None,
    network: str | None,
    vocoder: Callable[..., nn.Module],
    carried_vocoder: bool,
    picture: Mapping[str, object],
    limits: Limits,
) -> None:
    """Runs the service until Ctrl-C or SIGTERM.

    Args:
        host: address to listen on.
        port: to listen on; 0: any that is free, which is logged.
        ckpt_path: a checkpoint of train.py; None: the service makes no sounds.
        network: class of its generator where it is your own, see `TrainedGenerator.load`.
        vocoder: called with the checkpoint's params and level_range, makes what turns spectrograms into sound.
        carried_vocoder: use the vocoder that the checkpoint carries instead, if it carries one.
        picture: arguments of `specgan.pictures.render.render` for sent files.
        limits: what clients can make it do.
    Raises:
        FileNotFoundError, ValueError: no such checkpoint, or an impossible setting.
    """
    sounds = None
    if ckpt_path is not None:
        sounds = SoundGenerator(ckpt_path, vocoder=vocoder, carried_vocoder=carried_vocoder, network=network)
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


def _try_picture(folder: Path, picture: Mapping[str, object], limits: Limits) -> None:
    """Draws a second of silence in a worker, so that an impossible setting ends the service at its start."""
    silence, wav, png = trial = [folder / name for name in ("silence.wav", "out.wav", "out.png")]
    save_wav(silence, torch.zeros(44100), 44100)
    try:
        run_limited(
            partial(convert, silence, wav, png, max_duration_s=1, picture=picture),
            timeout_s=60,  # the worker's first pages and caches
            max_memory_mb=limits.max_memory_mb,
        )
    except RefusedError as err:
        raise ValueError(f"picture is {dict(picture)}, max_memory_mb {limits.max_memory_mb:g}: {err}") from err
    finally:
        for path in trial:
            path.unlink(missing_ok=True)
