"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """What a package needs so that importing it imports none of its modules: __getattr__, __dir__ and __all__.

    Args:
        package: its `__name__`. A module without modules of its own may be given, too.
        homes: the modules that define its public names, and the names, with spaces between them.

    Source: PEP 562.
    """
    home_of = {name: module for module, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        """A public name or a module of the package; Python asks once, and finds the value in the package from then on.

        Raises:
            AttributeError: there is no such name.
        """
        if name in home_of:
            found = getattr(import_module(home_of[name]), name)
        elif "." not in name and "__path__" in vars(sys.modules[package]) and find_spec(f"{package}.{name}"):
            found = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(import_module(package), name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(import_module(package)), *home_of})

    return get, names, sorted(home_of)
