"""The two synthetic classification sets of Belkin, Ma, Mandal 2018, arXiv:1802.01396, whose Bayes errors are known."""

from __future__ import annotations

import math
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.base import KernelDataModule
from datamodules.facts import Facts
from datamodules.noise import noisy_bayes_error
from datamodules.raw import RawData
from kl.checks import check_count_or_none
from kl.errors import InputError
from kl.rows.batches import derive_seed
from kl.system.files import expand_home, written_whole
from kl.system.signals import signals_wait

NUM_FEATURES = 50
UNFINISHED = ".unfinished"
"""The folder in which a new set is written before it replaces an old one."""

MEAN_DISTANCE = {1: 10.0, 2: 2.0}
"""Distance of the class means along x_1, in standard deviations."""


class SyntheticDataModule(KernelDataModule):
    """y uniform on {-1, +1}; x_1 ~ N(0, 1) if y = +1, N(D, 1) if y = -1; x_2..x_50 ~ U(-1, 1).

    D = 10 for kind 1 (the classes are nearly separable) and D = 2 for kind 2 (Bayes error 15.9%). The sets
    are drawn from `seed`, training and test rows from different random streams; for one seed a smaller set is
    the beginning of a larger one. Class 0 is y = -1, class 1 is y = +1.

    Args:
        kind: 1 or 2.
        train_size: training rows to draw; None draws 2000.
        test_size: test rows to draw; None draws 2000.
        **options: the other options of `KernelDataModule`.

    Source: Belkin, Ma, Mandal 2018, arXiv:1802.01396, section 4, Synthetic 1 and Synthetic 2.

    Example:
        >>> data = SyntheticDataModule(kind=2, train_size=100, label_noise=0.1)
        >>> round(data.bayes_error, 4), round(data.noisy_bayes_error, 4)
        (0.1587, 0.1928)
    """

    default_size = 2000
    facts: Facts = Facts(
        n_train=default_size,
        n_test=default_size,
        num_features=NUM_FEATURES,
        num_classes=2,
        origin="drawn as in Belkin, Ma, Mandal 2018, Synthetic",
    )

    def __init__(
        self, kind: int = 1, train_size: int | None = None, test_size: int | None = None, **options: Any
    ) -> None:
        super().__init__(train_size=train_size, test_size=test_size, **options)
        if kind not in MEAN_DISTANCE or isinstance(kind, bool):
            raise InputError(f"kind must be 1 or 2, the paper's Synthetic 1 or Synthetic 2; got {kind!r}")
        self.kind = int(kind)
        self.name = f"synthetic{self.kind}"
        self.facts = replace(self.facts, origin=f"{self.facts.origin} {self.kind}")

    @property
    def bayes_error(self) -> float:
        """The least possible error against clean labels: Phi(-D/2)."""
        return 0.5 * math.erfc(MEAN_DISTANCE[self.kind] / 2 / math.sqrt(2))

    @property
    def noisy_bayes_error(self) -> float:
        """The least possible error against labels noised like the training labels (`datamodules.noise`)."""
        return noisy_bayes_error(self.bayes_error, self.label_noise, 2, self.noise_kind)

    def load(self) -> RawData:
        """Draw both sets."""
        x_train, y_train = self._draw("train", self.train_size or self.default_size)
        x_test, y_test = self._draw("test", self.test_size or self.default_size)
        return RawData(x_train, y_train, x_test, y_test, class_names=["-1", "+1"])

    def _draw(self, part: str, n: int) -> tuple[Tensor, Tensor]:
        """Rows, shape (n, 50), and class indices, shape (n,)."""

        # Each quantity has its own random stream and is drawn row by row, so the sets of different n are nested.
        def stream(what: str) -> np.random.Generator:
            return np.random.default_rng(derive_seed(self.seed, f"{self.name} {part} {what}"))

        labels = stream("labels").integers(2, size=n)
        x = stream("uniform").uniform(-1, 1, size=(n, NUM_FEATURES))
        x[:, 0] = stream("normal").standard_normal(n) + np.where(labels == 1, 0.0, MEAN_DISTANCE[self.kind])
        return torch.from_numpy(x).to(torch.float32), torch.from_numpy(labels)


def write_synthetic(
    folder: str | os.PathLike[str],
    kind: int,
    rows: int,
    test_rows: int,
    shard_rows: int = 100_000,
    seed: int = 0,
) -> int:
    """Write training shards train/NNNNN.npz and test.npz for `StreamDataModule`; returns the number of shards.

    Each shard has a seed of its own, so any number of rows needs the memory of one shard. A set that an earlier call
    wrote is replaced once the new set is complete. If the process is killed, the folder holds the old set or the new
    one, never rows of both. If it is killed between two renames, there is no train/, and readers refuse the folder.

    Raises:
        InputError: an argument is out of its range, or the folder cannot be written or holds other files.
    """
    for name, value in (("rows", rows), ("test_rows", test_rows), ("shard_rows", shard_rows)):
        check_count_or_none(name, value, or_none="the default")
    path = Path(expand_home(folder))
    sizes = [min(shard_rows, rows - start) for start in range(0, rows, shard_rows)]
    train, unfinished = path / "train", path / UNFINISHED
    try:
        foreign = [file for file in train.glob("*") if not re.fullmatch(r"\d{5,}\.npz", file.name)]
        if foreign:
            raise InputError(f"output {path} must hold no files but its own in train; got {foreign[0]}: give another")
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        _write_set(unfinished, kind, sizes, test_rows, seed)
        with signals_wait():
            if train.is_dir():
                os.rename(train, unfinished / "old")
            os.replace(unfinished / "test.npz", path / "test.npz")
            os.rename(unfinished / "train", train)
        shutil.rmtree(unfinished)
    except OSError as error:
        raise InputError(f"output {path} cannot be written: {error.strerror}: give another --output") from error
    return len(sizes)


def _write_set(folder: Path, kind: int, sizes: list[int], test_rows: int, seed: int) -> None:
    """Write a whole set; an error removes the folder."""
    try:
        for i, size in enumerate(sizes):
            drawn = SyntheticDataModule(
                kind, train_size=size, test_size=1, seed=derive_seed(seed, "shard", i) // 2
            ).load()
            _write(folder / "train" / f"{i:05d}.npz", drawn.x_train, drawn.y_train)
        drawn = SyntheticDataModule(kind, train_size=1, test_size=test_rows, seed=derive_seed(seed, "test") // 2).load()
        assert drawn.x_test is not None  # these sets have a test set
        assert drawn.y_test is not None
        _write(folder / "test.npz", drawn.x_test, drawn.y_test)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write(path: Path, x: Tensor, y: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        np.savez(file, x=x.numpy(), y=y.numpy().astype(np.uint8))
