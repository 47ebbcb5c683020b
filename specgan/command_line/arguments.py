"""What is typed behind a script's name, before Hydra reads it: words and paths arrive as they were typed.

Hydra's grammar takes 2024 and 1_1 for numbers, and refuses accents, brackets, or a second `=`. So values of the
settings below are quoted for it, unless it reads the same text anyway.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from specgan.command_line.console import end_quietly
from specgan.command_line.suggestions import suggestion

# By the last part of a setting's name.
_WORDS = {"label", "classes", "merge", "separator", "ext", "recording_pattern", "artist", "title", "prompt", "network"}
_WORDS |= {"label_column", "audio_column", "group_column", "subset", "revision"}
_WORDS |= {"project", "group", "name", "notes", "tags", "study_name", "host", "filename"}
_WORDS |= {"repo", "data_license", "data_license_name"}
_PATHS = {"input", "output", "reconstructed", "video", "audio_dir", "dataset_dir", "model", "start", "zip", "key"}
_PATHS |= {"like", "to", "runtime"}
# Paths that may refer to other settings: ${paths.runs_dir}/optuna.db. So may all whose names end so:
_PLACES = {"curve", "history", "storage"}
_PLACE = ("dir", "folder", "path")

_LISTS = {"label", "classes", "tags"}
_NULLABLE = {"ckpt_path", "network", "classes", "merge", "recording_pattern", "artist", "title", "video", "storage"}
_NULLABLE |= {"group", "name", "notes", "tags", "cache_dir", "dataset_dir", "output_subdir", "path", "start"}
_NULLABLE |= {"zip", "key", "like", "to", "runtime", "data_license", "data_license_name", "report_path"}
_NULLABLE |= {"group_column", "subset", "revision"}

Setting = int | str | Sequence[int] | Sequence[str] | Mapping[str, str]

_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
_ELEMENT = re.compile(rf"\s*(?:{_QUOTED.pattern}|\[[^\]]*\])\s*(?=,|\Z)|[^,]+", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_SWEEP = re.compile(r"(choice|glob|interval|range|shuffle|sort|tag)\(.*\)", re.DOTALL)
_HELP = "docs/how-to/typing.md shows how to type names with special characters"


def run(main: Callable[[], object]) -> None:
    """Runs a function of `hydra.main` with the arguments of this process, see `as_typed`."""
    _require_utf8()
    if os.environ.get("HYDRA_FULL_ERROR") != "1":
        sys.tracebacklimit = 0  # the message alone; Hydra says how to see the rest
    sys.argv[1:] = as_typed(sys.argv[1:])
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        end_quietly(sys.stdout)
    except SystemExit as end:
        if sentence := suggestion(end.__context__):  # the error that Hydra printed
            print(sentence, file=sys.stderr)
        raise


def _require_utf8() -> None:
    """Starts this process again if Python takes file names for something else than UTF-8 (LC_ALL=C PYTHONUTF8=0)."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})


def as_typed(arguments: Sequence[str]) -> list[str]:
    """Quotes the values of words and paths, so that Hydra hands them on unchanged.

    A value in quotes is left to Hydra. `label`, `classes` and `tags` also take a list, [kick,1_1], `merge` takes a
    dictionary, {bd: kick}, and `label` one of numbers, {kick: 0.7, tom: 0.3}. Settings whose default is null take null.
    `~/` at the start of a path is the home folder.
    With -m a comma separates the values of a sweep.

    Args:
        arguments: of a script: overrides and options of Hydra.
    Raises:
        SystemExit: an argument is not of the form name=value, or Hydra cannot read its value.
    """
    from hydra._internal.utils import get_args_parser

    known, _ = get_args_parser().parse_known_args(list(arguments))
    is_sweep = known.multirun or "hydra.mode=MULTIRUN" in arguments
    overrides = {argument: _override(argument, is_sweep=is_sweep) for argument in known.overrides}
    for argument, override in overrides.items():
        if fault := _fault(override):
            sys.exit(f"the argument {argument!r} {fault}; {_HELP}")
    return [overrides.get(argument, argument) for argument in arguments]


def typed(name: str, value: Setting) -> str:
    """Returns the argument `name=value` from which a script reads this value, whatever a word or path looks like.

    Args:
        name: of the setting.
        value: a number, or a word; or several, for settings that take a list; or words by words, for `merge`.
    """
    if isinstance(value, int):  # true and false too
        return f"{name}={str(value).lower()}"
    if isinstance(value, str):
        return f"{name}={_literal(name, value)}"
    if isinstance(value, Mapping):  # as pairs, because Hydra has no quotes for the keys of a dictionary
        pairs = (f"[{_literal(name, old)},{_literal(name, new)}]" for old, new in value.items())
        return f"{name}=[{','.join(pairs)}]"
    return f"{name}=[{','.join(str(each) if isinstance(each, int) else _literal(name, each) for each in value)}]"


def _override(argument: str, *, is_sweep: bool) -> str:
    key, equals, value = argument.partition("=")
    name = key.rpartition(".")[2].lstrip("+")
    if not equals or key.startswith("~") or not (name in _WORDS or _is_path(name)):
        return argument
    if is_sweep and _SWEEP.fullmatch(value):
        return argument
    values = _ELEMENT.findall(value) if is_sweep else [value]
    return f"{key}={','.join(_value(name, each) for each in values)}"


def _value(name: str, value: str) -> str:
    if name in _NULLABLE and value == "null":
        return value
    if name in _LISTS and value.startswith("[") and value.endswith("]"):
        return f"[{','.join(_word(name, each.strip()) for each in _ELEMENT.findall(value[1:-1]))}]"
    if name == "merge" and value.startswith("{") and value.endswith("}"):
        # as pairs, because Hydra has no quotes for the keys of a dictionary
        pairs = (each.partition(":") for each in _ELEMENT.findall(value[1:-1]))
        return f"[{','.join(f'[{_word(name, old.strip())},{_word(name, new.strip())}]' for old, _, new in pairs)}]"
    if name == "label" and (shares := _shares(value)):
        return f"[{','.join(f'[{_word(name, of)},{share}]' for of, share in shares)}]"
    return _word(name, value)


def _shares(value: str) -> list[tuple[str, str]]:
    """The classes of {kick: 0.7, tom: 0.3}, each with its number; none if it is a word."""
    if not (value.startswith("{") and value.endswith("}")):
        return []
    pairs = [each.rpartition(":") for each in _ELEMENT.findall(value[1:-1])]
    shares = [(of.strip(), share.strip()) for of, _, share in pairs]
    return shares if all(of and _NUMBER.fullmatch(share) for of, share in shares) else []


def _word(name: str, value: str) -> str:
    if _QUOTED.fullmatch(value) or (name == "merge" and value.startswith("[[")):
        return value
    is_of_home = _is_path(name) and (value == "~" or value.startswith("~/"))
    return _literal(name, os.path.expanduser(value) if is_of_home else value)


def _literal(name: str, value: str) -> str:
    """The value as it must stand for Hydra to read exactly this text."""
    from hydra.core.override_parser.types import Quote, QuotedString

    if "${" in value and not _is_place(name):
        # Hydra resolves a setting and then each argument of a call: so the backslash is escaped too
        value = re.sub(r"(\\*)\$\{", r"\1\1\1\1\\\\\\${", value)
    elif value not in ("~", "null") and not value.startswith("~/") and _parsed(f"x={value}") == value:
        return value
    return QuotedString(value, Quote.single).with_quotes()


def _is_path(name: str) -> bool:
    return name in _PATHS or _is_place(name)


def _is_place(name: str) -> bool:
    return name in _PLACES or (name.endswith(_PLACE) and name not in _PATHS)


def _fault(override: str) -> str | None:
    if "=" not in override and not override.startswith("~"):
        return 'is not of the form name=value; quotes hold words together, "input=my clips/kick.wav"'
    if _parsed(override) is _UNREADABLE:
        key, _, value = override.partition("=")
        return f"has a value that Hydra cannot read; if it is a word, put it into quotes: \"{key}='{value}'\""
    return None


_UNREADABLE = object()


def _parsed(override: str) -> object:
    """The value that Hydra reads from an override; text only if it is not in quotes."""
    from hydra.errors import HydraException

    try:
        return _parser().parse_override(override)._value
    except HydraException:
        return _UNREADABLE


@cache
def _parser():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()
