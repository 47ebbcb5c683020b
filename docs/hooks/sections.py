"""Prepares docstrings for the reference pages: an empty line before each section, sources as text."""

import re
from typing import Any

import griffe

_SECTIONS = "Args|Returns|Yields|Raises|Attributes|Source"


class Sections(griffe.Extension):
    """Griffe recognises a section only after an empty line, which our docstrings omit."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = apart(obj.docstring.value)


def apart(docstring: str) -> str:
    """Puts an empty line before each section; `Source: ...` and other sections of one line become paragraphs."""
    lines: list[str] = []
    in_paragraph = False
    for line in docstring.splitlines():
        section = re.match(rf"({_SECTIONS}):( \S.*)?$", line)
        if section and lines and lines[-1]:
            lines.append("")
        if section and section[2]:
            in_paragraph, line = True, f"**{section[1]}:**{section[2]}"
        elif section or not line:
            in_paragraph = False
        lines.append(line.lstrip() if in_paragraph else line)
    return "\n".join(lines)
