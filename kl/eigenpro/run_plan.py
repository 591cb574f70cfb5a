"""The plan of an EigenPro 2 run on its training rows: what is kept in memory, and the parameters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kl.eigenpro.fitted import FittedValues
from kl.eigenpro.memory import training_memory
from kl.eigenpro.options import EigenProOptions
from kl.eigenpro.parameters import EigenProPlan
from kl.eigenpro.plan import plan_eigenpro, require_usable_diagonal
from kl.eigenpro.preconditioner import Preconditioner
from kl.kernels.kernel import Kernel
from kl.products.blocks import kernel_matrix
from kl.products.kept import KernelMatrix
from kl.rows.rows import Rows
from kl.system.memory import TrainingMemory


@dataclass(frozen=True)
class RunPlan:
    """What a run determines before its first step."""

    plan: EigenProPlan
    preconditioner: Preconditioner
    eigenvalues: Tensor  # of K(X_S, X_S)/s, largest first, shape: (s,)
    memory: TrainingMemory


def plan_run(
    kernel: Kernel,
    rows: Rows,  # X_r, n_r rows
    head: Rows,  # the first centres of all ranks, `kl.eigenpro.plan.head_rows` of them
    fitted: FittedValues,
    budget: int,
    options: EigenProOptions,
) -> RunPlan:
    """Choose the parameters and what is kept in memory, and attach the kernel matrix to the fitted values.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        rows: the training rows of this rank, the subsample first.
        head: the first training rows of all ranks, in the order of the centres.
        fitted: the fitted values, which know n, s, c and the ranks.
        budget: bytes that this rank may take.
        options: the user's options; m and s are clipped to n.

    Raises:
        InputError: the kernel is zero or not finite on the rows.
        MemoryBudgetError: the run needs more memory than the budget.
    """
    n, ranks, (s, c) = fitted.n, fitted.ranks, fitted.pending.shape
    asked = None if options.batch_size is None else min(options.batch_size, n)
    itemsize, on_gpu = rows.sq_norm.element_size(), rows.data.is_cuda
    d, least = rows.data.shape[1], int(ranks.all_reduce_min(budget))
    memory = training_memory(n, d, c, s, least, itemsize, rows.integers, asked, on_gpu, ranks.size)
    diagonal, columns = require_usable_diagonal(kernel, rows, ranks), None
    if memory.keep_columns:
        columns = kernel_matrix(kernel, rows, head[:s], same=ranks.positions(n, rows.data.device))
    plan, preconditioner, eigenvalues = plan_eigenpro(
        kernel,
        head,
        n,
        num_outputs=c,
        memory=budget,
        options=options,
        whole=None if columns is None else (diagonal, columns),
        ranks=ranks,
    )
    fitted.attach(KernelMatrix(kernel, rows, n, ranks), head[:s], columns)
    return RunPlan(plan, preconditioner, eigenvalues, memory)
