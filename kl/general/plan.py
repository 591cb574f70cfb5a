"""The plan of a general kernel model: EigenPro's parameters, the projection and its period, and the memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from kl.distributed.ranks import Ranks
from kl.eigenpro.memory import CHECK_ROWS
from kl.eigenpro.options import EigenProOptions
from kl.eigenpro.parameters import EigenProPlan
from kl.eigenpro.plan import Preconditioned, Probe, finish_plan, precondition, require_usable_diagonal
from kl.eigenpro.preconditioner import Preconditioner
from kl.eigenpro.rules import SMALLEST_BATCH
from kl.eigenpro.spectrum import projected_eigensystem
from kl.errors import InputError, MemoryBudgetError
from kl.general.projection import DOUBLE_CENTERS
from kl.kernels.kernel import Kernel
from kl.products.blocks import TILE, TILE_ON_GPU, kernel_matrix, symmetric_kernel_matrix
from kl.products.triangle import triangle_bytes
from kl.rows.rows import Rows
from kl.system.memory import TrainingMemory, format_memory

SPECTRUM_ROWS = 10_000  # rows of data that the spectrum is estimated on
PROJECTIONS = ("auto", "factor", "eigenpro")


@dataclass(frozen=True)
class GeneralMemory:
    """Bytes of a run with p centres, and the room that they leave for batches."""

    budget: int
    items: dict[str, int]
    keep_factor: bool
    """Whether the projection keeps a factor of K(Z, Z)."""
    batch_rows: int
    """m_G: rows of the largest batch whose block K(X_B, Z) fits into memory."""
    temporary_rows: int
    """Temporary centres that fit into the memory of this rank beside a batch of `batch_rows`."""

    batch_row: int
    """Bytes of a row of a batch."""
    temporary_row: int
    """Bytes of a temporary centre."""

    def longest_period(self, m: int, ranks: int = 1) -> int:
        """The largest T whose temporary centres, shared among the ranks, fit beside batches of m rows.

        Raises:
            MemoryBudgetError: a batch of m rows does not fit.
        """
        held = sum(self.items.values())
        left = self.budget - held - m * self.batch_row
        if left < 0:
            raise MemoryBudgetError(
                f"training with batch_size={m} needs {format_memory(self.budget - left)}, more than the budget of "
                f"{format_memory(self.budget)}: use batch_size={(self.budget - held) // self.batch_row} or "
                "less, or raise memory="
            )
        return max(1, min(self.temporary_rows, left // self.temporary_row) // -(-m // ranks))

    def with_run(self, m: int, temporary: int) -> TrainingMemory:
        """The bytes by item once m and the temporary centres of this rank are known."""
        steps = m * self.batch_row + temporary * self.temporary_row
        return TrainingMemory(self.budget, {**self.items, "a batch and temporary centres": steps}, False, 0)


def general_memory(
    p: int,
    d: int,
    c: int,
    s: int,
    budget: int,
    itemsize: int = 4,
    projection: str = "auto",
    gpu: bool = False,
    ranks: int = 1,
) -> GeneralMemory:
    """The memory of p centres, whether a factor of K(Z, Z) fits into half of the rest, and the room for batches.

    The result does not depend on n, because rows come in batches. Training data held in memory is not counted.

    Args:
        p: centres.
        d: features.
        c: outputs.
        s: subsample rows.
        budget: bytes.
        itemsize: bytes of a kernel value.
        projection: "auto", "factor" or "eigenpro".
        gpu: whether this is a GPU's memory.
        ranks: R ranks share the centres; the bytes are those of rank 0, which alone holds the factor.

    Raises:
        MemoryBudgetError: the run needs more memory than the budget.
    """
    probe, own = min(CHECK_ROWS, SPECTRUM_ROWS), -(-p // ranks)
    held = own + (min(p, s + CHECK_ROWS) if ranks > 1 else 0)  # every rank holds the subsample and the check rows
    items = {
        "centres": held * (2 * d * itemsize + 32),
        "weights": 8 * 8 * own * c,
        "set-up": 6 * 8 * s * s + itemsize * probe * (probe + 2 * s),
        "tiles": 4 * itemsize * (TILE_ON_GPU if gpu else TILE),
    }
    factor = triangle_bytes(p, 8 if p <= DOUBLE_CENTERS else itemsize)
    factor += p * (2 * d * itemsize + 32) + 8 * 3 * p * c if ranks > 1 else 0
    batch_row, temporary_row = _batch_row(own, d, c, itemsize), _temporary_row(d, c, itemsize)
    smallest = SMALLEST_BATCH * (batch_row + temporary_row)
    least = sum(items.values()) + smallest + (factor if projection == "factor" else 0)
    if least > budget:
        raise MemoryBudgetError(
            f"training with p={p} centres of d={d} features needs {format_memory(least)} at least, more than the "
            f"budget of {format_memory(budget)}: raise memory=, or use fewer centers"
        )
    left = budget - sum(items.values()) - smallest
    keep = projection == "factor" or (projection == "auto" and factor <= left // 2)
    if keep:
        items["factor of K(Z, Z)"] = factor
        left -= factor
    half = left // 2
    return GeneralMemory(
        budget,
        items,
        keep,
        SMALLEST_BATCH + half // batch_row,
        SMALLEST_BATCH + half // temporary_row,
        batch_row,
        temporary_row,
    )


def plan_general(
    kernel: Kernel,
    subsample: Rows,  # z_1..z_s
    data: Rows,  # rows of data, in random order
    memory_batch: int,
    options: EigenProOptions,
    p: int,
    c: int,
    ranks: Ranks | None = None,
) -> tuple[EigenProPlan, Preconditioner, torch.Tensor]:
    """Choose q, m and eta, and build the preconditioner, for data that are not the centres; with the eigenvalues.

    The preconditioner is built by `projected_eigensystem` on the first rows of the data (at most 10,000) and checked on
    the last 4,096. With fewer than 8,192 rows it is built on all of them and checked on the first 4,096.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        subsample: the first s centres.
        data: rows of data, in random order.
        memory_batch: m_G, at most the rows of an epoch.
        options: the user's options.
        p: centres of all ranks.
        c: outputs.
        ranks: the ranks that share the centres; rank 0 builds and broadcasts the preconditioner.

    Raises:
        InputError: the kernel is zero or not finite on the centres or on the data.
    """
    ranks, t = ranks or Ranks(), len(data)
    memory_batch = int(ranks.all_reduce_min(memory_batch))
    few = t < 2 * CHECK_ROWS
    spectrum = data if few else data[: min(SPECTRUM_ROWS, t - CHECK_ROWS)]
    check = data[: min(t, CHECK_ROWS)] if few else data[t - CHECK_ROWS :]

    def build() -> Preconditioned:
        require_usable_diagonal(kernel, subsample)
        diagonal = require_usable_diagonal(kernel, check)
        probe = Probe(diagonal, kernel_matrix(kernel, check, subsample), symmetric_kernel_matrix(kernel, check))
        system = projected_eigensystem(kernel, subsample, spectrum)
        d = subsample.data.shape[1]
        return precondition(system, probe, memory_batch, options, p, c, d).to("cpu")

    built = ranks.broadcast_result(build).to(check.data.device)
    return finish_plan(kernel, built, memory_batch, options, check.data.is_cuda)


def choose_period(
    asked: int | None,
    p: int,
    m: int,
    most: int,
    epoch_rows: int,
) -> int:
    """T: the requested period; if it is None, the number of steps that take about p rows, and at most `most`.

    `most` is what memory allows (`GeneralMemory.longest_period`). T is at most the number of steps of an epoch, because
    every epoch ends with a projection.

    A row costs p kernel values at the centres, about T m / 2 at the temporary centres, and a share of the projection
    that falls with T. At T m = p the three costs are of similar size.

    Raises:
        InputError: the temporary centres of the requested period do not fit into memory.
    """
    epoch = math.ceil(epoch_rows / m)
    if asked is None:
        return max(1, min(most, epoch, math.ceil(p / m)))
    if min(asked, epoch) > most:
        raise InputError(
            f"projection_period must be at most {most}, for whose temporary centres there is memory; got {asked}: "
            "raise memory=, or use a smaller one"
        )
    return min(asked, epoch)


def _batch_row(p: int, d: int, c: int, itemsize: int) -> int:
    """Bytes of a row of a batch: its row of K(X_B, Z), its features twice and as three digits, and its outputs."""
    return itemsize * (p + 2 * d + 8 * c) + 3 * d


def _temporary_row(d: int, c: int, itemsize: int) -> int:
    """Bytes of a temporary centre, counted twice, because merging groups of them copies both."""
    return 2 * (itemsize * (d + c) + 3 * d + 32)


def sample_rows(n: int, seed: int) -> torch.Tensor:
    """The indices of the rows (among n) on which the spectrum is estimated and checked, in random order."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + 1))
    return order[: SPECTRUM_ROWS + CHECK_ROWS]
