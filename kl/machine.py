"""A kernel machine as a LightningModule, trained by EigenPro 2 under manual optimization."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.classification import multiclass_accuracy

from kl.eigenpro import EigenPro
from kl.engine import kernel_matmul, kernel_matrix
from kl.errors import CheckpointError, DivergenceError, InputError
from kl.fitted import FittedValues
from kl.kernels import Kernel, build_kernel
from kl.memory import parse_memory
from kl.plan import EigenProPlan, checked_size, default_subsample, plan_eigenpro
from kl.preconditioner import Preconditioner
from kl.rows import RowDataset, Rows

log = logging.getLogger(__name__)

MAX_STEP_CUTS = 12  # halvings after which a diverging run is given up
LOSS_GROWTH = 10.0  # a batch loss this many times that of f = 0 is divergence, whatever the batch
CHECK_EVERY_ON_GPU = 16  # steps between looks at the loss there: a look waits for the device


class KernelMachine(pl.LightningModule):
    """f(x) = sum_i alpha_i K(x, x_i), one output per class, fitted to its training set by EigenPro 2.

    The Trainer's datamodule must offer `train_set`, a `kl.RowDataset`; where the batch size is "auto" the machine sets
    the datamodule's `batch_size`. Training minimises sum_i |f(x_i) - y_i|^2 and converges to the minimum-norm interpolant.

    Args:
        kernel: a `kl.Kernel`, its name, "package.module:Class", or its `config()`.
        batch_size: m, or "auto": the critical batch size, where memory allows it.
        step_size: eta, or "auto".
        top_q: eigendirections to damp, or "auto"; 0 is plain kernel SGD.
        subsample: Nystrom rows s, or "auto".
        memory: bytes for a step, "8GB", or "auto" (half of what is free).
        seed: of the subsample and of `bandwidth="auto"`.

    Attributes:
        plan: the `EigenProPlan` of the run.
        alpha: weights, shape (n, c), float64, in the order of `centers`.
        centers: training rows, shape (n, d), the subsample first; `order[j]` is the training row of centre j.

    Source: [MB19].
    """

    alpha: torch.nn.Parameter
    centers: Tensor
    order: Tensor
    targets: Tensor
    vectors: Tensor
    weights: Tensor

    def __init__(
        self,
        kernel: Kernel | str | dict[str, Any] = "laplacian",
        *,
        batch_size: int | str = "auto",
        step_size: float | str = "auto",
        top_q: int | str = "auto",
        subsample: int | str = "auto",
        memory: int | str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.kernel = build_kernel(kernel)
        parse_memory(memory)  # a mistake shows here, before any data is read
        self.save_hyperparameters(
            {
                "kernel": self.kernel.config(),
                "batch_size": batch_size,
                "step_size": step_size,
                "top_q": top_q,
                "subsample": subsample,
                "memory": memory,
                "seed": seed,
            }
        )
        self.plan: EigenProPlan | None = None
        self.eigenvalues: Tensor | None = None  # of the subsample, shape (s,), known while fitting
        self.data_info: dict[str, Any] = {}  # name, task, class_names, image_shape of the training data
        self.step_cuts = 0
        self.train_metrics: dict[str, float] = {}

    # Prediction

    def forward(
        self,
        x: Tensor,  # shape: (m, d)
    ) -> Tensor:
        """f(x), shape (m, c), in the dtype of the training rows.

        Raises:
            InputError: the machine has not been fitted, or x has another number of features.
        """
        if not self.is_fitted:
            raise InputError("this machine holds no weights: fit it, or load a checkpoint, before predicting")
        if x.ndim != 2 or x.shape[1] != self.centers.shape[1]:
            raise InputError(
                f"x must have shape (rows, {self.centers.shape[1]}), as the training data had; got {tuple(x.shape)}"
            )
        return kernel_matmul(self.kernel, Rows.of(x.to(self.centers)), self._center_rows, self.alpha)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Scores f(x), shape (m, c), for a batch x or (x, ...)."""
        return self(batch if isinstance(batch, Tensor) else batch[0])

    @property
    def is_fitted(self) -> bool:
        """Whether the machine has centres and weights."""
        return "alpha" in self._parameters

    @property
    def is_classifier(self) -> bool:
        """Whether the outputs are scores of classes rather than regression values."""
        return self.data_info.get("task") != "regression"

    @property
    def _center_rows(self) -> Rows:
        return Rows(self.centers, self.center_sq_norm)

    # Set-up

    def setup(self, stage: str) -> None:
        """Choose the parameters and build the preconditioner, on the device that will train."""
        if stage != "fit":
            return
        data = getattr(self.trainer, "datamodule", None)
        train_set = getattr(data, "train_set", None)
        if not isinstance(train_set, RowDataset):
            raise InputError(
                "KernelMachine needs a datamodule whose train_set is a kl.RowDataset; use one of datamodules, "
                "or ArrayDataModule.from_arrays for arrays of your own"
            )
        self.data_info = {
            "name": str(getattr(data, "name", type(data).__name__)),
            "task": str(getattr(data, "task", "classification")),
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
        warm = self.is_fitted
        if warm:
            self._require_same_data(x, y)
            s = len(self.fitted.pending)
        else:
            self.kernel = self.kernel.resolve(x, seed=options["seed"])
            order = torch.randperm(n, generator=torch.Generator().manual_seed(options["seed"]))
            self._allocate(n, d, c, s, 0)
            self.order, self.centers, self.targets = order, x[order], y[order]
        self.to(device)
        self._index_centers()
        memory = parse_memory(options["memory"], device)
        first = self._center_rows[:s]
        columns = None
        if n * s * self.centers.element_size() <= memory // 4:
            columns = kernel_matrix(
                self.kernel, self._center_rows, first, same=torch.arange(n, device=self.centers.device)
            )
        self.plan, precond, system = plan_eigenpro(
            self.kernel,
            self._center_rows,
            num_outputs=c,
            memory=memory,
            subsample=s,
            top_q=options["top_q"],
            batch_size=options["batch_size"],
            step_size=options["step_size"],
            columns=columns,
        )
        self.eigenvalues = system.eigenvalues
        self.vectors, self.weights = precond.vectors, precond.weights
        self.fitted.attach(self.kernel, self._center_rows, columns)
        # The loss of f = 0; never 0, so that all-zero targets are no divergence.
        self._zero_loss = max(float(self.targets.square().mean()), 1e-12)
        log.info("%s: %s", self.kernel, self.plan)

    def _allocate(self, n: int, d: int, c: int, s: int, q: int) -> None:
        """Make parameters and buffers of the given sizes, all zero."""
        self.alpha = torch.nn.Parameter(torch.zeros(n, c, dtype=torch.float64), requires_grad=True)
        self.register_buffer("centers", torch.zeros(n, d))
        self.register_buffer("order", torch.arange(n))
        self.register_buffer("targets", torch.zeros(n, c))
        self.register_buffer("vectors", torch.zeros(s, q))
        self.register_buffer("weights", torch.zeros(q))
        self.fitted = FittedValues(n, s, c)

    def _index_centers(self) -> None:
        """What follows from the centres and their order, and so is not part of a checkpoint."""
        self.register_buffer("center_sq_norm", Rows.of(self.centers).sq_norm, persistent=False)
        self.register_buffer("position", torch.argsort(self.order), persistent=False)

    def _require_same_data(self, x: Tensor, y: Tensor) -> None:
        order = self.order.cpu()
        same = x.shape == self.centers.shape and y.shape == self.targets.shape
        if not (same and torch.equal(x[order], self.centers.cpu()) and torch.equal(y[order], self.targets.cpu())):
            raise CheckpointError(
                f"the weights belong to other training data than this: they have n={len(self.centers)}, "
                f"d={self.centers.shape[1]}, c={self.targets.shape[1]}, the data n={len(x)}, d={x.shape[1]}, "
                f"c={y.shape[1]}; use the same --data, --train-size, --label-noise and --seed as the first run"
            )

    def configure_optimizers(self) -> EigenPro:
        """EigenPro with the planned step size."""
        assert self.plan is not None  # setup() ran before
        return EigenPro(self.alpha, Preconditioner(self.vectors, self.weights), lr=self.plan.step_size)

    # Training

    def on_train_epoch_start(self) -> None:
        """Remember the state that a diverging epoch goes back to."""
        self._good = self._snapshot()

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """One EigenPro step on a batch (x, y, index)."""
        x, y, index = batch
        rows = self.position[index]
        optimizer = self.optimizers()
        block = self.fitted.block(rows)
        before = self.fitted.at(rows, block)
        if self._looks_diverged(before, y, batch_idx):
            self._recover()
            before = self.fitted.at(rows, block)
        update = optimizer.step(rows=rows, residual=before - y, block=block)  # type: ignore[union-attr, call-arg]
        self.fitted.advance(Rows(x, self.center_sq_norm[rows]), rows, block, before, update)
        if self.is_classifier:
            wrong = before.argmax(dim=1) != y.argmax(dim=1)
            self.log("error", wrong.float().mean(), prog_bar=True, logger=False, batch_size=len(rows))
        self.log("norm", self.fitted.sq_norm.sum().sqrt(), prog_bar=True, logger=False, batch_size=len(rows))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After the last batch: the training error over all rows, before validation and the callbacks' epoch end."""
        if self.trainer.is_last_batch:
            self._finish_epoch()

    def _finish_epoch(self) -> None:
        values = self.fitted.flush()
        if self._energy() > self._good["energy"] + 0.1 * max(abs(self._good["energy"]), 1e-12):
            self._recover()
            values = self.fitted.flush()
        self.train_metrics = {"train/mse": float(mean_squared_error(values, self.targets.double()))}
        if self.is_classifier:
            self.train_metrics["train/error"] = _error(values, self.targets)
        for name, value in self.train_metrics.items():
            self.log(name, value, on_step=False, on_epoch=True, batch_size=1)
        self.log("precond/step_size", self.step_size, on_step=False, on_epoch=True, batch_size=1)

    @property
    def step_size(self) -> float:
        """eta as it is now, after any cuts."""
        return self.trainer.optimizers[0].param_groups[0]["lr"]

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

    # Divergence

    def _energy(self) -> float:
        """|f|^2 - 2 sum_i alpha_i . y_i = |f - f*|^2 - |f*|^2: falls with every good epoch towards -|f*|^2."""
        return float(self.fitted.sq_norm.sum() - 2 * (self.alpha.detach() * self.targets).sum())

    def _snapshot(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha.detach().clone(),
            "fitted": self.fitted.snapshot(),
            "energy": self._energy(),
        }

    def _looks_diverged(self, before: Tensor, y: Tensor, batch_idx: int) -> bool:
        if before.is_cuda and batch_idx % CHECK_EVERY_ON_GPU:
            return False
        loss = (before - y).square().mean()
        return not bool(loss <= LOSS_GROWTH * self._zero_loss)  # true for NaN, too

    def _recover(self) -> None:
        """Go back to the weights at the start of the epoch and halve the step size.

        Raises:
            DivergenceError: that was done `MAX_STEP_CUTS` times already.
        """
        self.step_cuts += 1
        step = self.step_size
        if self.step_cuts > MAX_STEP_CUTS:
            raise DivergenceError(
                f"training still diverges at step size {step:.3g} after {MAX_STEP_CUTS} halvings: use --step-size auto "
                "and --batch-size auto, a larger --subsample, or look for extreme values in the features"
            )
        log.warning(
            "training diverged at step size %.4g; going back to the start of epoch %d with step size %.4g",
            step,
            self.current_epoch,
            step / 2,
        )
        self.trainer.optimizers[0].param_groups[0]["lr"] = step / 2
        with torch.no_grad():
            self.alpha.copy_(self._good["alpha"])
        self.fitted.load_state_dict(self._good["fitted"])

    # Evaluation

    def on_validation_epoch_start(self) -> None:
        """Start the sums over the validation batches."""
        self._start_metrics()

    def on_test_epoch_start(self) -> None:
        """Start the sums over the test batches."""
        self._start_metrics()

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Add a batch (x, y, index) to val/mse, val/error and, with label noise, val/error_noisy."""
        self._add_to_metrics(batch)

    def test_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Add a batch (x, y, index) to test/mse, test/error and, with label noise, test/error_noisy."""
        self._add_to_metrics(batch)

    def on_validation_epoch_end(self) -> None:
        """Log val/mse, val/error, val/error_noisy."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log test/mse, test/error, test/error_noisy."""
        self._log_metrics("test")

    def _start_metrics(self) -> None:
        self._metrics: dict[str, Metric] = {"mse": MeanSquaredError().to(self.device)}
        if self.is_classifier:
            classes = self.targets.shape[1]
            for name in ("error", "error_noisy"):
                self._metrics[name] = MulticlassAccuracy(classes, average="micro").to(self.device)

    def _add_to_metrics(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        x, y, index = batch
        scores = self(x)
        self._metrics["mse"].update(scores.float(), y.float())
        if self.is_classifier:
            self._metrics["error"].update(scores, y.argmax(dim=1))
            noisy = getattr(getattr(self.trainer.datamodule, "test_set", None), "y_noisy", None)
            if noisy is not None:
                self._metrics["error_noisy"].update(scores, noisy[index.cpu()].argmax(dim=1).to(scores.device))

    def _log_metrics(self, stage: str) -> None:
        for name, metric in self._metrics.items():
            if metric.update_called:
                value = metric.compute() if name == "mse" else 1 - metric.compute()
                self.log(f"{stage}/{name}", value, prog_bar=name == "error", batch_size=1)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a load needs beside the tensors: the resolved kernel, the plan and the data's description."""
        self.fitted.flush()
        checkpoint["kernel_machine"] = {
            "kernel": self.kernel.config(),
            "plan": asdict(self.plan) if self.plan else None,
            "data_info": self.data_info,
            "step_cuts": self.step_cuts,
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
            for name in ("centers", "targets", "order"):
                if not torch.equal(state[name], getattr(self, name).cpu()):
                    raise CheckpointError(
                        f"the checkpoint belongs to other training data (its {name} differ): resume with the same "
                        "--data, --train-size, --label-noise, --subsample and --seed as the first run"
                    )
        (n, d), c = state["centers"].shape, state["targets"].shape[1]
        self.kernel = build_kernel(extra["kernel"])
        self.plan = EigenProPlan(**extra["plan"]) if extra["plan"] else None
        self.data_info, self.step_cuts = extra["data_info"], extra["step_cuts"]
        if resuming:
            self.vectors, self.weights = (state[k].to(self.centers) for k in ("vectors", "weights"))
            if self.plan and self.trainer.datamodule is not None:  # type: ignore[attr-defined]
                self.trainer.datamodule.batch_size = self.plan.batch_size  # type: ignore[attr-defined]
        else:
            self._allocate(n, d, c, *state["vectors"].shape)
            self.centers, self.order = state["centers"], state["order"]
            self._index_centers()


def _error(
    scores: Tensor,  # shape: (n, c)
    y: Tensor,  # shape: (n, c)
) -> float:
    """The fraction of rows whose largest score is not at the target class."""
    classes = y.shape[1]
    return 1 - float(multiclass_accuracy(scores, y.argmax(dim=1), num_classes=classes, average="micro"))
