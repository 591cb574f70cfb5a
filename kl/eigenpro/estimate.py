"""How long a training run will take here: its parts measured on this machine, then added up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kl.distributed.ranks import Batch, Ranks
from kl.eigenpro.memory import EVALUATED_ROWS
from kl.products.blocks import kernel_matrix, symmetric_kernel_matrix
from kl.rows.rows import RowDataset

if TYPE_CHECKING:
    from kl.eigenpro.machine import KernelMachine

STEP_OVERHEAD = 5e-4  # seconds of a step in Python, Lightning and the callbacks beside what is measured (2-core CPU)
EPOCH_OVERHEAD = 3e-3  # seconds of the first batch of an epoch, likewise
ALLOWANCE = 0.2  # seconds for each of the parts that are measured, once each has run at least once
PROBE_VALUES = 2**26  # of kept kernel rows to read from: far more than a cache holds
PROBE_PRODUCTS = 2**27  # kernel values that one measurement evaluates at most
FILLED_ROWS = 2048  # of the kernel matrix whose filling is measured


@dataclass(frozen=True)
class TrainingEstimate:
    """Predicted seconds and operations of a training run."""

    steps_per_epoch: int
    flops_per_epoch: float
    """Multiplications and additions of an epoch's matrix products on each rank; the kernel's formula is not in it."""
    fill_seconds: float
    """To compute the rows of K(X, X) that are kept, once, before the first epoch."""
    epoch_seconds: float
    """Of the steps of an epoch, as `kl fit` reports seconds_per_epoch; the first is as long as the others."""
    training_error_seconds: float
    """After each epoch: the error over all training rows."""
    evaluation_seconds: float
    """After each epoch: the scores of the validation part, or of the test set."""
    values_per_second: float
    """Kernel values, computed or read, that a step of each rank multiplies by weights."""
    bytes_per_step: float
    """What each of several ranks is sent in a step. Seconds do not count it."""

    def training_seconds(self, epochs: int) -> float:
        """Filling the kept rows and all epochs, with what follows each."""
        each = self.epoch_seconds + self.training_error_seconds + self.evaluation_seconds
        return self.fill_seconds + epochs * each


def estimate_training(
    machine: KernelMachine,
    train_set: RowDataset,
    test_x: Tensor | None = None,  # shape: (t, d)
) -> TrainingEstimate:
    """Measure the parts of a run for a second or two and add them up.

    A step is measured on the machine itself: it reads the share of its rows that will be kept from memory that holds no
    kernel values, and computes the others. Weights and fitted values are afterwards what they were.

    Args:
        machine: after `prepare`, before training.
        train_set: what it was prepared on.
        test_x: features that each epoch evaluates, None where there are none.
    """
    plan, memory = machine.plan, machine.memory
    n, own = machine.num_centers, len(machine.centers)
    m, kept = plan.batch_size, memory.kept_rows
    weights, state = machine.alpha.detach().clone(), machine.fitted.snapshot()
    step, received = _step(machine, train_set, m, kept / n)
    training_error = _training_error_seconds(machine)
    with torch.no_grad():
        machine.alpha.copy_(weights)
    machine.fitted.load_state_dict(state)
    steps = math.ceil(n / m)  # of which the last is smaller: they make n / m whole ones
    return TrainingEstimate(
        steps_per_epoch=steps,
        flops_per_epoch=epoch_flops(
            n,
            machine.centers.shape[1],
            machine.alpha.shape[1],
            plan.subsample,
            plan.top_q,
            m,
            kept,
            memory.keep_columns,
            machine.ranks.size,
        ),
        fill_seconds=_fill_seconds(machine, kept) if kept else 0.0,
        epoch_seconds=n / m * step + steps * STEP_OVERHEAD + EPOCH_OVERHEAD,
        training_error_seconds=training_error,
        evaluation_seconds=_evaluation_seconds(machine, test_x) if test_x is not None and len(test_x) else 0.0,
        values_per_second=m * own / step,
        bytes_per_step=received,
    )


def epoch_flops(
    n: int, d: int, c: int, s: int, q: int, m: int, kept_rows: int, keep_columns: bool, ranks: int = 1
) -> float:
    """Flops of the matrix products of an epoch.

    n^2 (1 - p) 2d for the inner products of the rows that are not kept (a share 1 - p), n^2 2c for the products with
    the weights, and for EigenPro on every row 2sd for K(X_B, X_S) where that is not kept and 4sc with it, of which
    each of R ranks has its part; and on every one of the n/m steps 6csq, which each has.
    """
    share = kept_rows / n
    columns = 0 if keep_columns or (share == 1 and ranks == 1) else 2 * s * d
    rows = n / ranks * (2 * d * n * (1 - share) + 2 * c * n + 4 * s * c + columns)
    return float(rows + math.ceil(n / m) * 6 * c * s * q)


def _step(machine: KernelMachine, train_set: RowDataset, m: int, share: float) -> tuple[float, float]:
    """Seconds of a step on m rows of which a share is kept, and bytes received in it.

    Where a step is long, it is measured on fewer rows and scaled up.
    """
    optimizer, fitted, matrix = machine.configure_optimizers(), machine.fitted, machine.fitted.matrix
    n, own, before = len(matrix), len(matrix.rows), matrix.kept
    # One row less than all at most, so that K(X_B, X_S) is still read from where it is now.
    kept = max(1, min(n - 1, PROBE_VALUES // own)) if share else 0
    size = max(1, min(m, PROBE_PRODUCTS // own, kept if share == 1 else m))
    inside = min(round(share * size), kept) if share < 1 else size
    generator = torch.Generator().manual_seed(0)
    parts = torch.randperm(kept, generator=generator)[:inside], torch.randperm(n - kept, generator=generator) + kept
    batch = Batch(torch.cat(parts)[:size].to(machine.order.device), machine.ranks)
    index = machine.order[batch.positions].cpu()

    def step() -> Tensor:
        train_set[index]
        y = machine.targets[batch.local]
        block = fitted.block(batch.local)
        values = fitted.at(batch.local, block)
        update = optimizer.step(batch=batch, residual=values - y, block=block)
        fitted.advance(batch, values, update)
        fitted.settle()
        return fitted.sq_norm

    matrix.kept = matrix.rows.sq_norm.new_zeros(kept, own).fill_(1e-6)
    try:
        return best_seconds(step) * m / len(batch), bytes_received(machine.ranks, step) * m / len(batch)
    finally:
        matrix.kept = before


def _fill_seconds(machine: KernelMachine, kept: int) -> float:
    """Pairs among the kept rows are evaluated once, k^2 / 2 of them; the others, k (n - k), as they are.

    Of several ranks each evaluates its columns of the k rows.
    """
    kernel, rows = machine.kernel, machine.fitted.matrix.rows
    n = len(rows)
    if machine.ranks.size > 1:
        part = rows[: min(n, FILLED_ROWS)]
        return best_seconds(lambda: kernel_matrix(kernel, part, part)) / len(part) ** 2 * kept * n
    size = min(kept, FILLED_ROWS)
    first, others = rows[:size], rows[kept : kept + FILLED_ROWS]

    def out() -> Tensor:  # as far apart in memory, and as new, as the rows will be
        return rows.sq_norm.new_empty(size, n)

    seconds = best_seconds(lambda: symmetric_kernel_matrix(kernel, first, out=out()[:, :size])) * (kept / size) ** 2
    if kept < n:
        p = len(others)
        one = best_seconds(lambda: kernel_matrix(kernel, first, others, out=out()[:, :p])) / (size * p)
        seconds += one * kept * (n - kept)
    return seconds


def _training_error_seconds(machine: KernelMachine) -> float:
    fitted = machine.fitted

    def flush() -> Tensor:
        fitted.pending.fill_(1e-9)
        return fitted.flush()

    return best_seconds(flush)


def _evaluation_seconds(
    machine: KernelMachine,
    x: Tensor,  # shape: (t, d)
) -> float:
    index = torch.arange(max(1, min(len(x), EVALUATED_ROWS, PROBE_PRODUCTS // len(machine.centers))))
    with torch.no_grad():
        return best_seconds(lambda: machine(x[index].to(machine.centers.device))) * len(x) / len(index)


def bytes_received(ranks: Ranks, work: Callable[[], Any]) -> int:
    """Bytes that come to this rank while `work` is done once."""
    before = ranks.received
    work()
    return ranks.received - before


def best_seconds(work: Callable[[], Any], allowance: float = ALLOWANCE, most: int = 10) -> float:
    """The fastest of up to `most` runs within about `allowance` seconds, after one that starts threads and caches."""
    best, start = math.inf, time.perf_counter()
    for i in range(most + 1):
        since = time.perf_counter()
        result = work()
        if isinstance(result, Tensor) and result.is_cuda:
            torch.cuda.synchronize(result.device)
        now = time.perf_counter()
        # A first run that alone exceeds the allowance counts: what it warms up is small beside it.
        if i > 0 or now - start > allowance:
            best = min(best, now - since)
        if now - start > allowance:
            break
    return best
