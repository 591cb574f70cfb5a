"""What an exact solve will cost, and by which solver: memory and seconds, before it starts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kl.checks import check_one_of
from kl.kernels.kernel import Kernel
from kl.products.blocks import LONG_SIDE, PADDED, TILE
from kl.products.triangle import SIDE, LowerTriangle, triangle_bytes
from kl.rows.rows import Rows
from kl.rows.workspace import converted_rows
from kl.system.memory import parse_memory

SOLVERS = ("auto", "direct", "pcg")
SINGLE_ROWS = 2048  # rows from which a factor in float32 is tried first
DIRECT_ROWS = 30_000  # on a CPU, beyond which the n^3 of a factorisation takes many minutes
RANK, RANK_SHARE = 4000, 10  # of the preconditioner: n / 10, which takes a tenth of the memory of K, at most 4000
LEAST_RANK = 32  # of small systems, where a preconditioner costs nothing
ITERATIONS = 60  # of conjugate gradients that an estimate assumes
TIMED_ROWS = 2048


def choose_solver(solver: str, n: int, d: int, c: int, budget: int, device: torch.device) -> str:
    """What "auto" is: direct where its factor fits the budget in float64 and, on a CPU, up to 30,000 rows; else pcg.

    Raises:
        InputError: there is no such solver.
    """
    if check_solver(solver) != "auto":
        return solver
    fits = direct_memory(n, d, c, 8) <= budget and (device.type == "cuda" or n <= DIRECT_ROWS)
    return "direct" if fits else "pcg"


def check_solver(solver: str) -> str:
    """`solver`, if it is auto, direct or pcg.

    Raises:
        InputError: it is not.
    """
    return check_one_of("solver", solver, SOLVERS)


def direct_memory(n: int, d: int, c: int, itemsize: int | None = None) -> int:
    """Bytes of a direct solve: half of K, factorised in place, and what every solve holds.

    The factor is of float32 where n > 2048, about 2 n^2 bytes; itemsize=8 is for matrices too near to singular for it.
    """
    itemsize = itemsize or (4 if n > SINGLE_ROWS else 8)
    return triangle_bytes(n, itemsize) + _common_memory(n, d, c)


def eigen_memory(n: int, d: int, c: int) -> int:
    """Bytes of an eigen-decomposition in float64: K, its eigenvectors, those that are kept, and LAPACK's copies."""
    return 8 * 6 * n * n + _common_memory(n, d, c)


def pcg_memory(
    n: int, d: int, c: int, rank: int | None = None, panels: int = 0, side: int = SIDE, ranks: int = 1
) -> int:
    """Bytes of conjugate gradients with a preconditioner of this rank and the first panels of K, both in float32.

    Of several ranks, those of the first, which has every R-th panel, and its share of the preconditioner.
    """
    rank = _full_rank(n) if rank is None else rank
    # F, its rows scaled for the solve, F F^T in three copies; directions, residuals and their like
    own = -(-n // ranks)
    preconditioner = 4 * own * rank + 4 * own * -(-rank // RANK_SHARE) + 28 * rank * rank
    kept = sum(panel_bytes(n, j * ranks, side) for j in range(panels))
    return preconditioner + 8 * n * 8 * c + kept + _common_memory(n, d, c)


def least_pcg_memory(n: int, d: int, c: int) -> int:
    """The least bytes that `pcg_plan` can plan with: twice what a preconditioner of rank 1 takes, and all else."""
    return 2 * pcg_memory(n, d, c, 1) - pcg_memory(n, d, c, 0)


def panel_bytes(n: int, j: int, side: int = SIDE) -> int:
    """Bytes of panel j of a float32 triangle."""
    return 4 * (n - j * side) * min(side, n - j * side)


def pcg_plan(n: int, d: int, c: int, budget: int, side: int = SIDE, ranks: int = 1) -> tuple[int, int]:
    """Rank of the preconditioner and number of panels to keep, as the budget has it: (0, 0) where nothing fits.

    The budget and the panels are those of one of `ranks` ranks.
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
    """The largest rank, at most 4000, whose float64 factor, its orthonormal basis and copies the budget holds."""
    rank, left = min(n, RANK), budget - _common_memory(n, d, c)
    while rank > 0 and 8 * (4 * n * rank + 4 * rank * rank) > left:
        rank = rank * 3 // 4
    return rank


def rows_that_fit(n: int, budget: int, memory: Callable[[int], int]) -> int:
    """The most rows, nearly, of which `memory` says that they fit the budget; 1 at least."""
    while n > 1 and memory(n) > budget:
        n = int(0.99 * n)
    return n


def _full_rank(n: int) -> int:
    return min(n, max(LEAST_RANK, n // RANK_SHARE), RANK)


def _common_memory(n: int, d: int, c: int) -> int:
    """What every solve holds.

    Features in float32, once more where rows repeat, and as codes; targets, weights and residuals, with what an
    allocator leaves between them; tiles, and the rows of a tile in float64.
    """
    converted = 16 * d * min(n, converted_rows(d, LONG_SIDE))
    return 9 * n * d + 8 * n * (10 * c + 3 * PADDED) + 32 * min(TILE, n * n) + converted


def estimate_seconds(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    solver: str = "direct",
    memory: str | int = "auto",
    c: int = 10,
) -> float:
    """Seconds of an exact solve on x's device, from the rates of its parts, measured here and now in a second or two.

    Direct: n^3 / 3 flops in float32 (float64 up to 2048 rows), n^2 / 2 kernel values for the factor, and as many in
    float64 for each of three residuals. A matrix that float32 does not serve costs about three times that.
    PCG: n^2 / 2 kernel values in float32, the preconditioner, 60 products (kept panels read, the others computed), and
    three residuals. The number of iterations is a guess: a matrix near to singular needs many times as many.

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
    """To fill the panels of K that are kept and to build the preconditioner."""
    iteration: float
    residual: float
    """Of a true residual in float64."""


def pcg_seconds(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    memory: str | int = "auto",
    c: int = 10,
    ranks: int = 1,
) -> PcgSeconds:
    """Seconds of conjugate gradients by part, each shared among R ranks; other arguments as of `estimate_seconds`."""
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
    """Seconds of one kernel value and of one flop, in the ways that the solvers use them."""

    def __init__(self, kernel: Kernel, x: Tensor, c: int, dtype: torch.dtype) -> None:
        m = min(len(x), TIMED_ROWS)
        rows = Rows.of(x[:m])
        self._v = x.new_ones(m, c, dtype=torch.float64)
        double = LowerTriangle(kernel, rows.double(), LONG_SIDE)
        self.residual = _best_seconds(lambda: double.matmul(self._v)) / _pairs(m, LONG_SIDE)
        self._kernel, self._rows = kernel, rows.double() if dtype == torch.float64 else rows
        self.side = LowerTriangle(kernel, self._rows).side
        self._pairs = _pairs(m, self.side)
        self.fill = _best_seconds(lambda: _filled(kernel, self._rows).panels[0]) / self._pairs
        a = torch.rand(TIMED_ROWS, SIDE, dtype=dtype, device=x.device)
        b, out = a[:SIDE].clone(), a.new_empty(TIMED_ROWS, SIDE)
        self.flop = _best_seconds(lambda: out.addmm_(a, b.T, alpha=-1)) / (2 * TIMED_ROWS * SIDE**2)

    def read(self) -> float:
        """Of a kept value and its products."""
        triangle = _filled(self._kernel, self._rows)
        return _best_seconds(lambda: triangle.matmul(self._v)) / self._pairs

    def computed(self) -> float:
        """Of a value that is computed for its products."""
        triangle = LowerTriangle(self._kernel, self._rows)
        return _best_seconds(lambda: triangle.matmul(self._v)) / self._pairs


def _pairs(m: int, side: int) -> float:
    """Kernel values of a triangle of m rows, whose diagonal blocks are whole."""
    return m * (m + min(m, side)) / 2


def _filled(kernel: Kernel, rows: Rows) -> LowerTriangle:
    triangle = LowerTriangle(kernel, rows)
    triangle.keep(len(triangle.columns))
    return triangle


def _best_seconds(work: Callable[[], Tensor], repeats: int = 3) -> float:
    """The fastest of a few runs; the first also starts the threads."""
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        float(work()[0, 0])  # reading a value waits for the device
        best = min(best, time.perf_counter() - start)
    return best
