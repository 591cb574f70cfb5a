"""The guard against divergence: notice it, go back to good weights, take smaller steps, or stop with a clear error."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor

from kl.eigenpro.fitted import FittedValues
from kl.errors import DivergenceError

log = logging.getLogger(__name__)

MAX_STEP_CUTS = 12  # halvings after which a diverging run is given up
LOSS_GROWTH = 10.0  # a batch diverges if its squared errors exceed this many times those of f = 0 on all rows


class StepCuts:
    """Halves the step size of a diverging run, a limited number of times."""

    def __init__(self) -> None:
        self.cuts = 0

    def cut(self, step_size: float, epoch: int, planned: float = math.inf) -> float:
        """The next step size: half of `step_size`, or `planned` if that is smaller.

        Raises:
            DivergenceError: the step size was cut `MAX_STEP_CUTS` times before.
        """
        if self.cuts >= MAX_STEP_CUTS:
            raise DivergenceError(
                f"training still diverges at step size {step_size:.3g} after {MAX_STEP_CUTS} halvings: use "
                "step_size='auto' and batch_size='auto', a larger subsample, or look for extreme values in the features"
            )
        smaller = min(step_size / 2, planned)
        self.cuts += 1
        log.warning(
            "training diverged at step size %.4g; going back to the start of epoch %d with step size %.4g",
            step_size,
            epoch,
            smaller,
        )
        return smaller


class DivergenceGuard(StepCuts):
    """Watches one run; `remember` marks the state that `recover` goes back to.

    A batch diverges if its squared errors are NaN or far above those of f = 0 on all rows (not on the batch alone,
    where they may be almost 0).

    An epoch diverges if the squared errors on all rows are NaN or above twice those of f = 0 and of the epoch before.
    It also diverges if these errors have not fallen and the energy |f|^2 - 2 sum_i alpha_i . y_i has clearly risen. The
    energy is |f - f*|^2 - |f*|^2, so its limit is -|f*|^2. A risen energy alone is no sign of divergence, because the
    first epoch may overshoot in the RKHS norm while its errors fall.

    Args:
        alpha: the weights of this rank, shape (n_r, c).
        fitted: the fitted values and the norm that belong to alpha.
        targets: Y in the order of alpha, shape (n_r, c).
        ridge: lambda; the kernel is then K + ridge I, so the errors are f(x_i) + ridge alpha_i - y_i, and ridge
            |alpha|^2 is added to the energy. It is one number, or one for each row, shape (n_r, 1).
    """

    def __init__(self, alpha: Tensor, fitted: FittedValues, targets: Tensor, ridge: float | Tensor = 0.0) -> None:
        super().__init__()
        self._alpha, self._fitted, self._targets, self._ridge = alpha, fitted, targets, ridge
        # The squared errors of f = 0; never 0, so that all-zero targets do not count as divergence.
        self._zero_errors = max(self._sum(targets.double().square()), 1e-12)

    def energy(self) -> float:
        """|f|^2 + ridge |alpha|^2 - 2 sum_i alpha_i . y_i."""
        self._fitted.settle()
        return self._energy_of(self._alpha.detach(), self._fitted.sq_norm)

    def _energy_of(self, alpha: Tensor, sq_norm: Tensor) -> float:
        return float(sq_norm.sum()) + self._sum(alpha * (self._ridge * alpha - 2 * self._targets))

    def errors(self) -> float:
        """sum_i |f(x_i) + ridge alpha_i - y_i|^2 over all training rows."""
        residual = self._fitted.flush() - self._targets
        if isinstance(self._ridge, Tensor) or self._ridge:
            residual += self._ridge * self._alpha.detach()
        return self._sum(residual.square_())

    def _sum(self, values: Tensor) -> float:
        """The sum over all ranks."""
        return float(self._fitted.ranks.all_reduce_sum(values.sum()))

    def remember(self) -> None:
        """Mark the present state as good."""
        self._good: dict[str, Any] = {
            "alpha": self._alpha.detach().clone(),
            "fitted": self._fitted.snapshot(),
            "errors": self.errors(),
        }

    def loss_exploded(
        self,
        residual: Tensor,  # f(X_B) + ridge alpha_B - Y_B, this rank's rows, shape: (m_r, c)
        known: float | None = None,  # the sum of its squares over all ranks
    ) -> bool:
        """Whether the squared errors on a batch are NaN or far above those of f = 0 on all rows.

        Always False on a GPU, where reading a value makes the device wait; `epoch_diverged` decides there.
        """
        if residual.is_cuda:
            return False
        squares = self._sum(residual.double().square()) if known is None else known
        return not squares <= LOSS_GROWTH * self._zero_errors  # true for NaN, too

    def epoch_diverged(self) -> bool:
        """Whether the epoch since `remember` led away from the limit."""
        errors, before = self.errors(), self._good["errors"]
        if not errors <= 2 * max(self._zero_errors, before):  # true for NaN, too
            return True
        if errors < before:
            return False
        good = self._energy_of(self._good["alpha"], self._good["fitted"]["sq_norm"])
        size = float(self._fitted.sq_norm.sum())  # errors() settled it
        return not self.energy() <= good + 0.5 * max(abs(good), size)

    def recover(self, step_size: float, epoch: int, planned: float = math.inf) -> float:
        """Go back to the good state; returns the next step size, as `cut` does.

        Raises:
            DivergenceError: the step size was cut `MAX_STEP_CUTS` times before.
        """
        with torch.no_grad():  # before an error, too, so that its caller has finite weights
            self._alpha.copy_(self._good["alpha"])
        self._fitted.load_state_dict(self._good["fitted"])
        return self.cut(step_size, epoch, planned)


class LossGuard(StepCuts):
    """Watches a run by the residuals of its batches alone, each computed before its step.

    A batch diverges if its squared errors are NaN or far above those of f = 0 on the rows of an epoch seen so far. An
    epoch diverges if the mean of its squared errors is NaN or above twice that of f = 0 and of the epoch before.

    Args:
        alpha: the weights, shape (p, c).
    """

    def __init__(self, alpha: Tensor) -> None:
        super().__init__()
        self._alpha = alpha
        self.remember()
        self._before = 0.0  # mean squared error of the epoch before
        self._known_zero = 1e-12  # squared errors of f = 0 on an epoch; never 0, so that zero targets pass

    def remember(self) -> None:
        """Mark the present state as good, and start the sums of an epoch."""
        self._good = self._alpha.detach().clone()
        self._start_sums()

    def _start_sums(self) -> None:
        zero = torch.zeros((), dtype=torch.float64, device=self._alpha.device)
        self._errors, self._zero_errors, self._rows = zero, zero, 0

    def loss_exploded(
        self,
        residual: Tensor,  # f(X_B) - Y_B, shape: (m, c)
        y: Tensor,  # shape: (m, c)
    ) -> bool:
        """Add a batch to the sums; returns whether its squared errors are NaN or far above those of f = 0.

        Always False on a GPU, where reading a value makes the device wait; `epoch_diverged` decides there.
        """
        errors = residual.double().square().sum()
        self._zero_errors = self._zero_errors + y.double().square().sum()
        self._errors, self._rows = self._errors + errors, self._rows + len(y)
        if residual.is_cuda:
            return False
        return not float(errors) <= LOSS_GROWTH * max(self._known_zero, float(self._zero_errors))  # true for NaN, too

    def epoch_diverged(self) -> bool:
        """Whether the epoch since `remember` led away from the limit."""
        self._known_zero = max(self._known_zero, float(self._zero_errors))
        mean, zero = float(self._errors) / max(self._rows, 1), float(self._zero_errors) / max(self._rows, 1)
        if not mean <= 2 * max(zero, self._before, 1e-12):  # true for NaN, too
            return True
        self._before = mean
        return False

    def recover(self, step_size: float, epoch: int, planned: float = math.inf) -> float:
        """Go back to the good state; returns the next step size, as `cut` does.

        The sums start again, because the batches that diverged no longer count.

        Raises:
            DivergenceError: the step size was cut `MAX_STEP_CUTS` times before.
        """
        with torch.no_grad():
            self._alpha.copy_(self._good)
        self._start_sums()
        return self.cut(step_size, epoch, planned)
