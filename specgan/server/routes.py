"""The routes of the service: files, classes and their sounds. What goes on from sounds is in `ways`."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, Response

import specgan
from specgan.models.trained import find_class
from specgan.server.errors import RefusedError
from specgan.server.jobs import Jobs
from specgan.server.limits import Results
from specgan.server.openapi import FORM, binary_responses, error_responses
from specgan.server.schema import (
    Classes,
    Converted,
    Generate,
    Generated,
    GeneratedSound,
    Health,
)
from specgan.server.sounds import SoundFiles, SoundGenerator
from specgan.server.uploads import receive

UPLOAD = "/api/audio/generate-spectrogram"
NOSNIFF = {"X-Content-Type-Options": "nosniff"}

_TYPES = {".wav": "audio/wav", ".png": "image/png"}

router = APIRouter()


async def _jobs(request: Request) -> Jobs:
    return request.app.state.jobs


ItsJobs = Annotated[Jobs, Depends(_jobs)]


@router.get("/healthz", response_model=Health)
async def healthz(jobs: ItsJobs) -> Health:
    """Whether the service is there."""
    return Health(version=specgan.__version__, makes_sounds=jobs.sounds is not None, n_jobs=jobs.n_jobs)


@router.post(
    UPLOAD,
    response_model=Converted,
    responses=error_responses(400, 408, 413, 415, 500, 503),
    openapi_extra=FORM,
)
async def generate_spectrogram(request: Request, jobs: ItsJobs) -> Converted:
    """Draws the spectrogram of a sent sound: any format, known by its content and not by its name."""
    with jobs.job_folder() as folder:
        upload, wav, png = folder / "upload", folder / "sound.wav", folder / "picture.png"
        await receive(request, upload, max_bytes=jobs.limits.max_upload_bytes, timeout_s=jobs.limits.upload_timeout_s)
        warnings = await jobs.convert(upload, wav, png)
        return Converted(
            message="spectrogram of audio_file" + (f"; {warnings}" if warnings else ""),
            spectrogram_url=jobs.results.add(png),
            audio_url=jobs.results.add(wav),
        )


@router.get("/api/classes", response_model=Classes, responses=error_responses(404, 500))
async def classes(jobs: ItsJobs) -> Classes:
    """Of what sounds can be made."""
    sounds = jobs.required_sounds()
    return Classes(classes=sounds.class_names, sample_rate=sounds.sample_rate, duration_s=sounds.duration_s)


@router.post(
    "/api/generate",
    response_model=Generated,
    responses=error_responses(400, 404, 413, 500, 503) | binary_responses("audio/wav"),
)
async def generate(asked: Generate, jobs: ItsJobs) -> Generated | Response:
    """Makes sounds of a class, the same that generate.py makes of the same seeds."""
    sounds = jobs.required_sounds()
    if asked.format == "wav" and asked.n != 1:
        raise RefusedError(400, "invalid", f"n is {asked.n}; format wav answers one file: n 1, or format json")
    require_class(asked.label, "class", sounds)
    seeds = range(asked.seed, asked.seed + asked.n)
    with jobs.job_folder() as folder:
        files = await jobs.generate(partial(sounds.generate, asked.label, seeds, folder))
        if asked.format == "wav":
            return Response(files[0].wav.read_bytes(), media_type="audio/wav", headers=NOSNIFF)
        done = [
            GeneratedSound(label=asked.label, seed=seed, **urls(jobs.results, file))
            for seed, file in zip(seeds, files, strict=True)
        ]
    return Generated(message=f"{count(len(done))} of {asked.label}", sounds=done)


def require_class(label: str, name: str, sounds: SoundGenerator) -> None:
    """Raises RefusedError if `label`, which the request calls `name`, is no class."""
    if find_class(label, sounds.class_names) is None:
        raise RefusedError(400, "unknown_class", f"{name} is {label!r}; one of {', '.join(sounds.class_names)}")


def urls(results: Results, sound: SoundFiles) -> dict[str, str]:
    """Keeps the files of a sound; returns their addresses as fields of an answer."""
    return {"audio_url": results.add(sound.wav), "spectrogram_url": results.add(sound.png)}


def count(n: int, what: str = "sound") -> str:
    """1 sound, 2 sounds."""
    return f"{n} {what}{'s' * (n > 1)}"


@router.get(
    "/files/{name}",
    response_class=Response,
    responses=error_responses(404, 500) | binary_responses(*_TYPES.values()),
)
async def files(name: str, jobs: ItsJobs) -> Response:
    """A result; it goes after some minutes."""
    path, keep_s = jobs.results.find(name), jobs.limits.keep_s
    if path is None:
        raise RefusedError(404, "not_found", f"no such file; results go after {keep_s:g} s: ask for it again")
    headers = {**NOSNIFF, "Cache-Control": f"private, max-age={keep_s:g}"}
    return FileResponse(path, media_type=_TYPES[path.suffix], headers=headers)
