"""Options in a YAML file: --config reads one, --print-config writes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from recipes.options.yaml_mapping import LONGEST, NotReadable, Value, dump_mapping, read_mapping

PATHS = ("npz", "csv", "parquet", "folder", "stream")
"""What stands before a path in --data; anything else before a colon is a module of code."""
_SAID = ("yes", "no", "on", "off", "y", "n")  # true and false of YAML 1.1


def load_config(context: typer.Context, path: str | None) -> str | None:
    """Make the file's values the defaults of the command's options; keys may be written with - or _.

    Raises:
        BadParameter: the file cannot be read, is no mapping, or has a key that is no option of the command.
    """
    if path is None:
        return None
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            written = read_mapping(file.read(LONGEST + 1))
    except OSError as error:
        raise typer.BadParameter(f"--config {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"--config {path} is not YAML: {' '.join(str(error).split())}") from error
    except NotReadable as error:
        raise typer.BadParameter(f"--config {path} {error}") from error
    values: dict[str, Value] = {}
    for key, found in written.items():
        name = key.replace("-", "_")
        if name in values:
            raise typer.BadParameter(
                f"--config {path} line {found.line}: {key} stands in line {values[name].line} already, written with - "
                "or _: leave one of them out"
            )
        values[name] = found
    known = {parameter.name for parameter in context.command.params} - {"config", "print_config", "help"}
    if unknown := sorted(set(values) - known):
        raise typer.BadParameter(
            f"--config {path} has the unknown option {unknown[0]!r}; this command has: {', '.join(sorted(known))}"
        )
    for parameter in context.command.params:
        value, line = values.get(parameter.name, Value(None, 0))
        flag = getattr(parameter, "is_flag", False)
        if value is not None and isinstance(value, bool) != bool(flag):
            expected = "true or false" if flag else "one number or text"
            hint = f": write true or false, not {value}" if flag and str(value).lower() in _SAID else ""
            hint = hint if flag else ": a text needs quotes"
            raise typer.BadParameter(
                f"--config {path} line {line}: {parameter.name} must be {expected}; got {_text(value)}{hint}"
            )
    context.default_map = {key: value for key, (value, _) in values.items() if value is not None}
    return path


def refuse_code(context: typer.Context, path: str | None, options: dict[str, Any]) -> None:
    """Refuse code that only a file names: package.module:Class must be on the command line.

    Raises:
        BadParameter: a kernel or data module outside kl comes from the file alone.
    """
    for name in ("kernel", "kernels", "data"):
        value, source = str(options.get(name)), context.get_parameter_source(name)
        each = value.split(",") if name == "kernels" else [value]
        if source is not None and source.name == "DEFAULT_MAP" and any(names_code(part.strip()) for part in each):
            raise typer.BadParameter(
                f"--config {path} names {value}, whose code would run: if you trust that class, add --{name} {value} "
                "to the command"
            )


def names_code(value: str) -> bool:
    """Whether the value of --kernel or --data is a class outside kl rather than a name or a path."""
    prefix, colon, _ = value.partition(":")
    return bool(colon) and prefix not in PATHS


def _text(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value


def dump_config(options: dict[str, Any]) -> str:
    """The options as YAML that `load_config` reads back."""
    return dump_mapping(options)
