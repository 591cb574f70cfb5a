"""More training data than memory: rows that are read from disk, or from any iterable dataset, while training runs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.base import DEFAULT_BATCH_SIZE, KernelDataModule
from datamodules.pieces import Piece, find_pieces, opened, read_ahead
from datamodules.raw import RawData
from datamodules.samples import read_npz, samples
from datamodules.targets import check_targets, check_task, class_index, labels, numbers, targets
from kl.checks import check_count_or_none
from kl.errors import InputError
from kl.rows.batches import derive_seed
from kl.rows.rows import check_finite_matrix, is_one_hot, one_hot
from kl.system.files import expand_home

SAMPLE_SIZE = 20_000


class StreamDataModule(KernelDataModule):
    """Training rows in pieces on disk; while one piece is used, the next ones are read in the background.

    The folder holds shards train/*.npz (or train*.npz) with x and y, or memory-mapped x_train.npy and y_train.npy; and
    optionally test.npz with x and y, or x_test.npy and y_test.npy. x and y are as in `ArrayDataModule`. About three
    pieces and a batch are in memory at a time. Every epoch shuffles the pieces, and the rows within each piece. Write
    the rows in random order, because the rows of one piece follow each other.

    `train_set` is a sample of the rows, from which patches are learnt, centres chosen, and the spectrum estimated. Only
    machines with centres of their own can train on a stream. Features of patches are computed of each piece while the
    one before is used.

    Args:
        path: the folder.
        sample_size: rows of the sample.
        task: as in `ArrayDataModule`.
        **options: those of `KernelDataModule`, without train_size, label_noise and validation.

    After `setup`:
        num_rows: training rows on disk.

    Raises:
        InputError: the folder or a file is not as described; the message names it.
    """

    streamed = True

    def __init__(
        self, path: str | os.PathLike[str], sample_size: int = SAMPLE_SIZE, task: str = "auto", **options: Any
    ) -> None:
        super().__init__(**options)
        self._asked_task = check_task(task)
        self.path, self.sample_size = expand_home(path), check_count_or_none("sample_size", sample_size, "20000")
        self.name = Path(self.path).name
        self._form: Form | None = None  # of the first piece read
        for name, value in (("train_size", self.train_size), ("label_noise", self.label_noise or None)):
            if value is not None:
                raise InputError(
                    f"{name} needs the training set in memory, and {self.name} is a stream; got {value}: leave it out, "
                    "or write such data to disk"
                )

    def load(self) -> RawData:
        """Find the pieces; read a sample of them, and the test set."""
        folder = Path(self.path)
        self.pieces = find_pieces(folder)
        self._num_rows = sum(piece.rows for piece in self.pieces)
        x, y = self._sample()
        test = _read_test(folder)
        names = f"y in {folder}", f"y of the test set in {folder}"
        found = targets(y, None if test is None else test[1], self._asked_task, names)
        self._classes = found.classes
        x_test_rows = None if test is None else samples(f"x of the test set in {folder}", test[0])[0].flatten(1)
        if x_test_rows is not None and x_test_rows.shape[1] != x.shape[1]:
            raise InputError(
                f"x of the test set in {folder} must have {x.shape[1]} features, as the training rows; got "
                f"{x_test_rows.shape[1]}"
            )
        assert self._form is not None  # a piece has been read
        return RawData(x, found.train, x_test_rows, found.test, found.class_names, self._form.image_shape)

    @property
    def num_rows(self) -> int:
        """Training rows on disk."""
        return self._num_rows

    def train_dataloader(self) -> PieceStream:  # type: ignore[override]
        """Batches (x, y), in an order that is a pure function of seed and epoch."""
        m = self.batch_size or DEFAULT_BATCH_SIZE
        return PieceStream(self.pieces, m, self._rows_of, self.seed, self._changed)

    def _changed(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The features of a piece's rows, which are augmented first if augmentation is on."""
        if (images := self._augmented) is not None:
            x = images.augmentation(x, images.image_shape, generator)
        return self._passing(x)

    def _sample(self) -> tuple[Tensor, np.ndarray]:
        """Samples and targets of random rows, about equally many from each of a few pieces."""
        assert self.sample_size is not None
        generator = np.random.default_rng(derive_seed(self.seed, "sample"))
        # Several pieces, because one may hold rows of one kind only; few pieces, because each is read whole.
        chosen = generator.permutation(len(self.pieces))[:4]
        while sum(self.pieces[i].rows for i in chosen) < min(self.sample_size, self.num_rows):
            chosen = generator.permutation(len(self.pieces))[: len(chosen) * 2]
        parts = []
        for i in chosen:
            x, y = self._read(self.pieces[i])
            if x.is_floating_point():
                check_finite_matrix(f"x in {self.pieces[i].path}", x)
            rows = generator.permutation(len(x))[: -(-self.sample_size // len(chosen))]
            # Integers become labels here, because concatenating different integer dtypes may give float64.
            parts.append((x[rows], y[rows] if y.dtype.kind == "f" or y.ndim == 2 else labels("y", y[rows])))
        rows = generator.permutation(sum(len(x) for x, _ in parts))[: self.sample_size]
        return torch.cat([x for x, _ in parts])[rows], np.concatenate([y for _, y in parts])[rows]

    def _read(self, piece: Piece) -> tuple[Tensor, np.ndarray]:
        """Samples (k, d), and targets (k,) or (k, c), of a piece.

        Raises:
            InputError: the arrays are unusable, or differ in form from the other pieces; the message names the file.
        """
        x, y = piece.read()
        pixels, image_shape = samples(f"x in {piece.path}", x)
        check_targets(f"y in {piece.path}", y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        form = Form(x.dtype == np.uint8, x.shape[1:], image_shape, y.dtype.kind == "f", y.shape[1:])
        self._form = self._form or form
        if form != self._form:
            raise InputError(f"{piece.path} must hold {self._form}, as the other pieces do; got {form}")
        return pixels.flatten(1), y

    def _rows_of(self, piece: Piece) -> tuple[Tensor, Tensor]:
        """Encoded rows and targets of a piece."""
        pixels, y = self._read(piece)
        rows = self._encoded(pixels, f"x in {piece.path}", quiet=True)
        name = f"y in {piece.path}"
        if self._classes is None:
            return rows, numbers(name, y)
        index, unknown = class_index(labels(name, y), self._classes)
        if len(unknown):
            raise InputError(
                f"{name} holds the class {unknown[0]}, which neither the test set nor the sample of {self.sample_size} "
                "training rows has: give a test set with every class"
            )
        return rows, one_hot(torch.from_numpy(index), len(self._classes))


class Form(NamedTuple):
    """The form of the rows of a piece, the same for all pieces of a stream."""

    pixels: bool
    shape: tuple[int, ...]
    """The shape of a sample."""
    image_shape: tuple[int, int, int] | None
    floats: bool
    """Whether y holds floats."""
    columns: tuple[int, ...]
    """(c,) for y of shape (n, c), () for y of shape (n,)."""

    def __str__(self) -> str:
        y = f"{'float' if self.floats else 'integer'} y of shape (n{''.join(f', {c}' for c in self.columns)})"
        return f"{'uint8' if self.pixels else 'float'} samples of shape {self.shape} with {y}"


class PieceStream:
    """Batches of m rows (x, y) cut from pieces; the last batch of an epoch may be smaller.

    Args:
        pieces: the pieces on disk.
        batch_size: m.
        rows_of: reads the rows and targets of a piece.
        seed: seed of the shuffling.
        changed: makes features of the rows of a piece, perhaps of changed ones.
    """

    def __init__(
        self,
        pieces: list[Piece],
        batch_size: int,
        rows_of: Callable[[Piece], tuple[Tensor, Tensor]],
        seed: int,
        changed: Callable[[Tensor, torch.Generator], Tensor],
    ) -> None:
        self._pieces, self._batch_size, self._rows_of = pieces, batch_size, rows_of
        self._seed, self._changed, self.epoch = seed, changed, 0
        self.sampler = self  # where Lightning looks for `set_epoch`

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-sum(piece.rows for piece in self._pieces) // self._batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # A generator, so that the epoch is read at the first batch: see BatchIndexSampler.
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "shuffle", self.epoch))
        pieces = [self._pieces[i] for i in torch.randperm(len(self._pieces), generator=generator).tolist()]
        yield from rebatched(read_ahead(self._shuffled(pieces, generator)), self._batch_size)

    def _shuffled(self, pieces: list[Piece], generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for piece in pieces:
            x, y = self._rows_of(piece)
            order = torch.randperm(len(x), generator=generator)
            yield self._changed(x[order], generator), y[order]


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

    The dataset's batches may have any sizes, because batches of m rows are cut from them. An epoch is one pass; for an
    endless dataset give the Trainer `limit_train_batches`.

    Args:
        dataset: the training rows. It is iterated anew every epoch.
        sample: (x, y) in memory, from which centres are chosen and the spectrum is estimated.
        test: (x, y) in memory; None for no test set.
        num_rows: training rows of an epoch; None if unknown.
        image_shape: (channels, height, width) if x are rows of pixels, which `patches` needs; None if they are not.
        **options: those of `KernelDataModule`, without train_size, label_noise, validation and augment.
    """

    streamed = True

    def __init__(
        self,
        dataset: Iterable[tuple[Tensor, Tensor]],
        sample: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor] | None = None,
        num_rows: int | None = None,
        image_shape: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if self.augmentation is not None:
            raise InputError(
                f"augment needs images in memory or in pieces on disk; got {options['augment']!r}: leave it out, and "
                "let the dataset change its images"
            )
        self.name, self._dataset, self._num_rows = "stream", dataset, num_rows
        self._shape_of_images = image_shape
        self._sample, self._test = sample, test or (None, None)

    def load(self) -> RawData:
        """The sample and the test set; one-hot targets are classes."""
        (x, y), (x_test, y_test) = self._sample, self._test
        check_finite_matrix("y of the sample", y)
        self._width, shape = x.shape[1], _image_shape(self._shape_of_images, x.shape[1])
        if is_one_hot(y):
            names = [str(k) for k in range(y.shape[1])]
            classes = y.argmax(dim=1), None if y_test is None else y_test.argmax(dim=1)
            return RawData(x, classes[0], x_test, classes[1], names, shape)
        return RawData(x, y, x_test, y_test, image_shape=shape)

    @property
    def num_rows(self) -> int | None:  # type: ignore[override]
        """Training rows of an epoch; None if unknown."""
        return self._num_rows

    def train_dataloader(self) -> Rebatched:  # type: ignore[override]
        """Batches (x, y) of m rows."""
        m = self.batch_size or DEFAULT_BATCH_SIZE
        return Rebatched(self._dataset, m, self._width, self.num_outputs, self._features_of)

    def _features_of(self, x: Tensor) -> Tensor:
        return self._passing(self._encoded(x, "x of the dataset", quiet=True))


class Rebatched:
    """Batches of m rows from an iterable of parts (x, y), with `features` of x; each pass iterates it anew.

    Raises:
        InputError: a part does not have d finite features and c finite targets per row.
    """

    def __init__(
        self, parts: Iterable[tuple[Tensor, Tensor]], m: int, d: int, c: int, features: Callable[[Tensor], Tensor]
    ) -> None:
        self._parts, self._m, self._widths, self._features = parts, m, (d, c), features

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return rebatched(read_ahead(self._checked()), self._m)

    def _checked(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self._parts:
            check_finite_matrix("x of the dataset", x)
            check_finite_matrix("y of the dataset", y)
            if (x.shape[1], y.shape[1], len(x)) != (*self._widths, len(y)):
                raise InputError(
                    f"the dataset must yield x of {self._widths[0]} and y of {self._widths[1]} columns, a row of each "
                    f"per sample; got {tuple(x.shape)} and {tuple(y.shape)}"
                )
            yield self._features(x), y


def _image_shape(given: Sequence[int] | None, width: int) -> tuple[int, int, int] | None:
    """The (channels, height, width) of rows of so many pixels, from what the user gave."""
    if given is None:
        return None
    shape = tuple(given)
    if len(shape) != 3 or not all(isinstance(each, int) and each > 0 for each in shape) or math.prod(shape) != width:
        raise InputError(
            f"image_shape must be (channels, height, width) of the {width} pixels of a row; got {tuple(given)}"
        )
    return shape[0], shape[1], shape[2]


def _read_test(folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """x and y of the test set; None without a test set."""
    if (folder / "test.npz").is_file():
        arrays = read_npz(folder / "test.npz", ("x", "y"))
        return arrays["x"], arrays["y"]
    there = [name for name in ("x_test.npy", "y_test.npy") if (folder / name).is_file()]
    if len(there) == 1:
        raise InputError(f"stream {folder} must hold both x_test.npy and y_test.npy, or neither; got {there[0]}")
    return (np.array(opened(folder / "x_test.npy")), np.array(opened(folder / "y_test.npy"))) if there else None


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
