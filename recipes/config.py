"""Options in a YAML file: --config reads one, --print-config writes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


def load_config(context: typer.Context, path: str | None) -> str | None:
    """Make the file's values the defaults of the command's options; keys may be written with - or _.

    Raises:
        BadParameter: the file cannot be read, is no mapping, or has a key that is no option of the command.
    """
    if path is None:
        return None
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise typer.BadParameter(f"--config {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--config {path} is not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise typer.BadParameter(f"--config {path} must hold a mapping of options to values, as --print-config writes")
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    known = {parameter.name for parameter in context.command.params} - {"config", "print_config", "help"}
    if unknown := sorted(set(values) - known):
        raise typer.BadParameter(
            f"--config {path} has the unknown option {unknown[0]!r}; this command has: {', '.join(sorted(known))}"
        )
    for parameter in context.command.params:
        value = values.get(parameter.name)
        flag = getattr(parameter, "is_flag", False)
        if value is not None and (isinstance(value, list | dict) or isinstance(value, bool) != bool(flag)):
            expected = "true or false" if flag else "one number or text"
            raise typer.BadParameter(f"--config {path}: {parameter.name} must be {expected}; got {value!r}")
    context.default_map = {key: value for key, value in values.items() if value is not None}
    return path


def dump_config(options: dict[str, Any]) -> str:
    """The options as YAML that `load_config` reads back."""
    import yaml

    return yaml.safe_dump(options, sort_keys=False)
