"""What machines and callbacks ask of a data module, and what is taken for all that a user's own does not say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from torch import Tensor

from kl.rows.encoding import FeatureEncoding
from kl.rows.rows import RowDataset, is_one_hot
from kl.rows.table import TableEncoding


class TrainingData(Protocol):
    """What a machine needs of a data module beside a training loader; all else is in `DataFacts`, and optional.

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
    """The training rows, in the order that the indices of batches (x, y, index) count."""
    batch_size: int | None
    """Rows of a batch; the machine sets it before the training loader is made."""


@dataclass(frozen=True)
class DataFacts:
    """What a data module says of its data, by the names of its attributes; defaults are for those that it lacks."""

    train_set: RowDataset | None = None
    """The training rows; None where they are no `kl.RowDataset`, which machines refuse."""
    val_set: RowDataset | None = None
    """The rows that val/* is of, where they are a `kl.RowDataset`. A module without this attribute: its test set."""
    test_set: RowDataset | None = None
    """The test rows, where they are a `kl.RowDataset`."""
    name: str = "data"
    """A module without a name: that of its class."""
    task: str | None = None
    """ "classification" or "regression"; None: classification where the training targets are one-hot rows."""
    class_names: Sequence[Any] = ()
    image_shape: Sequence[int] = ()
    """(channels, height, width) of a row; empty where the rows are no images."""
    background: str = "white"
    """What transparent images are laid over."""
    encoding: FeatureEncoding | None = None
    """What made features of the samples; None where they are as given."""
    table: TableEncoding | None = None
    """What made features of a table's rows; None where they come from no table."""
    target_offset: Sequence[float] = ()
    """With `target_scale`, one number an output: targets times the scale plus the offset are in their own unit."""
    target_scale: Sequence[float] = ()
    """Empty where the targets are in their own unit already."""
    num_rows: int | None = None
    """Training rows of an epoch; None where nobody knows."""
    streamed: bool = False
    """Whether batches are read while training runs; `train_set` is then a sample of the rows."""
    as_trained: Callable[[Tensor, int], Tensor] | None = None
    """Training rows as some epoch has them, where `augmentation` changes them; None where all epochs have the same."""
    validation: float | None = None
    """Share of the training rows that is held out; None where nobody knows."""
    label_noise: float | None = None
    noise_kind: str | None = None

    @classmethod
    def of(cls, data: Any) -> Self:
        """The facts of a data module that has been set up; of None, or of anything else, all defaults."""
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
            target_offset=getattr(data, "target_offset", ()),
            target_scale=getattr(data, "target_scale", ()),
            num_rows=getattr(data, "num_rows", None),
            streamed=bool(getattr(data, "streamed", False)),
            as_trained=data.as_trained if augmented else None,
            validation=getattr(data, "validation", None),
            label_noise=getattr(data, "label_noise", None),
            noise_kind=getattr(data, "noise_kind", None),
        )

    def description(
        self,
        x: Tensor,  # features, shape: (n, d)
        y: Tensor,  # targets or weights, shape: (n, c)
    ) -> dict[str, Any]:
        """What belongs into a checkpoint, as plain values.

        name, task ("classification" or "regression"), class_names, image_shape (empty where the rows are no images),
        background (behind transparent images), num_features (d), num_outputs (c), encoding, as
        `FeatureEncoding.to_dict` has it, and table, as `TableEncoding.to_dict` has it, both empty where there is none;
        and target_offset and target_scale, lists of c numbers.
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
            "target_offset": [float(value) for value in self.target_offset] or [0.0] * c,
            "target_scale": [float(value) for value in self.target_scale] or [1.0] * c,
        }


def facts_of(trainer: Any) -> DataFacts:
    """The facts of the data module that a Trainer has, all defaults where it has none."""
    return DataFacts.of(getattr(trainer, "datamodule", None))


def _rows(found: Any) -> RowDataset | None:
    return found if isinstance(found, RowDataset) else None
