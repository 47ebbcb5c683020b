"""The OpenAPI document of the service, and what routes declare for it."""

from collections.abc import Sequence
from copy import deepcopy
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from specgan.server.schema import ErrorAnswer

_ABOUT = "Draws spectrograms of sent sounds, and makes new sounds of the classes that a checkpoint knows."

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


def form_with_class() -> dict[str, Any]:
    """`FORM` with a field for the class of the sound."""
    form: dict[str, Any] = deepcopy(FORM)
    properties = form["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    properties["class"] = {"type": "string", "description": "its class; without: it is guessed"}
    return form


def openapi(app: FastAPI, class_names: Sequence[str]) -> dict[str, object]:
    """FastAPI's own, with the classes of this checkpoint, and 400 for what FastAPI answers with 422."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=_ABOUT, routes=app.routes)
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
        schemas: dict[str, Any] = document["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        if class_names:
            for name in ("Generate", "End"):
                schemas[name]["properties"]["class"]["enum"] = list(class_names)
            schemas["End"]["properties"]["classes"]["propertyNames"] = {"enum": list(class_names)}
        one: list[dict[str, Any]] = [{"required": [name]} for name in ("class", "classes", "sound")]
        one[1]["not"] = {"required": ["sound"]}  # which may have both
        schemas["End"]["oneOf"] = one
        many_wavs = {"format": {"const": "wav"}, "n": {"not": {"const": 1}}}
        schemas["Generate"]["not"] = {"properties": many_wavs, "required": list(many_wavs)}
        names = list(class_names) or ["kick", "snare"]
        ends = {"from": {"class": names[0], "seed": 0}, "to": {"class": names[-1], "seed": 1}}
        schemas["Generate"]["examples"] = [{"class": names[0], "n": 1, "seed": 0, "format": "json"}]
        schemas["Morph"]["examples"] = [{**ends, "n": 5}]
        like = {"class": names[0], "seed": 0}
        schemas["Vary"]["examples"] = [{"like": like, "n": 4, "distance": 0.3, "seed": 0}]
        schemas["Steer"]["examples"] = [{"like": {"classes": {names[0]: 0.7, names[-1]: 0.3}}, "move": {}}]
        schemas["AskedDirections"]["examples"] = [{"like": like}]
        app.openapi_schema = document
    return app.openapi_schema
