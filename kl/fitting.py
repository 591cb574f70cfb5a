"""What machines whose centres are their training rows share: fitted values, the order of rows, and metrics."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from kl.errors import CheckpointError
from kl.memory import parse_memory
from kl.metrics import error, mse
from kl.trained import TrainedExpansion


class InterpolatingMachine(TrainedExpansion):
    """f(x) = sum_i alpha_i K(x, x_i) over the training rows x_1..x_n, fitted to their targets. A subclass says how.

    A subclass gives `_allocate`, `_plan` and `fitted_values`, beside what `TrainedExpansion` wants.

    Attributes:
        alpha: weights, shape (n, c), float64, in the order of `centers`.
        centers: training rows, shape (n, d); `order[j]` is the training row of centre j. Where they lie far from 0 and
            the kernel is shift-invariant, `origin` has been subtracted.
    """

    order: Tensor
    targets: Tensor
    position: Tensor
    _kept_in_checkpoints: tuple[str, ...] = ("centers", "origin", "order", "targets")
    _same_when_resumed = ("centers", "targets", "order")

    def prepare(
        self,
        x: Tensor,  # shape: (n, d)
        y: Tensor,  # shape: (n, c)
        device: torch.device | str = "cpu",
    ) -> None:
        """Order the centres and plan the run; weights that fit the data are kept.

        Raises:
            CheckpointError: there are weights, and they belong to other data.
            InputError: an option does not fit the data.
            MemoryBudgetError: the budget does not hold the run.
        """
        if self.is_fitted:
            self._require_same_data(x, y)
        else:
            self._resolve_kernel(x)
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(self.hparams["seed"]))
            self._allocate(len(x), x.shape[1], y.shape[1])
            self.origin = self._origin_of(x)
            self.order, self.centers, self.targets = order, x[order] - self.origin, y[order]
        self.to(device)
        self._centers_changed()
        self._plan(parse_memory(self.hparams["memory"], device))

    def _allocate(self, n: int, d: int, c: int) -> None:
        """Make the parameters and buffers of a run on data of these sizes, all zero."""
        self.alpha = torch.nn.Parameter(torch.zeros(n, c, dtype=torch.float64), requires_grad=True)
        self.register_buffer("centers", torch.zeros(n, d))
        self.register_buffer("origin", torch.zeros(d))
        self.register_buffer("order", torch.arange(n))
        self.register_buffer("targets", torch.zeros(n, c))

    @abstractmethod
    def _plan(self, budget: int) -> None:
        """Choose the parameters of the run for a budget in bytes, and build what it needs."""

    @abstractmethod
    def fitted_values(self) -> Tensor:
        """f(X) on the training rows, shape (n, c), float64, in the order of `centers`."""

    def _centers_changed(self) -> None:
        super()._centers_changed()
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

    def _measure_training(self) -> dict[str, float]:
        values = self.fitted_values()
        found = {"train/mse": mse(values, self.targets)}
        if self.is_classifier:
            found["train/error"] = error(values, self.targets)
        return found

    def in_data_order(
        self,
        per_center: Tensor,  # shape: (n, ...)
    ) -> Tensor:
        """Rows given per centre, as `alpha` or the fitted values, put into the order of the training set."""
        return per_center[self.position]
