"""Checks what `pip install` of the wheel leaves; `make wheel-check` runs it there, as `python -I tests/wheel.py`."""

import importlib.metadata
import sys
from pathlib import Path

import kl
import kl.callbacks
import kl.data

PACKAGES = ("kl", "datamodules", "callbacks", "recipes")


def main() -> None:
    """Raise AssertionError where something is missing."""
    installed = importlib.metadata.distribution("kl")
    home = Path(str(installed.locate_file(""))).resolve()
    assert Path(sys.prefix).resolve() in home.parents, f"{home} is not in this environment"
    assert Path(str(kl.__file__)).resolve() == home / "kl" / "__init__.py", kl.__file__
    files = {str(file) for file in installed.files or []}
    top = {file.split("/")[0] for file in files if file.endswith(".py")}
    assert top == set(PACKAGES), f"import names: {sorted(top)}"
    assert not [name for name in PACKAGES if f"{name}/py.typed" not in files], "py.typed is missing"
    assert any(file.endswith(".dist-info/licenses/LICENSE") for file in files), "LICENSE is missing"
    assert installed.version == kl.__version__, installed.version
    assert installed.metadata["License-Expression"] == "MIT"
    for alias in (kl.data, kl.callbacks):
        for name in alias.__all__:
            getattr(alias, name)


main()
