"""The packages that are installed together with kl, found beside it, and not others that have their names."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from kl.errors import PackageClashError

HOME = Path(__file__).resolve().parents[2]
"""The folder that the packages are in: that of the project, or site-packages."""


def require_own(name: str) -> None:
    """Check that importing `name` would import the package beside kl; nothing is imported.

    Args:
        name: datamodules, callbacks or recipes.

    Raises:
        PackageClashError: another package of this name comes first on Python's path, or none is there.
    """
    if name in sys.modules:
        places = _places(sys.modules[name])
    else:
        spec = find_spec(name)
        places = (
            [] if spec is None else [spec.origin] if spec.has_location else list(spec.submodule_search_locations or [])
        )
    found = [Path(place).resolve() for place in places if place]
    own = HOME / name
    if not found:
        raise PackageClashError(f"the package {name} must be beside kl, in {own}; got none there: install kl again")
    if found[0] not in (own, own / "__init__.py"):
        raise PackageClashError(
            f"the package {name} must be kl's own, in {own}; got another of that name, {found[0]}: rename or uninstall "
            "that one, or take its folder from Python's path (PYTHONPATH, or the folder of the script)"
        )


def own_package(name: str) -> ModuleType:
    """The package `name` that was installed with kl, imported.

    Args:
        name: datamodules or callbacks.

    Raises:
        PackageClashError: another package has its name, or has overwritten its files.
    """
    require_own(name)
    package = import_module(name)
    if getattr(getattr(package, "__getattr__", None), "__module__", None) != "kl.system.lazy":
        raise PackageClashError(
            f"the package {name} must be kl's own; got another one in its place, {HOME / name}, which has overwritten "
            "it: uninstall that one and install kl again, or give each an environment of its own"
        )
    return package


def _places(module: ModuleType) -> list[str | None]:
    """Where a module was imported from."""
    return [module.__file__] if getattr(module, "__file__", None) else list(getattr(module, "__path__", []))
