"""The routes that go on from a sound: to the nearest of a sent one, to variations, to another, to a moved one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from fastapi import APIRouter, Request

from specgan.latent import DESCRIPTORS, Encoded, Point, Steered
from specgan.latent.recording import MOST_S
from specgan.latent.steering import MOST
from specgan.server.errors import RefusedError
from specgan.server.jobs import Jobs
from specgan.server.openapi import error_responses, form_with_class
from specgan.server.routes import ItsJobs, count, require_class, urls
from specgan.server.schema import (
    AskedDirections,
    Between,
    Direction,
    Directions,
    End,
    Found,
    MadeSound,
    Morph,
    Morphed,
    Moved,
    Steer,
    Varied,
    Vary,
)
from specgan.server.sounds import SoundFiles, SoundGenerator
from specgan.server.uploads import Plain, receive

SENT = "/api/sounds"

_Made = TypeVar("_Made")

ways = APIRouter()


@ways.post(
    SENT,
    response_model=Found,
    responses=error_responses(400, 404, 408, 413, 415, 500, 503),
    openapi_extra=form_with_class(),
)
async def find(request: Request, jobs: ItsJobs) -> Found:
    """Finds the nearest sound to a sent one. The first one waits for an encoder, which 503 `encoder_training` says."""
    sounds = jobs.required_sounds()
    with jobs.job_folder() as folder:
        upload, wav, png = folder / "upload", folder / "sent.wav", folder / "sent.png"
        plain = Plain(folder / "plain.wav", sounds.sample_rate, sounds.channels, MOST_S)
        limits = jobs.limits
        sent = await receive(request, upload, max_bytes=limits.max_upload_bytes, timeout_s=limits.upload_timeout_s)
        label = sent.texts.get("class")
        if label is not None:
            require_class(label, "class", sounds)
        await jobs.convert(upload, wav, png, plain=plain)
        found, files = await _made(jobs, partial(_find, sounds, plain.path, sent.name, label, folder))
        if found is None:
            assert jobs.training is not None  # it is there with the sounds
            await jobs.training.require()
            raise RefusedError(503, "busy", "the encoder is there by now; ask again", headers={"Retry-After": "0"})
        guessed = "" if found.probability is None else f" (guessed with {found.probability:.0%})"
        return Found(
            message=f"nearest to {found.name}: {found.point.label}{guessed}, {found.distance_db:.1f} dB away",
            nearest=_told(jobs, found.point, files),
            probability=found.probability,
            distance_db=found.distance_db,
            part_s=found.part_s,
            audio_url=jobs.results.add(wav),
            spectrogram_url=jobs.results.add(png),
        )


def _find(
    sounds: SoundGenerator, path: Path, name: str, label: str | None, folder: Path
) -> tuple[Encoded, SoundFiles] | tuple[None, None]:
    try:
        found = sounds.read_and_encode(path, name=name, label=label)
    except ValueError as err:
        message = str(err).replace(str(path), "audio_file")  # paths on this machine are not for the client
        raise RefusedError(400, "silent", message) from err
    return (None, None) if found is None else (found, sounds.draw([found.point], folder)[0])


@ways.post("/api/vary", response_model=Varied, responses=error_responses(400, 404, 413, 500, 503))
async def vary(asked: Vary, jobs: ItsJobs) -> Varied:
    """Makes variations of a sound, in its class. The same sound, distance and seed give the same variation."""
    sounds = jobs.required_sounds()
    start, seeds = _point(asked.like, "like", jobs), range(asked.seed, asked.seed + asked.n)
    with jobs.job_folder() as folder:

        def make() -> tuple[list[Point], list[SoundFiles]]:
            points = sounds.vary(start, distance=asked.distance, seeds=seeds)
            return points, sounds.draw(points, folder)

        points, files = await _made(jobs, make)
        done = [_told(jobs, point, file) for point, file in zip(points, files, strict=True)]
    return Varied(message=f"{count(len(done), 'variation')} of {start}", sounds=done)


@ways.post("/api/morph", response_model=Morphed, responses=error_responses(400, 404, 413, 500, 503))
async def morph(asked: Morph, jobs: ItsJobs) -> Morphed:
    """Makes sounds on the way from one to another, both included: those of /api/generate, or found or made before."""
    sounds = jobs.required_sounds()
    start, end = _point(asked.start, "from", jobs), _point(asked.end, "to", jobs)
    with jobs.job_folder() as folder:

        def make() -> tuple[list[Point], list[SoundFiles]]:
            points = sounds.morph(start, end, asked.n)
            return points, sounds.draw(points, folder)

        points, files = await _made(jobs, make)
        done = [
            Between(position=i / (asked.n - 1), **_told(jobs, point, file).model_dump(by_alias=False))
            for i, (point, file) in enumerate(zip(points, files, strict=True))
        ]
    return Morphed(message=f"{count(len(done))} from {start} to {end}", sounds=done)


@ways.post("/api/steer", response_model=Moved, responses=error_responses(400, 404, 409, 413, 500, 503))
async def steer(asked: Steer, jobs: ItsJobs) -> Moved:
    """Moves a sound: brighter, shorter, and in other respects as it was. 409: its class cannot be moved so."""
    sounds = jobs.required_sounds()
    start = _point(asked.like, "like", jobs)
    with jobs.job_folder() as folder:

        def make() -> tuple[Steered, SoundFiles]:
            steered = _steered(sounds, start, asked.move)
            return steered, sounds.draw([steered.point], folder)[0]

        steered, file = await _made(jobs, make)
        told = _told(jobs, steered.point, file)
    return Moved(message=steered.point.origin, sound=told, moved=dict(steered.moved))


def _steered(sounds: SoundGenerator, start: Point, move: dict[str, float]) -> Steered:
    try:
        return sounds.steer(start, move)
    except ValueError as err:  # the rest is checked before
        raise RefusedError(409, "not_steerable", str(err)) from err


@ways.post("/api/directions", response_model=Directions, responses=error_responses(400, 404, 413, 500, 503))
async def directions(asked: AskedDirections, jobs: ItsJobs) -> Directions:
    """What the sounds of a class or a mix can be moved in, and why not in other things."""
    sounds = jobs.required_sounds()
    start = _point(asked.like, "like", jobs)
    spread = await _made(jobs, partial(sounds.spread, start))
    mean, std = spread.mean, spread.std
    return Directions(
        message=f"{start.label}: {', '.join(spread.steerable) or 'nothing'}",
        most=MOST,
        directions=[
            Direction(
                name=name,
                meaning=descriptor.meaning,
                unit=descriptor.unit,
                mean=mean[name],
                std=std[name],
                refusal=spread.refusals.get(name),
            )
            for name, descriptor in DESCRIPTORS.items()
        ],
    )


async def _made(jobs: Jobs, make: Callable[[], _Made]) -> _Made:
    try:
        return await jobs.generate(make)
    except NotImplementedError as err:
        raise _no_ways(err) from err


def _point(asked: End, name: str, jobs: Jobs) -> Point:
    """What a sound is drawn from, which the request calls `name`."""
    sounds = jobs.required_sounds()
    if "label" in asked.model_fields_set:
        require_class(asked.label, f"{name}.class", sounds)
    for label in asked.weights:
        require_class(label, f"{name}.classes", sounds)
    try:
        if "sound" not in asked.model_fields_set:
            return sounds.point(asked.weights or asked.label, seed=asked.seed)
        point = jobs.points.find(asked.sound)
        if point is None:
            message = f"{name}.sound is {asked.sound!r}: not known, or forgotten since; send or make the sound again"
            raise RefusedError(404, "unknown_sound", message)
        return sounds.mixed(point, asked.weights) if asked.weights else point
    except NotImplementedError as err:
        raise _no_ways(err) from err


def _no_ways(err: NotImplementedError) -> RefusedError:
    return RefusedError(400, "no_morphing", str(err))


def _told(jobs: Jobs, point: Point, file: SoundFiles) -> MadeSound:
    return MadeSound(sound=jobs.points.add(point), label=point.label, origin=point.origin, **urls(jobs.results, file))
