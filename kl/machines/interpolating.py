"""The base class of machines whose centres are the training rows: fitted values, the order of rows, and metrics."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from kl.distributed.ranks import Ranks
from kl.errors import CheckpointError, InputError
from kl.machines.checkpoints import is_same
from kl.machines.machine import TrainedExpansion
from kl.metrics import error, mse
from kl.rows.rows import RowDataset, Rows


class InterpolatingMachine(TrainedExpansion):
    """f(x) = sum_i alpha_i K(x, x_i) over the training rows x_1..x_n. A subclass fits it to their targets.

    A subclass defines `_require_room`, `_plan` and `fitted_values`, besides what `TrainedExpansion` requires.

    Several ranks share the centres: of each tensor with one row per centre, a rank holds its own rows (see
    `kl.distributed.ranks`), unless `all_rows_everywhere`.

    Attributes:
        alpha: weights, shape (n_r, c), float64, in the order of `centers`.
        centers: training rows, shape (n_r, d); `order[j]` is the training row of centre j of all n. If they lie far
            from 0 and the kernel is shift-invariant, `origin` has been subtracted.
    """

    all_rows_everywhere = False
    """Whether every rank holds all centres and weights, and shares only the work on them."""

    order: Tensor
    targets: Tensor
    position: Tensor
    _kept_in_checkpoints: tuple[str, ...] = ("centers", "origin", "order", "targets")
    _same_when_resumed: tuple[str, ...] = ("centers", "targets", "order")
    _shared_rows: tuple[str, ...] = ("alpha", "centers", "targets")  # () in subclasses with all rows everywhere
    _dimensions: ClassVar[dict[str, int]] = {"centers": 2, "targets": 2, "order": 1}

    @property
    def num_centers(self) -> int:
        """n."""
        return len(self.order)

    @property
    def owners(self) -> Ranks:
        """The ranks, each of which holds its own centres; one rank where every rank holds them all."""
        return Ranks() if self.all_rows_everywhere else self.ranks

    def _own_share(self) -> tuple[Rows, Tensor]:
        rows, alpha = super()._own_share()
        if self.ranks.size == 1 or not self.all_rows_everywhere:
            return rows, alpha
        local = self.ranks.positions(len(rows), alpha.device)
        return rows[local], alpha[local]

    def prepare(
        self,
        x: Tensor,  # shape: (n, d)
        y: Tensor,  # shape: (n, c)
        device: torch.device | str = "cpu",
    ) -> None:
        """Order the centres and plan the run; weights of the same data are kept, weights of other data are dropped.

        Raises:
            InputError: an option does not fit the data, or `kl.RowDataset` refuses x and y.
            MemoryBudgetError: the budget does not hold the run.
        """
        RowDataset(x, y)  # checks them
        if self.is_fitted and not self._has_same_data(x, y):
            self._start_anew()
        budget = self._budget(device)
        if not self.is_fitted:
            itemsize, on_gpu = x.element_size(), torch.device(device).type == "cuda"
            self._require_room(len(x), x.shape[1], y.shape[1], itemsize, int(self.ranks.all_reduce_min(budget)), on_gpu)
            self._resolve_kernel(x)
            n, generator = len(x), torch.Generator().manual_seed(self.hparams["seed"])
            if n < self.owners.size:
                raise InputError(f"{n} training rows are fewer than the {self.owners.size} ranks: use fewer devices")
            self._allocate(n, x.shape[1], y.shape[1])
            self.origin, self.order = self.kernel.origin_of(x), torch.randperm(n, generator=generator)
            own = self.order[self.owners.local_rows(n)]
            self.centers, self.targets = x[own] - self.origin, y[own]
        self.to(device)
        self._centers_changed()
        self._plan(x, budget)

    @abstractmethod
    def _require_room(self, n: int, d: int, c: int, itemsize: int, budget: int, on_gpu: bool) -> None:
        """Refuse, before anything is computed, a run on data of these sizes that the budget in bytes cannot hold.

        Raises:
            MemoryBudgetError: the budget does not hold the least that the run needs.
        """

    def _allocate(self, n: int, d: int, c: int) -> None:
        """Make the parameters and buffers of a run on data of these sizes, all zero."""
        own = self.owners.count(n)
        self.alpha = torch.nn.Parameter(torch.zeros(own, c, dtype=torch.float64), requires_grad=True)
        self.register_buffer("centers", torch.zeros(own, d))
        self.register_buffer("origin", torch.zeros(d))
        self.register_buffer("order", torch.arange(n))
        self.register_buffer("targets", torch.zeros(own, c))

    def _head(
        self,
        x: Tensor,  # shape: (n, d)
        count: int,
    ) -> Rows:
        """The first `count` of the n centres that all ranks share."""
        if self.owners.size == 1:
            return self._center_rows[:count]
        return self._encode_like(x[self.order[:count].cpu()].to(self.centers) - self.origin)

    @abstractmethod
    def _plan(
        self,
        x: Tensor,  # shape: (n, d)
        budget: int,
    ) -> None:
        """Choose the parameters of the run for a budget in bytes, and build what it needs; `x` is the training set."""

    @abstractmethod
    def fitted_values(self) -> Tensor:
        """f(X_r) on the training rows of this rank, shape (n_r, c), float64, in the order of `centers`."""

    def _centers_changed(self) -> None:
        super()._centers_changed()
        self.register_buffer("position", torch.argsort(self.order), persistent=False)

    def _load_extra_state(self, extra: dict[str, Any], state: dict[str, Tensor], resuming: bool) -> None:
        super()._load_extra_state(extra, state, resuming)
        order = state["order"]
        if not is_same(torch.arange(len(order)), order.sort().values):
            raise CheckpointError("its order must name each training row once; it does not: train again")
        if not resuming:
            self._allocate_for(state)

    def _allocate_for(self, state: dict[str, Tensor]) -> None:
        """Make the parameters and buffers that the tensors of a checkpoint go into."""
        self._allocate(len(state["order"]), state["centers"].shape[1], state["targets"].shape[1])

    def _has_same_data(self, x: Tensor, y: Tensor) -> bool:
        """Whether the weights were trained on these rows, on all ranks."""
        ours = len(self.order), self.centers.shape[1], self.targets.shape[1]
        if ours != (*x.shape, y.shape[1]):
            return False
        own = self.order.cpu()[self.owners.local_rows(len(self.order))]
        same = torch.equal(x[own] - self.origin.cpu(), self.centers.cpu())
        return self.owners.all_reduce_min(same and torch.equal(y[own], self.targets.cpu())) > 0

    def _measure_training(self) -> dict[str, float]:
        values = self.fitted_values().contiguous()  # row by row, as metrics read it
        found = {"train/mse": mse(values, self.targets, self.target_scale)}
        if self.is_classifier:
            found["train/error"] = error(values, self.targets)
        share = len(values) / len(self.order)
        means = self.owners.all_reduce_sum(values.new_tensor([share * value for value in found.values()]))
        return dict(zip(found, means.tolist(), strict=True))

    def own_rows(
        self,
        per_row: Tensor,  # shape: (n, ...)
    ) -> Tensor:
        """This rank's rows, in the order of `centers`, from rows in the order of the training set."""
        return per_row[self.order[self.owners.local_rows(len(self.order))].to(per_row.device)]

    def in_data_order(
        self,
        per_center: Tensor,  # shape: (n_r, ...)
    ) -> Tensor:
        """All n rows in the order of the training set, from rows per centre, such as `alpha` or the fitted values."""
        return self.owners.all_gather_in_order(per_center, len(self.order))[self.position]
