"""How long a run of a general kernel model will take here: its parts measured on this machine, then added up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kl.eigenpro.estimate import STEP_OVERHEAD, best_seconds, bytes_received
from kl.eigenpro.memory import EVALUATED_ROWS
from kl.general.machine import GeneralKernelMachine
from kl.products.blocks import kernel_matrix, thin_matmul
from kl.rows.rows import Rows


@dataclass(frozen=True)
class GeneralEstimate:
    """Predicted seconds."""

    steps_per_epoch: int
    step_seconds: float
    """Of a step without its share of the projections."""
    projection_seconds: float
    epoch_seconds: float
    norm_seconds: float
    """Of the RKHS norm after each epoch."""
    training_error_seconds: float
    """Of the errors over all training rows after each epoch; 0 where they are means over the batches."""
    bytes_per_step: float
    """What each of several ranks is sent in a step. Seconds do not count it."""


@torch.no_grad()
def estimate_general(
    machine: GeneralKernelMachine,
    x: Tensor,  # shape: (t, d)
    n: int,
) -> GeneralEstimate:
    """Measure a step and a projection a few times, and add them up for an epoch of n rows.

    Temporary centres are T m / 2 in the middle of a period, each of which costs as much as a centre.

    Args:
        machine: a machine that has been prepared.
        x: rows of data, at least one.
        n: rows of an epoch.
    """
    m, period = machine.batch_rows, machine.period
    centers, optimizer = machine._center_rows, machine.configure_optimizers()
    ranks = machine.ranks
    own = x[torch.arange(m)[ranks.local_rows(m)] % len(x)].to(machine.centers) - machine.origin
    weights = torch.zeros(m, machine.alpha.shape[1], device=own.device)
    coefficients = weights.new_zeros(len(machine.weights), weights.shape[1])

    def step() -> Tensor:
        rows = Rows.of(ranks.all_gather_in_order(own, m), like=centers)
        block = kernel_matrix(machine.kernel, rows, centers)
        ranks.all_reduce_sum(thin_matmul(block, machine.alpha))
        ranks.all_reduce_sum(coefficients)
        return weights.T @ block

    def project() -> Tensor:
        return optimizer.projection.solve(optimizer.h + 1e-6, optimizer.corrected)

    block_seconds, projection = best_seconds(step), best_seconds(project)
    received = bytes_received(ranks, step) + bytes_received(ranks, project) / period
    norm = best_seconds(lambda: machine.sq_norm_of(machine.alpha))
    some = x[: min(len(x), EVALUATED_ROWS)]
    errors = 0.0 if machine.has_running_metrics else best_seconds(lambda: machine(some)) * n / len(some)
    steps = math.ceil(n / m)
    each = block_seconds * (1 + (period - 1) * m / 2 / machine.num_centers) + STEP_OVERHEAD
    epoch = steps * each + math.ceil(steps / period) * projection
    return GeneralEstimate(steps, each, projection, epoch, norm, errors, received)
