"""The named data sets as a list: what they are, whether they are here, and whether the files are intact."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.base import KernelDataModule
from datamodules.download import DownloadedDataModule
from datamodules.idx import find_idx
from datamodules.registry import build_datamodule
from kl.errors import InputError


@dataclass(frozen=True)
class DataSet:
    """A named data set."""

    name: str
    n_train: int
    n_test: int
    num_features: int
    num_classes: int
    origin: str
    """Who published it, or what makes it."""
    found_in: str | None
    """Where it is read from: a path, or "built in"; None where it would have to be downloaded."""

    @property
    def present(self) -> bool:
        """Whether it can be used without a network."""
        return self.found_in is not None


@dataclass(frozen=True)
class Check:
    """One thing that was looked at in a data set."""

    what: str
    expected: str
    """What the original has; empty where nothing is known, as for a user's own data."""
    found: str

    @property
    def ok(self) -> bool:
        """Whether it is as it should be."""
        return self.expected in ("", self.found)


# name: (n_train, n_test, d, c, origin)
_FACTS: dict[str, tuple[int, int, int, int, str]] = {
    "digits": (1437, 360, 64, 10, "scikit-learn load_digits"),
    "mnist": (60000, 10000, 784, 10, "LeCun, Cortes, Burges 1998"),
    "fashion-mnist": (60000, 10000, 784, 10, "Xiao, Rasul, Vollgraf 2017"),
    "cifar10": (50000, 10000, 3072, 10, "Krizhevsky 2009"),
    "synthetic1": (2000, 2000, 50, 2, "drawn as in Belkin, Ma, Mandal 2018, Synthetic 1"),
    "synthetic2": (2000, 2000, 50, 2, "drawn as in Belkin, Ma, Mandal 2018, Synthetic 2"),
}

# Training rows per class.
_HISTOGRAMS: dict[str, list[int]] = {
    "mnist": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "fashion-mnist": [6000] * 10,
    "cifar10": [5000] * 10,
}

# MD5 of the unpacked IDX files: what torchvision's archives, whose MD5 torchvision states, unpack to.
_CHECKSUMS: dict[str, dict[str, str]] = {
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}


def data_sets(data_dir: str | None = None) -> list[DataSet]:
    """Every named data set and where in `data_dir` it was found; nothing is read or downloaded."""
    return [
        DataSet(name, *facts, found_in=_found_in(build_datamodule(name, data_dir=data_dir)))
        for name, facts in _FACTS.items()
    ]


def download(name: str, data_dir: str | None = None) -> str:
    """Download a named set unless it is there; where it lies now.

    For cifar10 the original pickles are fetched even where the JPEG stand-in is there.

    Raises:
        InputError: unknown name.
        DataNotFoundError: it could not be downloaded.
    """
    module = build_datamodule(name, data_dir=data_dir)
    if isinstance(module, DownloadedDataModule):
        module.fetch_or_explain()
    return _found_in(module) or ""


def check(spec: str, data_dir: str | None = None) -> list[Check]:
    """Read a data set, without downloading, and compare it with what is known about the original.

    Args:
        spec: anything that `build_datamodule` takes; for a user's own data nothing is expected, only
            reported.
        data_dir: folder of downloaded sets.

    Raises:
        InputError: the set is missing or cannot be read.
    """
    module = build_datamodule(spec, data_dir=data_dir, download=False)
    checks = [*_checksums(module)]
    module.setup()
    facts: tuple[Any, ...] = _FACTS.get(spec, ("",) * 5)
    test_rows = 0 if module.test_set is None else len(module.test_set)
    found = (len(module.train_set), test_rows, module.num_features, module.num_outputs)
    names = ("training rows", "test rows", "features", "classes" if module.class_names else "outputs")
    checks += [Check(name, str(fact), str(value)) for name, fact, value in zip(names, facts[:4], found, strict=True)]
    if module.clean_labels is not None:
        counts = module.clean_labels.bincount(minlength=module.num_outputs).tolist()
        expected = str(_HISTOGRAMS[spec]) if spec in _HISTOGRAMS else ""
        checks.append(Check("training rows per class", expected, str(counts)))
    checks.append(Check("mean feature", "", f"{module.train_set.x.double().mean().item():.6g}"))
    checks.append(Check("read from", _original(spec), module.source))
    return checks


def _original(spec: str) -> str:
    return spec if spec in _FACTS else ""


def _checksums(module: KernelDataModule) -> list[Check]:
    if not isinstance(module, DownloadedDataModule) or module.name not in _CHECKSUMS:
        return []  # CIFAR-10's pickles are checked by torchvision when they are read
    folder = module.require()
    return [Check(f"MD5 of {name}", md5, _md5(folder, name)) for name, md5 in _CHECKSUMS[module.name].items()]


def _md5(folder: Path, name: str) -> str:
    """Of an IDX file as it is unpacked."""
    path = find_idx(folder, name)
    assert path is not None  # require() has looked
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}): delete it and run `kl data download`") from error


def _found_in(module: KernelDataModule) -> str | None:
    if not isinstance(module, DownloadedDataModule):
        return "built in"
    place = module.found_in()
    return None if place is None else str(place)
