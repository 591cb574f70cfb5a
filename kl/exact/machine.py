"""The kernel machine that is fitted by preconditioned conjugate gradients instead of EigenPro."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from kl.errors import CheckpointError, MemoryBudgetError
from kl.exact.cost import pcg_memory, pcg_plan
from kl.exact.equations import System, warn_inconsistent
from kl.exact.iteration import HARDLY_BEGUN, STALLS, Best, ConjugateGradients, Search, State
from kl.exact.low_rank import LowRankSolver, find_low_rank
from kl.kernels import Kernel
from kl.machines.checkpoints import is_same
from kl.machines.interpolating import InterpolatingMachine
from kl.machines.set_weights import SetWeights
from kl.products.low_rank import LowRankPreconditioner
from kl.products.triangle import LowerTriangle
from kl.rows.equal_rows import equal_rows, mean_targets
from kl.system.memory import TrainingMemory, format_memory

log = logging.getLogger(__name__)

# Relative residual on the whole range of K above which the targets lie outside the range, so no weights fit them.
CONSISTENT = 1e-6


class ConjugateGradientMachine(InterpolatingMachine):
    """f(x) = sum_i alpha_i K(x, x_i), fitted by preconditioned conjugate gradients: an epoch is one iteration.

    An iteration is one product with the whole kernel matrix, as much kernel work as an epoch of EigenPro; all outputs
    share the product. The method computes the residual Y - f(X) anyway, so the training error and the RKHS norm cost
    nothing more.

    Float32 kernel products make the recursion drift. Whenever the recursion's residual has fallen by 1e-3, the true
    residual in float64 replaces it, and training stops when the true residual falls no more. Rows that are equal to the
    bit are fitted to the mean of their targets. If K has a low rank, an iteration is instead a solve by a float64
    factor of the range of K (`kl.exact.low_rank`), from the best weights so far; targets outside the range are fitted
    in least squares.

    Args:
        kernel: a `kl.Kernel`, its name, "package.module:Class", or its `config()`.
        memory: bytes, "8GB", or "auto" (half of what is free); the machine keeps as much of K as fits.
        precision: of kernel products of features that are not 8-bit: "high" is float32, "medium" rounds the features to
            bfloat16, which is faster (see `Rows.of`); the true residuals are of the rounded features.
        seed: of the preconditioner's pivots and of `bandwidth="auto"`.

    Attributes:
        alpha: weights, shape (n, c), float64, in the order of `centers`.
        centers: training rows less `origin`, shape (n, d); `order[j]` is the training row of centre j.
        relative_residual: |Y - f(X)|_F / |Y|_F, with the residual of the recursion.

    Raises:
        InputError: an argument is out of its range, or (at fit start) the data is not what the machine can take.
        MemoryBudgetError: (at fit start) the budget does not hold a preconditioner of rank 1 and the residuals.

    Source: Hestenes and Stiefel 1952; Golub and Van Loan, Matrix Computations, section 11.5; see
    `kl.exact.conjugate_gradients` for the replaced residuals.

    Example:
        >>> import torch, kl
        >>> from pytorch_lightning import Trainer
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> x = torch.linspace(0, 1, 20)[:, None]
        >>> rows = DataLoader(TensorDataset(x, (6 * x).sin()))
        >>> machine = kl.ConjugateGradientMachine(kl.Laplacian(1.0))
        >>> trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        ...     enable_model_summary=False, max_epochs=3)
        >>> trainer.fit(machine, rows, rows)
        >>> round(machine.train_metrics["train/mse"], 6), round(machine.rkhs_norm, 2)
        (0.0, 2.97)
    """

    method, shares_ranks, all_rows_everywhere = "conjugate gradients", True, True
    steps_read_rows = False

    means: Tensor
    residual: Tensor
    direction: Tensor
    energy: Tensor
    best_alpha: Tensor
    best_residual: Tensor
    progress: Tensor
    _kept_in_checkpoints = (*InterpolatingMachine._kept_in_checkpoints, "means")
    _shared_rows = ()
    _dimensions: ClassVar[dict[str, int]] = {**InterpolatingMachine._dimensions, "means": 2}
    _extra_types: ClassVar[dict[str, Any]] = {
        **InterpolatingMachine._extra_types,
        "rank_of_direction": int,
        "by_factor": bool,
    }
    _of_a_run = (*InterpolatingMachine._of_a_run, "_gradients")

    def __init__(
        self,
        kernel: Kernel | str | dict[str, Any] = "laplacian",
        *,
        memory: int | str = "auto",
        precision: str = "high",
        seed: int = 0,
    ) -> None:
        super().__init__(kernel, memory, precision, seed, {})
        self.rank = 0
        self._rank_of_direction = 0
        self._by_factor = False  # whether a factor of K's range solves, instead of conjugate gradients
        self._low_rank: LowRankSolver

    # Set-up

    def _allocate(self, n: int, d: int, c: int) -> None:
        super()._allocate(n, d, c)
        for name in ("means", "residual", "direction", "best_alpha", "best_residual"):
            self.register_buffer(name, torch.zeros(n, c, dtype=torch.float64))
        self.register_buffer("energy", torch.zeros(c, dtype=torch.float64))
        # iterations; Best.relative; Best.stalls; Search.checked
        self.register_buffer("progress", torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64))

    def _require_room(self, n: int, d: int, c: int, itemsize: int, budget: int, on_gpu: bool) -> None:
        self._shares(n, d, c, budget)

    def _shares(self, n: int, d: int, c: int, budget: int) -> tuple[int, int, int]:
        """Bytes besides the solve, rank of the preconditioner, and kept panels of K, for a budget in bytes."""
        # `pcg_memory` counts the solve, but not the training data, the copy of the centres and the state.
        beside = 4 * n * (2 * d + c) + 8 * n * 7 * c
        rank, panels = pcg_plan(n, d, c, max(0, budget - beside), ranks=self.ranks.size)
        if rank == 0:
            raise MemoryBudgetError(
                f"conjugate gradients on n={n} rows of d={d} features need "
                f"{format_memory(beside + pcg_memory(n, d, c, 1))} at least, more than the budget of "
                f"{format_memory(budget)}: raise memory=, or use fewer rows"
            )
        return beside, rank, panels

    def _plan(self, x: Tensor, budget: int) -> None:
        rows, size = self._center_rows, self.ranks.size
        (n, d), c = rows.data.shape, self.targets.shape[1]
        beside, rank, panels = self._shares(n, d, c, int(self.ranks.all_reduce_min(budget)))
        kept = pcg_memory(n, d, c, 0, panels, ranks=size) - pcg_memory(n, d, c, 0)
        preconditioner = pcg_memory(n, d, c, rank, ranks=size) - pcg_memory(n, d, c, 0)
        items = {
            "training data, centres and state": beside,
            "products and residuals": pcg_memory(n, d, c, 0),
            "preconditioner": preconditioner,
            "K(X, X), kept part of its lower triangle": kept,
        }
        self.memory = TrainingMemory(budget, items, False, 0)
        self._panels, self.rank = panels, rank
        if not self.is_started:
            first, group = equal_rows(self.centers)
            self.means = mean_targets(group, self.targets, len(first))[1][group]
            self.residual, self.best_residual = self.means.clone(), self.means.clone()
        log.info("%s; conjugate gradients: preconditioner of rank %d", self.kernel, rank)

    @property
    def is_started(self) -> bool:
        """Whether an iteration has been made."""
        return bool(self.progress[0] > 0)

    @property
    def batch_rows(self) -> int:
        """All rows: a step is one iteration on all of them."""
        return len(self.centers)

    @property
    def parameters_chosen(self) -> dict[str, Any]:
        """The parameters of the run, plain values."""
        return {"batch_size": self.batch_rows, "preconditioner_rank": self.rank}

    def describe(self) -> str:
        """The parameters on one line."""
        return f"preconditioner of rank {self.rank}, relative residual {self.relative_residual:.1e}"

    def configure_optimizers(self) -> SetWeights:
        """The optimizer that takes the weights of each iteration."""
        return SetWeights(self.alpha)

    def on_train_start(self) -> None:
        """Keep panels of K and build the preconditioner; the exact solves of callbacks are over, so memory is free."""
        rows = self._center_rows.double()
        ridge = self.means.new_zeros(len(rows))
        system = System(self.kernel, rows, self.means, ridge, ranks=self.ranks)
        matrix = LowerTriangle(self.kernel, system.single(), ranks=self.ranks)
        seed = self.hparams["seed"]
        preconditioner = LowRankPreconditioner(self.kernel, matrix.rows, self.rank, seed=seed, ranks=self.ranks)
        self.rank = preconditioner.rank
        self._gradients = ConjugateGradients(system, matrix, preconditioner)
        if preconditioner.exhausted or self._by_factor:
            self._find_low_rank()
        if not self._by_factor and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            matrix.keep(self._panels)
        if self.is_started:
            self._take(self._gradients.resume(self._search()))

    def _find_low_rank(self) -> None:
        """Switch to a factor of K's range, if it fits the memory of all ranks."""
        items = self.memory.items
        taken = items["training data, centres and state"] + items["preconditioner"]
        found = find_low_rank(self._gradients.system, int(self.ranks.all_reduce_min(self.memory.budget - taken)))
        self._by_factor = bool(self.ranks.all_reduce_min(float(found is not None)))
        if found is not None and self._by_factor:
            self._low_rank = found

    # Training

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One iteration of conjugate gradients, or one refinement by a factor of K's range."""
        search = self._search() if self.is_started else self._gradients.search()
        search = (
            self._gradients.refine(search, self._correction) if self._by_factor else self._gradients.advance(search)
        )
        if search.best.stalls >= STALLS:
            search = self._stalled(search)
        self._take(search)
        self.optimizers().step(alpha=search.state.alpha)  # type: ignore[union-attr, call-arg]

    def _correction(self, residual: Tensor) -> Tensor:
        """The correction by a factor of K's range, which rank 0 computes, shape (n, c), the same on all ranks."""
        return self.ranks.broadcast_result(lambda: self._low_rank.solve(residual)).to(residual.device)

    def _stalled(self, search: Search) -> Search:
        """The true residual falls no more: go on with a factor of K's range if there is one, else stop training."""
        relative, was_by_factor = search.best.relative, self._by_factor
        if was_by_factor and relative > CONSISTENT:
            warn_inconsistent(relative, f"the kernel matrix has rank {self._low_rank.rank}")
        worth = relative > HARDLY_BEGUN or self._gradients.preconditioner.nearly_exhausted
        if not was_by_factor and relative > CONSISTENT and worth:
            self._gradients.matrix.panels.clear()  # frees memory for the factor
            self._find_low_rank()
        if self._by_factor and not was_by_factor:
            return replace(search, best=replace(search.best, stalls=0))
        log.info("%s lead no further: training stops", "refinements" if was_by_factor else "float32 kernel products")
        self.trainer.should_stop = True
        return search

    def _take(self, search: Search) -> None:
        """Keep the search except for the weights, which the optimizer sets."""
        state, best = search.state, search.best
        self.best_alpha, self.best_residual = best.alpha, best.residual
        self.residual, self.direction, self.energy = state.residual, state.direction, state.energy
        self.progress = self.progress.new_tensor([state.iterations, best.relative, best.stalls, search.checked])
        self._rank_of_direction = state.rank

    def _search(self) -> Search:
        """The search that `_take` has kept."""
        iterations, least, stalls, checked = self.progress.tolist()
        alpha = self.alpha.detach().clone()
        state = State(alpha, self.residual, self.direction, self.energy, int(iterations), self._rank_of_direction)
        return Search(state, Best(self.best_alpha, self.best_residual, least, int(stalls)), checked)

    @property
    def relative_residual(self) -> float:
        """|Y - f(X)|_F / |Y|_F, with the residual of the recursion."""
        return float(self.residual.norm()) / max(float(self.means.norm()), torch.finfo(torch.float64).tiny)

    def fitted_values(self) -> Tensor:
        """f(X) on the training rows, shape (n, c), float64, in the order of `centers`."""
        return self.means - self.residual

    @property
    def sq_norm_per_class(self) -> Tensor:
        """|f_k|_H^2 = sum_i alpha_ik f_k(x_i), shape (c,), float64."""
        return (self.alpha.detach() * self.fitted_values()).sum(dim=0)

    @property
    def batch_error(self) -> float | None:
        """The classification error over all training rows after the last epoch; None before it, and for regression."""
        return self.train_metrics.get("train/error")

    # Checkpoints

    def _extra_state(self) -> dict[str, Any]:
        return {"rank_of_direction": self._rank_of_direction, "by_factor": self._by_factor}

    def _load_extra_state(self, extra: dict[str, Any], state: dict[str, Tensor], resuming: bool) -> None:
        super()._load_extra_state(extra, state, resuming)
        self._rank_of_direction = extra["rank_of_direction"]
        self._by_factor = extra["by_factor"]
        if resuming and not is_same(self.means, state["means"]):
            raise CheckpointError(
                "the checkpoint belongs to other training targets: resume with the same data, label noise and seed"
            )
