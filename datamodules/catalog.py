"""The list of named data sets: their facts, whether they are on disk, and whether their files are intact."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

from datamodules.base import KernelDataModule
from datamodules.download import DownloadedDataModule
from datamodules.idx import find_idx
from datamodules.registry import NAMED, build_datamodule
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
    """Who published the set, or how it is made."""
    found_in: str | None
    """Where the set is read from: a path, or "built in"; None if it must be downloaded first."""

    @property
    def present(self) -> bool:
        """Whether the set can be used without a network."""
        return self.found_in is not None


@dataclass(frozen=True)
class Check:
    """One property of a data set, as expected and as found."""

    what: str
    expected: str
    """The value of the original set; empty if it is unknown, as for a user's own data."""
    found: str

    @property
    def ok(self) -> bool:
        """Whether the value found is the expected one, or nothing is expected."""
        return self.expected in ("", self.found)


def data_sets(data_dir: str | None = None) -> list[DataSet]:
    """Every named data set and where in `data_dir` it was found; nothing is read or downloaded."""
    modules = [build_datamodule(name, data_dir=data_dir) for name in NAMED]
    return [
        DataSet(
            module.name,
            facts.n_train,
            facts.n_test,
            facts.num_features,
            facts.num_classes,
            facts.origin,
            _found_in(module),
        )
        for module in modules
        if (facts := module.facts) is not None
    ]


def download(name: str, data_dir: str | None = None) -> str:
    """Download a named set unless it is on disk; returns where it lies.

    For cifar10 the original pickles are downloaded even if the JPEG stand-in is on disk.

    Raises:
        InputError: unknown name.
        DataNotFoundError: the set could not be downloaded.
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
    facts = module.facts
    known = (facts.n_train, facts.n_test, facts.num_features, facts.num_classes) if facts else ("",) * 4
    test_rows = 0 if module.test_set is None else len(module.test_set)
    found = (len(module.train_set), test_rows, module.num_features, module.num_outputs)
    names = ("training rows", "test rows", "features", "classes" if module.class_names else "outputs")
    checks += [Check(name, str(fact), str(value)) for name, fact, value in zip(names, known, found, strict=True)]
    if module.clean_labels is not None:
        counts = module.clean_labels.bincount(minlength=module.num_outputs).tolist()
        expected = str(list(facts.class_counts)) if facts and facts.class_counts else ""
        checks.append(Check("training rows per class", expected, str(counts)))
    checks.append(Check("mean feature", "", f"{module.train_set.x.double().mean().item():.6g}"))
    checks.append(Check("read from", module.name if facts else "", module.source))
    return checks


def _checksums(module: KernelDataModule) -> list[Check]:
    if not isinstance(module, DownloadedDataModule) or module.facts is None:
        return []
    folder = module.require()  # CIFAR-10 states no checksums here: torchvision checks its pickles when it reads them
    return [Check(f"MD5 of {name}", md5, _md5(folder, name)) for name, md5 in module.facts.checksums.items()]


def _md5(folder: Path, name: str) -> str:
    """The MD5 of an IDX file after unpacking."""
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
