"""A plain torch DataLoader of (x, y) as training data: its rows are read once, and batched as the machine wants."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from kl.errors import InputError, MemoryBudgetError
from kl.rows.batches import BatchIndexSampler, indexed_batches
from kl.rows.encoding import FeatureEncoding, far_columns, say_merged
from kl.rows.rows import RowDataset, RowNumbers, check_finite_matrix, one_hot
from kl.system.memory import format_memory
from kl.system.wording import counted

log = logging.getLogger(__name__)

OTHERWISE = "use ArrayDataModule.from_arrays, or a datamodule of your own"


class LoaderData(pl.LightningDataModule):
    """The rows of a loader's dataset, in its order, as a datamodule.

    Args:
        loader: batches of (x, y): rows of floats, shape (d,), each with a class index, a number or numbers (c,). Class
            indices become one-hot rows. The loader's batch size and shuffling are not used.
        memory: bytes that the rows may take.
        seed: of the order of the training batches.

    Attributes:
        train_set: the rows, as float32.
        batch_size: rows of a step.
        class_names: "0", "1" ... for class indices, else empty.

    Raises:
        InputError: `loader` is no DataLoader, gives other rows than its dataset, or a row is not as described.
        MemoryBudgetError: the rows do not fit.
    """

    name = "loader"

    def __init__(self, loader: Any, memory: int, seed: int) -> None:
        super().__init__()
        x, y = _rows(_plain_dataset(loader), memory)
        self.encoding = FeatureEncoding.fit(x)
        if far := [j for j, value in enumerate(self.encoding.origin) if value]:
            # The machine would not subtract the origin from the rows of other loaders.
            raise InputError(
                f"x of train_dataloaders lies so far from 0 in column {far[0]} that float32 loses its digits: subtract "
                "a common value from the column in all loaders, or use ArrayDataModule.from_arrays, which does"
            )
        features = self.encoding.encode(x, "x of train_dataloaders")
        say_merged("x of train_dataloaders", x, features)
        self.class_names = _class_names(y)
        self.train_set = RowDataset(features, one_hot(y, len(self.class_names)) if self.class_names else _numbers(y))
        self.batch_size, self.seed = len(x), seed

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches, of row numbers alone if steps need no more; their order follows from seed and epoch."""
        rows, steps = rows_for_steps(self.trainer, self.train_set)
        return indexed_batches(rows, BatchIndexSampler(len(rows), steps * self.batch_size, self.seed))


def rows_for_steps(trainer: pl.Trainer | None, rows: RowDataset) -> tuple[RowDataset | RowNumbers, int]:
    """What training batches are taken from, and how many steps a batch is for.

    These are rows for one step, or, while a machine trains that reads no more, the numbers of rows for as many steps
    as it says.
    """
    machine: Any = trainer.lightning_module if trainer is not None and trainer.training else None
    if getattr(machine, "steps_read_rows", True):
        return rows, 1
    choose = getattr(machine, "choose_steps_per_batch", None)
    return RowNumbers(len(rows)), 1 if choose is None else choose()


def training_data(trainer: pl.Trainer, memory: int, seed: int) -> Any:
    """The datamodule or DataLoader that `trainer.fit` was given, as a datamodule; None if there is neither.

    A DataLoader becomes a `LoaderData`, whose batches replace the loader's. `trainer.datamodule` alone does not tell
    what was given, because Lightning keeps the datamodule of an earlier fit there.
    """
    source = trainer.fit_loop._data_source
    given = source.instance
    if isinstance(given, pl.LightningDataModule):
        return given
    if given is None or isinstance(given, pl.LightningModule):
        return None
    data = LoaderData(given, memory, seed)
    source.instance = trainer.datamodule = data  # type: ignore[attr-defined]
    data.trainer = trainer
    if trainer.is_global_zero:
        log.warning(
            "train_dataloaders: %s taken once, in the dataset's order; a step takes batches of the machine's own, and "
            "the loader's batch size and shuffling are not used",
            counted(len(data.train_set), "row"),
        )
    return data


def label_rows(
    y: Tensor,  # labels, integers, shape (m,)
    names: list[str],
) -> Tensor:
    """One-hot rows of the classes that labels name, float32, shape (m, c).

    Args:
        y: labels, integers, shape (m,).
        names: the name of each class.

    Raises:
        InputError: a label is none of the names.
    """
    index = {name: k for k, name in enumerate(names)}
    found = [index.get(str(label), -1) for label in y.tolist()]
    if -1 in found:
        odd = y[found.index(-1)].item()
        raise InputError(f"labels of a loader must be among the {len(names)} classes of the training set; got {odd}")
    return one_hot(torch.tensor(found, device=y.device), len(names))


def _plain_dataset(loader: Any) -> Any:
    """The dataset of a loader that only batches or shuffles its rows."""
    if not isinstance(loader, DataLoader):
        raise InputError(
            f"train_dataloaders must be one DataLoader of pairs (x, y); got a {type(loader).__name__}: {OTHERWISE}"
        )
    data, sampler, does = loader.dataset, loader.sampler, ""
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        raise InputError(
            "train_dataloaders must have a dataset of known length, whose rows can be taken once; got a "
            f"{type(data).__name__}: give GeneralKernelMachine an IterableDataModule"
        )
    if loader.collate_fn is not default_collate or type(loader.batch_sampler) is not BatchSampler:
        does = "a collate_fn or batches of its own"
    elif isinstance(sampler, RandomSampler):
        does = "a sampler of other rows" if sampler.replacement or sampler.num_samples != len(data) else ""
    elif type(sampler) is not SequentialSampler:
        does = f"a {type(sampler).__name__}"
    if does:
        raise InputError(
            f"train_dataloaders must give the rows of its dataset, in batches or shuffled; got one with {does}, which "
            f"training on all rows would not follow: make a dataset of the rows that it gives, or {OTHERWISE}"
        )
    return data


def _rows(dataset: Any, memory: int) -> tuple[Tensor, Tensor]:
    """All x, shape (n, d), and all y, shape (n,) or (n, c), with the dtypes of the dataset."""
    n = len(dataset)
    if n == 0:
        raise InputError("train_dataloaders must have at least one row; its dataset is empty")
    first = _pair(dataset[0], 0)
    size = n * sum(part.numel() * part.element_size() for part in first)
    if size > memory:
        raise MemoryBudgetError(
            f"the {n} rows of train_dataloaders take {format_memory(size)}, more than the budget of "
            f"{format_memory(memory)}: raise memory, or give GeneralKernelMachine an IterableDataModule"
        )
    if type(dataset) is TensorDataset:
        x, y = (part.detach().cpu() for part in dataset.tensors)
        return x, y
    x, y = (torch.empty(n, *part.shape, dtype=part.dtype) for part in first)
    for i in range(n):
        for rows, part, like in zip((x, y), _pair(dataset[i], i), first, strict=True):
            if part.shape != like.shape or part.dtype != like.dtype:
                raise InputError(
                    f"rows of train_dataloaders must be alike; row 0 is {_described(like)}, row {i} {_described(part)}"
                )
            rows[i] = part.detach()
    return x, y


def _pair(item: Any, i: int) -> tuple[Tensor, Tensor]:
    """A row of floats and its target, checked."""
    if not isinstance(item, list | tuple) or len(item) != 2:
        kind = f"{type(item).__name__} of {len(item)}" if isinstance(item, list | tuple) else type(item).__name__
        raise InputError(
            f"train_dataloaders must have a dataset of pairs (x, y); its row {i} is a {kind}: give "
            "DataLoader(TensorDataset(x, y)), or a datamodule whose train_set is a kl.RowDataset"
        )
    try:
        x, y = (torch.as_tensor(part) for part in item)
    except (TypeError, ValueError, RuntimeError) as error:
        kinds = " and ".join(type(part).__name__ for part in item)
        raise InputError(f"rows of train_dataloaders must be tensors or numbers; row {i} holds {kinds}") from error
    if x.ndim != 1 or x.dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"x of train_dataloaders must be rows of float32 or float64, shape (d,); row {i} is {_described(x)}: give "
            f"x.flatten(1).float(), in the units of all data, or {OTHERWISE}"
        )
    if y.ndim > 1 or not (y.is_floating_point() or (y.ndim == 0 and y.dtype == torch.int64)):
        raise InputError(
            "y of train_dataloaders must be class indices (int64, one a row) or floats, one or a row (c,); row "
            f"{i} has {_described(y)}: convert it, or {OTHERWISE}"
        )
    return x, y


def _class_names(y: Tensor) -> list[str]:
    """The names "0" to "c-1" for class indices, an empty list for numbers."""
    if y.is_floating_point():
        return []
    found = y.unique().tolist()
    if len(found) < 2 or found != list(range(len(found))):
        shown = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
        raise InputError(
            "integers y of train_dataloaders must be class indices 0..c-1, of two classes at least, and each of them "
            f"there; got {shown}: give one-hot rows, or ArrayDataModule.from_arrays(x, y), which takes any labels"
        )
    return [str(k) for k in found]


def _numbers(y: Tensor) -> Tensor:
    """Numbers as float32 targets, shape (n, c)."""
    rows = y.reshape(len(y), -1)
    if rows.dtype == torch.float64 and any(far_columns(rows)):
        log.warning("y of train_dataloaders lies so far from 0 that float32 loses digits of it: subtract its mean")
    return check_finite_matrix("y of train_dataloaders as float32", rows.to(torch.float32))


def _described(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} of shape {tuple(x.shape)}"
