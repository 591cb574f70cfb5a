"""How a data set's features become float32: one scale and one origin, fitted on the training rows and then fixed."""

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

# A column is shifted if float32 rounds its values by more than this share of their median distance from the median.
TOO_COARSE = 1e-5
# A column is shifted only if the shift leaves at most this share of the rounding error.
FEWER_DIGITS_LOST = 0.25
# Rows on which origins are found: VALUES / d, but at least MIN_SAMPLE, which a median needs, and at most MAX_SAMPLE,
# because more rows hardly change a median.
MAX_SAMPLE, MIN_SAMPLE, VALUES = 10_000, 100, 2_000_000
MERGED_AMONG = 100_000  # rows, from the first, that are searched for rows that became equal; all would take seconds


@dataclass(frozen=True)
class FeatureEncoding:
    """features = float32((values / divisor - origin) / scale), for all parts of a data set and for later rows.

    Pixels of dtype uint8 are divided by 255. The origin is 0 except in float64 columns that lie so far from 0 for their
    spread that float32 would lose their digits; in these columns the origin is the median of the training rows, and it
    is subtracted in float64.

    If later rows are uint8 and the training rows float, or the other way round, the later rows are converted when both
    are certainly pixels (a log line says so), and refused otherwise.

    Args:
        divisor: 255 for uint8 training rows, else 1.
        origin: one number per column; empty if all are 0.
        dtype: of the training rows, "uint8" or "float".
        unit: the difference of two neighbouring 8-bit levels in the training values: 1 for whole numbers 0..255, 1/255
            for pixels in [0, 1]; 0 if the values are no pixels.
        levels: the largest training value in units of `unit`, rounded up.
        scale: one number above 0 per column, as of `standardized`; empty if all are 1.

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
    scale: tuple[float, ...] = ()

    @classmethod
    def standardized(cls, mean: Sequence[float], scale: Sequence[float]) -> FeatureEncoding:
        """(values - mean) / scale of every column, in float64 until the last rounding."""
        return cls(origin=tuple(map(float, mean)), scale=tuple(map(float, scale)))

    @classmethod
    def fit(
        cls,
        x: Tensor,  # shape: (n, ...)
        images: bool = False,
        shift: bool = True,
    ) -> FeatureEncoding:
        """The encoding for these training rows.

        Args:
            x: uint8, floats, or other integers, which are taken as floats, shape (n, ...).
            images: whether the rows are images, whose values in [0, 1] are shares of full intensity.
            shift: whether columns may be shifted. If not, a column that needs a shift is a warning.
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
        """Features, float32, shape (m, d); float32 values that do not change are not copied.

        Args:
            x: uint8, floats, or other integers, shape (m, ...); images (n, H, W, C) are turned to channels first.
            name: what messages call x.
            quiet: write no log lines, for rows that are read again and again.

        Raises:
            InputError: x is not finite or beyond float32, or has another width than the origin; or only one of x and
                the training rows is uint8, and it is not certain that both are pixels on the same scale.
        """
        rows = _rows(x)
        if rows.dtype != torch.uint8:
            check_finite_matrix(name, rows)
        if self.origin and rows.shape[1] != len(self.origin):
            raise InputError(f"{name} must have {len(self.origin)} features, as in training; got {rows.shape[1]}")
        if (rows.dtype == torch.uint8) != (self.dtype == "uint8"):
            rows = self._converted(rows, name, quiet)
        if self.origin and not self.scale and rows.dtype != torch.float64 and not quiet:
            far = _names([j for j, value in enumerate(self.origin) if value])
            log.warning("%s is %s, which loses digits of %s: give float64", name, _dtype(rows), far)
        if self.origin or rows.dtype == torch.float64:
            origin, scale = (
                torch.tensor(values, dtype=torch.float64, device=rows.device) for values in (self.origin, self.scale)
            )
            rows = _rounded(rows, origin, scale, name, quiet)
        # The division is correctly rounded, so round(255 x) recovers the 8-bit levels exactly.
        return rows.to(torch.float32) if self.divisor == 1 else rows.to(torch.float32, copy=True).div_(self.divisor)

    def _converted(self, rows: Tensor, name: str, quiet: bool) -> Tensor:
        """Rows of another dtype than the training rows, in the training rows' units.

        Raises:
            InputError: it is not certain that both are pixels on the same scale.
        """
        unit = 1.0 if rows.dtype == torch.uint8 else pixel_unit(rows)
        received = f"{_dtype(rows)} values from {float(rows.min()):g} to {float(rows.max()):g}"
        if not (unit and self.unit and self._on_our_scale(largest_level(rows, unit))):
            ours = f"{self.dtype} pixels from 0 to {self.levels * self.unit:g}" if self.unit else "floats, no pixels"
            raise InputError(
                f"{name} holds {received}, and the training rows are {ours}: whether both have the same units is not "
                "certain: store both as one dtype, in the same units"
            )
        if not quiet:
            log.info("%s holds %s: read as pixels on the training rows' scale", name, received)
        levels = rows.float() if unit == 1 else (rows.double() / unit).round_().float()
        return levels if self.unit == 1 else levels.div_(LEVELS)

    def _on_our_scale(self, levels: int) -> bool:
        """Whether pixels up to this level certainly count the same levels as the training rows.

        Values of 0 and 1 alone are ambiguous: they may be black and white, or nearly black. Values above the training
        rows' largest level are ambiguous, too: they may be on a finer scale, as 0..255 beside 0..16.
        """
        if levels == 0:
            return True
        return (levels > 1 or self.levels <= 1) and (levels <= self.levels or self.levels > LEVELS // 2)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {**asdict(self), "origin": list(self.origin), "scale": list(self.scale)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> FeatureEncoding:
        """The encoding that `to_dict` describes; an empty dict is the encoding that changes nothing.

        Raises:
            CheckpointError: the dict describes no encoding.
        """
        try:
            found = cls(**{**plain, **{name: tuple(plain.get(name, ())) for name in ("origin", "scale")}})
            numbers = (found.divisor, found.unit, found.levels, *found.origin, *found.scale)
            sound = all(isinstance(value, int | float) and math.isfinite(value) for value in numbers)
            sound = sound and found.dtype in ("uint8", "float") and found.unit in (0, 1, 1 / LEVELS)
            sound = sound and found.divisor == (LEVELS if found.dtype == "uint8" else 1)
            sound = sound and min(found.scale, default=1) > 0 and len(found.scale) in (0, len(found.origin))
        except (TypeError, AttributeError):
            sound = False
        if not sound:
            raise CheckpointError("the checkpoint's feature encoding is damaged: train again")
        return found


def far_columns(
    rows: Tensor,  # float64, shape: (n, d)
) -> list[float]:
    """For every column the median if float32 would hold the column too coarsely for its spread, else 0.

    The spread is the median distance from the column's median, over the values that differ from the median. So a
    constant column has no spread, and a few values far away, such as zeros for missing values, do not change the
    spread. A column is shifted only if the shift removes most of its rounding error.
    """
    count = min(MAX_SAMPLE, max(MIN_SAMPLE, VALUES // rows.shape[1]))
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
    """Check that the origin has been subtracted from these features.

    Raises:
        InputError: all of x lies nearer to the origin than to 0, so the origin has not been subtracted.
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
    """Warn if float64 rows that differ became equal float32 features."""
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
    """The mean error of rounding each column to float32, shape (d,)."""
    return (values - values.float()).abs().mean(dim=0)


def _rounded(rows: Tensor, origin: Tensor, scale: Tensor, name: str, quiet: bool) -> Tensor:
    """float32((rows - origin) / scale).

    Values beyond float32 are refused, and values that become 0 or denormal are a warning.
    """
    parts, vanished = [], torch.zeros(rows.shape[1], dtype=torch.long, device=rows.device)
    for part in rows.split(rows_at_a_time(rows.shape[1])):
        exact = part.double() - origin if len(origin) else part
        exact = exact / scale if len(scale) else exact
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
