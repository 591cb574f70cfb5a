"""A user's own module, named on a command line or in Python: from the current folder, else an installed one."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from kl.errors import InputError

OURS = ("kl", "datamodules", "callbacks", "recipes")
"""The packages that are installed with kl; a user's folder may have the same names."""


def import_user_class(asked: str, spec: str) -> tuple[ModuleType, Any]:
    """What "package.module:Class" means: the module, and what it has by that name; see `import_user_module`.

    Args:
        asked: what the user wrote, for messages, such as "kernel 'mine:K'".
        spec: the dotted name of the module, a colon, and the name in it, which may be dotted, too: a class in a class.

    Returns:
        The module and what is there, a class or not; None where there is nothing by that name.

    Raises:
        InputError: the spec has another form, or the module cannot be imported.
    """
    module_name, _, class_name = spec.partition(":")
    if not module_name or not class_name:
        raise InputError(f"{asked} must have the form package.module:Class")
    module = import_user_module(asked, module_name)
    found: Any = module
    for part in class_name.split("."):
        found = getattr(found, part, None)
    return module, found


def import_user_module(asked: str, name: str) -> ModuleType:
    """Import the module `name`: a file or package of the current folder, or an installed one.

    The first part of the name is looked for in the current folder and loaded from its file, before any other place. The
    current folder is put last on the import path, so that the module can import its neighbours, and a folder there with
    the name of one of kl's packages, or of an installed package, hides none of them.

    The module's code runs: call this function only with what a user has typed, never with a name that a file holds.

    Args:
        asked: what the user wrote, for messages, such as "kernel 'mine:K'".
        name: the dotted name of the module.

    Raises:
        InputError: there is no such module, it raises an error, or its file has the name of another module.
    """
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    top = name.partition(".")[0]
    try:
        if top not in OURS and (file := _file_of(Path(here, top))):
            _load(asked, top, file)
        return importlib.import_module(name)
    except InputError:
        raise
    except Exception as error:  # a user's module may raise anything
        raise InputError(f"{asked}: {_reason(name, here, error)}") from error


def _file_of(path: Path) -> Path | None:
    """The file of the module or package at this path, None if there is none."""
    for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
        if file.is_file():
            return file
    return None


def _load(asked: str, name: str, file: Path) -> None:
    """Run the file as the module of that name, unless this has been done."""
    there = sys.modules.get(name)
    found = getattr(there, "__file__", None)
    if found and os.path.exists(found) and os.path.samefile(found, file):
        return
    if there is not None or name in sys.stdlib_module_names:
        raise InputError(
            f"{asked}: {file} has the name of another module{f', {found}' if found else ''}: rename the file"
        )
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # it is a file that ends with .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # otherwise the next import would take the half-run module for a complete one
        raise


def _reason(name: str, here: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
        reason = f"there is no module {error.name!r} in the current directory or the installed packages"
    else:
        reason = f"importing it failed with {type(error).__name__}: {' '.join(str(error).split())}"
    hidden = [ours for ours in OURS if isinstance(error, ImportError) and _is_of(ours, error) and _lies(here, ours)]
    if hidden:
        reason += f" (kl has a package {hidden[0]} of its own: rename the folder {hidden[0]} here)"
    return reason


def _is_of(package: str, error: ImportError) -> bool:
    return (error.name or "").partition(".")[0] == package


def _lies(here: str, package: str) -> bool:
    """Whether the current folder has a package of this name that is not kl's."""
    path = Path(here, package)
    ours = getattr(sys.modules.get(package), "__path__", [""])
    return path.exists() and not any(each and os.path.exists(each) and path.samefile(each) for each in ours)
