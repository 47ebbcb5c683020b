"""Pages that are written when the documentation is built, so that they always match the code.

The settings come from the YAML files of conf/ and their comments, the code from the docstrings of specgan/. `pages`
returns all of these pages; the hooks pass them to mkdocs.
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

_NOT_SETTINGS = ("defaults", "_target_", "_partial_")  # at the top of a file; described in sentences instead


@dataclass(frozen=True)
class Setting:
    """One value of a YAML file. The default of a section is empty."""

    name: str
    default: str
    comment: str


def pages() -> dict[str, str]:
    """Returns the Markdown of each page by its path in the documentation."""
    written = {"reference/configuration.md": configuration_page(CONF), "reference/code/index.md": code_page()}
    for package in packages():
        written[f"reference/code/{package.name}.md"] = package_page(package)
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        written[name.lower()] = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
    return written


# --- what mkdocs calls


def on_config(config):
    """Adds the packages of the code to the navigation, and new pages that mkdocs.yml does not list yet."""
    listed = str(config.nav)
    docs = Path(config.docs_dir)
    written = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    by_title = {title: entries for section in config.nav for title, entries in section.items()}
    by_title["How to"] += [path for path in written if path not in listed]
    code = [{package.name: f"reference/code/{package.name}.md"} for package in packages()]
    code.insert(0, {"Overview": "reference/code/index.md"})
    by_title["Reference"].append({"Code": code})
    return config


def on_files(files, *, config):
    from mkdocs.structure.files import File

    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    return files


# --- the code


@dataclass(frozen=True)
class Package:
    """A package of specgan, or a module beside the packages, which is then its own only module."""

    name: str
    about: str  # its docstring
    modules: list[str]  # dotted names without `specgan.`


def packages() -> list[Package]:
    found = []
    for path in sorted((ROOT / "specgan").iterdir()):
        if path.suffix == ".py" and path.name != "__init__.py":
            found.append(Package(path.stem, _docstring(path), [path.stem]))
        elif (path / "__init__.py").exists():
            modules = [f"{path.name}.{module.stem}" for module in sorted(path.glob("*.py")) if module.stem[:2] != "__"]
            found.append(Package(path.name, _docstring(path / "__init__.py"), modules))
    return found


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def package_page(package: Package) -> str:
    """Introduces a package by its docstring, and then each of its modules by theirs."""
    if package.modules == [package.name]:  # mkdocstrings shows the docstring itself
        return f"# {package.name}\n\n::: specgan.{package.name}\n"
    modules = "".join(f"\n## {module}\n\n::: specgan.{module}\n" for module in package.modules)
    return f"# {package.name}\n\n{package.about}\n{modules}"


def code_page() -> str:
    """Lists the packages with the first line of their docstrings."""
    lines = ["# All packages", "", "Written from the docstrings.", "", "| package | contents |", "|---|---|"]
    lines += [f"| [{p.name}]({p.name}.md) | {_cell(p.about.partition(chr(10))[0])} |" for p in packages()]
    return "\n".join(lines) + "\n"


# --- the settings


def configuration_page(conf: Path) -> str:
    """Every setting of every YAML file in a configuration folder, with its default and its comment."""
    lines = [
        "# All settings",
        "",
        "Written from the files of `conf/` and their comments. `python train.py --help` shows them composed.",
        "",
        "On the command line the heading above a table chooses its file, and the name of a setting changes it:",
        "`loss=hinge loss.gamma=0.1`. One command may have several of both.",
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
    """Yields the lines for one file. Its settings belong to `package` unless the file names another."""
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text) or {}
    package = _own_package(text) or package
    prefix = "" if package in ("", "_global_") else f"{package}."
    about = re.findall(r"^(?:_target_|_partial_):.*? # (.*)$", text, re.MULTILINE)
    for line in [*_head(text), *about]:
        yield f"{_escaped(line)}  "  # two blanks: a line of its own
    based_on = [item for item in content.get("defaults", []) if isinstance(item, str) and item != "_self_"]
    if based_on:
        yield f"\nBased on {', '.join(f'`{name}`' for name in based_on)}."
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
    """Joins the comment lines above a key with the comment after its value (after the key of a long value)."""
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
    """Returns the comment lines at the top of a file."""
    return [line.lstrip("# ") for line in _head_lines(text.splitlines()) if "@package" not in line]


def _own_package(text: str) -> str | None:
    found = re.search(r"^# @package (\S+)$", text, re.MULTILINE)
    return found[1] if found else None


def _defaults(conf: Path) -> Iterator[tuple[Path, str, str, str | None]]:
    """Yields file, group, package ("" if none is given) and choice of every entry of every defaults list."""
    for path in [*sorted(conf.glob("*.yaml")), *sorted(conf.rglob("*/*.yaml"))]:
        place = path.parent.relative_to(conf).as_posix()
        for item in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("defaults", []):
            if isinstance(item, dict):
                ((key, value),) = item.items()
                key, _, package = key.removeprefix("override ").partition("@")
                group = key.removeprefix("/") if key.startswith("/") or place == "." else f"{place}/{key}"
                yield path, group, package, value


def _packages(conf: Path) -> dict[str, str]:
    """Returns the package of each group whose settings have another prefix than the group's name."""
    found: dict[str, str] = {}
    for path, group, package, _ in _defaults(conf):
        if package not in ("", "_global_") and group not in found:
            place = _own_package(path.read_text(encoding="utf-8")) or path.parent.relative_to(conf).as_posix()
            inside = "" if place in (".", "_global_") or package.startswith("_global_.") else f"{place}."
            found[group] = inside + package.removeprefix("_global_.")
    return found


def _choices(conf: Path) -> Mapping[str, list[str]]:
    """Says for each group which file is chosen where, from the defaults lists of all files."""
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
    """Escapes text for Markdown, except between backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part[:1] == "`" else re.sub(r"([*\[\]])", r"\\\1", html.escape(part)) for part in parts)


def _cell(text: str) -> str:
    return _escaped(text).replace("|", r"\|")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", r"\|") if text else ""
