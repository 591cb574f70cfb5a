"""What an exact solve will cost, and which solver "auto" chooses: memory and seconds, before the solve starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kl.checks import check_one_of
from kl.kernels.kernel import Kernel
from kl.products.blocks import LONG_SIDE, PADDED, TILE
from kl.products.triangle import SIDE, LowerTriangle, triangle_bytes
from kl.rows.digits import most_integers
from kl.rows.rows import Rows
from kl.rows.workspace import converted_rows
from kl.system.clock import fastest
from kl.system.memory import parse_memory

SOLVERS = ("auto", "direct", "pcg")
PROBES = 20  # columns of random signs by which conjugate gradients estimate the diagonal of the inverse
CHECKED = 16  # entries of the inverse's diagonal that leave-one-out computes again in float64, a column each
SINGLE_ROWS = 2048  # rows above which a factor in float32 is tried first, because it takes half the memory and time
DIRECT_ROWS = 30_000  # rows on a CPU above which the n^3 flops of a factorisation take many minutes
# Rank of the preconditioner: n / RANK_DIVISOR, so that the factor takes a tenth of the memory of K, and at most
# MAX_RANK, because the factor costs n rank^2 flops.
MAX_RANK, RANK_DIVISOR = 4000, 10
LEAST_RANK = 32  # rank for small systems, for which a preconditioner costs nothing
ITERATIONS = 60  # iterations of conjugate gradients that an estimate of seconds assumes
REPEATS = 3  # how often work is timed; the fastest time counts
TIMED_ROWS = 2048  # rows on which the rates are measured, enough for full tiles


def choose_solver(
    solver: str, n: int, d: int, c: int, budget: int, device: torch.device, leave_one_out: bool = False
) -> str:
    """The solver that "auto" means: direct if its float64 factor fits the budget and, on a CPU, n <= 30,000; else pcg.

    Raises:
        InputError: there is no such solver.
    """
    if check_solver(solver) != "auto":
        return solver
    fits = direct_memory(n, d, c, 8, leave_one_out) <= budget and (device.type == "cuda" or n <= DIRECT_ROWS)
    return "direct" if fits else "pcg"


def check_solver(solver: str) -> str:
    """`solver`, if it is "auto", "direct" or "pcg".

    Raises:
        InputError: it is anything else.
    """
    return check_one_of("solver", solver, SOLVERS)


def direct_memory(n: int, d: int, c: int, itemsize: int | None = None, leave_one_out: bool = False) -> int:
    """Bytes of a direct solve: half of K, factorised in place, and what every solve holds.

    Args:
        n: rows.
        d: features.
        c: outputs.
        itemsize: bytes of a value of the factor; None is the first attempt: 4 (about 2 n^2 bytes) for n > 2048, else 8.
            A nearly singular matrix needs 8.
        leave_one_out: with the diagonal of the inverse, of which some columns are computed again.
    """
    itemsize = itemsize or (4 if n > SINGLE_ROWS else 8)
    return triangle_bytes(n, itemsize) + _common_memory(n, d, c + CHECKED if leave_one_out else c)


def eigen_memory(n: int, d: int, c: int) -> int:
    """Bytes of an eigen-decomposition in float64: K, its eigenvectors, those that are kept, and LAPACK's copies."""
    return 8 * 6 * n * n + _common_memory(n, d, c)


def pcg_memory(
    n: int, d: int, c: int, rank: int | None = None, panels: int = 0, side: int = SIDE, ranks: int = 1
) -> int:
    """Bytes of conjugate gradients, with the preconditioner and the kept panels of K in float32.

    With several ranks, the bytes of rank 0, which has every R-th panel and its part of the preconditioner.

    Args:
        n: rows.
        d: features.
        c: outputs.
        rank: rank of the preconditioner; None is the rank that is wanted for n rows.
        panels: kept panels of this rank.
        side: columns of a panel.
        ranks: R.
    """
    rank = _full_rank(n) if rank is None else rank
    # F, a block of its rows, F F^T in three copies; then directions, residuals and other vectors of the iteration
    local = -(-n // ranks)
    preconditioner = 4 * local * rank + 4 * local * -(-rank // RANK_DIVISOR) + 28 * rank * rank
    kept = sum(panel_bytes(n, j * ranks, side) for j in range(panels))
    return preconditioner + 8 * n * 8 * c + kept + _common_memory(n, d, c)


def least_pcg_memory(n: int, d: int, c: int) -> int:
    """The smallest budget that `pcg_plan` accepts: twice the bytes of a preconditioner of rank 1, and all else."""
    return 2 * pcg_memory(n, d, c, 1) - pcg_memory(n, d, c, 0)


def panel_bytes(n: int, j: int, side: int = SIDE) -> int:
    """Bytes of panel j of a float32 triangle."""
    return 4 * (n - j * side) * min(side, n - j * side)


def pcg_plan(n: int, d: int, c: int, budget: int, side: int = SIDE, ranks: int = 1) -> tuple[int, int]:
    """The rank of the preconditioner and the number of panels to keep within the budget; (0, 0) if nothing fits.

    The budget and the panels are those of one of `ranks` ranks. The preconditioner takes at most half of what is left
    beside the vectors of the iteration.
    """
    rank, least = _full_rank(n), pcg_memory(n, d, c, 0)
    while rank > 0 and pcg_memory(n, d, c, rank, ranks=ranks) - least > max(budget - least, 0) // 2:
        rank = rank * 3 // 4
    left, panels = budget - pcg_memory(n, d, c, rank, ranks=ranks), 0
    while panels * ranks * side < n and left >= panel_bytes(n, panels * ranks, side):
        left -= panel_bytes(n, panels * ranks, side)
        panels += 1
    return rank, panels


def low_rank_affordable(n: int, d: int, c: int, budget: int) -> int:
    """The largest rank, at most 4000, whose float64 factor, its orthonormal basis and copies fit the budget."""
    rank, left = min(n, MAX_RANK), budget - _common_memory(n, d, c)
    while rank > 0 and 8 * (4 * n * rank + 4 * rank * rank) > left:
        rank = rank * 3 // 4
    return rank


def rows_that_fit(n: int, budget: int, memory: Callable[[int], int]) -> int:
    """Nearly the most rows that fit the budget by `memory`, a function from rows to bytes; at least 1."""
    while n > 1 and memory(n) > budget:
        n = int(0.99 * n)
    return n


def _full_rank(n: int) -> int:
    """The rank of the preconditioner that n rows would have if the budget allowed it."""
    return min(n, max(LEAST_RANK, n // RANK_DIVISOR), MAX_RANK)


def _common_memory(n: int, d: int, c: int) -> int:
    """Bytes that every solve holds.

    Features in float32, once more if rows repeat, and as integers; targets, weights and residuals, with gaps that an
    allocator leaves between them; tiles, and the rows of a tile in float64.
    """
    converted = 16 * d * min(n, converted_rows(d, LONG_SIDE))
    return (8 + most_integers(n, d)) * n * d + 8 * n * (10 * c + 3 * PADDED) + 32 * min(TILE, n * n) + converted


def estimate_seconds(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    solver: str = "direct",
    memory: str | int = "auto",
    c: int = 10,
) -> float:
    """Seconds of an exact solve on x's device, from the rates of its parts, which are measured now in a second or two.

    Direct: n^3 / 3 flops in float32 (float64 up to 2048 rows), n^2 / 2 kernel values for the factor, and as many in
    float64 for each of three residuals. A matrix that needs a float64 factor takes about three times as long.

    PCG: n^2 / 2 kernel values in float32, the preconditioner, 60 products (kept panels are read, the others computed),
    and three residuals. The number of iterations is a guess: a nearly singular matrix needs many times as many.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: training features, shape (n, d).
        solver: "direct" or "pcg".
        memory: budget, which decides how much of K conjugate gradients keep.
        c: outputs.
    """
    if solver == "pcg":
        parts = pcg_seconds(kernel, x, memory, c)
        return parts.setup + ITERATIONS * parts.iteration + 3 * parts.residual
    n = len(x)
    dtype = torch.float32 if n > SINGLE_ROWS else torch.float64
    rates = _Rates(kernel, x, c, dtype)
    return 1.1 * n**3 / 3 * rates.flop + n * n / 2 * (rates.fill + 3 * rates.residual)


@dataclass(frozen=True)
class PcgSeconds:
    """Predicted seconds of the parts of preconditioned conjugate gradients."""

    setup: float
    """Filling the kept panels of K and building the preconditioner."""
    iteration: float
    """One iteration."""
    residual: float
    """One true residual in float64."""


def pcg_seconds(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    memory: str | int = "auto",
    c: int = 10,
    ranks: int = 1,
) -> PcgSeconds:
    """Seconds of the parts of conjugate gradients on each of R ranks.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: training features, shape (n, d).
        memory: budget of a rank, which decides how much of K is kept.
        c: outputs.
        ranks: R.
    """
    (n, d), rates = x.shape, _Rates(kernel, x, c, torch.float32)
    rank, panels = pcg_plan(n, d, c, parse_memory(memory, x.device), rates.side, ranks)
    kept, values = 1 - (1 - min(1.0, panels * ranks * rates.side / n)) ** 2, n * n / 2 / ranks
    product = values * (kept * rates.read() + (1 - kept) * rates.computed())
    return PcgSeconds(
        setup=values * kept * rates.fill + 3 * n / ranks * rank**2 * rates.flop,
        iteration=product + 4 * n / ranks * rank * PADDED * rates.flop,
        residual=values * rates.residual,
    )


class _Rates:
    """Measured seconds of one kernel value and of one flop, in each way in which the solvers use them."""

    def __init__(self, kernel: Kernel, x: Tensor, c: int, dtype: torch.dtype) -> None:
        m = min(len(x), TIMED_ROWS)
        rows = Rows.of(x[:m])
        self._v = x.new_ones(m, c, dtype=torch.float64)
        double = LowerTriangle(kernel, rows.double(), LONG_SIDE)
        self.residual = self._seconds(lambda: double.matmul(self._v)) / _pairs(m, LONG_SIDE)
        self._kernel, self._rows = kernel, rows.double() if dtype == torch.float64 else rows
        self.side = LowerTriangle(kernel, self._rows).side
        self._pairs = _pairs(m, self.side)
        self.fill = self._seconds(lambda: _filled(kernel, self._rows).panels[0]) / self._pairs
        a = torch.rand(TIMED_ROWS, SIDE, dtype=dtype, device=x.device)
        b, out = a[:SIDE].clone(), a.new_empty(TIMED_ROWS, SIDE)
        self.flop = self._seconds(lambda: out.addmm_(a, b.T, alpha=-1)) / (2 * TIMED_ROWS * SIDE**2)

    def _seconds(self, work: Callable[[], object]) -> float:
        return fastest(work, REPEATS, self._v.device)

    def read(self) -> float:
        """Seconds of a kept kernel value and its products."""
        triangle = _filled(self._kernel, self._rows)
        return self._seconds(lambda: triangle.matmul(self._v)) / self._pairs

    def computed(self) -> float:
        """Seconds of a kernel value that is computed for its products."""
        triangle = LowerTriangle(self._kernel, self._rows)
        return self._seconds(lambda: triangle.matmul(self._v)) / self._pairs


def _pairs(m: int, side: int) -> float:
    """Kernel values of a triangle of m rows, whose diagonal blocks are full squares."""
    return m * (m + min(m, side)) / 2


def _filled(kernel: Kernel, rows: Rows) -> LowerTriangle:
    """A triangle with all panels kept."""
    triangle = LowerTriangle(kernel, rows)
    triangle.keep(len(triangle.columns))
    return triangle
