"""EigenPro's parameters, each by its own rule: subsample s, rank q, batch m, step size eta.

The rules adapt the kernel to the machine (Ma, Belkin 2019, arXiv:1806.06144): q is the largest rank whose critical
batch size still fits the batch that memory allows, so that the largest batch the device can hold is also a useful one.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kl.distributed.ranks import Ranks
from kl.eigenpro.memory import CHECK_ROWS
from kl.eigenpro.options import EigenProOptions, at_most
from kl.eigenpro.parameters import EigenProPlan
from kl.eigenpro.preconditioner import DAMPING, Preconditioner, make_preconditioner
from kl.eigenpro.rules import SMALLEST_BATCH, critical_batch_size, default_batch_size, optimal_step_size
from kl.eigenpro.spectrum import Eigensystem, nystrom_eigensystem
from kl.eigenpro.top_q import NO_RIDGE, STEP_FLOPS, Ridge, rank_candidates, resolved_eigenvalues
from kl.errors import InputError
from kl.kernels.kernel import Kernel
from kl.products.blocks import kernel_matrix, symmetric_kernel_matrix
from kl.rows.rows import Rows

log = logging.getLogger(__name__)

FAR_ABOVE = 4  # a requested batch more than this many times the critical batch size gets a warning
_NOT_FINITE = (
    "kernel {} is not finite on the training rows, whose values are too large or too small for their float type: "
    "rescale the features"
)


def memory_batch_size(n: int, d: int, c: int, memory: int, itemsize: int, ranks: int = 1) -> int:
    """m_G, from 1 to n: the largest batch whose step, of (d + c + m_G) n numbers of `itemsize` bytes, fits the memory.

    With several ranks, `memory` is that of one rank, which holds its share of the n rows.

    Source: Ma, Belkin 2019, arXiv:1806.06144, step 1 of its main algorithm: m_G.
    """
    return max(1, min(n, memory // (itemsize * -(-n // ranks)) - d - c))


def plan_eigenpro(
    kernel: Kernel,
    head: Rows,  # the first centres, `head_rows` of them
    n: int,
    num_outputs: int,
    memory: int,
    options: EigenProOptions,
    whole: tuple[Tensor, Tensor] | None = None,  # shapes: (n_r,), (n_r, s)
    ranks: Ranks | None = None,
) -> tuple[EigenProPlan, Preconditioner, Tensor]:
    """Choose the q, m and eta that the options leave open, and build the preconditioner; also returns the eigenvalues.

    With a ridge this is EigenPro on K + ridge I: beta + ridge replaces beta, and lambda_i + ridge/n replaces lambda_i.
    Rank 0 builds the preconditioner and broadcasts it.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        head: the first training rows in the order of the centres; the first s are the Nystrom subsample.
        n: training rows of all ranks.
        num_outputs: c.
        memory: bytes that a step may use.
        options: the user's options. m or s above n, and q above s or above the number of eigenvalues that s rows
            resolve, are clipped with a message.
        whole: the diagonal of K and K(X_r, X_S) on this rank's rows, if the caller keeps them.
        ranks: the ranks that share the rows.

    Raises:
        InputError: the kernel is zero or not finite on the rows.
    """
    ranks, d, ridge = ranks or Ranks(), head.data.shape[1], Ridge(options.ridge, n)
    subsample = at_most("subsample", options.subsample, n, "training row")
    m = at_most("batch_size", options.batch_size, n, "training row")
    options = replace(options, batch_size=m, subsample=subsample)
    s = options.subsample_of(n)
    itemsize = head.sq_norm.element_size()
    memory_m = int(ranks.all_reduce_min(memory_batch_size(n, d, num_outputs, memory, itemsize, ranks.size)))

    def build() -> Preconditioned:
        first, check = head[:s], _check_rows(n, s)
        every = torch.arange(len(head), device=head.data.device)
        block = kernel_matrix(kernel, head[check], first, same=every[check])
        diagonal = require_usable_diagonal(kernel, head[check])
        probe = Probe(diagonal, block, symmetric_kernel_matrix(kernel, head[check]))
        system = nystrom_eigensystem(kernel, first)
        return precondition(system, probe, memory_m, options, n, num_outputs, d, ridge).to("cpu")

    built = ranks.broadcast_result(build).to(head.data.device)
    return finish_plan(kernel, built, memory_m, options, head.data.is_cuda, whole, ranks, ridge)


def head_rows(n: int, subsample: int) -> int:
    """How many of the first centres `plan_eigenpro` needs."""
    return _check_rows(n, subsample).stop


@dataclass(frozen=True)
class Probe:
    """Kernel values on a sample of t data rows, on which P is checked; if possible P was built from other rows."""

    diagonal: Tensor  # K(x_i, x_i), shape: (t,)
    block: Tensor  # K(X_T, X_S), shape: (t, s)
    matrix: Tensor  # K(X_T, X_T), shape: (t, t)


@dataclass(frozen=True)
class Preconditioned:
    """A preconditioner and the estimates that its plan follows from."""

    preconditioner: Preconditioner
    eigenvalues: Tensor  # of the subsample, shape: (s,)
    beta: float  # max K_P(x, x) over the probe, plus the ridge
    own: float  # lambda_1(K_P) estimated on the subsample, plus ridge / n
    independent: float  # lambda_1(K_P) estimated on the probe, plus ridge / n

    @property
    def critical_batch_size(self) -> int:
        """The critical batch size m*."""
        lambda_1 = max(self.own, self.independent)
        return critical_batch_size(max(self.beta, lambda_1), lambda_1)

    def to(self, device: torch.device | str) -> Preconditioned:
        """The same with its tensors on a device."""
        vectors, weights = self.preconditioner.vectors.to(device), self.preconditioner.weights.to(device)
        return replace(self, preconditioner=Preconditioner(vectors, weights), eigenvalues=self.eigenvalues.to(device))


def precondition(
    system: Eigensystem,
    probe: Probe,
    memory_batch: int,
    options: EigenProOptions,
    p: int,
    c: int,
    d: int,
    ridge: Ridge = NO_RIDGE,
) -> Preconditioned:
    """Choose q, unless the options give it, and build the preconditioner from an estimated spectrum.

    q is the largest rank whose critical batch size is at most the batch that memory allows, or the requested batch if
    that is larger. For a requested batch below the automatic one, q is the rank up to this that needs the least time.

    Args:
        system: the estimated spectrum.
        probe: the rows of data that P is checked on.
        memory_batch: m_G, the largest batch that memory allows.
        options: the user's options.
        p: centres.
        c: outputs.
        d: features.
        ridge: added to the diagonal of the kernel matrix.
    """
    s, batch_size = len(system.eigenvectors), options.batch_size
    q = at_most("top_q", options.top_q, s, "subsample row")
    if q is not None:
        return _with_rank(system, q, probe, ridge)
    wanted = _wanted(memory_batch, s)
    candidates = rank_candidates(system, probe.diagonal, probe.block, ridge)
    built = _with_rank(system, candidates.largest_for(max(batch_size or 0, wanted)), probe, ridge)
    # parallel=False gives the smaller automatic batch, so that a request for the automatic batch changes nothing.
    if batch_size is None or batch_size >= default_batch_size(built.critical_batch_size, wanted, parallel=False):
        return built
    q, rank_flops = built.preconditioner.top_q, 6.0 * s * c
    step_flops = STEP_FLOPS + batch_size * (2.0 * p * (d + c) + 4 * s * c)
    fastest = candidates.fastest_for(batch_size, q, step_flops, rank_flops)
    return built if fastest == q else _with_rank(system, fastest, probe, ridge)


def _with_rank(system: Eigensystem, q: int, probe: Probe, ridge: Ridge) -> Preconditioned:
    """The preconditioner of rank q, clipped with a message to the number of eigenvalues that s rows resolve."""
    dtype, eigenvalues = probe.block.dtype, system.eigenvalues
    resolved = len(resolved_eigenvalues(eigenvalues, dtype))
    if q > resolved:
        log.warning("top_q %d is more than the subsample resolves; using %d", q, resolved)
        q = resolved
    precond = make_preconditioner(system, q, dtype, ridge.shift)
    return Preconditioned(
        precond,
        eigenvalues,
        beta=float(precond.damped_diagonal(probe.diagonal, probe.block).max()) + ridge.value,
        own=_damped_top(eigenvalues + ridge.shift, q),
        independent=precond.largest_eigenvalue(probe.matrix, probe.block) + ridge.shift,
    )


def finish_plan(
    kernel: Kernel,
    built: Preconditioned,
    memory_batch: int,
    options: EigenProOptions,
    parallel: bool,
    whole: tuple[Tensor, Tensor] | None = None,  # shapes: (n_r,), (n_r, s)
    ranks: Ranks | None = None,
    ridge: Ridge = NO_RIDGE,
) -> tuple[EigenProPlan, Preconditioner, Tensor]:
    """Choose m and eta for a preconditioner.

    Args:
        kernel: the kernel, for messages.
        built: the preconditioner and its estimates.
        memory_batch: m_G, the largest batch that memory allows.
        options: the user's options.
        parallel: whether the device is a GPU.
        whole: the diagonal of K and K(X_r, X_S) on this rank's rows; beta is then a maximum over all rows.
        ranks: the ranks that share these rows.
        ridge: added to the diagonal of the kernel matrix.

    Raises:
        InputError: the kernel is not finite on the rows.
    """
    precond, batch_size = built.preconditioner, options.batch_size
    s = len(precond.vectors)
    beta, lambda_1 = built.beta, max(built.own, built.independent)
    if whole is not None:
        beta = (ranks or Ranks()).all_reduce_max(float(precond.damped_diagonal(*whole).max())) + ridge.value
    beta = max(beta, lambda_1)  # K_P(x, x) averages to the trace, which is at least lambda_1
    if not (math.isfinite(beta) and math.isfinite(lambda_1)):
        raise InputError(_NOT_FINITE.format(kernel))
    critical = critical_batch_size(beta, lambda_1)
    m = batch_size or default_batch_size(critical, _wanted(memory_batch, s), parallel)
    if batch_size and m > FAR_ABOVE * critical:
        log.warning(
            "batch_size %d is far above the critical batch size %d, beyond which larger batches hardly save steps: a "
            "batch_size of %d, or auto, takes less time",
            m,
            critical,
            max(critical, min(m, SMALLEST_BATCH)),
        )
    plan = EigenProPlan(
        subsample=s,
        top_q=precond.top_q,
        batch_size=m,
        memory_batch_size=memory_batch,
        critical_batch_size=critical,
        step_size=options.step_size or optimal_step_size(m, beta, lambda_1),
        beta=beta,
        lambda_1=float(built.eigenvalues[0]),
        lambda_1_damped=lambda_1,
        lambda_1_subsample=built.own,
        lambda_1_check=built.independent,
        ridge=ridge.value,
    )
    return plan, precond, built.eigenvalues


def _wanted(memory_batch: int, s: int) -> int:
    """The largest batch to choose q for; at most s, because larger ones need eigenvalues that s rows do not show."""
    return min(memory_batch, s)


def require_usable_diagonal(
    kernel: Kernel,
    rows: Rows,  # n_r rows
    ranks: Ranks | None = None,
) -> Tensor:
    """K(x_i, x_i), shape (n_r,).

    Raises:
        InputError: a value is not finite on some rank, or all values are zero on all ranks.
    """
    diagonal = kernel.diag(rows.data)
    largest = (ranks or Ranks()).all_reduce_max(float(diagonal.max()) if torch.isfinite(diagonal).all() else math.inf)
    if math.isinf(largest):
        raise InputError(_NOT_FINITE.format(kernel))
    if largest <= 0:
        raise InputError(
            f"kernel {kernel} is zero on every training row, so nothing can be learned: choose another kernel or a bias"
        )
    return diagonal


def _check_rows(n: int, subsample: int) -> slice:
    """The rows that P is checked on: outside the subsample, or the first rows if the subsample is most of the data."""
    outside = n - subsample
    if outside >= max(1, min(subsample, CHECK_ROWS) // 2):
        return slice(subsample, min(n, subsample + CHECK_ROWS))
    return slice(0, min(n, CHECK_ROWS))


def _damped_top(eigenvalues: Tensor, q: int, damping: float = DAMPING) -> float:
    """max_i lambda_i (lambda_q / lambda_i)^a = lambda_1^(1-a) lambda_q^a; lambda_1 for q = 0."""
    return float(eigenvalues[0] ** (1 - damping) * eigenvalues[max(q, 1) - 1] ** damping)
