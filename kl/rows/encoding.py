"""How a data set's features become float32: one scale and one origin, fitted on the training rows, then fixed."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from kl.errors import CheckpointError, InputError
from kl.rows.equal_rows import equal_rows
from kl.rows.pixels import LEVELS, channels_first, largest_level, pixel_unit
from kl.rows.rows import check_finite_matrix
from kl.rows.workspace import rows_at_a_time

log = logging.getLogger(__name__)

TOO_COARSE = 1e-5
"""A column is shifted where float32 rounds its values by more than this share of their distance from the median."""
FEWER_DIGITS_LOST = 0.25  # what a shift must leave of the rounding error, at most
SAMPLE, FEWEST, VALUES = 10_000, 100, 2_000_000  # rows that origins are found on: at most, and fewer of many columns
MERGED_AMONG = 100_000  # first rows looked at for equal ones


@dataclass(frozen=True)
class FeatureEncoding:
    """features = float32(values / divisor - origin), for all parts of a data set and whatever is predicted later.

    Pixels of dtype uint8 are divided by 255. The origin is 0 but in float64 columns that lie so far from 0 for their
    spread that float32 would lose their digits; there it is the median of the training rows. It is subtracted in
    float64. Values of the other kind than the training rows (uint8 for float, float for uint8) are converted where both
    are surely pixels, with a line said, and else refused.

    Args:
        divisor: 255 for uint8 training rows, else 1.
        origin: one number a column; empty where all are 0.
        dtype: of the training rows, "uint8" or "float".
        unit: how much of the training values one 8-bit level is: 1 for whole numbers 0..255, 1/255 for pixels in
            [0, 1]; 0 where they are no pixels.
        levels: the largest training value in such levels, rounded up.

    Example:
        >>> encoding = FeatureEncoding.fit(torch.tensor([[0.0], [128.0], [255.0]]))
        >>> encoding.encode(torch.tensor([[7]], dtype=torch.uint8))
        tensor([[7.]])
    """

    divisor: float = 1.0
    origin: tuple[float, ...] = ()
    dtype: str = "float"
    unit: float = 0.0
    levels: int = 0

    @classmethod
    def fit(
        cls,
        x: Tensor,  # shape: (n, ...)
        images: bool = False,
        shift: bool = True,
    ) -> FeatureEncoding:
        """The encoding for these training rows.

        Args:
            x: uint8, floats, or other integers, which are taken as floats.
            images: whether they are images, for which values in [0, 1] are shares of full intensity.
            shift: whether columns may be shifted; where not, a column that needs it is a warning.
        """
        rows = _rows(x)
        if rows.dtype == torch.uint8:
            return cls(float(LEVELS), (), "uint8", 1.0, int(rows.max()))
        unit = pixel_unit(rows)
        if not unit and images and float(rows.min()) >= 0 and float(rows.max()) <= 1:
            unit = 1 / LEVELS
        levels = largest_level(rows, unit)
        if unit or rows.dtype != torch.float64:
            return cls(unit=unit, levels=levels)
        origin = far_columns(rows)
        columns = [j for j, value in enumerate(origin) if value]
        if columns and not shift:
            log.warning(
                "float32 loses digits of %s, far from 0 for the spread there: subtract a common value from the column",
                _names(columns),
            )
        elif columns:
            log.info(
                "the median of %s, far from 0 for the spread there, is subtracted before the values become float32",
                _names(columns),
            )
        return cls(origin=tuple(origin) if columns and shift else ())

    def encode(
        self,
        x: Tensor,  # shape: (m, ...)
        name: str = "x",
        quiet: bool = False,
    ) -> Tensor:
        """Features, float32, shape (m, d); float32 values that stay as they are are not copied.

        Args:
            x: uint8, floats, or other integers; images (n, H, W, C) are turned to channels first.
            name: what messages call it.
            quiet: say nothing, as of rows that are read again and again.

        Raises:
            InputError: x is not finite or beyond float32, has another width than the origin, or is of the other kind
                than the training rows and not surely on a scale that is known.
        """
        rows = _rows(x)
        if rows.dtype != torch.uint8:
            check_finite_matrix(name, rows)
        if self.origin and rows.shape[1] != len(self.origin):
            raise InputError(f"{name} must have {len(self.origin)} features, as in training; got {rows.shape[1]}")
        if (rows.dtype == torch.uint8) != (self.dtype == "uint8"):
            rows = self._converted(rows, name, quiet)
        if self.origin and rows.dtype != torch.float64 and not quiet:
            far = _names([j for j, value in enumerate(self.origin) if value])
            log.warning("%s is %s, which loses digits of %s: give float64", name, _dtype(rows), far)
        if self.origin or rows.dtype == torch.float64:
            rows = _rounded(rows, torch.tensor(self.origin, dtype=torch.float64, device=rows.device), name, quiet)
        # The division is correctly rounded, so round(255 x) recovers the 8-bit levels exactly.
        return rows.to(torch.float32) if self.divisor == 1 else rows.to(torch.float32, copy=True).div_(self.divisor)

    def _converted(self, rows: Tensor, name: str, quiet: bool) -> Tensor:
        """Rows of the other kind in the training rows' units.

        Raises:
            InputError: whether both are pixels, and on which scale, is not certain.
        """
        unit = 1.0 if rows.dtype == torch.uint8 else pixel_unit(rows)
        came = f"{_dtype(rows)} values from {float(rows.min()):g} to {float(rows.max()):g}"
        if not (unit and self.unit and self._on_our_scale(largest_level(rows, unit))):
            ours = f"{self.dtype} pixels from 0 to {self.levels * self.unit:g}" if self.unit else "floats, no pixels"
            raise InputError(
                f"{name} holds {came}, and the training rows are {ours}: whether both have the same units is not "
                "certain: store both as one dtype, in the same units"
            )
        if not quiet:
            log.info("%s holds %s: read as pixels on the training rows' scale", name, came)
        levels = rows.float() if unit == 1 else (rows.double() / unit).round_().float()
        return levels if self.unit == 1 else levels.div_(LEVELS)

    def _on_our_scale(self, levels: int) -> bool:
        """Whether pixels up to this level and those of the training rows surely count the same levels.

        Values of 0 and 1 alone may be black and white, or nearly black; those above the training rows' may be of a
        finer scale, as 0..255 beside 0..16.
        """
        if levels == 0:
            return True
        return (levels > 1 or self.levels <= 1) and (levels <= self.levels or self.levels > LEVELS // 2)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {**asdict(self), "origin": list(self.origin)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> FeatureEncoding:
        """The encoding that `to_dict` describes; nothing known, {}, is floats as they are.

        Raises:
            CheckpointError: it describes none.
        """
        try:
            found = cls(**{**plain, "origin": tuple(plain.get("origin", ()))})
            numbers = (found.divisor, found.unit, found.levels, *found.origin)
            sound = all(isinstance(value, int | float) and math.isfinite(value) for value in numbers)
            sound = sound and found.dtype in ("uint8", "float") and found.unit in (0, 1, 1 / LEVELS)
            sound = sound and found.divisor == (LEVELS if found.dtype == "uint8" else 1)
        except (TypeError, AttributeError):
            sound = False
        if not sound:
            raise CheckpointError("the checkpoint's feature encoding is damaged: train again")
        return found


def far_columns(
    rows: Tensor,  # float64, shape: (n, d)
) -> list[float]:
    """The median of every column that float32 would hold too coarsely for its spread, 0 for all others.

    The spread is the median distance of the values that differ from the column's median: constant columns have none,
    and a few values far away, such as zeros for what is missing, change nothing. A column is only shifted where that
    takes most of its rounding error away.
    """
    count = min(SAMPLE, max(FEWEST, VALUES // rows.shape[1]))
    sample = rows[:: -(-len(rows) // count)]
    median = sample.median(dim=0).values
    away = sample - median
    distance = away.abs()
    spread = distance.masked_fill(distance == 0, math.nan).nanmedian(dim=0).values
    before, after = (_rounding_error(values) for values in (sample, away))
    far = (before > TOO_COARSE * spread) & (after <= FEWER_DIGITS_LOST * before)  # False for a spread of NaN
    return torch.where(far, median, 0.0).tolist()


def require_encoded(
    x: Tensor,  # shape: (m, d)
    origin: Sequence[float] | None,
) -> None:
    """Pass features that the origin has been subtracted from.

    Raises:
        InputError: all of x lies nearer to the origin than to 0, so that it has not been.
    """
    if not origin or not len(x):
        return
    subtracted = torch.tensor(origin, dtype=torch.float64, device=x.device)
    x, subtracted = x[:, subtracted != 0], subtracted[subtracted != 0]
    if ((x.double() - subtracted).abs() < x.abs()).all():
        raise InputError(
            "x must be features as the data module makes them, less an origin, and it lies at that origin: give "
            "datamodule.encoding.encode(x)"
        )


def say_merged(
    name: str,
    x: Tensor,  # shape: (n, ...)
    features: Tensor,  # shape: (n, d)
) -> None:
    """Warn where rows of float64 that differ became equal float32 features."""
    rows = _rows(x)[:MERGED_AMONG]
    if rows.dtype != torch.float64:
        return
    kept, group = equal_rows(features[:MERGED_AMONG])
    if len(kept) == len(rows):
        return
    lost = len(equal_rows(rows)[0]) - len(kept)
    if lost <= 0:
        return
    first = kept[group]  # of each row the first that has its features
    columns = (rows != rows[first]).sum(dim=0)
    log.warning(
        "%s: %d rows that differ become equal in float32, most by column %d: subtract a common value from it, or "
        "give each scale a column of its own",
        name,
        lost,
        int(columns.argmax()),
    )


def _rounding_error(values: Tensor) -> Tensor:
    """The mean error of float32, shape (d,)."""
    return (values - values.float()).abs().mean(dim=0)


def _rounded(rows: Tensor, origin: Tensor, name: str, quiet: bool) -> Tensor:
    """float32(rows - origin), with what float32 cannot hold refused or said."""
    parts, vanished = [], torch.zeros(rows.shape[1], dtype=torch.long, device=rows.device)
    for part in rows.split(rows_at_a_time(rows.shape[1])):
        exact = part.double() - origin if len(origin) else part
        parts.append(exact.float())
        if (beyond := parts[-1].isinf() & part.isfinite()).any():
            row, column = beyond.nonzero()[0].tolist()
            raise InputError(
                f"{name} holds {float(part[row, column]):g} in column {column}, and float32 ends at 3.4e+38: divide "
                "the column by a power of ten"
            )
        if not quiet:
            vanished += ((parts[-1].abs() < torch.finfo(torch.float32).tiny) & (exact != 0)).sum(dim=0)
    if vanished.any():
        columns = vanished.nonzero().flatten().tolist()
        log.warning(
            "%s: values of %s (%d in all) are too small for float32 and become 0 or lose digits: multiply the column "
            "by a power of ten",
            name,
            _names(columns),
            int(vanished.sum()),
        )
    return torch.cat(parts)


def _rows(x: Tensor) -> Tensor:
    """Each sample as a row, in uint8, float32 or float64, shape (n, d)."""
    rows = channels_first(x).reshape(len(x), -1)
    if rows.dtype in (torch.uint8, torch.float32, torch.float64):
        return rows
    return rows.to(torch.float32 if rows.is_floating_point() else torch.float64)


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _names(columns: list[int]) -> str:
    """The columns in words."""
    if len(columns) == 1:
        return f"column {columns[0]}"
    shown = ", ".join(map(str, columns[:5]))
    return f"columns {shown}" + (f" and {len(columns) - 5} more" if len(columns) > 5 else "")
