"""The results of a sweep as one pandas table, with a row for each point, epoch, or level of label noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import fields
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from recipes.reproduce.setting import title
from recipes.reproduce.sweep.point import Point, Results

if TYPE_CHECKING:
    from pandas import DataFrame, Series
else:  # pandas is imported in the functions that need it
    DataFrame = Series = Any

Row = dict[str, Any]


def table(rows: Iterable[Row]) -> DataFrame:
    """Rows as a table of Python objects, in which integers and floats keep their types, even beside None."""
    import pandas as pd

    return pd.DataFrame(list(rows), dtype=object)


def is_missing(value: Any) -> bool:
    """Whether a value of a table is missing, that is None or NaN."""
    return value is None or value != value


def stacked(tables: Iterable[DataFrame]) -> DataFrame:
    """The rows of one table after those of another."""
    import pandas as pd

    return pd.concat([each for each in tables if len(each)])


def rows_of(frame: DataFrame, columns: str | None = None) -> list[Row]:
    """The rows of a table as records, with all columns or those named; missing values are None."""
    chosen = (frame if columns is None else frame[columns.split()]).astype(object)
    return chosen.where(chosen.notna(), None).to_dict("records")


def derived(frame: DataFrame, **columns: Callable[[Row], Any]) -> DataFrame:
    """The table with further columns, each a function of the row with all columns before it."""
    rows = frame.to_dict("records")
    for row in rows:
        for name, value in columns.items():
            row[name] = value(row)
    return table(rows).set_axis(frame.index)


def groups(frame: DataFrame, by: str | list[str]) -> list[DataFrame]:
    """One table for each value of the columns `by`, in the order in which the values first appear."""
    return [own for _, own in frame.groupby(by, sort=False, dropna=False)]


def sweep_table(points: Iterable[Point], results: Results, **columns: Callable[[Row], Any]) -> DataFrame:
    """A row for each point.

    It has the fields of the kernel, the sample, the point and the result by their names; of equal names the last wins.
    `point` and `spec` are the point and its kernel, `kernel` is the kernel's name, `data` the source of the rows and
    `set` its title, `m` and `q` those of EigenPro, and `fitted_at` the first epoch without a training error, or None.
    `columns` are further columns, as in `derived`.
    """
    found = []
    for point in points:
        spec, result, row = getattr(point, "kernel", None), results[point], Row()
        for part in (spec, getattr(point, "sample", None), point):
            row |= {field.name: getattr(part, field.name) for field in (fields(part) if part else ())}
        row |= {**result, "point": point, "spec": spec, "kernel": getattr(spec, "name", None)}
        row |= {"m": row.get("batch_size"), "q": row.get("top_q")}
        row["data"] = result.get("data_source", row.get("data"))
        row["set"] = title(str(row["data"]))
        errors = result.get("curves", {}).get("train/error", [])
        found.append({**row, "fitted_at": errors.index(0) + 1 if 0 in errors else None})
    return derived(table(found), **columns)


def by_epoch(runs: DataFrame) -> DataFrame:
    """A row for each epoch of each run, with the run's index; an incomplete epoch has no row.

    It has the columns of the run, and `epoch` (from 1), `seconds` (of training steps until its end), `train_mse`,
    `train_error` and `test_error` (None for an epoch without a test).
    """
    found, index = [], []
    for at, run in zip(runs.index, runs.to_dict("records"), strict=True):
        curves = run.pop("curves")
        tests = dict(zip(run["tested_epochs"], curves.get("val/error", []), strict=True))
        values = zip(curves["train/mse"], curves["train/error"], accumulate(run["seconds_per_epoch"]), strict=False)
        for epoch, (mse, error, seconds) in enumerate(values, start=1):
            measured = {"train_mse": mse, "train_error": error, "test_error": tests.get(epoch)}
            found.append({**run, "epoch": epoch, "seconds": seconds, **measured})
            index.append(at)
    return table(found).set_axis(index)


def by_level(solves: DataFrame) -> DataFrame:
    """A row for each level of label noise of each solve, with the columns of both."""
    solved = solves.to_dict("records")
    return table({**solve, **level} for solve in solved for level in solve.pop("levels"))


def mean(values: Iterable[float]) -> float:
    """The mean of a group, for `agg`."""
    found = list(values)
    return sum(found) / len(found)


def spread(values: Iterable[float]) -> float:
    """The sample standard deviation of a group, for `agg`; 0 for a single value."""
    found = list(values)
    if len(found) == 1:
        return 0.0
    centre = mean(found)
    return math.sqrt(sum((value - centre) ** 2 for value in found) / (len(found) - 1))
