"""The service's routes: what is asked and answered over HTTP. conf/serve.yaml says what can be set."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

import specgan
from specgan.generation import SoundFiles
from specgan.server.limits import BodyLimit, Results, Slots
from specgan.server.schema import (
    FORM,
    MOST_JSON,
    Between,
    Classes,
    Converted,
    Failure,
    Generate,
    Generated,
    Health,
    Morph,
    Morphed,
    Sound,
    errors,
    openapi,
)
from specgan.server.sounds import SoundGenerator
from specgan.server.workers import RefusedError, convert, end_workers, run_limited

WEB = Path(__file__).parent / "web"

_UPLOAD = "/api/audio/generate-spectrogram"
_TYPES = {".wav": "audio/wav", ".png": "image/png"}
_NOSNIFF = {"X-Content-Type-Options": "nosniff"}
_PAGE = {**_NOSNIFF, "Content-Security-Policy": "default-src 'self' data:"}  # no other hosts
_ERRORS = {404: "not_found", 405: "method_not_allowed", 408: "too_slow", 413: "too_large", 503: "busy"}
_NO_CHECKPOINT = (
    "the service was started without a checkpoint, so it makes no sounds; start it with one: "
    "python -m specgan.server ckpt_path=<run>/checkpoints/best.ckpt"
)


def make_app(
    *,
    limits: Any,
    folder: Path,
    sounds: SoundGenerator | None = None,
    picture: Mapping[str, Any] | None = None,
    convert: Callable[..., str] = convert,
) -> FastAPI:
    """Makes the ASGI application.

    Args:
        limits: a `specgan.server.service.Limits`.
        folder: for files, which this application has for itself.
        sounds: what makes sounds; None: the service only draws those that are sent.
        picture: arguments of `specgan.render`.
        convert: called in a process of its own as `specgan.server.workers.convert` is.
    """
    results = Results(folder, keep_s=limits.keep_s, max_bytes=limits.max_kept_mb * 2**20)
    max_upload = int(limits.max_upload_mb * 2**20)
    decoding = Slots(limits.max_jobs, limits.max_waiting, limits.max_wait_s)
    generating = Slots(1, limits.max_waiting, limits.max_wait_s)
    # One thread, because each one that uses PyTorch would keep threads of its own.
    generator_thread = ThreadPoolExecutor(1, "generator")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(results))
        yield
        sweeping.cancel()
        end_workers()
        generator_thread.shutdown(wait=False, cancel_futures=True)

    # No pages of FastAPI's, which load scripts from other hosts.
    app = FastAPI(title="specgan", version=specgan.__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, limit_of=lambda path: max_upload + MOST_JSON if path == _UPLOAD else MOST_JSON)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RefusedError, lambda _, err: _failure(err.status, str(err), err.code))
    app.add_exception_handler(ClientDisconnect, lambda _, err: Response(status_code=400))  # nobody reads it
    app.add_exception_handler(Exception, _answer_bug)
    app.openapi = lambda: openapi(app, sounds.class_names if sounds else [])

    @app.get("/healthz", response_model=Health)
    async def healthz() -> Health:
        """Whether the service is there."""
        n_jobs = decoding.n_jobs + generating.n_jobs
        return Health(version=specgan.__version__, makes_sounds=sounds is not None, n_jobs=n_jobs)

    @app.post(_UPLOAD, response_model=Converted, responses=errors(400, 408, 413, 415, 500, 503), openapi_extra=FORM)
    async def generate_spectrogram(request: Request) -> Converted:
        """Draws the spectrogram of a sent sound: any format, known by its content and not by its name."""
        with _job_folder(folder) as job:
            await _receive(request, job / "upload", max_upload, limits.upload_timeout_s)
            async with decoding():
                warnings = await asyncio.to_thread(
                    run_limited,
                    convert,
                    *(job / "upload", job / "sound.wav", job / "picture.png"),
                    timeout_s=limits.decode_timeout_s,
                    max_memory_mb=limits.max_memory_mb,
                    max_duration_s=limits.max_duration_s,
                    picture=dict(picture or {}),
                )
            message = "spectrogram of audio_file" + (f"; {warnings}" if warnings else "")
            urls = [results.add(job / name) for name in ("picture.png", "sound.wav")]
            return Converted(message=message, spectrogram_url=urls[0], audio_url=urls[1])

    @app.get("/api/classes", response_model=Classes, responses=errors(404, 500))
    async def classes() -> Classes:
        """Of what sounds can be made."""
        made = _required(sounds)
        return Classes(classes=made.class_names, sample_rate=made.sample_rate, duration_s=made.duration_s)

    wav = {200: {"content": {"audio/wav": {"schema": {"type": "string", "format": "binary"}}}}}

    @app.post("/api/generate", response_model=Generated, responses=errors(400, 404, 413, 500, 503) | wav)
    async def generate(asked: Generate) -> Any:
        """Makes sounds of a class, the same that generate.py makes of the same seeds."""
        made = _required(sounds)
        if asked.format == "wav" and asked.n != 1:
            raise RefusedError(400, "invalid", f"n is {asked.n}; format wav answers one file: n 1, or format json")
        _require_class(asked.label, "class", made)
        seeds = range(asked.seed, asked.seed + asked.n)
        with _job_folder(folder) as job:
            files = await at_work(made.generate, asked.label, seeds, job)
            if asked.format == "wav":
                return Response(files[0].wav.read_bytes(), media_type="audio/wav", headers=_NOSNIFF)
            done = [
                Sound(label=asked.label, seed=seed, **_urls(results, file))
                for seed, file in zip(seeds, files, strict=True)
            ]
            return Generated(message=f"{_count(done)} of {asked.label}", sounds=done)

    @app.post("/api/morph", response_model=Morphed, responses=errors(400, 404, 413, 500, 503))
    async def morph(asked: Morph) -> Morphed:
        """Makes sounds on the way from one class and seed to another; the ends are those of /api/generate."""
        made = _required(sounds)
        for end, name in ((asked.start, "from.class"), (asked.end, "to.class")):
            _require_class(end.label, name, made)
        labels, seeds = (asked.start.label, asked.end.label), (asked.start.seed, asked.end.seed)
        with _job_folder(folder) as job:
            try:
                files = await at_work(made.morph, labels, seeds, asked.n, job)
            except NotImplementedError as err:
                raise RefusedError(400, "no_morphing", str(err)) from err
            done = [Between(position=i / (asked.n - 1), **_urls(results, file)) for i, file in enumerate(files)]
        way = " to ".join(f"{label} {seed}" for label, seed in zip(labels, seeds, strict=True))
        return Morphed(message=f"{_count(done)} from {way}", sounds=done)

    async def at_work(make: Callable[..., list[SoundFiles]], *arguments: Any) -> list[SoundFiles]:
        async with generating():
            return await asyncio.get_running_loop().run_in_executor(generator_thread, make, *arguments)

    @app.get(
        "/files/{name}",
        response_class=Response,
        responses=errors(404, 500)
        | {200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _TYPES.values()}}},
    )
    async def files(name: str) -> Response:
        """A result; it goes after some minutes."""
        path = results.find(name)
        if path is None:
            raise HTTPException(404, f"no such file; results go after {limits.keep_s:g} s: ask for it again")
        headers = {**_NOSNIFF, "Cache-Control": f"private, max-age={limits.keep_s:g}"}
        return FileResponse(path, media_type=_TYPES[path.suffix], headers=headers)

    for path in sorted(WEB.glob("*.*")):  # each by its name: no path of a request leads into a folder
        _add_page(app, "/" if path.name == "index.html" else f"/{path.name}", path)
    return app


def _add_page(app: FastAPI, address: str, path: Path) -> None:
    app.add_api_route(address, lambda: FileResponse(path, headers=_PAGE), methods=["GET"], include_in_schema=False)


async def _sweep(results: Results) -> None:
    while True:
        await asyncio.sleep(1)
        results.sweep()


@contextmanager
def _job_folder(folder: Path) -> Iterator[Path]:
    """A folder of one request, which goes with all that is left in it however the request ends."""
    with tempfile.TemporaryDirectory(prefix="job-", dir=folder, ignore_cleanup_errors=True) as job:
        yield Path(job)


async def _receive(request: Request, path: Path, max_bytes: int, timeout_s: float) -> None:
    """Writes the file of a multipart form to `path`, as it arrives."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise RefusedError(400, "no_file", "the body is no form; send multipart/form-data with a file field audio_file")
    # Its temporary file has no name: nothing of it is left, however this ends.
    parser = MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=16, max_part_size=2**16)
    try:
        async with asyncio.timeout(timeout_s):
            form = await parser.parse()
    except TimeoutError as err:
        raise HTTPException(
            408, f"the upload took more than {timeout_s:g} s; send less, or over a faster line"
        ) from err
    except MultiPartException as err:
        raise RefusedError(400, "invalid", f"the form cannot be read: {err.message} Send one file, audio_file") from err
    try:
        upload = form.get("audio_file")
        if upload is None or isinstance(upload, str):
            raise RefusedError(400, "no_file", "no file in the field audio_file; send one: curl -F audio_file=@a.wav")
        if not upload.size:
            raise RefusedError(400, "empty", "audio_file is empty; check it, and send it again")
        if upload.size > max_bytes:
            raise HTTPException(413, f"audio_file is larger than {max_bytes:,} bytes, the most; send a part of it")
        await asyncio.to_thread(_copy, upload.file, path)
    finally:
        await form.close()


def _copy(file: Any, path: Path) -> None:
    with path.open("wb") as copy:
        shutil.copyfileobj(file, copy)


def _required(sounds: SoundGenerator | None) -> SoundGenerator:
    if sounds is None:
        raise RefusedError(404, "no_checkpoint", _NO_CHECKPOINT)
    return sounds


def _require_class(label: str, name: str, sounds: SoundGenerator) -> None:
    if label not in sounds.class_names:
        raise RefusedError(400, "unknown_class", f"{name} is {label!r}; one of {', '.join(sounds.class_names)}")


def _urls(results: Results, made: SoundFiles) -> dict[str, str]:
    return {"audio_url": results.add(made.wav), "spectrogram_url": results.add(made.png)}


def _count(sounds: list) -> str:
    return f"{len(sounds)} sound{'s' * (len(sounds) > 1)}"


def _failure(status: int, message: str, error: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(Failure(message=message, error=error).model_dump(), status, headers)


def _answer_http(_: Request, err: HTTPException) -> JSONResponse:
    headers = dict(err.headers or {})
    if err.status_code in (408, 413):
        headers["Connection"] = "close"  # the rest of the body is not read
    return _failure(err.status_code, str(err.detail), _ERRORS.get(err.status_code, "invalid"), headers)


def _answer_invalid(_: Request, err: RequestValidationError) -> JSONResponse:
    faults = []
    for fault in err.errors():
        place = ".".join(str(part) for part in fault["loc"] if part != "body") or "the body"
        faults.append(f"{place}: {fault['msg']}")
    return _failure(400, "; ".join(faults[:5]), "invalid")


def _answer_bug(_: Request, __: Exception) -> JSONResponse:
    return _failure(500, "the service failed on this request; its log says why", "internal")
