"""The memory of a training run, and how much of the kernel matrix its budget allows to keep."""

from __future__ import annotations

from kl.errors import MemoryBudgetError
from kl.products.blocks import PADDED, TILE, TILE_ON_GPU
from kl.rows.int8 import MAX_FEATURES, MIN_FEATURES, MULTIPLE
from kl.rows.workspace import CHUNK_ROWS
from kl.system.memory import KEPT_ROWS, TrainingMemory, format_memory

LEAST_KEPT = 0.05  # share of the rows of K; a smaller share is not worth its memory
CHECK_ROWS = 4096  # rows of the second sample that lambda_1(K_P) is checked on
COLUMNS_SHARE = 4  # K(X, X_S) is kept if it takes at most 1 / COLUMNS_SHARE of the budget
FEWEST_SUBSAMPLE = 100  # rows; error messages propose no smaller subsample, which shows too little of the spectrum
EVALUATED_ROWS = 4096  # rows of a batch of test data


def training_memory(
    n: int,
    d: int,
    c: int,
    s: int,
    budget: int,
    itemsize: int = 4,
    integers: int = 0,
    batch_size: int | None = None,
    gpu: bool = False,
    ranks: int = 1,
) -> TrainingMemory:
    """The memory of a training run and of its training data, and how much of K fits beside them.

    Args:
        n: training rows.
        d: features.
        c: outputs.
        s: subsample rows.
        budget: bytes.
        itemsize: bytes of a kernel value.
        integers: how many int8 integers are kept of a feature (`Rows.integers`).
        batch_size: m; None if the plan chooses it, which takes at most s.
        gpu: whether this is a GPU's memory. On a GPU all of K is kept or nothing, because every step would otherwise
            wait for the device to find out which rows of its batch are kept.
        ranks: R ranks share the centres; the bytes are those of one rank. Every rank holds all training data.

    Raises:
        MemoryBudgetError: the run needs more memory than the budget.
    """
    items, own = _needed(n, d, c, s, itemsize, integers, batch_size, ranks), -(-n // ranks)
    if gpu:
        items["tiles"] = 4 * min(TILE_ON_GPU, n * n) * itemsize
    least = sum(items.values())
    if least > budget:
        raise MemoryBudgetError(
            f"training on n={n} rows of d={d} features needs {format_memory(least)} at least, more than the budget of "
            f"{format_memory(budget)}: {_remedies(n, d, c, s, budget, itemsize, integers, batch_size, ranks)}"
        )
    columns, room = own * s * itemsize, budget - least
    keep_columns = columns <= min(budget // COLUMNS_SHARE, room)
    # If one rank keeps all of K, K(X, X_S) is a part of it.
    if keep_columns and (ranks > 1 or room < n * n * itemsize):
        items["K(X, X_S), kept"] = columns
        room -= columns
    rows = room // (own * itemsize)
    rows = min(n, rows) if rows >= (1 if gpu else LEAST_KEPT) * n else 0
    if rows:
        items[KEPT_ROWS] = rows * own * itemsize
    return TrainingMemory(budget, items, keep_columns, rows)


def _needed(
    n: int, d: int, c: int, s: int, itemsize: int, integers: int, batch_size: int | None, ranks: int
) -> dict[str, int]:
    """The least memory that a run needs, in bytes by item."""
    own = -(-n // ranks)
    held = own + (min(n, s + CHECK_ROWS) if ranks > 1 else 0)  # every rank holds the subsample and the second sample
    padded = -(-c // PADDED) * PADDED
    width = -(-d // MULTIPLE) * MULTIPLE * integers if MIN_FEATURES <= d <= MAX_FEATURES else 0
    return {
        "training data": n * d * itemsize + n * c * 4,
        "centres": held * (d * itemsize + width + (32 if width else 4)),
        # alpha and f(X) in float64, the state to go back to, sums of a step
        "weights and fitted values": own * (7 * 8 * c + 2 * itemsize * padded),
        "set-up, a step or an evaluation": _largest_phase(n, d, s, batch_size or s, itemsize, width),
        "tiles": 4 * min(TILE, n * n) * itemsize,
    }


def _largest_phase(n: int, d: int, s: int, m: int, itemsize: int, width: int) -> int:
    """Bytes of the largest of four phases, of which only one at a time takes memory.

    The mean needs all features in float64. The preconditioner needs K(X_S, X_S), its eigenvectors and LAPACK's copies
    in float64, and K_P on the second sample. A step needs a batch, its rows of K(X, X_S) and an index of all rows. An
    evaluation needs a batch (of at most n rows) before and after a shift, and the float64 rows it is encoded from.
    """
    check, m, evaluated = min(n, CHECK_ROWS), min(n, m), min(n, EVALUATED_ROWS)
    mean = 16 * n * d
    preconditioner = 5 * 8 * s * s + itemsize * check * (check + 2 * s)
    step = m * ((2 * d + s) * itemsize + width) + 24 * n
    evaluation = evaluated * (2 * d * itemsize + width) + min(n, CHUNK_ROWS) * 4 * 8 * d
    return max(mean, preconditioner, step, evaluation)


def _remedies(
    n: int, d: int, c: int, s: int, budget: int, itemsize: int, integers: int, batch_size: int | None, ranks: int
) -> str:
    """The options that fit a run into the budget, each by itself, with a value that is enough."""

    def least(n: int, s: int) -> int:
        return sum(_needed(n, d, c, min(n, s), itemsize, integers, batch_size, ranks).values())

    rows, subsample = n, s
    while rows > 1 and least(rows, s) > budget:
        rows = rows * 49 // 50
    while subsample > 1 and least(n, subsample) > budget:
        subsample //= 2
    options = [f"raise memory= to {format_memory(least(n, s) * 101 // 100)}"]
    if least(rows, s) <= budget:
        options.append(f"use {rows} rows or less")
    if subsample >= min(s, FEWEST_SUBSAMPLE) and least(n, subsample) <= budget:
        options.append(f"use subsample={subsample} or less")
    return ", or ".join(options)
