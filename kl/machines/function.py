"""A kernel expansion as a torch module that predicts, without Lightning, whose import takes seconds."""

from __future__ import annotations

import logging
from typing import Any, Self

import torch
from torch import Tensor

from kl.distributed.ranks import Ranks
from kl.errors import CheckpointError, InputError
from kl.kernels import Kernel
from kl.machines.checkpoints import require_state, require_tensors
from kl.machines.described import Described, require_description
from kl.products.blocks import kernel_matmul
from kl.products.differentiable import ExportedMachine, differentiable_matmul, plain_rows
from kl.rows.dense import require_dense
from kl.rows.encoding import require_encoded
from kl.rows.root import require_root, under_root
from kl.rows.rows import PRECISIONS, Rows

# Share of the largest score that the rounding of float32 kernel values may change; above it f(x) is taken in float64.
COARSE = 1e-3
PROBED = 64  # centres at which `export_module` checks that float32 is accurate enough
log = logging.getLogger(__name__)


class KernelFunction(Described, torch.nn.Module):
    """f(x) = sum_j alpha_j K(x, z_j).

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
        data_info: see `kl.machines.described.Described`.
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
        self.data_info = {}
        self.ranks = Ranks()
        self.register_buffer("root", None)

    def become(
        self,
        alpha: Tensor,  # shape: (p, c)
        centers: Tensor,  # shape: (p, d)
        origin: Tensor,  # shape: (d,)
        data_info: dict[str, Any],
        root: Tensor | None = None,  # shape: (d,) or (d, d)
    ) -> Self:
        """Become the function of these weights and centres."""
        self.alpha = torch.nn.Parameter(alpha, requires_grad=False)
        self.register_buffer("centers", centers)
        self.register_buffer("origin", origin)
        self.data_info, self.root = data_info, root
        self._rows = None
        return self

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

    @property
    def is_fitted(self) -> bool:
        """Whether the machine has centres and weights."""
        return "alpha" in self._parameters

    @property
    def _center_rows(self) -> Rows:
        if self._rows is None or self._rows.data.device != self.centers.device:
            self._rows = Rows.of(self.centers, precision=self.precision)
        return self._rows


PARTS = ("alpha", "centers", "origin", "root")
"""The tensors that are a function, besides its kernel; `root` is there if a metric was learnt."""


def decode_centers(state: dict[str, Any], levels: float) -> None:
    """Make floats of a file's centres if it holds them as bytes: k / levels for whole numbers k.

    Raises:
        CheckpointError: `levels` is below 0.
    """
    if levels < 0:
        raise CheckpointError(f"its levels must be 0, or above 0 for centres of one byte; got {levels}")
    centers = state.get("centers")
    if levels and isinstance(centers, Tensor) and centers.dtype == torch.uint8:
        state["centers"] = centers.to(torch.float32) / levels


def require_function(state: dict[str, Any], info: Any) -> None:
    """Check that parts of a checkpoint are the `PARTS` of a function, and the description of its data.

    Raises:
        CheckpointError: they are anything else, or do not fit each other.
    """
    require_description(info)
    require_tensors(state, {"alpha": 2, "centers": 2, "origin": 1})
    p, d, c = len(state["centers"]), info["num_features"], info["num_outputs"]
    dtype = state["centers"].dtype
    shapes = {"alpha": ((p, c), torch.float64), "centers": ((p, d), dtype), "origin": ((d,), dtype)}
    expected = {name: torch.empty(shape, dtype=kind, device="meta") for name, (shape, kind) in shapes.items()}
    if "root" in state:
        require_root(state["root"], d)
        expected["root"] = torch.empty(state["root"].shape, dtype=torch.float64, device="meta")
    require_state(state, expected)
