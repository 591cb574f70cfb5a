"""A kernel machine as a LightningModule, trained by EigenPro 2 under manual optimization."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor

from kl.checks import plain
from kl.eigenpro.fitted import FittedValues
from kl.eigenpro.iteration import EigenProIteration
from kl.eigenpro.memory import training_memory
from kl.eigenpro.optimizer import EigenPro
from kl.eigenpro.options import EigenProOptions
from kl.eigenpro.parameters import EigenProPlan, warn_of_other_options
from kl.eigenpro.plan import head_rows
from kl.eigenpro.preconditioner import Preconditioner
from kl.eigenpro.run_plan import plan_run
from kl.errors import InputError
from kl.kernels import Kernel
from kl.machines.batches import counts_batches, follow_checkpoint, hooks_batches
from kl.machines.interpolating import InterpolatingMachine
from kl.machines.machine import prepared

log = logging.getLogger(__name__)

# Operations of the steps that share a training batch: 0.05 to 0.5 s of work for 2 cores. A kernel value takes as many
# more for being read, and for its formula if it is computed.
WORK, WORK_ON_GPU = 2**36, 2**42
OF_A_VALUE, OF_A_FORMULA = 20, 100


class KernelMachine(InterpolatingMachine):
    """f(x) = sum_i alpha_i K(x, x_i), one output per class, fitted to its training set by EigenPro 2.

    Training minimises sum_i |f(x_i) - y_i|^2 + ridge |f|_H^2. With ridge = 0 the weights converge to the minimum-norm
    interpolant, with a ridge to alpha = (K + ridge I)^-1 Y, also when rows repeat.

    With a ridge every step is an EigenPro step on the residual f(x_B) + ridge alpha_B - y_B, and the step size and the
    critical batch size are those of the kernel matrix K + ridge I.

    The Trainer's datamodule must offer `train_set`, a `kl.RowDataset`; the machine sets the datamodule's `batch_size`
    to that of its plan. A plain DataLoader of (x, y) works as well.

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
        plan: the `EigenProPlan` of the run, or of the checkpoint.
        run: the `EigenProIteration` that takes the steps, known while fitting.
        eigenvalues: of K(X_S, X_S) / s, largest first, shape (s,), known while fitting.
        alpha: weights of this rank, shape (n_r, c), float64, in the order of `centers`.
        centers: training rows of this rank less `origin`, shape (n_r, d), the subsample first; `order[j]` is the
            training row of centre j of all n.
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

    method, shares_ranks, steps_read_rows = "EigenPro", True, False

    plan: EigenProPlan
    eigenvalues: Tensor
    vectors: Tensor  # E of the preconditioner, shape: (s, q)
    weights: Tensor  # D, shape: (q,)
    fitted: FittedValues
    _run: EigenProIteration | None = None

    _kept_in_checkpoints = (*InterpolatingMachine._kept_in_checkpoints, "vectors", "weights")
    _shared_rows = (*InterpolatingMachine._shared_rows, "fitted.values")
    _dimensions: ClassVar[dict[str, int]] = {**InterpolatingMachine._dimensions, "vectors": 2, "weights": 1}
    _extra_types: ClassVar[dict[str, Any]] = {**InterpolatingMachine._extra_types, "plan": dict}

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
        self._options = EigenProOptions.parse(batch_size, step_size, top_q, subsample, ridge)
        options = {"batch_size": batch_size, "step_size": step_size, "top_q": top_q, "subsample": subsample}
        given = {name: plain(value) for name, value in options.items()}
        super().__init__(kernel, memory, precision, seed, {**given, "ridge": self._options.ridge})

    # Set-up

    def _require_room(self, n: int, d: int, c: int, itemsize: int, budget: int, on_gpu: bool) -> None:
        s, asked = self._options.subsample_of(n), self._options.batch_size
        batch = None if asked is None else min(asked, n)
        training_memory(n, d, c, s, budget, itemsize, False, batch, on_gpu, self.ranks.size)

    def _allocate(self, n: int, d: int, c: int) -> None:
        self._allocate_with(n, d, c, self._options.subsample_of(n), 0)

    def _allocate_with(self, n: int, d: int, c: int, s: int, q: int) -> None:
        super()._allocate(n, d, c)
        self.register_buffer("vectors", torch.zeros(s, q))
        self.register_buffer("weights", torch.zeros(q))
        self.fitted = FittedValues(n, s, c, self.ranks)

    def _plan(self, x: Tensor, budget: int) -> None:
        head = self._head(x, head_rows(len(x), len(self.fitted.pending)))
        found = plan_run(self.kernel, self._center_rows, head, self.fitted, budget, self._options)
        self.plan, self.memory, self.eigenvalues = found.plan, found.memory, found.eigenvalues
        self.vectors, self.weights = found.preconditioner.vectors, found.preconditioner.weights
        self._run = EigenProIteration(
            found.plan, found.preconditioner, self.fitted, self.alpha, self.targets, self.position
        )
        log.info("%s; EigenPro: %s", self.kernel, self.plan.describe())

    @property
    def run(self) -> EigenProIteration:
        """The run that takes the training steps; it exists after `prepare`.

        Raises:
            InputError: `prepare` has not been called.
        """
        return prepared(self._run)

    @property
    def batch_rows(self) -> int:
        """The batch size m."""
        return self.plan.batch_size

    def choose_steps_per_batch(self) -> int:
        """How many steps a training batch of kl's datamodules is for, so that Lightning's own work for it is small.

        The steps and their order are those of batches of m rows. It is 1 with several ranks, and where something counts
        training batches or does something at each: a number of steps or batches among the trainer's arguments,
        `val_check_interval`, a callback, or a subclass with hooks of its own.
        """
        alone = self.ranks.size > 1 or counts_batches(self.trainer) or hooks_batches(self, KernelMachine)
        self.steps_per_batch = 1 if alone else self.most_steps_per_batch
        if self.steps_per_batch > 1:  # nothing is logged at a batch
            warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging")
        return self.steps_per_batch

    @property
    def most_steps_per_batch(self) -> int:
        """The steps that make `WORK` operations, at least 1."""
        (n, d), c = self.centers.shape, self.alpha.shape[1]
        read = self.memory.kept_rows / n
        each = OF_A_VALUE + 2 * c + (1 - read) * (2 * d + OF_A_FORMULA)
        work = WORK_ON_GPU if self.centers.is_cuda else WORK
        return max(1, int(work / (self.plan.batch_size * n * each)))

    @property
    def parameters_chosen(self) -> dict[str, Any]:
        """The plan's parameters, with the current step size."""
        return {**asdict(self.plan), "step_size": self.step_size}

    def describe(self) -> str:
        """The plan's parameters on one line, with the current step size."""
        return self.plan.describe_run(self.step_size)

    def configure_optimizers(self) -> EigenPro:
        """The run's EigenPro, with the planned step size."""
        return self.run.optimizer

    # Training

    def on_train_start(self) -> None:
        """Compute the rows of the kernel matrix that the budget allows to keep, after any exact solve of a callback."""
        if self.memory.kept_rows and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.fitted.keep_rows(self.memory.kept_rows)
        follow_checkpoint(self.trainer, self.steps_per_batch)

    def on_train_end(self) -> None:
        """Free the kept rows, which may take half of the memory, and a recorded step, unless there was an interrupt."""
        self.fitted.release_rows()
        self.run.graph.forget()

    def on_train_epoch_start(self) -> None:
        """Remember the state that a diverging epoch goes back to."""
        super().on_train_epoch_start()
        self.run.start_epoch(self.current_epoch)

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        """A step on a batch (x, y, index), or one on each m rows of a batch (index,), counted by Lightning's optimizer.

        A batch (index,) of kl's datamodules has `steps_per_batch` times m rows.

        Raises:
            InputError: the batch is another.
        """
        if len(batch) == 2:
            raise InputError(
                "training batches of a datamodule must be (x, y, index) or (index,) with row numbers of its train_set; "
                "got a batch of 2: give index, too, or pass a DataLoader of (x, y) to fit"
            )
        apply = self.optimizers().step  # type: ignore[union-attr]
        parts = batch[0].split(self.plan.batch_size) if len(batch) == 1 else batch[2:]
        for number, rows in enumerate(parts):
            self.run.step(rows, apply=apply)
            if number:  # the axis of Lightning's loggers, which Lightning itself moves by one step a batch
                self.trainer.fit_loop.epoch_loop._batches_that_stepped += 1

    def _finish_epoch(self) -> None:
        with self.run.clock("finish"):
            self.run.end_epoch()
            super()._finish_epoch()
            self.log("precond/step_size", self.step_size, on_step=False, on_epoch=True, batch_size=1)

    def fitted_values(self) -> Tensor:
        """f(X_r) on the training rows of this rank, shape (n_r, c), float64, in the order of `centers`."""
        return self.fitted.flush()

    @property
    def norm_is_free(self) -> bool:  # type: ignore[override]
        """Whether the norm needs neither kernel values nor other ranks within an epoch."""
        return self.ranks.size == 1 and self.fitted.columns is not None

    @property
    def sq_norm_per_class(self) -> Tensor:
        """|f_k|_H^2, shape (c,), float64, exact after every step; called on all ranks."""
        self.fitted.settle()
        return self.fitted.sq_norm

    @property
    def ridge(self) -> float:  # type: ignore[override]
        """What training adds to the diagonal of K(X, X)."""
        return self._options.ridge

    @property
    def step_size(self) -> float:
        """The current eta, after any cuts; NaN before the run is planned."""
        if self._run is not None:
            return self._run.step_size
        return self.plan.step_size if "plan" in vars(self) else math.nan

    # Checkpoints

    def _settle(self) -> None:
        self.fitted.flush()

    def _extra_state(self) -> dict[str, Any]:
        return {"plan": asdict(self.plan)}

    def _load_extra_state(self, extra: dict[str, Any], state: dict[str, Tensor], resuming: bool) -> None:
        super()._load_extra_state(extra, state, resuming)
        plan = EigenProPlan.restored(extra["plan"], state["vectors"])
        if resuming:
            plan.require_same_run(self.plan)
            warn_of_other_options(asdict(plan), asdict(self.plan), self.hparams)
            self.vectors, self.weights = (state[name].to(self.centers) for name in ("vectors", "weights"))
            if self._run is not None:
                self._run.go_on_with(plan, Preconditioner(self.vectors, self.weights))
        self.plan = plan

    def _allocate_for(self, state: dict[str, Tensor]) -> None:
        n, d, c = len(state["order"]), state["centers"].shape[1], state["targets"].shape[1]
        self._allocate_with(n, d, c, *state["vectors"].shape)
