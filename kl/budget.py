"""What a training run keeps in memory, and what of the kernel matrix the budget lets it keep."""

from __future__ import annotations

from dataclasses import dataclass

from kl.codes import FEWEST, MOST, MULTIPLE
from kl.engine import PADDED, TILE
from kl.errors import MemoryBudgetError
from kl.memory import format_memory

LEAST_KEPT = 0.05  # of the rows of K: less is not worth its memory
CHECK_ROWS = 4096  # rows of the second sample that lambda_1(K_P) is checked on
COLUMNS_SHARE = 4  # K(X, X_S) is kept where it takes at most one part in this many of the budget


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes by item, and what is kept of the kernel."""

    budget: int
    items: dict[str, int]
    keep_columns: bool
    """Whether K(X, X_S) is kept."""
    kept_rows: int
    """Rows of K(X, X) that are kept."""

    @property
    def total(self) -> int:
        """Bytes of all items."""
        return sum(self.items.values())


def training_memory(
    n: int, d: int, c: int, s: int, budget: int, itemsize: int = 4, coded: bool = False
) -> TrainingMemory:
    """The memory of a training run and of its training data, and how much of K fits beside them.

    Args:
        n: training rows.
        d: features.
        c: outputs.
        s: subsample rows.
        budget: bytes.
        itemsize: bytes of a kernel value.
        coded: whether the features are kept as 8-bit integers, too.

    Raises:
        MemoryBudgetError: the budget does not hold what a run cannot do without.
    """
    padded = -(-c // PADDED) * PADDED
    width = -(-d // MULTIPLE) * MULTIPLE if coded and FEWEST <= d <= MOST else 0
    items = {
        "training data": n * d * itemsize + n * c * 4,
        "centres": n * (d * itemsize + width + (32 if width else 4)),
        # alpha and f(X) in float64, the state to go back to, sums of a step
        "weights and fitted values": n * (7 * 8 * c + 2 * itemsize * padded),
        # K(X_S, X_S), its eigenvectors and LAPACK's copies; K_P on the second sample
        "set-up of the preconditioner": 5 * 8 * s * s + itemsize * min(n, CHECK_ROWS) * (min(n, CHECK_ROWS) + 2 * s),
        "tiles": 4 * min(TILE, n * n) * itemsize,
    }
    least = sum(items.values())
    if least > budget:
        raise MemoryBudgetError(
            f"training on n={n} rows of d={d} features needs {format_memory(least)} at least, more than the budget of "
            f"{format_memory(budget)}: raise --memory, or use fewer rows (--train-size)"
        )
    columns = n * s * itemsize
    keep_columns = columns <= min(budget // COLUMNS_SHARE, budget - least)
    # Where all of K is kept, K(X, X_S) is part of it.
    rows = (budget - least) // (n * itemsize)
    if rows < n and keep_columns:
        items["K(X, X_S), kept"] = columns
        rows = (budget - least - columns) // (n * itemsize)
    rows = min(n, rows) if rows >= LEAST_KEPT * n else 0
    if rows:
        items["K(X, X), kept rows"] = rows * n * itemsize
    return TrainingMemory(budget, items, keep_columns, rows)
