"""What the service is asked and answers: the shapes of JSON, and the OpenAPI document that says so."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

import specgan

MOST_JSON = 2**16  # bytes of a body that is no upload
MOST_SOUNDS = 64  # of a request
MOST_SEED = 10**15  # JavaScript's whole numbers end a little later

_ABOUT = "Draws spectrograms of sent sounds, and makes new sounds of the classes that a checkpoint knows."


class Failure(BaseModel):
    """What every error answers."""

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
    duration_s: float = Field(description="seconds of each sound", examples=[1.024])


class Sound(BaseModel):
    """One sound that was made."""

    model_config = ConfigDict(serialize_by_alias=True, populate_by_name=True)

    label: str = Field(alias="class", examples=["kick"])
    seed: int = Field(examples=[0])
    audio_url: str = Field(description="a WAV", examples=["/files/8aPq1c.wav"])
    spectrogram_url: str = Field(description="a PNG", examples=["/files/4fVx2g.png"])


class Generated(BaseModel):
    """Sounds of one class."""

    success: Literal[True] = True
    message: str = Field(examples=["1 sound of kick"])
    sounds: list[Sound]


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


def _whole(number: Any) -> Any:
    """In JSON 3.0 is a whole number."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


_Whole = Annotated[int, BeforeValidator(_whole)]


class _Asked(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class End(_Asked):
    """One end of a way."""

    label: str = Field(alias="class")
    seed: _Whole = Field(0, ge=0, le=MOST_SEED)


class Generate(_Asked):
    """Sounds of one class that are asked for."""

    label: str = Field(alias="class")
    n: _Whole = Field(1, ge=1, le=MOST_SOUNDS, description="sounds; sound i has seed + i")
    seed: _Whole = Field(0, ge=0, le=MOST_SEED, description="the same class and seed give the same sound")
    format: Literal["json", "wav"] = Field("json", description="wav: the file itself, of one sound (n: 1)")


class Morph(_Asked):
    """A way between two sounds that is asked for."""

    start: End = Field(alias="from")
    end: End = Field(alias="to")
    n: _Whole = Field(5, ge=2, le=MOST_SOUNDS, description="sounds, both ends included")


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route declares of the errors that it answers with these statuses."""
    return {status: {"model": Failure, "description": HTTPStatus(status).phrase} for status in statuses}


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


def openapi(app: FastAPI, class_names: Sequence[str]) -> dict[str, Any]:
    """FastAPI's own, with the classes of this checkpoint, and 400 for what FastAPI answers with 422."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=_ABOUT, routes=app.routes)
        for operations in made["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        schemas = made["components"]["schemas"]
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
        app.openapi_schema = made
    return app.openapi_schema
