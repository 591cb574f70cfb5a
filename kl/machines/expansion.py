"""A kernel expansion as a LightningModule that predicts and is evaluated, whichever solver finds its weights."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from kl.distributed.ranks import Ranks
from kl.errors import InputError
from kl.kernels import Kernel
from kl.machines.evaluated import EvaluatedModule
from kl.products.blocks import kernel_matmul
from kl.products.differentiable import ExportedMachine, differentiable_matmul, plain_rows
from kl.rows.dense import require_dense
from kl.rows.encoding import require_encoded
from kl.rows.root import under_root
from kl.rows.rows import PRECISIONS, Rows

# Share of the largest score that the rounding of float32 kernel values may change; above it f(x) is taken in float64.
COARSE = 1e-3
PROBED = 64  # centres at which `export_module` checks that float32 is accurate enough
log = logging.getLogger(__name__)


class KernelExpansion(EvaluatedModule):
    """f(x) = sum_j alpha_j K(x, z_j): forward, validation, test and predict steps. A subclass trains it.

    Args:
        kernel: the kernel.
        precision: of features that are not 8-bit: "high" is float32, "medium" rounds the features to bfloat16 (see
            `Rows.of`).

    Attributes:
        alpha: weights, shape (p, c), float64, in the order of `centers`; absent before training or loading.
        centers: z_1..z_p less `origin`, shape (p, d).
        origin: what is subtracted from every x, shape (d,); not 0 only for shift-invariant kernels.
        root: M^(1/2) of a learnt metric M, float64, shape (d, d), or of a diagonal one shape (d,): the kernel is of
            (x - origin) M^(1/2), and so are the centres. None where there is no metric.
        ranks: the ranks that share the centres, each with its rows of `alpha` and `centers`; one rank by default.
        data_info: the description of the training data (`kl.machines.evaluated.describe_data`).
        eval_metrics: val/* or test/* of the last pass over validation or test data.
    """

    alpha: torch.nn.Parameter
    centers: Tensor
    origin: Tensor
    root: Tensor | None
    _rows: Rows | None = None  # the centres with their norms, made when they are needed

    def __init__(self, kernel: Kernel, precision: str = "high") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise InputError(f"precision must be high or medium; got {precision!r}")
        self.kernel, self.precision = kernel, precision
        self.ranks = Ranks()
        self.register_buffer("root", None)

    def placed(
        self,
        x: Tensor,  # shape: (m, d)
    ) -> Tensor:
        """What the kernel is computed on, (x - origin) M^(1/2), in the dtype of the centres, shape (m, d)."""
        return under_root(x.to(self.centers) - self.origin, self.root)

    def forward(
        self,
        x: Tensor,  # shape: (m, d)
    ) -> Tensor:
        """f(x), shape (m, c), in the dtype of the training rows; call it on all ranks with the same x.

        Large weights that cancel, as exact solutions of nearly singular systems have, are multiplied in float64. If x
        requires a gradient, f(x) has one, with respect to x and not to the weights.

        Args:
            x: features, shape (m, d), encoded as the training rows were.

        Raises:
            InputError: the machine has not been fitted, or x has another number of features, or was not encoded as the
                training rows were.
        """
        self._require_fitted()
        require_dense("x", x)
        if x.ndim != 2 or x.shape[1] != self.centers.shape[1]:
            raise InputError(
                f"x must have shape (rows, {self.centers.shape[1]}), as the training data had; got {tuple(x.shape)}"
            )
        require_encoded(x, self.data_info.get("encoding", {}).get("origin"))
        centers, weights = self._own_share()
        x = self.placed(x)
        if x.requires_grad and torch.is_grad_enabled():
            return self._differentiable(x, centers, weights)
        return self._values_at(Rows.of(x, like=centers))

    def _values_at(self, rows: Rows) -> Tensor:
        """f at rows that are placed as the centres are, shape (m, c)."""
        centers, weights = self._own_share()
        scores = self.ranks.all_reduce_sum(kernel_matmul(self.kernel, rows, centers, weights))
        if self._is_coarse(scores, rows, centers, weights):
            exact = kernel_matmul(self.kernel, rows.double(), centers.double(), weights)
            return self.ranks.all_reduce_sum(exact).to(scores.dtype)
        return scores

    def _is_coarse(self, scores: Tensor, x: Rows, centers: Rows, weights: Tensor) -> bool:
        """Whether the rounding of kernel values shows in these scores of x."""
        return scores.numel() > 0 and self._rounding(x, centers, weights) > COARSE * float(scores.abs().max())

    def _rounding(self, x: Rows, centers: Rows, weights: Tensor) -> float:
        """eps max_x K(x, x)^(1/2) (sum_j K(z_j, z_j) alpha_j^2)^(1/2), for the output where it is largest.

        Rounded kernel values change f(x) by about this number, if their errors are independent of one another.
        """
        squares = self.kernel.block_diag(centers).double() @ weights.double().square()
        largest = float(self.ranks.all_reduce_sum(squares).max()) * float(self.kernel.block_diag(x).max())
        return torch.finfo(x.data.dtype).eps * largest**0.5

    def kernel_sums(
        self,
        x: Tensor,  # shape: (m, d)
    ) -> Tensor:
        """sum_j K(x_i, z_j), shape (m,), small for an x far from all centres; call it on all ranks with the same x."""
        self._require_fitted()
        centers, weights = self._own_share()
        rows = Rows.of(self.placed(x), like=centers)
        ones = weights.new_ones(len(weights), 1)
        return self.ranks.all_reduce_sum(kernel_matmul(self.kernel, rows, centers, ones))[:, 0]

    def _differentiable(self, x: Tensor, centers: Rows, weights: Tensor) -> Tensor:
        """f(x) with its gradient with respect to x, shape (m, c)."""
        if self.ranks.size > 1:
            raise InputError(
                f"gradients need all centres in one process, and {self.ranks.size} ranks share this machine's: load "
                "its checkpoint in one"
            )
        if centers.rounded:
            x = x + (x.bfloat16().to(x.dtype) - x).detach()  # rounding has no derivative, so the gradient skips it
        scores = differentiable_matmul(self.kernel, x, centers.floats(), weights.to(x.dtype))
        if self._is_coarse(scores.detach(), Rows.of(x.detach(), like=centers), centers, weights):
            double = plain_rows(centers.data.double())
            return differentiable_matmul(self.kernel, x.double(), double, weights.double()).to(x.dtype)
        return scores

    def export_module(self) -> ExportedMachine:
        """f alone as a plain module of one code path, for any number of rows: for torch.export, ONNX, torch.jit.trace.

        Raises:
            InputError: the machine has not been fitted, or several ranks share it.

        Example: `torch.export.export(machine.export_module(), (x,), dynamic_shapes=({0: torch.export.Dim("rows")},))`.
        """
        self._require_fitted()
        if self.ranks.size > 1:
            raise InputError(
                f"an exported machine has all centres, and {self.ranks.size} ranks share this one's: load its "
                "checkpoint in one process"
            )
        rows = self._center_rows
        probed = rows[:PROBED]
        if self._is_coarse(self._values_at(probed), probed, rows, self.alpha.detach()):
            log.warning(
                "the exported machine computes in %s, too coarse for these weights, which are large and cancel: its "
                "values will differ from the machine's. Train with a ridge or a smaller bandwidth",
                str(rows.data.dtype).removeprefix("torch."),
            )
        return ExportedMachine(self.kernel, rows.data, self.origin, self.alpha, rows.rounded, self.root).eval()

    def _own_share(self) -> tuple[Rows, Tensor]:
        """The centres whose kernel values this rank sums, and their weights."""
        return self._center_rows, self.alpha.detach()

    def _require_fitted(self) -> None:
        if not self.is_fitted:
            raise InputError("this machine holds no weights: fit it, or load a checkpoint, before predicting")

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Scores f(x), shape (m, c), for a batch x or (x, ...), in the target's own unit (`in_target_units`)."""
        return self.in_target_units(self(batch if isinstance(batch, Tensor) else batch[0]))

    @property
    def is_fitted(self) -> bool:
        """Whether the machine has centres and weights."""
        return "alpha" in self._parameters

    @property
    def _center_rows(self) -> Rows:
        if self._rows is None or self._rows.data.device != self.centers.device:
            self._rows = Rows.of(self.centers, precision=self.precision)
        return self._rows

    def outputs(
        self,
        x: Tensor,  # shape: (m, d)
    ) -> Tensor:
        """f(x), shape (m, c)."""
        return self(x)
