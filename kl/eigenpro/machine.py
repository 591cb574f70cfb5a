"""A kernel machine as a LightningModule, trained by EigenPro 2 under manual optimization."""

from __future__ import annotations

import logging
import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from kl.checks import check_not_negative
from kl.distributed.ranks import Batch
from kl.eigenpro.divergence import DivergenceGuard
from kl.eigenpro.fitted import FittedValues
from kl.eigenpro.memory import training_memory
from kl.eigenpro.optimizer import EigenPro
from kl.eigenpro.plan import checked_size, default_subsample, head_rows, plan_eigenpro, require_usable_diagonal
from kl.eigenpro.planned import PlannedMachine, check_sizes, check_step_size
from kl.eigenpro.preconditioner import Preconditioner
from kl.errors import CheckpointError
from kl.kernels import Kernel
from kl.machines.interpolating import InterpolatingMachine
from kl.machines.machine import plain
from kl.products.blocks import kernel_matrix
from kl.products.kept import KernelMatrix

log = logging.getLogger(__name__)


class KernelMachine(PlannedMachine, InterpolatingMachine):
    """f(x) = sum_i alpha_i K(x, x_i), one output per class, fitted to its training set by EigenPro 2.

    Training minimises sum_i |f(x_i) - y_i|^2 + ridge |f|_H^2. With ridge = 0 the weights converge to the minimum-norm
    interpolant, with a ridge to alpha = (K + ridge I)^-1 Y, also when rows repeat.

    With a ridge every step is EigenPro's on the residual f(x_B) + ridge alpha_B - y_B, with the step size and critical
    batch size of the kernel matrix K + ridge I.

    The Trainer's datamodule must offer `train_set`, a `kl.RowDataset`; if the batch size is "auto", the machine sets
    the datamodule's `batch_size`. A plain DataLoader of (x, y) does as well.

    Args:
        kernel: a `kl.Kernel`, its name, "package.module:Class", or its `config()`.
        batch_size: m, in rows, or "auto": the critical batch size m*, half of m* on a CPU, as far as memory allows.
        step_size: eta, or "auto".
        top_q: q, the eigendirections to damp, or "auto"; 0 is plain kernel SGD.
        subsample: s, the Nystrom rows, or "auto".
        ridge: lambda >= 0, added to the diagonal of K (not multiplied by n); 0 is interpolation.
        memory: bytes, "8GB", or "auto" (half of what is free). The machine keeps as many rows of the kernel matrix as
            fit beside all else, and later epochs read them.
        precision: of kernel products of features that are not 8-bit: "high" is float32, "medium" rounds the features to
            bfloat16, which is faster (see `Rows.of`).
        seed: of the subsample and of `bandwidth="auto"`.

    Attributes:
        plan: the `EigenProPlan` of the run.
        alpha: weights, shape (n, c), float64, in the order of `centers`.
        centers: training rows less `origin`, shape (n, d), the subsample first; `order[j]` is the training row of
            centre j.
        origin: shape (d,); not 0 only if the data lie far from 0 and the kernel is shift-invariant.

    Raises:
        InputError: an argument is out of its range, or (at fit start) does not fit the data.
        MemoryBudgetError: (at fit start) the budget does not hold the run.
        DivergenceError: (in training) the loss still grows after the step size was halved 12 times.

    Source: Ma, Belkin 2019, arXiv:1806.06144 (EigenPro 2); the step stands in `kl.EigenPro`.

    Example:
        >>> import torch, kl
        >>> from pytorch_lightning import Trainer
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> x = torch.linspace(0, 1, 20)[:, None]
        >>> rows = DataLoader(TensorDataset(x, (6 * x).sin()))
        >>> machine = kl.KernelMachine(kl.Laplacian(1.0))
        >>> trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        ...     enable_model_summary=False, max_epochs=30)
        >>> trainer.fit(machine, rows, rows)
        >>> round(machine.train_metrics["train/mse"], 2), round(machine.rkhs_norm, 1)
        (0.0, 2.9)
    """

    method = "EigenPro"

    _kept_in_checkpoints = (*InterpolatingMachine._kept_in_checkpoints, "vectors", "weights")
    _shared_rows = (*InterpolatingMachine._shared_rows, "fitted.values", "fitted.pending_on_subsample")
    _dimensions: ClassVar[dict[str, int]] = {**InterpolatingMachine._dimensions, "vectors": 2, "weights": 1}

    def __init__(
        self,
        kernel: Kernel | str | dict[str, Any] = "laplacian",
        *,
        batch_size: int | str = "auto",
        step_size: float | str = "auto",
        top_q: int | str = "auto",
        subsample: int | str = "auto",
        ridge: float = 0.0,
        memory: int | str = "auto",
        precision: str = "high",
        seed: int = 0,
    ) -> None:
        check_sizes(batch_size=(batch_size, 1), top_q=(top_q, 0), subsample=(subsample, 1))
        step_size = check_step_size(step_size)
        ridge = check_not_negative("ridge", plain(ridge))
        options = {"batch_size": batch_size, "step_size": step_size, "top_q": top_q, "subsample": subsample}
        options["ridge"] = ridge
        super().__init__(kernel, memory, precision, seed, {name: plain(value) for name, value in options.items()})

    # Set-up

    def _require_room(self, n: int, d: int, c: int, itemsize: int, budget: int, on_gpu: bool) -> None:
        s, batch, size = self._subsample(n), self._batch_asked(n), self.ranks.size
        training_memory(n, d, c, s, budget, itemsize, batch_size=batch, gpu=on_gpu, ranks=size)

    def _allocate(self, n: int, d: int, c: int) -> None:
        checked_size("subsample", self.hparams["subsample"], 1, n, "the training rows")  # says where it is clipped
        self._allocate_with(n, d, c, self._subsample(n), 0)

    def _subsample(self, n: int) -> int:
        """s for n training rows."""
        asked = self.hparams["subsample"]
        s = default_subsample(n) if asked == "auto" else min(asked, n)
        # Plain SGD has no subsample, but its step size is estimated on one.
        return min(s, 2000) if self.hparams["top_q"] == 0 else s

    def _batch_asked(self, n: int) -> int | None:
        """The batch that was asked for, None where it is to be chosen."""
        asked = self.hparams["batch_size"]
        return None if asked == "auto" else min(asked, n)

    def _allocate_with(self, n: int, d: int, c: int, s: int, q: int) -> None:
        super()._allocate(n, d, c)
        self.register_buffer("vectors", torch.zeros(s, q))
        self.register_buffer("weights", torch.zeros(q))
        self.fitted = FittedValues(n, s, c, self.ranks)

    def _plan(self, x: Tensor, budget: int) -> None:
        n, s, ranks = len(x), len(self.fitted.pending), self.ranks
        head = self._head(x, head_rows(n, s))
        rows, subsample = self._center_rows, head[:s]
        d, c = rows.data.shape[1], self.targets.shape[1]
        itemsize, on_gpu = rows.sq_norm.element_size(), rows.data.is_cuda
        batch = self._batch_asked(n)
        self.memory = training_memory(
            n, d, c, s, int(ranks.all_reduce_min(budget)), itemsize, rows.codes is not None, batch, on_gpu, ranks.size
        )
        diagonal, columns = require_usable_diagonal(self.kernel, rows, ranks), None
        if self.memory.keep_columns:
            columns = kernel_matrix(self.kernel, rows, subsample, same=ranks.positions(n, rows.data.device))
        self.plan, precond, self.eigenvalues = plan_eigenpro(
            self.kernel,
            head,
            n,
            num_outputs=c,
            memory=budget,
            subsample=s,
            top_q=self.hparams["top_q"],
            batch_size=self.hparams["batch_size"],
            step_size=self.hparams["step_size"],
            whole=None if columns is None else (diagonal, columns),
            ranks=ranks,
            ridge=self.ridge,
        )
        self.vectors, self.weights = precond.vectors, precond.weights
        self.fitted.attach(KernelMatrix(self.kernel, rows, n, ranks), subsample, columns)
        self.fitted.set_basis(self.vectors)
        self.guard = DivergenceGuard(self.alpha, self.fitted, self.targets, self.ridge)
        log.info("%s; EigenPro: %s", self.kernel, self.plan.describe())

    def configure_optimizers(self) -> EigenPro:
        """EigenPro with the planned step size."""
        assert self.plan is not None  # setup() ran before
        precond = Preconditioner(self.vectors, self.weights)
        return EigenPro(self.alpha, precond, lr=self.plan.step_size, batch_size=self.plan.batch_size)

    # Training

    def on_train_start(self) -> None:
        """Compute the rows of the kernel matrix that the budget lets us keep; callbacks' exact solves are over now."""
        assert self.memory is not None  # setup() ran before
        if self.memory.kept_rows and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.fitted.keep_rows(self.memory.kept_rows)

    def on_train_epoch_start(self) -> None:
        """Remember the state that a diverging epoch goes back to."""
        super().on_train_epoch_start()
        self.guard.remember()

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """One EigenPro step on a batch (x, y, index)."""
        rows = Batch(self.position[batch[2]], self.ranks)
        y = self.targets[rows.local]  # as the centres, on the device already
        optimizer = self.optimizers()
        self.fitted.begin(rows)
        block = self.fitted.block(rows.local)
        before = self.fitted.at(rows.local, block)
        residual = self._residual(rows.local, before, y)
        if self.guard.loss_exploded(residual):
            self._recover()
            before = self.fitted.at(rows.local, block)
            residual = self._residual(rows.local, before, y)
        update = optimizer.step(batch=rows, residual=residual, block=block)  # type: ignore[union-attr, call-arg]
        self.fitted.advance(rows, before, update)
        self._last_batch = before, y

    def _residual(
        self,
        local: Tensor,  # rows of this rank, shape: (m_r,)
        values: Tensor,  # f(X_B), shape: (m_r, c)
        y: Tensor,  # shape: (m_r, c)
    ) -> Tensor:
        """f(X_B) + ridge alpha_B - Y_B, shape (m_r, c), float64."""
        residual = values - y
        return residual.add_(self.alpha.detach()[local], alpha=self.ridge) if self.ridge else residual

    def _finish_epoch(self) -> None:
        if self.guard.epoch_diverged():
            self._recover()
        super()._finish_epoch()
        self.log("precond/step_size", self.step_size, on_step=False, on_epoch=True, batch_size=1)

    def fitted_values(self) -> Tensor:
        """f(X_r) on the training rows of this rank, shape (n_r, c), float64, in the order of `centers`."""
        return self.fitted.flush()

    @property
    def sq_norm_per_class(self) -> Tensor:
        """|f_k|_H^2, shape (c,), float64, exact after every step."""
        self.fitted.settle()
        return self.fitted.sq_norm

    @property
    def ridge(self) -> float:  # type: ignore[override]
        """What training adds to the diagonal of K(X, X)."""
        return self.hparams["ridge"]

    def _recover(self) -> None:
        self.step_size = self.guard.recover(self.step_size, self.current_epoch, self.planned_step_size)

    @property
    def step_size(self) -> float:  # type: ignore[override]
        """eta as it is now, after any cuts."""
        if self._trainer is not None and self._trainer.optimizers:
            return self._trainer.optimizers[0].param_groups[0]["lr"]
        return self.plan.step_size if self.plan is not None else math.nan

    @step_size.setter
    def step_size(self, value: float) -> None:
        self.trainer.optimizers[0].param_groups[0]["lr"] = value

    # Checkpoints

    def _settle(self) -> None:
        self.fitted.flush()

    def _load_extra_state(self, extra: dict[str, Any], state: dict[str, Tensor], resuming: bool) -> None:
        super()._load_extra_state(extra, state, resuming)
        theirs = self.plan.ridge if self.plan is not None else 0.0
        if resuming and theirs != self.ridge:
            raise CheckpointError(
                f"the checkpoint was trained with ridge {theirs:g}; got {self.ridge:g}: resume with the same --ridge"
            )
        if resuming:
            self.fitted.set_basis(self.vectors)
        else:
            n, d, c = len(state["order"]), state["centers"].shape[1], state["targets"].shape[1]
            self._allocate_with(n, d, c, *state["vectors"].shape)
