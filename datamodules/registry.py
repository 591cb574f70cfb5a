"""The data module that the value of --data names."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from datamodules.arrays import ArrayDataModule
from datamodules.base import KernelDataModule
from datamodules.cifar import CIFAR10DataModule
from datamodules.digits import DigitsDataModule
from datamodules.folders import ImageFolderDataModule
from datamodules.mnist import FashionMNISTDataModule, MNISTDataModule
from datamodules.stored import option_names
from datamodules.stream import StreamDataModule
from datamodules.synthetic import SyntheticDataModule
from datamodules.table import TableDataModule
from kl.errors import InputError
from kl.system.user_modules import import_user_class

# Name: the class, and the arguments that select the set. A set with `facts` is in `kl data list`.
NAMED: dict[str, tuple[type[KernelDataModule], dict[str, Any]]] = {
    DigitsDataModule.name: (DigitsDataModule, {}),
    MNISTDataModule.name: (MNISTDataModule, {}),
    FashionMNISTDataModule.name: (FashionMNISTDataModule, {}),
    CIFAR10DataModule.name: (CIFAR10DataModule, {}),
    "synthetic1": (SyntheticDataModule, {"kind": 1}),
    "synthetic2": (SyntheticDataModule, {"kind": 2}),
}
PREFIXED: dict[str, type[KernelDataModule]] = {
    "npz": ArrayDataModule,
    "csv": TableDataModule,
    "parquet": TableDataModule,
    "folder": ImageFolderDataModule,
    "stream": StreamDataModule,
}
"""What stands before a colon and a path, and the class that reads such a path."""
SPECS = (*NAMED, "npz:FILE", "csv:FILE", "parquet:FILE", "folder:DIR", "stream:DIR", "package.module:Class")


def build_datamodule(spec: str, **options: Any) -> KernelDataModule:
    """The data module that `spec` names.

    Args:
        spec: a name in `NAMED` (digits, mnist, ...), npz:FILE, csv:FILE, parquet:FILE, folder:DIR,
            stream:DIR, or package.module:Class for a KernelDataModule of the user's own (also from the current folder).
        **options: arguments of that data module.

    Raises:
        InputError: the name or an option is unknown, or the user's class cannot be imported.

    Example:
        >>> build_datamodule("synthetic2", train_size=100).name
        'synthetic2'
    """
    cls, fixed = _resolve(spec)
    known = option_names(cls) - set(fixed)
    if unknown := sorted(set(options) - known):
        raise InputError(
            f"{unknown[0]} is not an option of --data {spec}; it has: {', '.join(sorted(known - {'path'}))}"
        )
    return cls(**fixed, **options)


def _resolve(spec: str) -> tuple[type[KernelDataModule], dict[str, Any]]:
    if spec in NAMED:
        return NAMED[spec]
    prefix, colon, rest = spec.partition(":")
    if colon and not rest:
        raise InputError(f"--data {spec!r} lacks what follows the colon; expected one of {', '.join(SPECS)}")
    if colon and prefix in PREFIXED:
        return PREFIXED[prefix], {"path": rest}
    if colon and all(part.isidentifier() for part in prefix.split(".")) and rest.isidentifier():
        return _import_class(spec), {}
    close = difflib.get_close_matches(prefix.lower().replace("_", "-"), [*NAMED, *PREFIXED], n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    if (kind := Path(spec).suffix[1:]) in PREFIXED:
        hint = f" (did you mean '{kind}:{spec}'?)"
    raise InputError(f"--data must be one of {', '.join(SPECS)}; got {spec!r}{hint}")


def _import_class(spec: str) -> type[KernelDataModule]:
    _, found = import_user_class(f"--data {spec}", spec)
    if not (isinstance(found, type) and issubclass(found, KernelDataModule)):
        module_name, _, class_name = spec.partition(":")
        was = "there is no such name" if found is None else "it does not"
        raise InputError(
            f"--data {spec}: {class_name} must be a class in {module_name} that derives from "
            f"datamodules.KernelDataModule; {was}"
        )
    return found
