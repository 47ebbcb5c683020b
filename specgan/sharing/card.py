"""The model card of a shared generator: README.md, with a head for the hub."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import specgan
from specgan.models.trained import TrainedGenerator
from specgan.sharing.licences import Licence
from specgan.sharing.measured import Measured
from specgan.spectrogram import SpectrogramParams

CARD_NAME = "README.md"
# The hub has no task for sounds of classes: text-to-audio would promise that text is understood.
TAGS = ("specgan", "audio", "audio-generation", "gan", "spectrogram")

_TEMPLATE = Path(__file__).parent / "templates" / "card.md"
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~$&])")
_PLAIN = re.compile(r"\w[\w .-]*")  # a name that a block of code can hold as it is


class Verbatim(str):
    """Text of a card that is Markdown already; all other text is escaped."""


@dataclass(frozen=True)
class CardSound:
    """A sound of the repository, by the path of its file there."""

    label: str
    seed: int
    path: str


def write_card(
    trained: TrainedGenerator,
    *,
    repo: str,
    licence: Licence,
    measured: Measured | None,
    presets: Mapping[str, SpectrogramParams],
    sounds: Sequence[CardSound],
    host: str,
) -> str:
    """Returns the card as Markdown, for whoever finds the generator.

    Args:
        trained: the generator.
        repo: user/name.
        licence: of the recordings, as stated.
        measured: its figures; None: it was not measured, and the card says so.
        presets: by name; the card names the one that the generator was trained with.
        sounds: that are in the repository.
        host: address of the hub, without a slash at the end.
    """
    from huggingface_hub import ModelCardData
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE.parent),
        undefined=StrictUndefined,
        finalize=_escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    head = ModelCardData(license=licence.identifier, license_name=licence.name, library_name="specgan", tags=list(TAGS))
    params, names = trained.params, list(trained.class_names)
    example = next((name for name in names if _PLAIN.fullmatch(name) and name not in ("all", "null")), None)
    by_class = {name: [sound for sound in sounds if sound.label == name] for name in names}
    return environment.get_template(_TEMPLATE.name).render(
        head=Verbatim(head.to_yaml().strip()),
        version=specgan.__version__,
        name=repo.partition("/")[2],
        repo=Verbatim(repo),
        class_names=names,
        sample_rate=params.sample_rate,
        channels=trained.channels,
        duration_s=f"{params.n_samples / params.sample_rate:.2f}",
        preset=next((name for name, preset in presets.items() if preset == params), None),
        spectrogram=_spectrogram(params),
        network=type(trained.network).__qualname__,
        n_weights=f"{sum(weight.numel() for weight in trained.network.parameters()):,}",
        n_steps=f"{trained.n_steps:,}",
        has_vocoder=trained.vocoder is not None,
        sounds={name: [(sound.seed, *_links(sound, repo, host)) for sound in by_class[name]] for name in by_class},
        measured=measured,
        real={"real": f"real {measured.split} clips", "vocoded": "real clips through the vocoder"}[measured.beside]
        if measured
        else "",
        licence=licence,
        label=Verbatim(shlex.quote(f"label={example or 'all'}")),
        first=Verbatim(repr(example) if example else "sounds.class_names[0]"),
    )


def _spectrogram(params: SpectrogramParams) -> str:
    upper = params.sample_rate / 2 if params.f_max is None else params.f_max
    return f"{params.n_bins} × {params.n_frames}, {params.kind}, up to {upper:g} Hz"


def _links(sound: CardSound, repo: str, host: str) -> tuple[Verbatim, Verbatim]:
    """The address of a sound, which a player needs whole; and its path."""
    path = quote(sound.path)
    return Verbatim(f"{host}/{repo}/resolve/main/{path}"), Verbatim(path)


def _escaped(value: object) -> object:
    if not isinstance(value, str) or isinstance(value, Verbatim):
        return value
    printable = "".join(char if char.isprintable() or char == "\N{NO-BREAK SPACE}" else " " for char in value)
    return _MARKDOWN.sub(r"\\\1", printable.encode(errors="replace").decode())
