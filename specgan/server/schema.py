"""Requests and answers of the service: the shapes of JSON, and the OpenAPI document that describes them."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

import specgan

MOST_JSON = 2**16  # bytes of a body of JSON
MOST_SOUNDS = 64  # of a request
MOST_SEED = 10**15  # JavaScript has whole numbers up to 2**53, a little more

_ABOUT = "Draws spectrograms of sent sounds, and makes new sounds of the classes that a checkpoint knows."


class ErrorAnswer(BaseModel):
    """What every error answers."""

    __qualname__ = "Failure"  # its name in the OpenAPI document, which clients know
    model_config = ConfigDict(title="Failure")

    success: Literal[False] = False
    message: str = Field(description="for people: what is wrong, and what to do", examples=["audio_file is empty"])
    error: str = Field(description="for programs: a word for it", examples=["empty"])


class Converted(BaseModel):
    """The picture of a sent sound, and what a browser can play of it."""

    success: Literal[True] = True
    message: str = Field(examples=["spectrogram of audio_file"])
    spectrogram_url: str = Field(description="a PNG", examples=["/files/4fVx2g.png"])
    audio_url: str = Field(description="the sound as a WAV", examples=["/files/8aPq1c.wav"])


class Classes(BaseModel):
    """What sounds can be made."""

    success: Literal[True] = True
    classes: list[str] = Field(examples=[["kick", "snare"]])
    sample_rate: int = Field(description="Hz", examples=[16000])
    duration_s: float = Field(description="seconds of the longest sounds", examples=[1.024])


class GeneratedSound(BaseModel):
    """One sound that was made."""

    __qualname__ = "Sound"  # its name in the OpenAPI document, which clients know
    model_config = ConfigDict(title="Sound", serialize_by_alias=True, populate_by_name=True)

    label: str = Field(alias="class", examples=["kick"])
    seed: int = Field(examples=[0])
    audio_url: str = Field(description="a WAV", examples=["/files/8aPq1c.wav"])
    spectrogram_url: str = Field(description="a PNG", examples=["/files/4fVx2g.png"])


class Generated(BaseModel):
    """Sounds of one class."""

    success: Literal[True] = True
    message: str = Field(examples=["1 sound of kick"])
    sounds: list[GeneratedSound]


class Between(BaseModel):
    """One sound on the way from one to another."""

    position: float = Field(ge=0, le=1, description="0: `from`, 1: `to`", examples=[0.5])
    audio_url: str = Field(description="a WAV", examples=["/files/8aPq1c.wav"])
    spectrogram_url: str = Field(description="a PNG", examples=["/files/4fVx2g.png"])


class Morphed(BaseModel):
    """Sounds on the way from one to another, both ends included."""

    success: Literal[True] = True
    message: str = Field(examples=["5 sounds from kick 0 to snare 1"])
    sounds: list[Between]


class Health(BaseModel):
    """The service is there."""

    status: Literal["ok"] = "ok"
    version: str = Field(description="of specgan", examples=[specgan.__version__])
    makes_sounds: bool = Field(description="whether there is a checkpoint")
    n_jobs: int = Field(description="at work and waiting", examples=[0])


def _whole(number: object) -> object:
    """3.0 is a whole number in JSON."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


_Whole = Annotated[int, BeforeValidator(_whole)]


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class End(_Request):
    """One end of a way."""

    label: str = Field(alias="class")
    seed: _Whole = Field(0, ge=0, le=MOST_SEED)


class Generate(_Request):
    """Sounds of one class that are asked for."""

    label: str = Field(alias="class")
    n: _Whole = Field(1, ge=1, le=MOST_SOUNDS, description="sounds; sound i has seed + i")
    seed: _Whole = Field(0, ge=0, le=MOST_SEED, description="the same class and seed give the same sound")
    format: Literal["json", "wav"] = Field("json", description="wav: the file itself, of one sound (n: 1)")


class Morph(_Request):
    """A way between two sounds that is asked for."""

    start: End = Field(alias="from")
    end: End = Field(alias="to")
    n: _Whole = Field(5, ge=2, le=MOST_SOUNDS, description="sounds, both ends included")


Responses = dict[int | str, dict[str, object]]  # as FastAPI takes them


def error_responses(*statuses: int) -> Responses:
    """What a route declares of the errors that it answers with these statuses."""
    return {status: {"model": ErrorAnswer, "description": HTTPStatus(status).phrase} for status in statuses}


def binary_responses(*media_types: str) -> Responses:
    """What a route declares that answers with files of these types."""
    schema = {"type": "string", "format": "binary"}
    return {200: {"content": {media_type: {"schema": schema} for media_type in media_types}}}


FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["audio_file"],
                    "properties": {
                        "audio_file": {
                            "type": "string",
                            "format": "binary",
                            "description": "a sound: WAV, FLAC, OGG, MP3, AAC, M4A, MP4, ...",
                        }
                    },
                },
            }
        },
    }
}


def openapi(app: FastAPI, class_names: Sequence[str]) -> dict[str, object]:
    """FastAPI's own, with the classes of this checkpoint, and 400 for what FastAPI answers with 422."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=_ABOUT, routes=app.routes)
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        schemas = document["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        if class_names:
            for name in ("Generate", "End"):
                schemas[name]["properties"]["class"]["enum"] = list(class_names)
        many_wavs = {"format": {"const": "wav"}, "n": {"not": {"const": 1}}}
        schemas["Generate"]["not"] = {"properties": many_wavs, "required": list(many_wavs)}
        names = list(class_names) or ["kick", "snare"]
        ends = {"from": {"class": names[0], "seed": 0}, "to": {"class": names[-1], "seed": 1}}
        schemas["Generate"]["examples"] = [{"class": names[0], "n": 1, "seed": 0, "format": "json"}]
        schemas["Morph"]["examples"] = [{**ends, "n": 5}]
        app.openapi_schema = document
    return app.openapi_schema
