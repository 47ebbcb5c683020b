"""Pages that are made when the documentation is built, so that they cannot drift from what they are about.

The settings come from the YAML of conf/ and its comments, the code from the docstrings of specgan/. `pages` is all that
mkdocs needs; the rest of the hooks puts them where mkdocs looks.
"""

import ast
import html
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"

_NOT_SETTINGS = ("defaults", "_target_", "_partial_")  # at the top of a file; they are told in words


@dataclass(frozen=True)
class Setting:
    """One value of a YAML file. The default of a section is empty."""

    name: str
    default: str
    comment: str


def pages() -> dict[str, str]:
    """Markdown by path in the documentation."""
    made = {"reference/configuration.md": configuration_page(CONF), "reference/code/index.md": code_page()}
    for room, _ in rooms():
        made[f"reference/code/{room}.md"] = f"# {room}\n\n::: specgan.{room}\n"
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        made[name.lower()] = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
    return made


# --- what mkdocs calls


def on_config(config):
    """Lists the rooms of the code, and pages that mkdocs.yml does not name (someone just wrote them)."""
    listed = str(config.nav)
    docs = Path(config.docs_dir)
    written = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    by_title = {title: entries for section in config.nav for title, entries in section.items()}
    by_title["How to"] += [path for path in written if path not in listed]
    code = [{"Overview": "reference/code/index.md"}, *({room: f"reference/code/{room}.md"} for room, _ in rooms())]
    by_title["Reference"].append({"Code": code})
    return config


def on_files(files, *, config):
    from mkdocs.structure.files import File

    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    return files


# --- the code


def rooms() -> list[tuple[str, str]]:
    """Modules of specgan, by dotted name without `specgan.`, each with the first line of its docstring."""
    found = []
    for path in sorted((ROOT / "specgan").rglob("*.py")):
        if path.name == "__init__.py":
            continue
        about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        room = ".".join(path.relative_to(ROOT / "specgan").with_suffix("").parts)
        found.append((room, about.partition("\n")[0]))
    return found


def code_page() -> str:
    """The list of modules."""
    lines = ["# The code", "", "Made from the docstrings.", "", "| module | what |", "|---|---|"]
    lines += [f"| [{room}]({room}.md) | {_cell(about)} |" for room, about in rooms()]
    return "\n".join(lines) + "\n"


# --- the settings


def configuration_page(conf: Path) -> str:
    """Every setting of every YAML file in a configuration folder, with its default and its comment."""
    lines = [
        "# All settings",
        "",
        "Made from the files of `conf/` and the comments in them. `python train.py --help` shows them composed.",
        "",
        "On the command line a file is chosen by the line above its table, and a setting is changed by its name:",
        "`loss=hinge loss.gamma=0.1`. Several of both may stand in one command.",
        "",
        "## Scripts",
    ]
    for path in sorted(conf.glob("*.yaml")):
        lines += ["", f"### {path.name}", "", *_file(path, "")]
    chosen, packages = _choices(conf), _packages(conf)
    by_group: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(conf.rglob("*/*.yaml")):
        by_group[path.parent.relative_to(conf).as_posix()].append(path)
    for group, paths in sorted(by_group.items()):
        lines += ["", f"## {group}", "", *chosen.get(group, [])]
        for path in paths:
            lines += ["", f"### {group}={path.stem}", "", *_file(path, packages.get(group, group.replace("/", ".")))]
    return "\n".join(lines) + "\n"


def _file(path: Path, package: str) -> Iterator[str]:
    """Lines on one file, whose settings stand under `package` unless it says another."""
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text) or {}
    package = _own_package(text) or package
    prefix = "" if package in ("", "_global_") else f"{package}."
    about = re.findall(r"^(?:_target_|_partial_):.*? # (.*)$", text, re.MULTILINE)
    for line in [*_head(text), *about]:
        yield f"{_escaped(line)}  "  # two blanks: a line of its own
    based_on = [item for item in content.get("defaults", []) if isinstance(item, str) and item != "_self_"]
    if based_on:
        yield f"\nTakes what it does not say itself from {', '.join(f'`{name}`' for name in based_on)}."
    target = content.get("_target_")
    if target:
        # a link to the code, which a strict build checks
        yield f"\nArguments of {f'[`{target}`][{target}]' if target.startswith('specgan.') else f'`{target}`'}."
    rows = list(settings(text))
    if rows:
        yield "\n| setting | default | meaning |\n|---|---|---|"
    for row in rows:
        yield f"| `{prefix}{row.name}` | {_code(row.default)} | {_cell(row.comment)} |"


def settings(text: str) -> Iterator[Setting]:
    """Reads the settings of a YAML file with their comments, in its order."""
    node = yaml.compose(text)
    if node is not None:
        yield from _settings_in(node, "", text.splitlines())


def _settings_in(node: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[Setting]:
    for key, value in node.value:
        if (not prefix and key.value in _NOT_SETTINGS) or key.value == "_partial_":
            continue
        name, comment = prefix + key.value, _comment(key, value, lines)
        if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
            if comment:
                yield Setting(name, "", comment)
            yield from _settings_in(value, f"{name}.", lines)
        else:
            yield Setting(name, _source(value), comment)


def _source(value: yaml.Node) -> str:
    is_short = isinstance(value, yaml.ScalarNode) and value.style not in ("|", ">")
    if is_short or getattr(value, "flow_style", False):
        return value.start_mark.buffer[value.start_mark.index : value.end_mark.index].strip()
    content = yaml.safe_load(yaml.serialize(value))
    return yaml.safe_dump(content, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def _comment(key: yaml.Node, value: yaml.Node, lines: list[str]) -> str:
    """What stands behind a value, or behind its key where the value takes several lines, and in lines above it."""
    mark = value.end_mark if value.end_mark.line == key.end_mark.line else key.end_mark
    behind = re.match(r"\s*:?\s*[>|]?[+-]?\s*#\s*(.*)", lines[mark.line][mark.column :])
    above = []
    number = key.start_mark.line - 1
    while number >= len(_head_lines(lines)) and lines[number].lstrip().startswith("#"):
        above.insert(0, lines[number].lstrip("# "))
        number -= 1
    return "; ".join([*above, *([behind[1]] if behind else [])])


def _head_lines(lines: list[str]) -> list[str]:
    count = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return lines[:count]


def _head(text: str) -> list[str]:
    """What a file says of itself in its first lines."""
    return [line.lstrip("# ") for line in _head_lines(text.splitlines()) if "@package" not in line]


def _own_package(text: str) -> str | None:
    found = re.search(r"^# @package (\S+)$", text, re.MULTILINE)
    return found[1] if found else None


def _defaults(conf: Path) -> Iterator[tuple[Path, str, str, str | None]]:
    """Of every defaults list: its file, and the group, the package ("" where none is named) and the choice."""
    for path in [*sorted(conf.glob("*.yaml")), *sorted(conf.rglob("*/*.yaml"))]:
        place = path.parent.relative_to(conf).as_posix()
        for item in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("defaults", []):
            if isinstance(item, dict):
                ((key, value),) = item.items()
                key, _, package = key.removeprefix("override ").partition("@")
                group = key.removeprefix("/") if key.startswith("/") or place == "." else f"{place}/{key}"
                yield path, group, package, value


def _packages(conf: Path) -> dict[str, str]:
    """Where the settings of a group stand, if not under its own name."""
    found: dict[str, str] = {}
    for path, group, package, _ in _defaults(conf):
        if package not in ("", "_global_") and group not in found:
            place = _own_package(path.read_text(encoding="utf-8")) or path.parent.relative_to(conf).as_posix()
            inside = "" if place in (".", "_global_") or package.startswith("_global_.") else f"{place}."
            found[group] = inside + package.removeprefix("_global_.")
    return found


def _choices(conf: Path) -> Mapping[str, list[str]]:
    """Sentences on where each group is chosen, from the defaults lists of all files."""
    found: dict[str, list[str]] = defaultdict(list)
    for path, group, _, value in _defaults(conf):
        place = path.parent.relative_to(conf).as_posix()
        if place == ".":
            default = f"`{value}` unless you choose another" if value else "none unless you choose one"
            found[group].append(f"- {default}, in `{path.name}`")
        else:
            found[group].append(f"- `{value}` with `{place}={path.stem}`")
    return found


def _escaped(text: str) -> str:
    """Text for Markdown; what stands between backticks stays as it is."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part[:1] == "`" else re.sub(r"([*\[\]])", r"\\\1", html.escape(part)) for part in parts)


def _cell(text: str) -> str:
    return _escaped(text).replace("|", r"\|")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", r"\|") if text else ""
