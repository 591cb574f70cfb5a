"""Every option of every command as Markdown, read from the command line itself."""

from __future__ import annotations

from html import escape
from typing import Any

import typer.main

from recipes.app import app

SHOWN_LATER = "--help"


def markdown() -> str:
    """A section for each command: its help, its arguments, and a table of options for each group of them."""
    return "\n\n".join(section(name, command) for name, command in all_commands())


def all_commands() -> list[tuple[str, Any]]:
    """Every command with its full name, those of a group after it."""
    found: list[tuple[str, Any]] = []

    def collect(prefix: str, command: Any) -> None:
        if prefix != "kl":
            found.append((prefix, command))
        for name, each in getattr(command, "commands", {}).items():
            if not each.hidden:
                collect(f"{prefix} {name}", each)

    collect("kl", typer.main.get_command(app))
    return found


def section(name: str, command: Any) -> str:
    """The section of one command."""
    arguments = [each for each in command.params if not each.opts[0].startswith("-")]
    options = [each for each in command.params if each not in arguments and not each.hidden]
    parts = [f"## {name}", *map(paragraph, (command.help or "").split("\n\n"))]
    if arguments:
        parts.append(table("Argument", [(f"`{each.name}`", each) for each in arguments]))
    groups: dict[str, list[Any]] = {}
    for each in options:
        groups.setdefault(each.rich_help_panel or "Options", []).append(each)
    for title, members in groups.items():
        rows = [(spelling(each), each) for each in members if SHOWN_LATER not in each.opts]
        parts += [f"**{title}**", table("Option", rows)] if rows else []
    return "\n\n".join(parts)


def paragraph(text: str) -> str:
    """A paragraph of a help; an example of a command is a block of code."""
    return f"```console\n{text}\n```" if text.startswith("kl ") else in_markdown(text)


def spelling(option: Any) -> str:
    """The names of an option, and what it takes."""
    names = " ".join(f"`{each}`" for each in [*option.opts, *option.secondary_opts])
    annotation = option.type_descriptor.annotation
    kind = option.metavar or getattr(annotation, "__name__", str(annotation)).upper()
    return names if option.is_flag else f"{names} {cell(kind)}"


def table(first: str, rows: list[tuple[str, Any]]) -> str:
    """A table of options or arguments."""
    lines = [f"| {first} | Meaning | Default |", "|---|---|---|"]
    for name, each in rows:
        lines.append(f"| {name} | {cell(each.help or '')} | {default_of(each)} |")
    return "\n".join(lines)


def default_of(parameter: Any) -> str:
    """The default as it would be typed; empty where the help explains what is done without the option."""
    value = parameter.default
    if parameter.required:
        return "required"
    if value is None or value is False or value in ("", [], ()):
        return ""
    return f"`{'on' if value is True else value}`"


def cell(text: str) -> str:
    """Text for a cell of a table: no bars, no tags, no emphasis by underscores or stars."""
    return in_markdown(text).replace("|", "\\|").replace("\n", " ")


def in_markdown(text: str) -> str:
    """The text of a help with its special letters escaped, except within backticks."""
    parts = text.split("`")
    plain = [
        escape(part, quote=False).replace("*", "\\*").replace("_", "\\_").replace("[", "\\[") if i % 2 == 0 else part
        for i, part in enumerate(parts)
    ]
    return "`".join(plain)
