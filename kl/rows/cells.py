"""The cells of one column of a table: as texts, numbers or days, whatever dtype pandas has given the column."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

MISSING_TEXTS = ("", "?")  # beside those that pandas takes for missing when it reads a file, such as NA and null
TRUTHS = ("false", "true")
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?( ?(Z|[+-]\d{2}:?\d{2}))?)?")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def text_of(value: Any) -> str | None:
    """A cell as text: true and false in small letters, whole floats as integers, no blanks around; None if missing.

    Example:
        >>> text_of(3.0), text_of(" a "), text_of(True), text_of(float("nan"))
        ('3', 'a', 'true', None)
    """
    if value is None:
        return None
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return None
        return str(int(value)) if np.isfinite(value) and value == int(value) else repr(float(value))
    text = str(value).strip()
    if text in MISSING_TEXTS or text in ("NaT", "<NA>"):
        return None
    return text.lower() if text.lower() in TRUTHS else text


def codes_of(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Every cell as the number of its text in a list of the distinct texts.

    Args:
        column: m cells.

    Returns:
        The numbers, int64, shape (m,), -1 where a cell is missing, and the texts in the order of their first rows.
    """
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if column.dtype == object:  # factorize would take True for 1
        column = pd.Series([text_of(None if value is pd.NA else value) for value in column], dtype=object)
    raw, distinct = pd.factorize(column)
    numbers: dict[str, int] = {}
    lookup = np.full(
        len(distinct) + 1, -1, dtype=np.int64
    )  # the last entry is that of a missing cell, whose code is -1
    for i, value in enumerate(distinct):
        text = text_of(value)
        if text is not None:
            lookup[i] = numbers.setdefault(text, len(numbers))
    return lookup[raw], list(numbers)


def is_number_dtype(column: pd.Series) -> bool:
    """Whether pandas holds the column as real numbers, not as texts, truth values, dates or objects."""
    from pandas.api import types

    dtype = column.dtype
    return types.is_numeric_dtype(dtype) and not types.is_bool_dtype(dtype) and not types.is_complex_dtype(dtype)


def numbers_of(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Every cell as a number.

    Args:
        column: m cells.

    Returns:
        The numbers, float64, shape (m,), NaN where a cell is missing or no finite number, and where a cell is there and
        is no finite number, bool, shape (m,).
    """
    import pandas as pd
    from pandas.api import types

    if is_number_dtype(column) or types.is_bool_dtype(column.dtype):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        bad = np.isinf(values)
    else:
        codes, texts = codes_of(column)
        known = pd.to_numeric(pd.Series([*texts, None], dtype=object), errors="coerce").to_numpy(np.float64)
        values = known[codes]
        bad = (codes >= 0) & ~np.isfinite(values)
    return np.where(bad, np.nan, values), bad


def days_of(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Every cell, an ISO date or time, as days since 1970-01-01 UTC; without a zone it is taken as UTC.

    Args:
        column: m cells.

    Returns:
        The days, float64, shape (m,), NaN where a cell is missing or no date, and where a cell is there and is no date,
        bool, shape (m,).

    Example:
        >>> import pandas as pd
        >>> days_of(pd.Series(["1970-01-03", "1970-01-01T12:00", "soon"]))[0].tolist()
        [2.0, 0.5, nan]
    """
    codes, texts = codes_of(column)
    days = np.append(days_of_texts(texts), np.nan)[codes]
    return days, (codes >= 0) & np.isnan(days)


def days_of_texts(texts: list[str]) -> np.ndarray:
    """Days since 1970-01-01 UTC, float64, shape (m,); NaN where a text is no ISO date."""
    return np.array([_day_of(text) if ISO_DATE.fullmatch(text) else np.nan for text in texts], dtype=np.float64)


def _day_of(text: str) -> float:
    try:  # not pandas, whose nanoseconds end in 2262: 9999-12-31 often stands for no end
        time = datetime.fromisoformat(text.replace(" +", "+").replace(" -", "-").replace(" Z", "Z"))
    except ValueError:
        return np.nan
    return (time.replace(tzinfo=time.tzinfo or UTC) - EPOCH) / timedelta(days=1)


def text_of_day(day: float) -> str:
    """The date of a number of days since 1970-01-01, as YYYY-MM-DD."""
    return str(np.datetime64(int(np.floor(day)), "D"))
