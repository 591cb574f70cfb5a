"""How long a training run will take on this machine: some real steps are timed and scaled to an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kl.distributed.ranks import Ranks, Share
from kl.eigenpro.fitted import FittedValues
from kl.eigenpro.iteration import EigenProIteration
from kl.eigenpro.memory import EVALUATED_ROWS
from kl.eigenpro.preconditioner import Preconditioner
from kl.general.run import ProjectedRun
from kl.metrics import mse
from kl.products.kept import KernelMatrix
from kl.rows.rows import RowDataset
from kl.system.clock import seconds_of

if TYPE_CHECKING:
    from kl.eigenpro.machine import KernelMachine
    from kl.general.machine import GeneralKernelMachine
    from kl.machines.machine import TrainedExpansion

BATCH_OVERHEAD = 5e-4  # seconds of a training batch in Lightning and the callbacks, which are not timed (2-core CPU)
ALLOWANCE, REPEATS = 0.2, 10  # short work is timed again for up to this many seconds, and at most this often
STEP_VALUES = 2**27  # kernel values of a timed step at most; the seconds of a larger step are scaled up
KEPT_VALUES = 2**25  # at least this many kernel values are kept for a timed step: more than a cache holds


@torch.no_grad()
def estimate_training(
    machine: KernelMachine,
    train_set: RowDataset,
    test_x: Tensor | None = None,  # shape: (t, d)
) -> dict[str, float]:
    """Time two steps of a run of EigenPro 2, or more if they are short, and the work before and after an epoch.

    The steps belong to a separate iteration that starts from f = 0, so the machine is not changed. They read the same
    share of their rows from kept rows of K(X, X) as the run will. For this only some of the run's kept rows are
    computed, and their time is scaled to `seconds_filling`.

    Args:
        machine: after `prepare`, before training.
        train_set: the rows that it was prepared on.
        test_x: the features that are evaluated after each epoch, if any.

    Returns:
        seconds_filling (the kept rows, once), seconds_per_epoch (the steps), seconds_training_error and
        seconds_evaluation (after each epoch), steps_per_epoch, flops_per_epoch (see `epoch_flops`),
        kernel_values_per_second (computed or read, of a step of each rank), and bytes_per_step, which each rank
        receives from collectives; the seconds do not include this transfer.
    """
    plan, memory, ranks, device = machine.plan, machine.memory, machine.ranks, machine.centers.device
    iteration, (own, d), c = _iteration(machine), machine.centers.shape, machine.alpha.shape[1]
    n, m, kept = iteration.n, plan.batch_size, memory.kept_rows
    size = max(1, min(m, STEP_VALUES // own))
    # At most n - 1 rows are kept, because with all n the iteration would not read the machine's K(X_B, X_S).
    inside = min(round(size * kept / n), n - 1)
    part = min(kept, n - 1, max(inside, KEPT_VALUES // own))
    filling = _fill_seconds(iteration, part, kept, device) if part else 0.0
    generator = torch.Generator().manual_seed(0)

    def step() -> None:  # different rows each time, because a cache may hold those of the last step
        read, others = (torch.randperm(count, generator=generator) for count in (part, n - part))
        places = torch.cat([read[:inside], part + others[: size - inside]]).to(device)
        train_set[machine.order[places].cpu()]  # as a loader does
        iteration.step(places)

    received, scale = _bytes_received(ranks, step), m / size
    (step_seconds,) = _fastest(step, device=device)
    steps = math.ceil(n / m)  # the last one may be smaller; together they are n / m full steps
    batches = steps if ranks.size > 1 else math.ceil(steps / machine.most_steps_per_batch)
    return {
        "steps_per_epoch": steps,
        "flops_per_epoch": epoch_flops(n, d, c, plan.subsample, plan.top_q, m, kept, memory.keep_columns, ranks.size),
        "seconds_filling": filling,
        "seconds_per_epoch": n / m * scale * step_seconds + batches * BATCH_OVERHEAD,
        "seconds_training_error": seconds_of(lambda: mse(iteration.fitted.flush(), machine.targets), 1, device)[0],
        "seconds_evaluation": _scores_seconds(machine, test_x) if test_x is not None else 0.0,
        "kernel_values_per_second": size * own / step_seconds,
        "bytes_per_step": scale * received,
    }


def _iteration(machine: KernelMachine) -> EigenProIteration:
    """An iteration from f = 0 on the machine's kernel matrix, without kept rows."""
    matrix, alpha = machine.fitted.matrix, machine.alpha.detach()
    fitted = FittedValues(len(matrix), len(machine.vectors), alpha.shape[1], machine.ranks).to(alpha.device)
    unkept = KernelMatrix(matrix.kernel, matrix.rows, len(matrix), machine.ranks)
    fitted.attach(unkept, machine.fitted.subsample, machine.fitted.columns)
    preconditioner = Preconditioner(machine.vectors, machine.weights)
    iteration = EigenProIteration(machine.plan, preconditioner, fitted, torch.zeros_like(alpha))
    iteration.targets = machine.targets
    return iteration


def _fill_seconds(iteration: EigenProIteration, part: int, kept: int, device: torch.device) -> float:
    """Keep `part` rows of K(X, X), and predict the seconds of `kept` rows.

    With one rank, each pair among the k kept rows is evaluated once, so these k^2 values are timed separately from the
    other k (n - k).
    """
    matrix, n = iteration.fitted.matrix, iteration.n
    both = seconds_of(lambda: iteration.fitted.keep_rows(part), 1, device)[0]
    if iteration.ranks.size > 1:
        return both * kept / part
    pairs = seconds_of(lambda: KernelMatrix(matrix.kernel, matrix.rows[:part]).keep(part), 1, device)[0]
    return pairs * (kept / part) ** 2 + max(both - pairs, 0.0) * kept * (n - kept) / (part * (n - part))


def epoch_flops(
    n: int, d: int, c: int, s: int, q: int, m: int, kept_rows: int, keep_columns: bool, ranks: int = 1
) -> float:
    """Flops of the matrix products of an epoch on each rank, without the kernel's formula.

    Each of R ranks takes 1/R of these: n^2 (1 - p) 2d for the inner products of the rows that are not kept, a share
    1 - p; n^2 2c for the products with the weights; n 2sd for K(X_B, X_S) if it is not kept; n 4sc for the products
    with it. In addition, every rank takes 6csq in each of the n/m steps.
    """
    share = kept_rows / n
    columns = 0 if keep_columns or (share == 1 and ranks == 1) else 2 * s * d
    rows = n / ranks * (2 * d * n * (1 - share) + 2 * c * n + 4 * s * c + columns)
    return float(rows + math.ceil(n / m) * 6 * c * s * q)


@torch.no_grad()
def estimate_general(
    machine: GeneralKernelMachine,
    x: Tensor,  # shape: (t, d)
    n: int,
) -> dict[str, float]:
    """Time two steps and projections of a run of EigenPro 3 or 4, or more if they are short.

    They belong to a separate run that starts from f = 0, so the machine is not changed. Each timed step is the first of
    a period, without temporary centres. On average a step has about T m / 2 of them; each adds the cost of a centre.

    Args:
        machine: after `prepare`, before training.
        x: rows of data, at least one.
        n: rows of an epoch.

    Returns:
        seconds_projection (of one), seconds_per_epoch (the steps and their projections), seconds_norm and
        seconds_training_error (after each epoch; 0 if it is a mean over the batches), steps_per_epoch, and
        bytes_per_step as in `estimate_training`.
    """
    m, period, ranks, device = machine.batch_rows, machine.period, machine.ranks, machine.centers.device
    alpha, preconditioner = torch.zeros_like(machine.alpha.detach()), Preconditioner(machine.vectors, machine.weights)
    stable = replace(machine.plan, step_size=machine.plan.optimal_step_size)  # whatever step size the user asked for
    projection, at_least_two = machine.run.projection, max(2, period)  # so that no timed step ends with a projection
    run = ProjectedRun(
        machine.kernel, machine._center_rows, alpha, stable, preconditioner, projection, at_least_two, ranks
    )
    some = x[: max(m, EVALUATED_ROWS)]
    index = torch.arange(m) % len(some)
    batch = Share(some[index[ranks.local_rows(m)]].to(device), m) if ranks.size > 1 else some[index].to(device)
    machine.encode_rows(some)
    y = machine.centers.new_ones(m, alpha.shape[1])

    def step() -> None:
        run.step(machine.rows_of(batch, index), y)

    received = _bytes_received(ranks, step) + _bytes_received(ranks, run.optimizer.project) / period
    step_seconds, project_seconds = _fastest(step, run.optimizer.project, device=device)
    count = max(1, min(len(some), EVALUATED_ROWS, STEP_VALUES // len(alpha)))
    (errors,) = _fastest(lambda: machine._scores(slice(count), some), device=device)
    machine._train_rows = None
    steps, temporary = math.ceil(n / m), (period - 1) * m / 2
    each = step_seconds * (1 + temporary / machine.num_centers) + BATCH_OVERHEAD
    return {
        "steps_per_epoch": steps,
        "seconds_projection": project_seconds,
        "seconds_per_epoch": steps * each + math.ceil(steps / period) * project_seconds,
        "seconds_norm": _fastest(lambda: machine.sq_norm_of(alpha), device=device)[0],
        "seconds_training_error": 0.0 if machine.has_running_metrics else errors * n / count,
        "bytes_per_step": received,
    }


def _scores_seconds(
    machine: TrainedExpansion,
    x: Tensor,  # shape: (t, d)
) -> float:
    """Seconds to evaluate f at t rows; if they are many, only some are timed."""
    some = x[: max(1, min(EVALUATED_ROWS, STEP_VALUES // len(machine.centers)))]
    (seconds,) = _fastest(lambda: machine(some.to(machine.centers.device)), device=machine.centers.device)
    return seconds * len(x) / len(some)


def _bytes_received(ranks: Ranks, work: Callable[[], object]) -> int:
    """Bytes that this rank receives while `work` runs once."""
    before = ranks.received
    work()
    return ranks.received - before


def _fastest(*works: Callable[[], object], device: torch.device) -> list[float]:
    """Seconds of the fastest run of each of `works`, which run in turn, several times if they are short."""
    rounds: list[list[float]] = []
    while not rounds or (sum(map(sum, rounds)) < ALLOWANCE and len(rounds) < REPEATS):
        rounds.append([seconds_of(work, 1, device)[0] for work in works])
    return [min(each) for each in zip(*rounds, strict=True)]
