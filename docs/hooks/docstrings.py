"""Docstrings as Markdown: their stars and angle brackets are letters of formulas, and no markup."""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Source|Example):", re.MULTILINE)
NAME = re.compile(r"^ *\*{1,2}\w+:")
CODE = re.compile(r"(`[^`]*`)")


class Formulas(griffe.Extension):
    """Escapes formulas in the text of a docstring; code and examples stay as they are."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object before it is read."""
        if obj.docstring is not None:
            obj.docstring.value = escaped(obj.docstring.value)


def escaped(text: str) -> str:
    """The text with stars and angle brackets escaped, but for blocks of code, names of arguments and examples."""
    first = SECTION.search(text)
    body = first.start() if first else len(text)
    example = re.search(r"^(Example:|>>> )", text, re.MULTILINE)
    end = example.start() if example else len(text)
    lines, place = [], 0
    for line in text.splitlines(keepends=True):
        is_code = place >= end or (place < body and line.startswith("    "))
        name = NAME.match(line)
        kept = name[0] if name else ""
        lines.append(line if is_code else kept + plain(line[len(kept) :]))
        place += len(line)
    return "".join(lines)


def plain(text: str) -> str:
    """Text in which stars and angle brackets are letters, except within backticks."""
    parts = CODE.split(text)
    return "".join(part if i % 2 else part.replace("*", "\\*").replace("<", "&lt;") for i, part in enumerate(parts))
