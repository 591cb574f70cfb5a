"""A kernel machine as a LightningModule, trained by EigenPro 2 under manual optimization."""

from __future__ import annotations

import logging
import math
import pickle
import sys
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from kl.budget import TrainingMemory, training_memory
from kl.eigenpro import EigenPro
from kl.engine import kernel_matrix
from kl.errors import CheckpointError, InputError
from kl.expansion import KernelExpansion
from kl.fitted import FittedValues
from kl.guard import DivergenceGuard
from kl.kernels import Kernel, build_kernel
from kl.kernels.base import check_positive
from kl.matrix import KernelMatrix
from kl.memory import parse_memory
from kl.metrics import error, mse
from kl.plan import EigenProPlan, checked_size, default_subsample, optimal_step_size, plan_eigenpro
from kl.preconditioner import Preconditioner
from kl.rows import RowDataset

log = logging.getLogger(__name__)


class KernelMachine(KernelExpansion):
    """f(x) = sum_i alpha_i K(x, x_i), one output per class, fitted to its training set by EigenPro 2.

    The Trainer's datamodule must offer `train_set`, a `kl.RowDataset`; where the batch size is "auto" the machine sets
    the datamodule's `batch_size`. Training minimises sum_i |f(x_i) - y_i|^2 and converges to the minimum-norm
    interpolant.

    Args:
        kernel: a `kl.Kernel`, its name, "package.module:Class", or its `config()`.
        batch_size: m, or "auto": the critical batch size m*, half of it on a CPU, where memory allows it.
        step_size: eta, or "auto".
        top_q: eigendirections to damp, or "auto"; 0 is plain kernel SGD.
        subsample: Nystrom rows s, or "auto".
        memory: bytes, "8GB", or "auto" (half of what is free): as many rows of the kernel matrix as fit beside all else
            are kept, and epochs read them.
        precision: of kernel products of features that are not 8-bit: "high" is float32, "medium" rounds the features to
            bfloat16, which is faster (see `Rows.of`).
        seed: of the subsample and of `bandwidth="auto"`.

    Attributes:
        plan: the `EigenProPlan` of the run.
        alpha: weights, shape (n, c), float64, in the order of `centers`.
        centers: training rows, shape (n, d), the subsample first; `order[j]` is the training row of centre j. Where
            they lie far from 0 and the kernel is shift-invariant, `origin` has been subtracted.

    Source: [MB19].
    """

    order: Tensor
    targets: Tensor
    vectors: Tensor
    weights: Tensor
    position: Tensor

    def __init__(
        self,
        kernel: Kernel | str | dict[str, Any] = "laplacian",
        *,
        batch_size: int | str = "auto",
        step_size: float | str = "auto",
        top_q: int | str = "auto",
        subsample: int | str = "auto",
        memory: int | str = "auto",
        precision: str = "high",
        seed: int = 0,
    ) -> None:
        super().__init__(build_kernel(kernel), precision)
        self.automatic_optimization = False
        # A mistake shows here, before any data is read.
        parse_memory(memory)
        for name, value, low in (("batch_size", batch_size, 1), ("top_q", top_q, 0), ("subsample", subsample, 1)):
            checked_size(name, _plain(value), low, sys.maxsize, "any data")
        if step_size != "auto":
            step_size = check_positive("step_size", step_size, 'or "auto"')
        if not isinstance(_plain(seed), int) or isinstance(seed, bool):
            raise InputError(f"seed must be a whole number; got {seed!r}")
        self.save_hyperparameters(
            {
                "kernel": self.kernel.config(),
                "batch_size": _plain(batch_size),
                "step_size": step_size,
                "top_q": _plain(top_q),
                "subsample": _plain(subsample),
                "memory": _plain(memory),
                "precision": precision,
                "seed": _plain(seed),
            }
        )
        self.plan: EigenProPlan | None = None
        self.memory: TrainingMemory | None = None
        self.eigenvalues: Tensor | None = None  # of the subsample, shape (s,), known while fitting
        self.train_metrics: dict[str, float] = {}  # of the last epoch, over all training rows
        self._last_batch: tuple[Tensor, Tensor] | None = None  # f(X_B) and Y_B

    # Set-up

    def setup(self, stage: str) -> None:
        """Choose the parameters and build the preconditioner, on the device that will train."""
        if self.trainer.precision != "32-true":
            raise InputError(
                f'precision must be "32-true": kernel values keep the float type of the features, and training '
                f"diverges where they are rounded further; got {self.trainer.precision!r}"
            )
        if stage != "fit":
            return
        if self.trainer.world_size > 1:
            raise InputError(
                f"KernelMachine trains on one device as yet; got {self.trainer.world_size}: use Trainer(devices=1)"
            )
        data = getattr(self.trainer, "datamodule", None)
        train_set = getattr(data, "train_set", None)
        if data is None or not isinstance(train_set, RowDataset):
            raise InputError(
                "KernelMachine needs a datamodule whose train_set is a kl.RowDataset; use one of datamodules, "
                "or ArrayDataModule.from_arrays for arrays of your own"
            )
        self.data_info = {
            "name": str(getattr(data, "name", type(data).__name__)),
            "task": str(getattr(data, "task", "classification" if _is_one_hot(train_set.y) else "regression")),
            "class_names": [str(name) for name in getattr(data, "class_names", None) or []],
            "image_shape": list(getattr(data, "image_shape", None) or []),
        }
        self.prepare(train_set.x, train_set.y, self.trainer.strategy.root_device)
        assert self.plan is not None  # prepare() made it
        data.batch_size = self.plan.batch_size

    def prepare(
        self,
        x: Tensor,  # shape: (n, d)
        y: Tensor,  # shape: (n, c)
        device: torch.device | str = "cpu",
    ) -> None:
        """Order the centres, plan the run and build the preconditioner; weights that fit the data are kept."""
        (n, d), c = x.shape, y.shape[1]
        options = self.hparams
        s = checked_size("subsample", options["subsample"], 1, n, "the training rows") or default_subsample(n)
        if options["top_q"] == 0:
            s = min(s, 2000)  # still the sample that the step size is estimated on
        if self.is_fitted:
            self._require_same_data(x, y)
            s = len(self.fitted.pending)
        else:
            given, self.kernel = self.kernel, self.kernel.resolve(x, seed=options["seed"])
            if self.kernel != given:
                log.info("bandwidth auto: the median distance between training rows")
            order = torch.randperm(n, generator=torch.Generator().manual_seed(options["seed"]))
            self._allocate(n, d, c, s, 0)
            self.origin = _far_origin(x) if self.kernel.shift_invariant else torch.zeros_like(x[0])
            self.order, self.centers, self.targets = order, x[order] - self.origin, y[order]
        self.to(device)
        self._index_centers()
        rows = self._center_rows
        self.memory = training_memory(
            n,
            d,
            c,
            s,
            budget=parse_memory(options["memory"], device),
            itemsize=rows.sq_norm.element_size(),
            coded=rows.codes is not None,
        )
        columns = None
        if self.memory.keep_columns:
            columns = kernel_matrix(self.kernel, rows, rows[:s], same=torch.arange(n, device=rows.data.device))
        self.plan, precond, system = plan_eigenpro(
            self.kernel,
            rows,
            num_outputs=c,
            memory=self.memory.budget,
            subsample=s,
            top_q=options["top_q"],
            batch_size=options["batch_size"],
            step_size=options["step_size"],
            columns=columns,
        )
        self.eigenvalues = system.eigenvalues
        self.vectors, self.weights = precond.vectors, precond.weights
        self.fitted.attach(KernelMatrix(self.kernel, rows), columns)
        self.fitted.set_basis(self.vectors)
        self.guard = DivergenceGuard(self.alpha, self.fitted, self.targets)
        log.info("%s; EigenPro: %s", self.kernel, self.plan.describe())

    def _allocate(self, n: int, d: int, c: int, s: int, q: int) -> None:
        """Make parameters and buffers of the given sizes, all zero."""
        self.alpha = torch.nn.Parameter(torch.zeros(n, c, dtype=torch.float64), requires_grad=True)
        self.register_buffer("centers", torch.zeros(n, d))
        self.register_buffer("origin", torch.zeros(d))
        self.register_buffer("order", torch.arange(n))
        self.register_buffer("targets", torch.zeros(n, c))
        self.register_buffer("vectors", torch.zeros(s, q))
        self.register_buffer("weights", torch.zeros(q))
        self.fitted = FittedValues(n, s, c)

    def _index_centers(self) -> None:
        """What follows from the centres and their order, and so is not part of a checkpoint."""
        self._rows = None
        self.register_buffer("position", torch.argsort(self.order), persistent=False)

    def _require_same_data(self, x: Tensor, y: Tensor) -> None:
        order = self.order.cpu()
        same = x.shape == self.centers.shape and y.shape == self.targets.shape
        if not (
            same
            and torch.equal(x[order] - self.origin.cpu(), self.centers.cpu())
            and torch.equal(y[order], self.targets.cpu())
        ):
            raise CheckpointError(
                f"the weights belong to other training data than this: they have n={len(self.centers)}, "
                f"d={self.centers.shape[1]}, c={self.targets.shape[1]}, the data n={len(x)}, d={x.shape[1]}, "
                f"c={y.shape[1]}; use the same --data, --train-size, --label-noise and --seed as the first run"
            )

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
        self.guard.remember()
        self._epoch_finished = False

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """One EigenPro step on a batch (x, y, index)."""
        rows = self.position[batch[2]]
        y = self.targets[rows]  # as the centres, on the device already
        optimizer = self.optimizers()
        block = self.fitted.block(rows)
        before = self.fitted.at(rows, block)
        if self.guard.loss_exploded(before - y):
            self._recover()
            before = self.fitted.at(rows, block)
        update = optimizer.step(rows=rows, residual=before - y, block=block)  # type: ignore[union-attr, call-arg]
        self.fitted.advance(rows, before, update)
        self._last_batch = before, y

    @property
    def batch_error(self) -> float | None:
        """The classification error on the batch of the last step, before that step; None where there is none."""
        if not self.is_classifier or self._last_batch is None:
            return None
        return error(*self._last_batch)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After the last batch: the training error over all rows, before validation and the callbacks' epoch end."""
        if self.trainer.is_last_batch:
            self._finish_epoch()

    def on_train_epoch_end(self) -> None:
        """The same where `max_steps` ended the epoch before its last batch."""
        if not self._epoch_finished:
            self._finish_epoch()

    def _finish_epoch(self) -> None:
        self._epoch_finished = True
        if self.guard.epoch_diverged():
            self._recover()
        values = self.fitted.flush()
        self.train_metrics = {"train/mse": mse(values, self.targets)}
        if self.is_classifier:
            self.train_metrics["train/error"] = error(values, self.targets)
        for name, value in {**self.train_metrics, "precond/step_size": self.step_size}.items():
            self.log(name, value, on_step=False, on_epoch=True, batch_size=1, prog_bar=name in self.train_metrics)

    def _recover(self) -> None:
        assert self.plan is not None  # setup() made it
        planned = optimal_step_size(self.plan.batch_size, self.plan.beta, self.plan.lambda_1_damped)
        self.step_size = self.guard.recover(self.step_size, self.current_epoch, planned)

    @property
    def step_size(self) -> float:
        """eta as it is now, after any cuts."""
        if self._trainer is not None and self._trainer.optimizers:
            return self._trainer.optimizers[0].param_groups[0]["lr"]
        return self.plan.step_size if self.plan is not None else math.nan

    @step_size.setter
    def step_size(self, value: float) -> None:
        self.trainer.optimizers[0].param_groups[0]["lr"] = value

    @property
    def rkhs_norm(self) -> float:
        """|f|_H, exact after every step."""
        return math.sqrt(max(float(self.fitted.sq_norm.sum()), 0.0))

    @property
    def rkhs_norm_per_class(self) -> Tensor:
        """|f_k|_H, shape (c,), float64, exact after every step."""
        return self.fitted.sq_norm.clamp(min=0).sqrt()

    def in_data_order(
        self,
        per_center: Tensor,  # shape: (n, ...)
    ) -> Tensor:
        """Rows given per centre, as `alpha` or the fitted values, put into the order of the training set."""
        return per_center[self.position]

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a load needs beside the tensors: the resolved kernel, the plan and the data's description."""
        self.fitted.flush()
        checkpoint["kernel_machine"] = {
            "kernel": self.kernel.config(),
            "plan": asdict(self.plan) if self.plan else None,
            "data_info": self.data_info,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the sizes, the kernel and the plan of the checkpoint.

        Raises:
            CheckpointError: the checkpoint is not of a KernelMachine, or belongs to other training data.
        """
        extra, state = checkpoint.get("kernel_machine"), checkpoint.get("state_dict", {})
        if extra is None or "centers" not in state:
            raise CheckpointError("the checkpoint holds no kernel machine; give one that `kl fit` wrote")
        resuming = self.is_fitted
        if resuming:
            _require_epoch_end(checkpoint)
            for name in ("centers", "targets", "order"):
                if not torch.equal(state[name], getattr(self, name).cpu()):
                    raise CheckpointError(
                        f"the checkpoint belongs to other training data (its {name} differ): resume with the same "
                        "--data, --train-size, --label-noise and --seed as the first run"
                    )
            theirs, ours = (build_kernel(extra["kernel"]), len(state["vectors"])), (self.kernel, len(self.vectors))
            if theirs != ours:
                raise CheckpointError(
                    f"the checkpoint was trained with kernel {theirs[0]} and a subsample of {theirs[1]} rows; got "
                    f"{ours[0]} and {ours[1]}: resume with the same --kernel, its options and --subsample"
                )
        (n, d), c = state["centers"].shape, state["targets"].shape[1]
        self.kernel = build_kernel(extra["kernel"])
        self.plan = EigenProPlan(**extra["plan"]) if extra["plan"] else None
        self.data_info = extra["data_info"]
        if resuming:
            self.vectors, self.weights = (state[k].to(self.centers) for k in ("vectors", "weights"))
            self.fitted.set_basis(self.vectors)
            if self.plan and getattr(self.trainer, "datamodule", None) is not None:
                self.trainer.datamodule.batch_size = self.plan.batch_size  # type: ignore[attr-defined]
        else:
            self._allocate(n, d, c, *state["vectors"].shape)
            for name in ("centers", "origin", "order", "targets", "vectors", "weights"):
                setattr(self, name, state[name])  # not only their sizes but their dtypes
            self._index_centers()

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> KernelMachine:  # type: ignore[override]
        """See Lightning; needs no datamodule.

        Raises:
            CheckpointError: the file is missing, damaged, or holds no kernel machine.
        """
        try:
            return super().load_from_checkpoint(checkpoint_path, *args, **options)
        except (OSError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"{checkpoint_path} is no readable checkpoint that `kl fit` wrote: {error}"
            ) from error


def _plain(value: Any) -> Any:
    """A NumPy or torch scalar as a plain number: checkpoints are loaded with weights_only=True."""
    return value.item() if hasattr(value, "item") else value


def _is_one_hot(
    y: Tensor,  # shape: (n, c)
) -> bool:
    return y.shape[1] > 1 and bool(((y == 0) | (y == 1)).all() and (y.sum(dim=1) == 1).all())


def _far_origin(
    x: Tensor,  # shape: (n, d)
) -> Tensor:
    """The mean of rows that lie far from 0 for their spread, else 0; shape (d,).

    |x|^2 + |z|^2 - 2 <x, z> loses the digits of distances that are small beside |x|. Others, 8-bit images among them,
    are left as they are.
    """
    mean = x.double().mean(dim=0)
    spread = float(x.double().square().sum(dim=1).mean() - mean.square().sum())
    return (mean if float(mean.square().sum()) > 100 * spread else torch.zeros_like(mean)).to(x.dtype)


def _require_epoch_end(checkpoint: dict[str, Any]) -> None:
    progress = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_loop.batch_progress", {})
    if progress.get("current", {}).get("completed", 0) and not progress.get("is_last_batch", True):
        raise CheckpointError(
            "the checkpoint was written inside an epoch, whose remaining batches are unknown: resume from one written "
            "at the end of an epoch, as `kl fit` writes them"
        )
