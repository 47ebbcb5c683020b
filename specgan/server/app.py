"""The service as an ASGI application: its routes, its limits, its pages, and how it answers errors."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import specgan
from specgan.server.errors import RefusedError
from specgan.server.jobs import Jobs
from specgan.server.limits import BodyLimit, Limits
from specgan.server.openapi import openapi
from specgan.server.routes import NOSNIFF, UPLOAD, router
from specgan.server.schema import MOST_JSON, ErrorAnswer
from specgan.server.sounds import SoundGenerator
from specgan.server.uploads import Conversion, convert
from specgan.server.ways import SENT, ways

WEB = Path(__file__).parent / "web"

_PAGE = {**NOSNIFF, "Content-Security-Policy": "default-src 'self' data:"}  # no other hosts
_ERRORS = {404: "not_found", 405: "method_not_allowed"}  # of Starlette


def make_app(
    *,
    limits: Limits,
    folder: Path,
    sounds: SoundGenerator | None = None,
    picture: Mapping[str, object] | None = None,
    convert: Conversion = convert,
) -> FastAPI:
    """Makes the application. The arguments are those of `specgan.server.jobs.Jobs`."""
    jobs = Jobs(limits=limits, folder=folder, sounds=sounds, picture=picture or {}, convert=convert)
    # FastAPI's pages load scripts from other hosts.
    app = FastAPI(title="specgan", version=specgan.__version__, lifespan=_lifespan, docs_url=None, redoc_url=None)
    app.state.jobs = jobs
    most = dict.fromkeys((UPLOAD, SENT), limits.max_upload_bytes + MOST_JSON)
    app.add_middleware(BodyLimit, limit_of=lambda path: most.get(path, MOST_JSON))
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_error)
    app.add_exception_handler(ClientDisconnect, lambda _, __: Response(status_code=400))  # nobody reads it
    app.add_exception_handler(Exception, _answer_bug)
    app.openapi = lambda: openapi(app, sounds.class_names if sounds else [])
    app.include_router(router)
    app.include_router(ways)
    for path in sorted(WEB.glob("*.*")):  # each by its name: no path of a request leads into a folder
        _add_page(app, "/" if path.name == "index.html" else f"/{path.name}", path)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    jobs: Jobs = app.state.jobs
    sweeping = asyncio.create_task(jobs.sweep())
    yield
    sweeping.cancel()
    jobs.close()


def _add_page(app: FastAPI, address: str, path: Path) -> None:
    app.add_api_route(address, lambda: FileResponse(path, headers=_PAGE), methods=["GET"], include_in_schema=False)


def _answer_error(_: Request, err: HTTPException) -> JSONResponse:
    """Ours as it is, and Starlette's own for addresses and methods that do not exist."""
    error = err.error if isinstance(err, RefusedError) else _ERRORS.get(err.status_code, "invalid")
    headers = dict(err.headers or {})
    if err.status_code in (408, 413):
        headers["Connection"] = "close"  # the rest of the body is not read
    return _answer(err.status_code, error, err.detail, headers)


def _answer_invalid(_: Request, err: RequestValidationError) -> JSONResponse:
    faults = []
    for fault in err.errors():
        place = ".".join(str(part) for part in fault["loc"] if part != "body") or "the body"
        faults.append(f"{place}: {fault['msg'].removeprefix('Value error, ')}")
    return _answer(400, "invalid", "; ".join(faults[:5]))


def _answer_bug(_: Request, __: Exception) -> JSONResponse:
    return _answer(500, "internal", "the service failed on this request; its log says why")


def _answer(status_code: int, error: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(ErrorAnswer(message=message, error=error).model_dump(), status_code, headers)
