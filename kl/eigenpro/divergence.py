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
LOSS_GROWTH = 10.0  # squared errors on a batch this many times those of f = 0 on all rows are divergence


class StepCuts:
    """Halves the step size of a diverging run, a limited number of times."""

    def __init__(self) -> None:
        self.cuts = 0

    def cut(self, step_size: float, epoch: int, planned: float = math.inf) -> float:
        """Half the step size, or the planned one where that is smaller.

        Raises:
            DivergenceError: that was done `MAX_STEP_CUTS` times already.
        """
        smaller = min(step_size / 2, planned)
        self.cuts += 1
        if self.cuts > MAX_STEP_CUTS:
            raise DivergenceError(
                f"training still diverges at step size {step_size:.3g} after {MAX_STEP_CUTS} halvings: use --step-size "
                "auto and --batch-size auto, a larger --subsample, or look for extreme values in the features"
            )
        log.warning(
            "training diverged at step size %.4g; going back to the start of epoch %d with step size %.4g",
            step_size,
            epoch,
            smaller,
        )
        return smaller


class DivergenceGuard(StepCuts):
    """Watches one run; `remember` marks the state that `recover` goes back to.

    Two signs are looked for. Within an epoch, squared errors on a batch far above those of f = 0 on all rows (on that
    batch alone they may be next to none: one extreme target must not pass for divergence), or NaN. At the end of an
    epoch, squared errors on all rows above twice those of f = 0 and of the epoch before; or errors that have not fallen
    while the energy |f|^2 - 2 sum_i alpha_i . y_i = |f - f*|^2 - |f*|^2, whose limit is -|f*|^2, has risen. The energy
    alone is no sign: a first epoch may overshoot in the RKHS norm while its errors fall.

    Args:
        alpha: the weights of this rank, shape (n_r, c).
        fitted: the fitted values and the norm that belong to alpha.
        targets: Y in the order of alpha, shape (n_r, c).
        ridge: with one f is that of the kernel K + ridge I: errors are f(x_i) + ridge alpha_i - y_i, and the energy has
            ridge |alpha|^2 more.
    """

    def __init__(self, alpha: Tensor, fitted: FittedValues, targets: Tensor, ridge: float = 0.0) -> None:
        super().__init__()
        self._alpha, self._fitted, self._targets, self._ridge = alpha, fitted, targets, ridge
        # The squared errors of f = 0; never 0, so that all-zero targets are no divergence.
        self._zero_errors = max(self._sum(targets.double().square()), 1e-12)

    def energy(self) -> float:
        """|f|^2 + ridge |alpha|^2 - 2 sum_i alpha_i . y_i."""
        self._fitted.settle()
        alpha = self._alpha.detach()
        return float(self._fitted.sq_norm.sum()) + self._sum(alpha * (self._ridge * alpha - 2 * self._targets))

    def errors(self) -> float:
        """sum_i |f(x_i) + ridge alpha_i - y_i|^2 over all training rows."""
        residual = self._fitted.flush() - self._targets
        if self._ridge:
            residual.add_(self._alpha.detach(), alpha=self._ridge)
        return self._sum(residual.square_())

    def _sum(self, values: Tensor) -> float:
        """Over all ranks."""
        return float(self._fitted.ranks.all_reduce_sum(values.sum()))

    def remember(self) -> None:
        """Mark the present state as good."""
        self._good: dict[str, Any] = {
            "alpha": self._alpha.detach().clone(),
            "fitted": self._fitted.snapshot(),
            "energy": self.energy(),
            "errors": self.errors(),
        }

    def loss_exploded(
        self,
        residual: Tensor,  # f(X_B) + ridge alpha_B - Y_B, this rank's rows, shape: (m_r, c)
    ) -> bool:
        """Whether the loss on a batch is NaN or out of all proportion.

        On a GPU that is left to the end of the epoch: to look at a value within it would make the device wait.
        """
        if residual.is_cuda:
            return False
        return not self._sum(residual.double().square()) <= LOSS_GROWTH * self._zero_errors  # true for NaN, too

    def epoch_diverged(self) -> bool:
        """Whether the epoch since `remember` led away from the limit."""
        errors, before = self.errors(), self._good["errors"]
        if not errors <= 2 * max(self._zero_errors, before):  # true for NaN, too
            return True
        good, size = self._good["energy"], float(self._fitted.sq_norm.sum())  # errors() has settled it
        return errors >= before and not self.energy() <= good + 0.5 * max(abs(good), size)

    def recover(self, step_size: float, epoch: int, planned: float = math.inf) -> float:
        """Go back to the good state; returns half the step size, or the planned one where that is smaller.

        Raises:
            DivergenceError: that was done `MAX_STEP_CUTS` times already.
        """
        with torch.no_grad():  # also before giving up: whoever catches the error holds finite weights
            self._alpha.copy_(self._good["alpha"])
        self._fitted.load_state_dict(self._good["fitted"])
        return self.cut(step_size, epoch, planned)


class LossGuard(StepCuts):
    """Watches a run of which only the residuals of its batches are known, each before its step.

    Divergence is a batch whose squared errors are far above those of f = 0 on all rows of an epoch, as far as they are
    known, or NaN; or an epoch whose squared errors are more than twice those of f = 0 and of the epoch before.

    Args:
        alpha: the weights, shape (p, c).
    """

    def __init__(self, alpha: Tensor) -> None:
        super().__init__()
        self._alpha = alpha
        self.remember()
        self._before = 0.0  # mean squared error of the epoch before
        self._known_zero = 1e-12  # the squared errors of f = 0 on an epoch; never 0, so that zero targets pass

    def remember(self) -> None:
        """Mark the present state as good; an epoch begins."""
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
        """Add a batch to the sums; whether its loss is NaN or out of all proportion.

        On a GPU that is left to the end of the epoch: to look at a value within it would make the device wait.
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
        """Go back to the good state; returns half the step size, or the planned one where that is smaller.

        The sums start again: the batches that diverged are not the new run's.

        Raises:
            DivergenceError: that was done `MAX_STEP_CUTS` times already.
        """
        with torch.no_grad():
            self._alpha.copy_(self._good)
        self._start_sums()
        return self.cut(step_size, epoch, planned)
