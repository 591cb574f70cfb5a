"""How long a run of a general kernel model will take here: its parts measured on this machine, then added up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kl.engine import kernel_matrix, thin_matmul
from kl.estimate import STEP_OVERHEAD, best_seconds
from kl.general import GeneralKernelMachine
from kl.rows import Rows


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
    p, m, period = len(machine.centers), machine.batch_rows, machine.period
    centers, optimizer = machine._center_rows, machine.configure_optimizers()
    batch = x[torch.arange(m) % len(x)].to(machine.centers) - machine.origin
    weights = torch.zeros(m, machine.alpha.shape[1], device=batch.device)

    def step() -> Tensor:
        rows = Rows.of(batch, like=centers)
        block = kernel_matrix(machine.kernel, rows, centers)
        thin_matmul(block, machine.alpha)
        return weights.T @ block

    block_seconds = best_seconds(step)
    projection = best_seconds(lambda: optimizer.projection.solve(optimizer.h + 1e-6, optimizer.corrected))
    norm = best_seconds(lambda: machine.sq_norm_of(machine.alpha))
    steps = math.ceil(n / m)
    each = block_seconds * (1 + (period - 1) * m / 2 / p) + STEP_OVERHEAD
    return GeneralEstimate(steps, each, projection, steps * each + math.ceil(steps / period) * projection, norm)
