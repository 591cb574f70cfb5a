"""EigenPro's parameters, each by its own rule: subsample s, rank q, batch m, step size eta.

The rules adapt the kernel to the machine [MB19]: q is the largest rank whose critical batch size still fits the batch
that memory allows, so that the largest batch the device can hold is also a useful one.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kl.budget import CHECK_ROWS
from kl.engine import kernel_matrix, symmetric_kernel_matrix
from kl.errors import InputError
from kl.kernels.base import Kernel, check_positive
from kl.preconditioner import DAMPING, Preconditioner, make_preconditioner
from kl.ranks import Ranks
from kl.rows import Rows
from kl.spectrum import Eigensystem, nystrom_eigensystem

log = logging.getLogger(__name__)

STEP_MARGIN = 0.9  # the step stays this far below the edge of stability
SMALLEST_BATCH = 32  # kernels of low rank have a critical batch of a few rows, and a step has a cost of its own
BATCH_MULTIPLE = 16  # matrix units work in blocks of rows
Auto = int | str
_NOT_FINITE = (
    "kernel {} is not finite on the training rows, whose values are too large or too small for their float type: "
    "rescale the features"
)


@dataclass(frozen=True)
class EigenProPlan:
    """The parameters of an EigenPro run and the estimates they follow from."""

    subsample: int  # s
    top_q: int  # q
    batch_size: int  # m
    memory_batch_size: int  # m_G
    critical_batch_size: int  # m*
    step_size: float  # eta
    beta: float  # max_x K_P(x, x)
    lambda_1: float  # lambda_1 of K(X_S, X_S)/s
    lambda_1_damped: float  # the larger of the two estimates of lambda_1(K_P), which the step size uses
    lambda_1_subsample: float  # the estimate on the subsample that P was built from
    lambda_1_check: float  # the estimate on a second, independent sample

    def describe(self) -> str:
        """The parameters on one line."""
        return (
            f"s {self.subsample}, q {self.top_q} (lambda_1 {self.lambda_1:.3g} -> {self.lambda_1_damped:.3g}), "
            f"batch {self.batch_size} (critical {self.critical_batch_size}), step size {self.step_size:.4g}"
        )


def default_subsample(n: int) -> int:
    """s: 2000 rows for n up to 10^5 [MB19], 5000 beyond, never more than n."""
    return min(n, 2000 if n <= 100_000 else 5000)


def memory_batch_size(n: int, d: int, c: int, memory: int, itemsize: int, ranks: int = 1) -> int:
    """m_G: the largest batch whose step fits the memory, from (d + c + m_G) n numbers of `itemsize` bytes; 1 to n.

    Each of several ranks has its share of the n numbers and a memory of its own.

    Source: [MB19], step 1 of its main algorithm: m_G.
    """
    return max(1, min(n, memory // (itemsize * -(-n // ranks)) - d - c))


def critical_batch_size(beta: float, lambda_1: float) -> int:
    """m* = beta(K_P) / lambda_1(K_P) + 1: up to it time falls linearly with the batch, beyond it hardly.

    Source: [MB19], m*(k) = beta(K)/lambda_1(K) + 1, from the convergence bound of Ma, Bassily, Belkin 2018, The power
    of interpolation.
    """
    return max(1, int(beta / lambda_1) + 1) if lambda_1 > 0 else 2**31


def optimal_step_size(m: int, beta: float, lambda_1: float, margin: float = STEP_MARGIN) -> float:
    """eta = m / beta below the critical batch size, 2m / (beta + (m - 1) lambda_1) above it.

    The second is the edge of stability; the step is kept below `margin` times it on both sides.

    Source: [MB19], step 3 of its main algorithm; the margin is ours.
    """
    edge = 2 * m / (beta + (m - 1) * lambda_1)
    return min(m / beta, margin * edge)


def default_batch_size(critical: int, memory_batch: int, parallel: bool) -> int:
    """min(m*, m_G) on a parallel device; half of m* on a CPU; at least 32 where memory allows, and a multiple of 16.

    On a GPU a step of up to m_G rows takes about the same time, so m* is the fastest [MB19]. On a CPU an epoch takes
    the same time at any m, and convergence per epoch, proportional to 2 / (1 + m/m*), still gains below m*.
    """
    wanted = max(SMALLEST_BATCH, critical if parallel else critical // 2)
    return min(memory_batch, wanted // BATCH_MULTIPLE * BATCH_MULTIPLE)


def choose_top_q(
    system: Eigensystem,
    diagonal: Tensor,  # K(x_i, x_i) of t rows, shape: (t,)
    block: Tensor,  # K(x, X_S) of the same rows, shape: (t, s)
    batch_size: int,
    damping: float = DAMPING,
) -> int:
    """The largest q <= s/8 whose critical batch size is at most `batch_size`, 0 where even q = 1 exceeds it.

    For each q, lambda_1(K_P) = lambda_1^(1-a) lambda_q^a and, with p_i(x) = K(x, X_S) V_i / sqrt(s),
    K_P(x, x) = K(x, x) - sum_{i<=q} (1/lambda_i - lambda_q^a / lambda_i^(1+a)) p_i(x)^2. Beyond s/8 the subsample does
    not resolve the eigendirections well enough to damp them.

    Source: [MB19], step 2 of its main algorithm, q = max {i : m*(k_P_i) <= m_G}; the bound s/8 is ours.
    """
    s = len(system.eigenvectors)
    values = _resolved(system.eigenvalues, block.dtype)[: max(1, s // 8)]
    if not len(values):
        return 0
    squares = (block @ (system.eigenvectors[:, : len(values)] / s**0.5).to(block.dtype)).square_().double()
    removed = (squares / values).cumsum(dim=1)
    kept = (squares / values ** (1 + damping)).cumsum(dim=1).mul_(values**damping)
    beta = (diagonal.double()[:, None] - removed + kept).amax(dim=0)  # shape: (q candidates,)
    critical = beta / (values[0] ** (1 - damping) * values**damping) + 1
    fits = (critical <= batch_size).nonzero()
    return int(fits[-1]) + 1 if len(fits) else 0


def plan_eigenpro(
    kernel: Kernel,
    head: Rows,  # the first centres, as many as `head_rows` says
    n: int,
    num_outputs: int,
    memory: int,
    subsample: int,
    top_q: Auto = "auto",
    batch_size: Auto = "auto",
    step_size: float | str = "auto",
    whole: tuple[Tensor, Tensor] | None = None,  # shapes: (n_r,), (n_r, s)
    ranks: Ranks | None = None,
) -> tuple[EigenProPlan, Preconditioner, Tensor]:
    """Choose q, m and eta where they are "auto", and build the preconditioner; also returns the eigenvalues.

    Rank 0 builds it and tells the others.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        head: of the n training rows in their order the first, `subsample` of which are the Nystrom subsample.
        n: training rows of all ranks.
        num_outputs: c.
        memory: bytes that a step may use.
        subsample: s.
        top_q: q; more than s, or than the eigenvalues that s rows resolve, is clipped with a message; 0 is plain kernel
            SGD.
        batch_size: m; more than n is clipped with a message.
        step_size: eta.
        whole: diagonal and K(X, X_S) of all rows that this rank owns, where the caller keeps them.
        ranks: who owns which.

    Raises:
        InputError: a value is neither "auto" nor in its range, or the kernel is zero or not finite on the rows.
    """
    ranks, d = ranks or Ranks(), head.data.shape[1]
    asked = checked_size("batch_size", batch_size, 1, n, "the training rows")
    itemsize = head.sq_norm.element_size()
    memory_m = int(ranks.least(memory_batch_size(n, d, num_outputs, memory, itemsize, ranks.size)))

    def build() -> Preconditioned:
        first, check = head[:subsample], _check_rows(n, subsample)
        every = torch.arange(len(head), device=head.data.device)
        block = kernel_matrix(kernel, head[check], first, same=every[check])
        diagonal = require_usable_diagonal(kernel, head[check])
        probe = Probe(diagonal, block, symmetric_kernel_matrix(kernel, head[check]))
        return precondition(kernel, nystrom_eigensystem(kernel, first), probe, memory_m, asked, top_q).to("cpu")

    built = ranks.from_first(build).to(head.data.device)
    return finish_plan(kernel, built, memory_m, asked, step_size, head.data.is_cuda, whole, ranks)


def head_rows(n: int, subsample: int) -> int:
    """How many centres `plan_eigenpro` wants to see."""
    return _check_rows(n, subsample).stop


@dataclass(frozen=True)
class Probe:
    """Kernel values on t rows of data that P is checked on, where possible none of those that it was built from."""

    diagonal: Tensor  # K(x_i, x_i), shape: (t,)
    block: Tensor  # K(X_T, X_S), shape: (t, s)
    matrix: Tensor  # K(X_T, X_T), shape: (t, t)


@dataclass(frozen=True)
class Preconditioned:
    """A preconditioner with what its plan follows from."""

    preconditioner: Preconditioner
    eigenvalues: Tensor  # of the subsample, shape: (s,)
    beta: float  # max K_P(x, x) over the probe
    own: float  # lambda_1(K_P) on the subsample
    independent: float  # the same on the probe

    def to(self, device: torch.device | str) -> Preconditioned:
        """The same with its tensors on a device."""
        vectors, weights = self.preconditioner.vectors.to(device), self.preconditioner.weights.to(device)
        return replace(self, preconditioner=Preconditioner(vectors, weights), eigenvalues=self.eigenvalues.to(device))


def precondition(
    kernel: Kernel,
    system: Eigensystem,
    probe: Probe,
    memory_batch: int,
    batch_size: int | None,
    top_q: Auto,
) -> Preconditioned:
    """q and the preconditioner from what is known of the spectrum.

    Args:
        kernel: the kernel, for messages.
        system: the estimated spectrum.
        probe: rows of data to check on.
        memory_batch: m_G, the largest batch that memory allows.
        batch_size: m; None where it is to be chosen.
        top_q: as of `plan_eigenpro`.

    Raises:
        InputError: as `plan_eigenpro`.
    """
    s, eigenvalues = len(system.eigenvectors), system.eigenvalues
    q = checked_size("top_q", top_q, 0, s, "the subsample")
    if q is None:
        q = choose_top_q(system, probe.diagonal, probe.block, batch_size or _wanted(memory_batch, s))
    dtype = probe.block.dtype
    resolved = len(_resolved(eigenvalues, dtype))
    if q > resolved:
        log.warning("top_q %d is more than the subsample resolves; using %d", q, resolved)
        q = resolved
    precond = make_preconditioner(system, q, dtype)
    return Preconditioned(
        precond,
        eigenvalues,
        beta=float(precond.damped_diagonal(probe.diagonal, probe.block).max()),
        own=_damped_top(eigenvalues, q),
        independent=precond.largest_eigenvalue(probe.matrix, probe.block),
    )


def finish_plan(
    kernel: Kernel,
    built: Preconditioned,
    memory_batch: int,
    batch_size: int | None,
    step_size: float | str,
    parallel: bool,
    whole: tuple[Tensor, Tensor] | None = None,  # shapes: (n_r,), (n_r, s)
    ranks: Ranks | None = None,
) -> tuple[EigenProPlan, Preconditioner, Tensor]:
    """m and eta for a preconditioner.

    Args:
        kernel: the kernel, for messages.
        built: the preconditioner.
        memory_batch: m_G, the largest batch that memory allows.
        batch_size: m; None chooses it.
        step_size: as of `plan_eigenpro`.
        parallel: whether the device is a GPU.
        whole: diagonal and K(X, X_S) of all rows, where they are there: beta is then a maximum over all of them.
        ranks: who owns which of these.

    Raises:
        InputError: as `plan_eigenpro`.
    """
    precond = built.preconditioner
    s = len(precond.vectors)
    beta, lambda_1 = built.beta, max(built.own, built.independent)
    if whole is not None:
        beta = (ranks or Ranks()).largest(float(precond.damped_diagonal(*whole).max()))
    beta = max(beta, lambda_1)  # K_P(x, x) averages to the trace, which is at least lambda_1
    if not (math.isfinite(beta) and math.isfinite(lambda_1)):
        raise InputError(_NOT_FINITE.format(kernel))
    critical = critical_batch_size(beta, lambda_1)
    m = batch_size or default_batch_size(critical, _wanted(memory_batch, s), parallel)
    if step_size == "auto":
        eta = optimal_step_size(m, beta, lambda_1)
    else:
        check_positive("step_size", step_size, 'or "auto"')
        eta = float(step_size)
    plan = EigenProPlan(
        subsample=s,
        top_q=precond.top_q,
        batch_size=m,
        memory_batch_size=memory_batch,
        critical_batch_size=critical,
        step_size=eta,
        beta=beta,
        lambda_1=float(built.eigenvalues[0]),
        lambda_1_damped=lambda_1,
        lambda_1_subsample=built.own,
        lambda_1_check=built.independent,
    )
    return plan, precond, built.eigenvalues


def _wanted(memory_batch: int, s: int) -> int:
    """The largest batch to adapt to: beyond s rows one would ask for eigenvalues that the subsample does not show."""
    return min(memory_batch, s)


def require_usable_diagonal(
    kernel: Kernel,
    rows: Rows,  # n_r rows
    ranks: Ranks | None = None,
) -> Tensor:
    """K(x_i, x_i), shape (n_r,).

    Raises:
        InputError: on some rank a value is not finite, or on all of them all are zero.
    """
    diagonal = kernel.diag(rows.data)
    largest = (ranks or Ranks()).largest(float(diagonal.max()) if torch.isfinite(diagonal).all() else math.inf)
    if math.isinf(largest):
        raise InputError(_NOT_FINITE.format(kernel))
    if largest <= 0:
        raise InputError(
            f"kernel {kernel} is zero on every training row, so nothing can be learned: choose another kernel or a bias"
        )
    return diagonal


def checked_size(name: str, value: Auto | None, low: int, high: int, limit: str) -> int | None:
    """An integer option in low..high: None where it is "auto", clipped with a message where it is above high.

    Raises:
        InputError: the value is not an integer of at least `low`.
    """
    if value is None or value == "auto":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise InputError(f"{name} must be auto or an integer of at least {low}; got {value!r}")
    if value > high:
        log.warning("%s %d is more than %s allow; using %d", name, value, limit, high)
        return high
    return value


def _check_rows(n: int, subsample: int) -> slice:
    """Rows outside the subsample where there are enough of them, else all rows: then P is exact and needs no check."""
    outside = n - subsample
    if outside >= max(1, min(subsample, CHECK_ROWS) // 2):
        return slice(subsample, min(n, subsample + CHECK_ROWS))
    return slice(0, min(n, CHECK_ROWS))


def _resolved(eigenvalues: Tensor, dtype: torch.dtype) -> Tensor:
    """The eigenvalues above sqrt(eps) times the largest, eps being the unit of rounding of the kernel values.

    A step as large as smaller ones allow would amplify the rounding of the kernel values: batch and subsample parts of
    the update cancel, and what is left of them would be mostly error. Smooth kernels of few features have such spectra.
    """
    return eigenvalues[eigenvalues > torch.finfo(dtype).eps ** 0.5 * eigenvalues[0]]


def _damped_top(eigenvalues: Tensor, q: int, damping: float = DAMPING) -> float:
    """max_i lambda_i (lambda_q / lambda_i)^a = lambda_1^(1-a) lambda_q^a; lambda_1 where nothing is damped."""
    return float(eigenvalues[0] ** (1 - damping) * eigenvalues[max(q, 1) - 1] ** damping)
