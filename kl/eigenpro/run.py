"""EigenPro 2 on plain tensors: a run that is planned once and then takes steps, without a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from kl.checks import check_device, check_seed
from kl.distributed.ranks import Ranks, encode_shared
from kl.eigenpro.fitted import FittedValues
from kl.eigenpro.iteration import EigenProIteration
from kl.eigenpro.optimizer import Update
from kl.eigenpro.options import Auto, EigenProOptions
from kl.eigenpro.plan import head_rows
from kl.eigenpro.run_plan import plan_run
from kl.eigenpro.run_state import RunInputs, load_state, state_of
from kl.errors import InputError
from kl.exact.equations import least_residual_scale
from kl.exact.merged import check_weights
from kl.kernels import Kernel, build_kernel
from kl.products.blocks import kernel_matmul
from kl.rows.batches import BatchIndexSampler
from kl.rows.rows import RowDataset, Rows, check_finite_matrix, data_key
from kl.system.memory import parse_memory


class EigenProRun(EigenProIteration):
    """Fits f(x) = sum_i alpha_i K(x, x_i) to training rows x_1..x_n with targets y_1..y_n by EigenPro 2.

    It minimises sum_i w_i |f(x_i) - y_i|^2 + ridge |f|_H^2. A step on a batch B of m rows, with the subsample S, the
    preconditioner E, D and the step size eta, is

        g = f(X_B) + (ridge / w_B) alpha_B - Y_B
        alpha_B -= (eta / m) g
        alpha_S += (eta / m) E diag(D) E^T K(X_S, X_B) g

    Every step updates the fitted values f(X), so the errors of all rows and the RKHS norm are almost free. If a step or
    an epoch diverges, the weights go back to the start of the epoch and the step size is cut. `step`, `end_epoch` and
    `rkhs_norm` are documented in `EigenProIteration`.

    Args:
        kernel: a `kl.Kernel`, its name, "package.module:Class", or its `config()`; `bandwidth="auto"` is resolved on x.
        x: training features, float32 or float64, shape (n, d).
        y: targets, floats, shape (n, c); classes as one-hot rows.
        batch_size: m, rows; "auto" is the critical batch size m*, half of it on a CPU, if memory allows.
        step_size: eta, or "auto".
        top_q: q, eigendirections to damp, or "auto"; 0 is plain kernel SGD.
        subsample: s, rows of the Nystrom subsample, or "auto".
        ridge: >= 0, what is added to the diagonal of K(X, X), not multiplied by n; 0 is interpolation.
        weights: w_i > 0, shape (n,); None is 1. Without a ridge they change nothing, because all targets are met.
        memory: bytes, "8GB", or "auto" (half of what is free). As many rows of K(X, X) as fit are computed now.
        precision: "high" or "medium", see `kl.Rows.of`.
        seed: of the subsample, of `bandwidth="auto"` and of the order of the batches.
        device: where the run computes.
        ranks: the processes that share the rows; each is given all of x and y.

    Attributes:
        plan: the `EigenProPlan`: s, q, m, m*, eta and the estimates they follow from.
        memory: the `TrainingMemory`: bytes by item.
        eigenvalues: of K(X_S, X_S) / s, largest first, shape (s,).
        alpha: weights, shape (n_r, c), float64, in the run's own order of the rows; see `in_data_order`.
        guard: the `DivergenceGuard`; its `cuts` counts how often the step size was cut.
        epoch: epochs that have ended.
        last_batch: f(X_B) before the last step and Y_B, shapes (m_r, c).

    Raises:
        InputError: an argument is out of its range or does not fit the data.
        MemoryBudgetError: the run needs more memory than the budget.
        DivergenceError: (in `step` and `end_epoch`) training still diverges after the step size was cut 12 times.

    Source: Ma, Belkin 2019, arXiv:1806.06144, Algorithm 1, in terms of the weights.

    Example:
        >>> import kl, torch
        >>> from sklearn.datasets import load_digits
        >>> pixels, labels = map(torch.from_numpy, load_digits(return_X_y=True))
        >>> x, y = pixels.float() / 16, torch.nn.functional.one_hot(labels).float()
        >>> run = kl.EigenProRun(kl.Laplacian(), x[:1500], y[:1500], subsample=400)
        >>> for _ in range(5):
        ...     for rows in run.batches():
        ...         run.step(rows)
        ...     run.end_epoch()
        >>> error = (run.predict(x[1500:]).argmax(dim=1) != labels[1500:]).double().mean()
        >>> bool(error < 0.05)
        True
    """

    _position: Tensor

    def __init__(
        self,
        kernel: Kernel | str | dict[str, Any],
        x: Tensor,  # shape: (n, d)
        y: Tensor,  # shape: (n, c)
        *,
        batch_size: Auto = "auto",
        step_size: float | str = "auto",
        top_q: Auto = "auto",
        subsample: Auto = "auto",
        ridge: float = 0.0,
        weights: Tensor | None = None,  # shape: (n,)
        memory: int | str = "auto",
        precision: str = "high",
        seed: int = 0,
        device: torch.device | str = "cpu",
        ranks: Ranks | None = None,
    ) -> None:
        options = EigenProOptions.parse(batch_size, step_size, top_q, subsample, ridge)
        seed, data, device = check_seed("seed", seed), RowDataset(x, y), check_device("device", device)
        x, y = data.x.detach(), data.y.detach()
        n, c, ranks = len(x), y.shape[1], ranks or Ranks()
        ridges = None if weights is None else ridge_of_rows(options.ridge, weights, n)
        if ridges is not None:
            options = replace(options, ridge=float(ridges.max()))
        if n < ranks.size:
            raise InputError(f"{n} training rows are fewer than the {ranks.size} ranks: use fewer devices")
        s, budget = options.subsample_of(n), parse_memory(memory, device, ranks.sharing)
        kernel = build_kernel(kernel).resolve(x, seed=seed)
        order, origin = torch.randperm(n, generator=torch.Generator().manual_seed(seed)), kernel.origin_of(x)
        own, first = order[ranks.local_rows(n)], order[: head_rows(n, s)]
        centers = (x[own] - origin).to(device)
        if ranks.size == 1:
            rows = Rows.of(centers, precision=precision)
            head = rows[: len(first)]
        else:
            head, rows = encode_shared((x[first] - origin).to(device), centers, precision, ranks)
        fitted = FittedValues(n, s, c, ranks).to(device)
        found = plan_run(kernel, rows, head, fitted, budget, options)
        alpha = torch.zeros(len(own), c, dtype=torch.float64, device=device)
        targets, position = y[own].to(device), torch.argsort(order).to(device)
        ridges = None if ridges is None else ridges[own].to(device)
        super().__init__(found.plan, found.preconditioner, fitted, alpha, targets, position, ridges)
        self.eigenvalues, self.memory = found.eigenvalues, found.memory
        key = y if weights is None else torch.cat([y.double(), weights.double()[:, None]], dim=1)
        self._origin, self._inputs = origin.to(device), RunInputs(data_key(x, key), seed, precision)
        fitted.keep_rows(found.memory.kept_rows)

    def step(
        self,
        rows: Tensor,  # shape: (m,)
        y: Tensor | None = None,  # shape: (m, c)
        apply: Callable[..., Update | None] | None = None,
    ) -> None:
        """One step on a batch, as in `EigenProIteration`; before anything changes, rows and y are checked.

        Raises:
            InputError: rows are no distinct row numbers of x, or y is no finite float matrix of shape (m, c).
            DivergenceError: training still diverges after `MAX_STEP_CUTS` cuts of the step size.
        """
        check_rows(rows, self.n)
        super().step(rows, None if y is None else check_finite_matrix("y", y), apply)

    @torch.no_grad()
    def start_from(
        self,
        alpha: Tensor,  # shape: (n, c)
    ) -> None:
        """Take the weights of a similar problem, such as those of another kernel, instead of f = 0.

        Each output is scaled so that its residual is least, and so no larger than that of f = 0. The call computes
        f(X): n^2 kernel values less those that are kept.

        Args:
            alpha: weights in the order of x.

        Raises:
            InputError: alpha is no finite float matrix of shape (n, c).
        """
        if check_finite_matrix("alpha", alpha).shape != (self.n, self.alpha.shape[1]):
            raise InputError(
                f"alpha must have a weight for each target, shape {(self.n, self.alpha.shape[1])}; got "
                f"{tuple(alpha.shape)}"
            )
        places = self._position.argsort()[self.ranks.local_rows(self.n)]
        own = alpha.to(self.alpha)[places]
        values = self.fitted.matrix.matmul(own).double()
        ridge = self.plan.ridge if self._ridges is None else self._ridges
        scale = least_residual_scale(values + ridge * own, self.targets, self.ranks)
        self.alpha.copy_(own * scale)
        self.fitted.become(values * scale, self.alpha)
        self._in_epoch = False

    def batches(self, epoch: int | None = None) -> Iterator[Tensor]:
        """The batches of an epoch (None: the current one): row numbers of x, shape (m,), fewer in the last batch.

        The order depends on the seed and the epoch alone; it is that of a Trainer whose data module has the same seed.

        Raises:
            InputError: epoch is no whole number, 0 or above.
        """
        sampler = BatchIndexSampler(self.n, self.plan.batch_size, self._inputs.seed)
        sampler.set_epoch(self.epoch if epoch is None else check_seed("epoch", epoch))
        return iter(sampler)

    def fitted_values(self) -> Tensor:
        """f(X) at all training rows, shape (n, c), float64, in the order of x."""
        return self.in_data_order(self.fitted.flush())

    def in_data_order(
        self,
        per_center: Tensor,  # shape: (n_r, ...)
    ) -> Tensor:
        """The rows of all ranks, taken from the order of `alpha` to the order of x, shape (n, ...)."""
        return self.ranks.all_gather_in_order(per_center, self.n)[self._position]

    @torch.no_grad()
    def predict(
        self,
        x: Tensor,  # shape: (m, d)
    ) -> Tensor:
        """f(x), shape (m, c), in the dtype of the training rows; called on all ranks with the same x.

        Raises:
            InputError: x is no finite float matrix of d columns.
        """
        check_finite_matrix("x", x)
        centers = self.fitted.matrix.rows
        if x.shape[1] != centers.data.shape[1]:
            raise InputError(f"x must have shape (rows, {centers.data.shape[1]}); got {tuple(x.shape)}")
        rows = Rows.of(x.to(centers.data) - self._origin, like=centers)
        return self.ranks.all_reduce_sum(kernel_matmul(self.kernel, rows, centers, self.alpha))

    # State

    def state_dict(self) -> dict[str, Any]:
        """A copy of the run's state, tensors and plain values, from which another run on the same data can resume.

        A state taken between two epochs resumes to the bit. A state taken inside an epoch does not record which batches
        are left, and the run goes back to it if the rest of the epoch diverges. Each rank's state holds its own rows.
        """
        return state_of(self, self._inputs)

    def __getstate__(self) -> NoReturn:
        """Refuse pickle, joblib, torch.save and copy, because a run holds its kernel matrix.

        Raises:
            InputError: always.
        """
        raise InputError(
            "an EigenProRun cannot be pickled or copied, because it holds its kernel matrix: keep its state_dict(), "
            "and load it into a run made with the same arguments"
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from the `state_dict` of another run.

        Raises:
            CheckpointError: the state is invalid, or of other data, kernel, seed, precision, subsample, ridge or ranks.
        """
        load_state(self, self._inputs, state)


def check_rows(
    rows: Tensor,  # shape: (m,)
    n: int,
) -> None:
    """Check the row numbers of a batch.

    Raises:
        InputError: they are no tensor of whole numbers from 0 to n - 1, at least one and each at most once.
    """
    if not isinstance(rows, Tensor) or rows.ndim != 1 or rows.dtype not in (torch.int32, torch.int64):
        received = f"{tuple(rows.shape)} {rows.dtype}" if isinstance(rows, Tensor) else type(rows).__name__
        raise InputError(f"rows must be a tensor of row numbers, torch.int64, shape (m,); got {received}")
    found = rows.unique()  # sorted
    if len(rows) == 0 or found[0] < 0 or found[-1] >= n:
        received = f"{int(found[0])} to {int(found[-1])}" if len(rows) else "none"
        raise InputError(f"rows must be row numbers of x, from 0 to {n - 1}; got {received}")
    if len(found) < len(rows):
        raise InputError(
            f"rows must have each row number at most once; got {len(rows)} numbers of {len(found)} rows: leave the "
            "repeated ones out"
        )


def ridge_of_rows(
    ridge: float,
    weights: Tensor,  # shape: (n,)
    n: int,
) -> Tensor:
    """ridge / w_i of every row, shape (n, 1), float64.

    Raises:
        InputError: the weights are not n finite numbers above 0.
    """
    weights = check_weights(weights, n, ridge)
    if not bool((weights > 0).all()):
        raise InputError(f"weights must be above 0; got {int((weights == 0).sum())} zeros: leave those rows out")
    return ridge / weights[:, None]
