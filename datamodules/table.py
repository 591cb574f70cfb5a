"""A table whose columns are features and a target: a CSV or Parquet file, or a pandas DataFrame."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from datamodules.base import KernelDataModule
from datamodules.holdout import check_share, hold_out
from datamodules.raw import RawData
from datamodules.table_files import open_table
from datamodules.table_names import Names, described, kind_asked_of, named_columns
from datamodules.table_sources import FrameSource, TableSource
from datamodules.table_targets import TableTargets, TargetCells, table_targets, target_scale
from datamodules.targets import check_task
from kl.errors import CheckpointError, InputError, MemoryBudgetError
from kl.machines.checkpoints import require_values
from kl.rows.batches import derive_seed
from kl.rows.column_kinds import ColumnScan, kinds_of
from kl.rows.rows import data_key
from kl.rows.table import TableEncoding, TableFit, listed, say_counts
from kl.rows.table_columns import CellCounts
from kl.system.files import expand_home
from kl.system.memory import format_memory, parse_memory

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

TEST_SHARE = 0.2


class TableDataModule(KernelDataModule):
    """The rows of a CSV or Parquet file: one column or several are the target, the others become features.

    Numbers are standardised, categories one-hot, missing values filled and marked, as `kl.rows.table.TableEncoding`
    says; it is fitted on the training rows and kept in checkpoints, so that `kl predict` reads tables of the same
    columns. Targets of regression are standardised for training too; metrics and predictions are in their own unit.
    Without a test file a share of the rows is drawn by `seed`, from each class its proportion.

    Args:
        path: the file, in UTF-8, whose first line names the columns.
        target: the column to learn; several, as a list or separated by commas, are the outputs of a regression.
        test_path: a file of test rows with the same columns, in any order.
        test_share: without `test_path` the share of the rows that are the test set; 0 for none.
        task: "classification", "regression", or "auto": texts, truth values and at most 20 different integers are
            classes, other numbers are numbers.
        categorical: columns whose values are categories, whatever they look like; a list, or names with commas.
        numeric: columns that must hold numbers, likewise; a target is then one of regression, unless `task` says else.
        drop: columns that are not used, likewise.
        delimiter: of a CSV file; None finds it.
        **options: those of `KernelDataModule`.

    Attributes:
        table: the `TableEncoding`, after `setup`; `table.encode(dataframe)` makes features of new rows.
        target_offset, target_scale: lists of c numbers; the training targets times the scale plus the offset are in
            the target's own unit. 0 and 1 for classes.
        memory: budget for the features: bytes, "8GB", or "auto" (half of what is free).

    Raises:
        InputError: the file, a column or a value is not as described; the message names it.

    Example:
        >>> import pandas as pd
        >>> rows = pd.DataFrame({"age": [20, 30, 40, 50] * 5, "smokes": ["yes", "no", "no", "yes"] * 5})
        >>> data = TableDataModule.from_dataframe(rows, "smokes")
        >>> data.setup()
        >>> len(data.train_set), len(data.test_set), data.class_names, data.table.feature_names
        (16, 4, ['no', 'yes'], ['age'])
    """

    table: TableEncoding

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        target: Names | None = None,
        test_path: str | os.PathLike[str] | None = None,
        test_share: float | None = None,
        task: str = "auto",
        categorical: Names = (),
        numeric: Names = (),
        drop: Names = (),
        delimiter: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.path = None if path is None else expand_home(path)
        self.test_path = None if test_path is None else expand_home(test_path)
        if test_share is not None and test_path is not None:
            raise InputError(f"test_share draws test rows, and a test file is given; got {test_share}: leave one out")
        self.test_share = check_share("test_share", TEST_SHARE if test_share is None else test_share)
        self._asked_task, self._asked_target = check_task(task), target
        self._asked = {"categorical": categorical, "numeric": numeric, "drop": drop}
        self.delimiter = delimiter
        self.memory: str | int = "auto"
        self.name = "table" if self.path is None else Path(self.path).stem
        self.target_offset: list[float] = []
        self.target_scale: list[float] = []
        self._frames: list[pd.DataFrame] = []

    @classmethod
    def from_dataframe(
        cls, dataframe: pd.DataFrame, target: Names, test: pd.DataFrame | None = None, **options: Any
    ) -> TableDataModule:
        """The same from DataFrames in memory, which are not modified; `test` holds test rows, None draws some."""
        module = cls(path=None, target=target, **options)
        if test is not None and module.hparams.get("test_share") is not None:
            raise InputError("test_share draws test rows, and test is given: leave one of them out")
        module._frames = [dataframe] if test is None else [dataframe, test]
        return module

    def load(self) -> RawData:
        """Read the table: once to find what its columns are, once to fit their encoding, once to encode its rows."""
        sources = self._sources()
        target = () if self._asked_target is None else self._asked_target
        names = named_columns(sources[0], {"target": target, **self._asked})
        kinds, *cells = self._scan(sources, names)
        found = table_targets(cells, self._asked_task)
        del cells
        held = None if len(sources) > 1 or not self.test_share else self._draw_test_rows(found[0])
        self.table = self._fit(sources[0], kinds, held, names)
        self._require_room(sum(len(each.values) for each in found))
        x_train, x_test = self._encode(sources[0], held, len(found[0].values))
        y_train, y_test = found[0].values, None
        if held is not None:
            y_train, y_test = y_train[~held], y_train[held]
        elif len(sources) > 1:
            x_test, y_test = self._encode(sources[1], None, len(found[1].values), is_training=False)[0], found[1].values
        if not found[0].class_names:
            self.target_offset, self.target_scale = target_scale(y_train, names["target"])
            y_train, y_test = self._standardised(y_train), None if y_test is None else self._standardised(y_test)
        return RawData(x_train, y_train, x_test, y_test, found[0].class_names)

    def _sources(self) -> list[TableSource]:
        """The training table and, where it is given, the test table."""
        if self.path is not None:
            return [open_table(path, self.delimiter) for path in (self.path, self.test_path) if path is not None]
        if not self._frames:
            raise InputError(
                "path must name a CSV or Parquet file; this data module was made from DataFrames in memory, which "
                "checkpoints do not keep: make it again with TableDataModule.from_dataframe"
            )
        return [FrameSource(frame, name) for frame, name in zip(self._frames, ("dataframe", "test"), strict=False)]

    def _scan(self, sources: list[TableSource], names: dict[str, tuple[str, ...]]) -> tuple[Any, ...]:
        """The kinds of the training table's columns, and the target cells of each table."""
        found: list[Any] = [{}]
        for source, is_training in zip(sources, (True, False), strict=False):
            if lacking := [name for name in names["target"] if name not in source.columns]:
                raise InputError(
                    f"{source.where} must have the target column {lacking[0]}; it has: {listed(source.columns)}"
                )
            used = [name for name in source.columns if name not in {*names["target"], *names["drop"]}]
            scans = {name: ColumnScan(name) for name in used if is_training}
            cells = [TargetCells(name, source.where, kind_asked_of(name, names)) for name in names["target"]]
            rows = 0
            for frame in source.chunks(set(names["categorical"]) & set(source.columns)):
                for scan in scans.values():
                    scan.add(frame[scan.name])
                for target in cells:
                    target.add(frame[target.name])
                rows += len(frame)
            if not rows:
                raise InputError(f"{source.where} must hold rows; it has a first line of names alone")
            if is_training:
                found[0] = kinds_of(scans, names["categorical"], names["numeric"])
                self._all_missing = [name for name in scans if name not in found[0]]
            found.append(cells)
        return tuple(found)

    def _draw_test_rows(self, found: TableTargets) -> Tensor:
        """Which rows are the test set, shape (n,), bool."""
        labels = found.values if found.class_names else None
        n, seed = len(found.values), derive_seed(self.seed, "table split")
        held = torch.zeros(n, dtype=torch.bool)
        held[hold_out(n, self.test_share, seed, labels, "test_share")[1]] = True
        return held

    def _fit(
        self, source: TableSource, kinds: dict[str, str], held: Tensor | None, names: dict[str, tuple[str, ...]]
    ) -> TableEncoding:
        """The encoding of the training rows; what was found of each column is logged."""
        texts = {name for name, kind in kinds.items() if kind == "category"}
        fit, start = TableFit(kinds), 0
        for frame in source.chunks(texts):
            fit.add(frame if held is None else frame[(~held[start : start + len(frame)]).numpy()])
            start += len(frame)
        if self._all_missing:
            log.warning("left out, because no row has a value there: %s", listed(self._all_missing))
        table = fit.encoding(names["target"], [*names["drop"], *self._all_missing])
        log.info("%s", described(source.where, fit, table))
        return table

    def _require_room(self, rows: int) -> None:
        need, budget = 4 * rows * self.table.num_features, parse_memory(self.memory)
        if need > budget:
            raise MemoryBudgetError(
                f"{self.name} has {rows} rows of {self.table.num_features} features, which take {format_memory(need)} "
                f"in memory, more than the budget of {format_memory(budget)}: raise --memory, or give fewer rows"
            )

    def _encode(
        self, source: TableSource, held: Tensor | None, n: int, is_training: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """The features of the rows that are not held out, and of those that are; chunk by chunk to their places."""
        d, counts = self.table.num_features, CellCounts()
        if not is_training:
            names = [name for name in source.columns if name not in self.table.targets]
            self.table.check_columns(names, source.where)
        out = torch.empty(n if held is None else int((~held).sum()), d)
        rest = None if held is None else torch.empty(int(held.sum()), d)
        start = kept = 0
        for frame in source.chunks(self.table.text_columns & set(source.columns)):
            features = torch.zeros(len(frame), d)
            self.table.write(frame, features, source.where, start, counts)
            if start + len(frame) > n:
                break
            mask = None if held is None else held[start : start + len(frame)]
            if mask is not None and rest is not None:
                rest[start - kept : start - kept + int(mask.sum())] = features[mask]
                features = features[~mask]
            out[kept : kept + len(features)] = features
            start, kept = start + len(frame), kept + len(features)
        else:
            if start == n:
                say_counts(counts, source.where)
                return out, rest
        raise InputError(f"{source.where} has changed while it was read: start again")

    def _standardised(
        self,
        y: Tensor,  # float64, shape: (n, c)
    ) -> Tensor:
        offset, scale = (torch.tensor(each, dtype=torch.float64) for each in (self.target_offset, self.target_scale))
        return ((y - offset) / scale).float()

    def state_dict(self) -> dict[str, Any]:
        """What tells a checkpoint's table from others, beside what every data module keeps."""
        rows = data_key(self.train_set.x, self.train_set.y)
        return {**super().state_dict(), "table": self.table.to_dict(), "rows": rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the checkpoint's run has had the same table.

        Raises:
            CheckpointError: it has not.
        """
        super().load_state_dict(state_dict)
        require_values("data module", state_dict, {"table": dict, "rows": str})
        if any(state_dict[name] != value for name, value in self.state_dict().items() if name in ("table", "rows")):
            raise CheckpointError(
                f"the checkpoint was trained on other rows or columns than {self.path or 'this table'} gives now: the "
                "file has changed, or an option has; resume with those of the first run, or train anew"
            )
