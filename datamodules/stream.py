"""More training data than memory: rows that are read from disk, or from any iterable dataset, while training runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.arrays import float_targets, read_npz, samples, targets
from datamodules.base import DEFAULT_BATCH_SIZE, KernelDataModule, check_count
from datamodules.pieces import Piece, find_pieces, opened, read_ahead
from datamodules.raw import RawData, one_hot, to_features
from datamodules.sampling import derive_seed
from kl.errors import InputError
from kl.evaluated import is_one_hot
from kl.rows import check_finite_matrix

SAMPLE_SIZE = 20_000


class StreamDataModule(KernelDataModule):
    """Training rows in pieces on disk, each read when its turn comes, the next one in the background.

    The folder holds shards train/*.npz (or train*.npz) with x and y, or memory-mapped x_train.npy and y_train.npy; and
    test.npz with x and y, or x_test.npy and y_test.npy. x and y are as of `ArrayDataModule`. At any time two
    pieces and a batch are in memory. Every epoch takes the pieces in another order, and the rows within each: write
    rows in random order, for those of one piece follow each other.

    `train_set` is a sample of the rows, from which centres are chosen and the spectrum is estimated. Only machines with
    centres of their own can train on a stream.

    Args:
        path: the folder.
        sample_size: rows of the sample.
        **options: those of `KernelDataModule`, without train_size and label_noise.

    After `setup`:
        num_rows: training rows on disk.

    Raises:
        InputError: the folder or a file is not as described; the message names it.
    """

    streamed = True

    def __init__(self, path: str | os.PathLike[str], sample_size: int = SAMPLE_SIZE, **options: Any) -> None:
        super().__init__(**options)
        self.path, self.sample_size = os.path.expanduser(path), check_count("sample_size", sample_size, "20000")
        self.name = Path(self.path).name
        for name, value in (("train_size", self.train_size), ("label_noise", self.label_noise or None)):
            if value is not None:
                raise InputError(
                    f"{name} needs the training set in memory, and {self.name} is a stream; got {value}: leave it out, "
                    "or write such data to disk"
                )

    def load(self) -> RawData:
        """Find the pieces; read a sample of them, and the test set."""
        folder = Path(self.path)
        self.pieces = [piece for piece in find_pieces(folder) if piece.rows]
        self._num_rows = sum(piece.rows for piece in self.pieces)
        x, y = self._sample()
        x_test, y_test = _read_test(folder)
        x_rows, image_shape = samples("x", x)
        x_test_rows, _ = samples("x of the test set", x_test)
        y_sample, y_of_test, class_names = targets(y, y_test)
        self._values = np.union1d(y.reshape(-1), y_test.reshape(-1)) if class_names else None
        return RawData(x_rows, y_sample, x_test_rows, y_of_test, class_names, image_shape)

    @property
    def num_rows(self) -> int:
        """Training rows on disk."""
        return self._num_rows

    def train_dataloader(self) -> PieceStream:  # type: ignore[override]
        """Batches (x, y), in an order that is a pure function of seed and epoch."""
        m = self.batch_size or DEFAULT_BATCH_SIZE
        return PieceStream(self.pieces, m, self._features, self.seed, lambda: self._epoch, self._augmented)

    @property
    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer is not None else 0

    def _augmented(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if self.augmentation is None:
            return x
        assert self.image_shape is not None  # setup() has looked
        return self.augmentation(x, self.image_shape, generator)

    def _sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a few pieces, as many of each."""
        assert self.sample_size is not None
        generator = np.random.default_rng(derive_seed(self.seed, "sample"))
        # From several pieces, in case one is of one kind; from few, since each is read whole.
        chosen = generator.permutation(len(self.pieces))[:4]
        while sum(self.pieces[i].rows for i in chosen) < min(self.sample_size, self.num_rows):
            chosen = generator.permutation(len(self.pieces))[: len(chosen) * 2]
        parts = []
        for i in chosen:
            x, y = self.pieces[i].read()
            rows = generator.permutation(len(x))[: -(-self.sample_size // len(chosen))]
            parts.append((x[rows], y[rows]))
        rows = generator.permutation(sum(len(x) for x, _ in parts))[: self.sample_size]
        return np.concatenate([x for x, _ in parts])[rows], np.concatenate([y for _, y in parts])[rows]

    def _features(self, piece: Piece) -> tuple[Tensor, Tensor]:
        """Features and targets of a piece."""
        x, y = piece.read()
        rows = to_features(samples(f"x in {piece.path}", x)[0])
        if rows.shape[1] != self.num_features:
            raise InputError(f"x in {piece.path} must have {self.num_features} features; got {rows.shape[1]}")
        if self._values is None:
            return rows, float_targets(f"y in {piece.path}", y)
        labels = y.reshape(-1)
        index = np.searchsorted(self._values, labels).clip(max=len(self._values) - 1)
        if unknown := set(np.unique(labels[self._values[index] != labels]).tolist()):
            raise InputError(
                f"y in {piece.path} holds the class {min(unknown)}, which neither the test set nor the sample of "
                f"{self.sample_size} training rows has: give a test set with every class"
            )
        return rows, one_hot(torch.from_numpy(index).long(), len(self._values))


class PieceStream:
    """Batches of m rows (x, y) cut from pieces; the last of an epoch may be smaller.

    Args:
        pieces: where the rows are.
        batch_size: m.
        features: reads a piece.
        seed: of the orders.
        epoch: tells the epoch when an iteration begins.
        augmented: changes the features of a piece.
    """

    def __init__(
        self,
        pieces: list[Piece],
        batch_size: int,
        features: Callable[[Piece], tuple[Tensor, Tensor]],
        seed: int,
        epoch: Callable[[], int],
        augmented: Callable[[Tensor, torch.Generator], Tensor],
    ) -> None:
        self._pieces, self._batch_size, self._features = pieces, batch_size, features
        self._seed, self._epoch, self._augmented = seed, epoch, augmented

    def __len__(self) -> int:
        return -(-sum(piece.rows for piece in self._pieces) // self._batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "shuffle", self._epoch()))
        pieces = [self._pieces[i] for i in torch.randperm(len(self._pieces), generator=generator).tolist()]
        return rebatched(read_ahead(self._shuffled(pieces, generator)), self._batch_size)

    def _shuffled(self, pieces: list[Piece], generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for piece in pieces:
            x, y = self._features(piece)
            order = torch.randperm(len(x), generator=generator)
            yield self._augmented(x[order], generator), y[order]


def rebatched(parts: Iterable[tuple[Tensor, Tensor]], m: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of consecutive parts (x, y) in batches of m; the last may be smaller."""
    left: list[tuple[Tensor, Tensor]] = []
    count = 0
    for x, y in parts:
        left.append((x, y))
        count += len(x)
        if count < m:
            continue
        x, y = _joined(left)
        whole = count // m * m
        yield from zip(x[:whole].split(m), y[:whole].split(m), strict=True)
        left, count = [(x[whole:].clone(), y[whole:].clone())], count - whole
    if count:
        yield _joined(left)


class IterableDataModule(KernelDataModule):
    """Training rows from any torch `IterableDataset`, which yields batches (x, y), x (k, d) float and y (k, c) float.

    Their sizes do not matter: batches of m rows are cut from them. An epoch is one pass; where the dataset is endless
    give the Trainer `limit_train_batches`.

    Args:
        dataset: the training rows. It is iterated anew every epoch.
        sample: (x, y) in memory, from which centres are chosen and the spectrum is estimated.
        test: (x, y) in memory.
        num_rows: training rows of an epoch, where they are known.
        **options: those of `KernelDataModule`, without train_size and label_noise.
    """

    streamed = True

    def __init__(
        self,
        dataset: Iterable[tuple[Tensor, Tensor]],
        sample: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        num_rows: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.name, self._dataset, self._arrays, self._num_rows = "stream", dataset, (*sample, *test), num_rows

    def load(self) -> RawData:
        """The sample and the test set; one-hot targets are classes."""
        x, y, x_test, y_test = self._arrays
        check_finite_matrix("y of the sample", y)
        if is_one_hot(y):
            names = [str(k) for k in range(y.shape[1])]
            return RawData(x, y.argmax(dim=1), x_test, y_test.argmax(dim=1), names)
        return RawData(x, y, x_test, y_test)

    @property
    def num_rows(self) -> int | None:  # type: ignore[override]
        """Training rows of an epoch; None where that is not known."""
        return self._num_rows

    def train_dataloader(self) -> Rebatched:  # type: ignore[override]
        """Batches (x, y) of m rows."""
        return Rebatched(self._dataset, self.batch_size or DEFAULT_BATCH_SIZE)


class Rebatched:
    """The rows of an iterable of parts (x, y), in batches of m; iterated anew every time."""

    def __init__(self, parts: Iterable[tuple[Tensor, Tensor]], m: int) -> None:
        self._parts, self._m = parts, m

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return rebatched(read_ahead(self._parts), self._m)


def _read_test(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the test set."""
    if (folder / "test.npz").is_file():
        arrays = read_npz(folder / "test.npz", ("x", "y"))
        return arrays["x"], arrays["y"]
    if not ((folder / "x_test.npy").is_file() and (folder / "y_test.npy").is_file()):
        raise InputError(f"stream {folder} must hold test.npz with x and y, or x_test.npy and y_test.npy; got neither")
    return np.array(opened(folder / "x_test.npy")), np.array(opened(folder / "y_test.npy"))


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
