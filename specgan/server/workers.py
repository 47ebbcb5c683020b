"""Work on files of strangers, in processes that may take so much time and memory and no more."""

import json
import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_PRELOADED = [
    "specgan.pictures.render",
    "torchaudio.functional",
    "matplotlib",
    "av",
    "hydra",
]  # hydra: of the main module
_MOST_RATE = 48000  # Hz of the WAV: browsers play it, and it bounds its size
_MOST_DRAWN = 96000  # Hz of what is drawn: far above, mel bands are narrower than the bins of an FFT
_MOST_ANSWER = 2**20  # bytes
_START_S = 60.0  # that a worker may take until it begins; the first one waits for PyTorch
_SPARE_S = 5.0  # until a worker whose service was killed ends itself

# How files begin that hold sound: (place, bytes).
# fmt: off
_AUDIO_STARTS = (
    (0, b"RIFF"), (0, b"RIFX"), (0, b"RF64"), (0, b"riff"), (0, b"FORM"), (0, b".snd"), (0, b"caff"), (0, b"fLaC"),
    (0, b"OggS"), (0, b"ID3"), (0, b"\xff\xfa"), (0, b"\xff\xfb"), (0, b"\xff\xf1"), (0, b"\xff\xf2"), (0, b"\xff\xf3"),
    (0, b"\xff\xf9"), (0, b"\xff\xfd"), (0, b"ADIF"), (4, b"ftyp"), (0, b"\x1aE\xdf\xa3"), (0, b"0&\xb2u\x8ef\xcf\x11"),
    (0, b"#!AMR"), (0, b"MAC "), (0, b"wvpk"), (0, b"\x0bw"),
)
# fmt: on

_context = multiprocessing.get_context("forkserver")
_processes = threading.Lock()  # multiprocessing's list of children is not made for many threads


class RefusedError(ValueError):
    """What was sent is at fault. `status` is what HTTP calls it, `code` a word for programs."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def start_server() -> None:
    """Starts the process from which workers are forked, and which imports what they need once for all.

    Workers are not forked from this process, which would copy locks that its threads hold, and its clients' sockets.
    """
    _context.set_forkserver_preload(_PRELOADED)
    forkserver.ensure_running()


def end_workers() -> None:
    """Ends what is at work; those who wait for it get a RefusedError."""
    with _processes:
        for process in multiprocessing.active_children():
            process.kill()


def run_limited(
    function: Callable[..., str], *arguments: Any, timeout_s: float, max_memory_mb: float, **settings: Any
) -> str:
    """Calls a function in a new process, and ends the process when it takes too much.

    Args:
        function: of a module, not a lambda; its ValueErrors are the file's fault.
        arguments, settings: what it is called with.
        timeout_s: seconds that the call may take; then the process is killed.
        max_memory_mb: MiB that the call may take beyond what the process has at its start; Linux alone enforces it.
    Returns:
        What the function returns.
    Raises:
        RefusedError: the function raised it or a ValueError, took too much, or its process died.
        RuntimeError: it raised something else, whose traceback is in the message, or the process did not start.
    """
    ours, theirs = _context.Pipe(duplex=False)
    job = (theirs, timeout_s, max_memory_mb, function, arguments, settings)
    process = _context.Process(target=_work, args=job, daemon=True)
    with _processes:
        process.start()
    theirs.close()
    try:
        _wait_for_start(ours)
        if not ours.poll(timeout_s):
            raise RefusedError(400, "too_slow", f"decoding took over {timeout_s:g} s and was stopped; send less sound")
        # JSON, because a pickle from a process that a file has taken over would take over this one.
        answer = json.loads(ours.recv_bytes(_MOST_ANSWER))
    except (EOFError, OSError) as err:
        raise RefusedError(
            400, "not_decodable", "the decoder crashed on this file; check that it is whole, or convert it to WAV"
        ) from err
    finally:
        with _processes:
            process.kill()  # also after an answer: nothing is left for it to do
            process.join()
            process.close()
        ours.close()
    if "traceback" in answer:
        raise RuntimeError(f"in a worker: {answer['traceback']}")
    if "message" in answer:
        raise RefusedError(answer["status"], answer["code"], answer["message"])
    return answer["value"]


def _wait_for_start(answers: Connection) -> None:
    """What goes wrong until then is not the file's fault, and the time it takes not the file's time."""
    try:
        if answers.poll(_START_S):
            answers.recv_bytes(1)
            return
    except (EOFError, OSError) as err:
        raise RuntimeError("a worker died at its start") from err
    raise RuntimeError(f"a worker did not start within {_START_S:g} s")


def _work(
    answers: Connection,
    timeout_s: float,
    max_memory_mb: float,
    function: Callable[..., str],
    arguments: tuple,
    settings: Mapping[str, Any],
) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the service, which ends its workers
    signal.setitimer(signal.ITIMER_REAL, timeout_s + _SPARE_S)  # if nobody is left to kill it
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        limit = _data_bytes() + int(max_memory_mb * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    answer: dict[str, Any]
    answers.send_bytes(b".")
    try:
        answer = {"value": function(*arguments, **settings)}
    except RefusedError as err:
        answer = {"status": err.status, "code": err.code, "message": str(err)}
    except ValueError as err:
        answer = {"status": 400, "code": "not_drawable", "message": str(err)}
    except Exception as err:
        if isinstance(err, MemoryError) or "allocate memory" in str(err):  # PyTorch's is a RuntimeError
            message = f"decoding takes over {max_memory_mb:g} MB and was stopped; send less sound"
            answer = {"status": 400, "code": "too_much_memory", "message": message}
        else:
            import traceback

            answer = {"traceback": traceback.format_exc()}
    answers.send_bytes(json.dumps(answer).encode())


def _data_bytes() -> int:
    """What counts against RLIMIT_DATA and is there already."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")


def convert(upload: Path, wav: Path, png: Path, *, max_duration_s: float, picture: Mapping[str, Any]) -> str:
    """Draws an audio file of any format and writes it as a WAV that browsers play.

    The WAV has the channels of the file if these are one or two, else their mean, and at most 48 kHz.

    Args:
        upload: the file; its content says what it is.
        wav: is written.
        png: is written, as task=render draws it; of a file above 96 kHz, what is below 48 kHz.
        max_duration_s: longer sounds are refused.
        picture: arguments of `specgan.render`.
    Returns:
        What there is to warn of, or nothing.
    Raises:
        RefusedError: 400 or 415, as to HTTP.
    """
    from specgan.audio import AudioError, save_wav
    from specgan.pictures.render import render

    warnings = _Warnings()
    log = logging.getLogger("specgan")
    log.addHandler(warnings)
    log.propagate = False  # the client is told, and the service's log would name a file that is gone
    try:
        waveform, sample_rate, file_rate = _load(upload, max_duration_s)
        save_wav(wav, waveform, sample_rate)
        del waveform  # a quarter of a GB in ten minutes
        if file_rate > _MOST_DRAWN and picture.get("sample_rate") is None:
            picture = {**picture, "sample_rate": _MOST_DRAWN}
            warnings.texts.append(f"it has {file_rate} Hz, drawn up to {_MOST_DRAWN // 2} Hz")
        png.write_bytes(render(upload, **picture))
    except AudioError as err:
        start = upload.open("rb").read(12)
        if not any(start[place:].startswith(mark) for place, mark in _AUDIO_STARTS):
            raise RefusedError(415, "not_audio", _of_upload(err, upload)) from err
        raise RefusedError(400, "not_decodable", _of_upload(err, upload)) from err
    finally:
        log.removeHandler(warnings)
        log.propagate = True
    return "; ".join(dict.fromkeys(_of_upload(text, upload, wav) for text in warnings.texts))


def _load(upload: Path, max_duration_s: float) -> tuple:
    """Returns the waveform (channels, n_samples), its rate in Hz, and that of the file."""
    import torch

    from specgan.audio import open_audio

    with open_audio(upload, mono=False, block_frames=1, warn=False) as stream:
        file_rate, mono = stream.sample_rate, stream.n_channels > 2
    sample_rate = min(file_rate, _MOST_RATE)
    blocks, n_samples = [], 0
    with open_audio(upload, sample_rate=sample_rate, mono=mono) as stream:
        for block in stream.blocks:
            blocks.append(block)
            n_samples += block.shape[1]
            if n_samples > max_duration_s * sample_rate:
                raise RefusedError(
                    400, "too_long", f"audio_file lasts more than {max_duration_s:g} s, the most; send a part of it"
                )
    return (blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)), sample_rate, file_rate


def _of_upload(text: object, upload: Path, wav: Path | None = None) -> str:
    """Names files as the client knows them: where they lie here is no business of theirs."""
    return str(text).replace(str(upload), "audio_file").replace(str(wav), "the WAV")


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
