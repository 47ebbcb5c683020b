"""Requests and answers of the service: the shapes of JSON."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

import specgan
from specgan.latent import DESCRIPTORS
from specgan.latent.steering import MOST

MOST_JSON = 2**16  # bytes of a body of JSON
MOST_SOUNDS = 64  # of a request
MOST_SEED = 10**15  # JavaScript has whole numbers up to 2**53, a little more


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


class MadeSound(BaseModel):
    """One sound that was found or made, and that requests can go on from."""

    model_config = ConfigDict(serialize_by_alias=True, populate_by_name=True)

    sound: str = Field(description="its name, for `like`, `from` and `to`", examples=["0Hq3vX9bQ2m7ZrYkT1uE8w"])
    label: str = Field(alias="class", description="a class, a mix, or both ends of a way", examples=["kick"])
    origin: str = Field(description="what it is", examples=["variation of my_kick.wav, distance 0.3, seed 4"])
    audio_url: str = Field(description="a WAV", examples=["/files/8aPq1c.wav"])
    spectrogram_url: str = Field(description="a PNG", examples=["/files/4fVx2g.png"])


class Found(BaseModel):
    """The nearest sound to a sent one."""

    success: Literal[True] = True
    message: str = Field(examples=["nearest to my_kick.wav: kick (guessed with 97%), 0.6 dB away"])
    nearest: MadeSound
    probability: float | None = Field(ge=0, le=1, description="of the class as it was guessed; null: it was given")
    distance_db: float = Field(description="mean difference of the spectrograms", examples=[0.6])
    part_s: tuple[float, float] = Field(description="seconds of the sent sound that were used", examples=[[0.0, 1.0]])
    audio_url: str = Field(description="the sent sound as a WAV", examples=["/files/8aPq1c.wav"])
    spectrogram_url: str = Field(description="of the sent sound, a PNG", examples=["/files/4fVx2g.png"])


class Varied(BaseModel):
    """Variations of one sound."""

    success: Literal[True] = True
    message: str = Field(examples=["4 variations of my_kick.wav"])
    sounds: list[MadeSound]


class Moved(BaseModel):
    """A sound that was moved."""

    success: Literal[True] = True
    message: str = Field(examples=["kick, seed 7, brightness +1.5"])
    sound: MadeSound
    moved: dict[str, float] = Field(description="standard deviations, also of what was to stay")


class Direction(BaseModel):
    """What sounds can be moved in."""

    name: str = Field(examples=["brightness"])
    meaning: str = Field(examples=["spectral centroid"])
    unit: str = Field(examples=["octaves above 1 kHz"])
    mean: float = Field(description="of the class, in that unit", examples=[0.2])
    std: float = Field(description="of the class: what 1 moves a sound by", examples=[0.4])
    refusal: str | None = Field(description="why it cannot be moved in this class; null: it can")


class Directions(BaseModel):
    """What sounds of a class or a mix can be moved in."""

    success: Literal[True] = True
    message: str = Field(examples=["kick: brightness, length"])
    most: float = Field(description="standard deviations that a sound can be moved by", examples=[MOST])
    directions: list[Direction]


class Between(MadeSound):
    """One sound on the way from one to another."""

    position: float = Field(ge=0, le=1, description="0: `from`, 1: `to`", examples=[0.5])


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


# Without a default in the schema: these are optional, and not null.
_Class = Annotated[str, Field(default_factory=str, alias="class")]
_Weight = Annotated[float, Field(gt=0, le=1e6)]
_Amount = Annotated[float, Field(ge=-MOST, le=MOST)]


class End(_Request):
    """A sound to go on from: of a class or a mix with a seed, or one that the service found or made."""

    label: _Class
    weights: dict[str, _Weight] = Field(
        default_factory=dict, alias="classes", min_length=1, description="of a mix; with `sound`: its noise in the mix"
    )
    sound: str = Field(default_factory=str, max_length=64, description="name of a sound that was found or made")
    seed: _Whole = Field(0, ge=0, le=MOST_SEED, description="of a class or a mix")

    @model_validator(mode="after")
    def _is_one(self) -> "End":
        given = self.model_fields_set - {"seed"}
        if given not in ({"label"}, {"weights"}, {"sound"}, {"sound", "weights"}):
            raise ValueError("give one of class, classes, sound; or sound and classes")
        return self


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


class Vary(_Request):
    """Variations that are asked for."""

    like: End
    n: _Whole = Field(4, ge=1, le=MOST_SOUNDS, description="sounds; sound i has seed + i")
    distance: float = Field(0.3, ge=0, le=1, description="0: the sound itself, 1: any of its class")
    seed: _Whole = Field(0, ge=0, le=MOST_SEED, description="of the directions")


class Steer(_Request):
    """A move that is asked for."""

    like: End
    move: dict[str, _Amount] = Field(
        default_factory=dict,
        description=f"standard deviations of the class by direction: {', '.join(DESCRIPTORS)}",
        json_schema_extra={"propertyNames": {"enum": list(DESCRIPTORS)}},
    )

    @model_validator(mode="after")
    def _are_directions(self) -> "Steer":
        for name in self.move:
            if name not in DESCRIPTORS:
                raise ValueError(f"move has no {name}; there are {', '.join(DESCRIPTORS)}")
        return self


class AskedDirections(_Request):
    """Whose directions are asked for."""

    like: End
