"""What machines and callbacks read from a data module, with defaults for what a user's own module lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from kl.machines.packed import pack
from kl.rows.encoding import FeatureEncoding
from kl.rows.rows import RowDataset, is_one_hot
from kl.rows.table import TableEncoding

AsTrained = Callable[[Tensor | None, int, Tensor | None], Tensor]
"""Rows of `train_set`, all for None, augmented by the draw of a number; of these the chosen ones, all for None."""


class TrainingData(Protocol):
    """What a machine needs of a data module besides a training loader; everything else is optional (`DataFacts`).

    Example:
        >>> import torch, kl, pytorch_lightning as pl
        >>> from torch.utils.data import DataLoader
        >>> class Mine(pl.LightningDataModule):
        ...     def __init__(self, x, y):
        ...         super().__init__()
        ...         self.train_set, self.batch_size = kl.RowDataset(x, y), 1
        ...     def train_dataloader(self):
        ...         rows = torch.arange(len(self.train_set)).split(self.batch_size)
        ...         return DataLoader(self.train_set, batch_size=None, sampler=list(rows))
        >>> DataFacts.of(Mine(torch.rand(4, 2), torch.eye(4))).name
        'Mine'
    """

    train_set: RowDataset
    """The training rows, in the order that `index` of batches (x, y, index) refers to."""
    batch_size: int | None
    """Rows of a step; the machine sets it before the training loader is made."""


@dataclass(frozen=True)
class DataFacts:
    """The attributes of a data module that describe its data, with defaults for those that it lacks."""

    train_set: RowDataset | None = None
    """The training rows; None if they are not a `kl.RowDataset`, which machines refuse."""
    val_set: RowDataset | None = None
    """The rows of the val/* metrics if they are a `kl.RowDataset`; without this attribute, the test set."""
    test_set: RowDataset | None = None
    """The test rows if they are a `kl.RowDataset`."""
    name: str = "data"
    """The name of the data; without one, the name of the module's class."""
    task: str | None = None
    """ "classification" or "regression"; None means classification if the training targets are one-hot rows."""
    class_names: Sequence[Any] = ()
    image_shape: Sequence[int] = ()
    """(channels, height, width) of a row; empty if the rows are no images."""
    background: str = "white"
    """The background of transparent images."""
    encoding: FeatureEncoding | None = None
    """The encoding of the samples as features; None if they are taken as given."""
    table: TableEncoding | None = None
    """The encoding of a table's rows as features; None if the data is no table."""
    patches: Any = None
    """A fitted `kl.Patches`, by which images became features; None if they did not."""
    target_offset: Sequence[float] = ()
    """With `target_scale`, a number for each output: targets times the scale plus the offset are in their own unit."""
    target_scale: Sequence[float] = ()
    """Empty if the targets are in their own unit."""
    num_rows: int | None = None
    """Training rows of an epoch; None if unknown."""
    streamed: bool = False
    """Whether batches are read while training runs; `train_set` is then a sample of the rows."""
    as_trained: AsTrained | None = None
    """A function that augments training rows as an epoch does; None without `augmentation`."""
    validation: float | None = None
    """Share of the training rows that is held out; None if unknown."""
    label_noise: float | None = None
    noise_kind: str | None = None

    @classmethod
    def of(cls, data: Any) -> Self:
        """The facts of a data module that has been set up; for another object, the defaults and its class's name."""
        test_set = getattr(data, "test_set", None)
        augmented = getattr(data, "augmentation", None) is not None
        return cls(
            train_set=_rows(getattr(data, "train_set", None)),
            val_set=_rows(getattr(data, "val_set", test_set)),
            test_set=_rows(test_set),
            name=str(getattr(data, "name", None) or type(data).__name__),
            task=getattr(data, "task", None),
            class_names=getattr(data, "class_names", None) or (),
            image_shape=getattr(data, "image_shape", None) or (),
            background=str(getattr(data, "background", "white")),
            encoding=getattr(data, "encoding", None),
            table=getattr(data, "table", None),
            patches=getattr(data, "patches", None),
            target_offset=getattr(data, "target_offset", ()),
            target_scale=getattr(data, "target_scale", ()),
            num_rows=getattr(data, "num_rows", None),
            streamed=bool(getattr(data, "streamed", False)),
            as_trained=data.as_trained if augmented else None,
            validation=getattr(data, "validation", None),
            label_noise=getattr(data, "label_noise", None),
            noise_kind=getattr(data, "noise_kind", None),
        )

    def held_out(self, device: torch.device | str) -> tuple[Tensor, Tensor] | None:
        """The rows of a validation part, shapes (k, d) and (k, c), with targets as noisy as those of training."""
        rows = self.val_set if self.validation else None
        if rows is None:
            return None
        return rows.x.to(device), (rows.y if rows.y_noisy is None else rows.y_noisy).to(device).double()

    def description(
        self,
        x: Tensor,  # features, shape: (n, d)
        y: Tensor,  # targets or weights, shape: (n, c)
    ) -> dict[str, Any]:
        """The description that a checkpoint holds, as plain values.

        name, task ("classification" or "regression"), class_names, image_shape (empty if the rows are no images),
        background (behind transparent images), num_features (d), num_outputs (c), encoding
        (`FeatureEncoding.to_dict`), table (`TableEncoding.to_dict`) and patches (`Patches.state_dict`, packed), each
        empty without one, and target_offset and target_scale, lists of c numbers.
        """
        encoding, table, c = self.encoding, self.table, y.shape[1]
        return {
            "name": self.name,
            "task": str(self.task or ("classification" if is_one_hot(y) else "regression")),
            "class_names": [str(name) for name in self.class_names],
            "image_shape": list(self.image_shape),
            "background": self.background,
            "num_features": x.shape[1],
            "num_outputs": c,
            "encoding": encoding.to_dict() if isinstance(encoding, FeatureEncoding) else {},
            "table": table.to_dict() if isinstance(table, TableEncoding) else {},
            "patches": {} if self.patches is None else pack(self.patches.state_dict()),
            "target_offset": [float(value) for value in self.target_offset] or [0.0] * c,
            "target_scale": [float(value) for value in self.target_scale] or [1.0] * c,
        }


def facts_of(trainer: Any) -> DataFacts:
    """The facts of the data module of a Trainer; the defaults if it has none."""
    return DataFacts.of(getattr(trainer, "datamodule", None))


def _rows(found: Any) -> RowDataset | None:
    return found if isinstance(found, RowDataset) else None
