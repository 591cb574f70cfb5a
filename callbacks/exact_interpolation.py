"""The exact limit of training beside the run: its errors, its norm, and how far the machine still is from it."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from callbacks.common import Machine, validation_metrics
from kl import Interpolant
from kl.exact.cache import solutions_folder
from kl.exact.cost import check_solver, direct_memory
from kl.exact.interpolate import RESIDUAL_ACCEPTED, check_tolerance
from kl.exact.limit import LimitForecast, NoLimit, evaluate_on, exact_limit, forecast_limit
from kl.exact.patience import MAX_ROWS, MAX_SECONDS, Patience
from kl.machines.data_facts import DataFacts, facts_of
from kl.metrics import evaluate_scores
from kl.probabilities import fit_temperature
from kl.rows.rows import RowDataset
from kl.system.files import expand_home
from kl.system.memory import parse_memory

log = logging.getLogger(__name__)

DISTANCE_FLOOR = 3e-4  # share of |f*| below which distances are float32 rounding, which may even leave 0
LEFT_OUT_ROWS = 5000  # n up to which leave-one-out predictions take a few seconds at most


class ExactInterpolation(pl.Callback):
    """Solves for the limit f* of training, and logs it beside the run at every epoch.

    f* is the minimum-norm interpolant of the training set; for a machine with a ridge it is the ridge solution, and for
    a machine with centres of its own the least-squares function in their span.

    Logs exact/train_mse, exact/val_mse, exact/val_error, exact/val_error_noisy (with label noise), exact/rkhs_norm,
    exact/distance = |f_t - f*|_H, exact/gap_train_mse = train/mse - exact/train_mse and
    exact/gap_val_error = val/error - exact/val_error. Errors are fractions in [0, 1].

    On the training rows as centres the distance costs no kernel evaluation, because the values of both functions there
    are known:

        |f_t - f*|^2 = <f_t - f*, f_t - f*> = sum_i (alpha_i - alpha*_i) . (f_t(x_i) - f*(x_i))

    This avoids the cancellation in |f_t|^2 - 2 sum_i alpha_i . f*(x_i) + |f*|^2, which hides distances below about
    5e-3 |f*| (digits, Laplacian). With centres of its own, the squared distance of a machine is
    (alpha - alpha*)^T K(Z, Z) (alpha - alpha*). The distance has a floor: training uses float32 kernel values and the
    solve float64 ones, and their limits differ by about 3e-4 |f*| (same data; `DISTANCE_FLOOR`). A smaller value means
    "at the limit of the float32 kernel", and rounding may make it 0.

    Leave-one-out predictions of f* choose a temperature, which goes into the machine's `data_info`, and so into its
    checkpoints: the machine comes close to f*, and `kl predict` then gives probabilities.

    The solution is kept on disk. Any run on the same data, targets, kernel and ridge reads it, and so does
    `kl interpolate`. The state of interrupted conjugate gradients is kept as well, and the next such run resumes from
    it. The estimated time is logged before the solve, and the time left during the solve.

    Args:
        memory: budget of the solve and of what the machine holds before training: "8GB", bytes, or "auto" (half of what
            is free). Kernel rows that the machine keeps do not count, because they are computed after the solve.
        cache_dir: folder of kept solutions; None is $XDG_CACHE_HOME/kl/exact, else ~/.cache/kl/exact.
        max_rows: above this n nothing is solved (a kept solution is still read), since the time grows as n^2 at least.
        solver: "auto", "direct" or "pcg", as in `kl.interpolate`.
        tolerance: the relative residual to reach.
        max_seconds: conjugate gradients are stopped after this time; their state is kept, and `kl interpolate` with the
            same options resumes from it. Least squares are not started if they are to take longer.

    Attributes:
        results: exact_train_mse, exact_train_error, exact_loo_mse and exact_loo_error (leave-one-out, of a direct solve
            of at most 5000 rows), exact_val_mse, exact_val_error, exact_val_error_noisy (on the rows of val/*),
            exact_test_mse, exact_test_error, exact_test_error_noisy (only after `trainer.test`, if a
            validation part is held out), exact_rkhs_norm, distance_to_exact, solver, iterations, relative_residual,
            jitter, seconds (of the solve, even if it was read from disk), cached. A value is None if it does not apply,
            such as an error for regression. `results` is None if the solve was skipped.
        skipped: why there is no solution; None if there is one.
        solution: the `kl.Interpolant`; None if the solve was skipped.

    Raises:
        InputError: an argument is out of its range.

    Source: the distance is ours, from the reproducing property; Belkin, Ma, Mandal 2018, arXiv:1802.01396, compare the
    two throughout.
    """

    def __init__(
        self,
        memory: str | int = "auto",
        cache_dir: str | os.PathLike[str] | None = None,
        max_rows: int = MAX_ROWS,
        solver: str = "auto",
        tolerance: float = RESIDUAL_ACCEPTED,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        self.tolerance = check_tolerance(tolerance)
        self.solver = check_solver(solver)
        parse_memory(memory)  # raises for a bad value, before any data is read
        self.memory = memory
        self.cache_dir = Path(expand_home(cache_dir)) if cache_dir is not None else solutions_folder()
        self.patience = Patience(max_rows, max_seconds)
        self.results: dict[str, Any] | None = None
        self.skipped: str | None = None
        self.solution: Interpolant | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Read or solve on rank 0 and broadcast the result; the other ranks wait without a time limit."""
        found, centers = _Outcome(skipped="fast_dev_run"), None
        facts, device = facts_of(trainer), trainer.strategy.root_device
        rows = facts.train_set
        assert rows is not None  # the machine's setup has checked it
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            if facts.streamed:
                found = _Outcome(skipped="the training rows are a stream, and a solve needs them in memory")
            elif pl_module.learns_kernel:
                found = _Outcome(skipped="the kernel is learnt, and a limit needs a kernel that is given")
            elif facts.as_trained is not None:
                found = _Outcome(
                    skipped="the training rows are augmented, others in every epoch, and have no such limit"
                )
            else:
                centers = pl_module.limit_centers() if pl_module.own_centers else None  # a collective
                found = pl_module.ranks.broadcast_result(lambda: self._find(pl_module, rows, facts, device, centers))
        self.skipped, self.solution, self.results = found.skipped, found.solution, found.results
        if self.solution is None or self.results is None:
            if trainer.is_global_zero:
                level = logging.INFO if trainer.fast_dev_run else logging.WARNING  # type: ignore[attr-defined]
                log.log(level, "exact interpolation: left out: %s", self.skipped)
            return
        self.solution = replace(self.solution, centers=rows.x if centers is None else centers)
        device = pl_module.alpha.device  # moved once, because every epoch computes the distance
        self._alpha, self._fitted = self.solution.alpha.to(device), self.solution.fitted.to(device)
        self._of_step = -1, math.nan
        self.results["distance_to_exact"] = self.distance(pl_module)
        if pl_module.is_classifier and (left := self.solution.leave_one_out) is not None:
            pl_module.data_info["temperature"] = fit_temperature(left.predictions, rows.y.argmax(dim=1))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Log the limit, the distance to it and the gaps."""
        if self.results is None:
            return
        self.results["distance_to_exact"] = self.epoch_distance(trainer, pl_module)
        logged = {f"exact/{tag}": self.results[name] for tag, name in _TAGS.items()}
        metrics = {**pl_module.train_metrics, **validation_metrics(trainer)}
        for ours, tag in (("train/mse", "train_mse"), ("val/error", "val_error")):
            if ours in metrics and logged[f"exact/{tag}"] is not None:
                logged[f"exact/gap_{tag}"] = metrics[ours] - logged[f"exact/{tag}"]
        pl_module.log_dict({name: value for name, value in logged.items() if value is not None}, batch_size=1)

    def on_test_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Add the limit's errors on the test set, which are left out before if a validation part is held out."""
        test = facts_of(trainer).test_set
        if self.solution is None or self.results is None or test is None or self.results["exact_test_mse"] is not None:
            return
        solution, classifier, scale = self.solution, pl_module.is_classifier, pl_module.target_scale
        self.results |= pl_module.ranks.broadcast_result(
            lambda: _named("test", evaluate_on(test, solution, classifier, scale))
        )

    def epoch_distance(self, trainer: pl.Trainer, machine: Machine) -> float:
        """|f_t - f*|_H at the end of the current epoch, computed once for all callbacks."""
        step = trainer.global_step
        if self._of_step[0] != step:
            self._of_step = step, self.distance(machine)
        return self._of_step[1]

    @torch.no_grad()
    def distance(self, machine: Machine) -> float:
        """|f_t - f*|_H of the machine's current weights; see the class for its formula and its floor."""
        if self.solution is None:
            raise RuntimeError(f"there is no exact solution to measure from: {self.skipped or 'fit() has not started'}")
        device = machine.alpha.device  # after the fit Lightning has taken the machine off the GPU
        weights = machine.alpha - machine.own_rows(self._alpha.to(device))
        if machine.own_centers:
            return math.sqrt(float(machine.sq_norm_of(weights).sum()))
        values = machine.fitted_values() - machine.own_rows(self._fitted.to(device))
        return math.sqrt(max(float(machine.owners.all_reduce_sum((weights * values).sum())), 0.0))

    def forecast(self, machine: Machine, rows: RowDataset, device: torch.device) -> LimitForecast:
        """What `on_fit_start` would do for a machine whose centres are its training rows; a line says why nothing."""
        device = self._solving_device(machine, rows.x, rows.y, device, None)
        options = self._options(machine, len(rows), device, None)
        found = forecast_limit(machine.kernel, rows.x.to(device), rows.y.to(device), **options)
        if found.left_out is not None:
            log.warning("exact interpolation: left out: %s", found.left_out)
        return found

    def _options(self, machine: Machine, n: int, device: torch.device, centers: Tensor | None) -> dict[str, Any]:
        """What is asked of the limit."""
        return {
            "ridge": machine.ridge,
            "memory": self._budget(machine, device),
            "solver": self.solver,
            "tolerance": self.tolerance,
            "folder": self.cache_dir,
            "patience": self.patience,
            "leave_one_out": None if centers is None and n <= LEFT_OUT_ROWS else False,
        }

    def _find(
        self, machine: Machine, rows: RowDataset, facts: DataFacts, device: torch.device, centers: Tensor | None
    ) -> _Outcome:
        """The limit with its errors, or why there is none."""
        x, y, classifier, scale = rows.x, rows.y, machine.is_classifier, machine.target_scale
        device = self._solving_device(machine, x, y, device, centers)
        found = exact_limit(
            machine.kernel,
            x.to(device),
            y.to(device),
            centers=None if centers is None else centers.to(device),
            **self._options(machine, len(x), device, centers),
        )
        if isinstance(found, NoLimit):  # for example over the budget; the run goes on without its limit
            return _Outcome(skipped=str(found.reason))
        solution = found.solution.to("cpu")
        train = evaluate_scores(solution.fitted, y, None, classifier, scale)
        validated = evaluate_on(facts.val_set, solution, classifier, scale)
        left: dict[str, float | None] = {"mse": None, "error": None}
        if solution.leave_one_out is not None:
            left = evaluate_scores(solution.leave_one_out.predictions, y, None, classifier, scale)
        results = {
            "exact_train_mse": train["mse"],
            "exact_train_error": train["error"],
            "exact_loo_mse": left["mse"],
            "exact_loo_error": left["error"],
            **_named("val", validated),
            **_named("test", validated if facts.val_set is facts.test_set else evaluate_on(None, solution, classifier)),
            "exact_rkhs_norm": solution.rkhs_norm,
            "distance_to_exact": None,
            "solver": solution.solver,
            "iterations": solution.iterations,
            "relative_residual": solution.relative_residual,
            "jitter": solution.jitter,
            "seconds": solution.seconds,
            "cached": found.read_from is not None,
        }
        return _Outcome(replace(solution, centers=solution.centers[:0]), results)  # all ranks have them

    def _solving_device(
        self, machine: Machine, x: Tensor, y: Tensor, device: torch.device, centers: Tensor | None
    ) -> torch.device:
        """The GPU if the solve fits there beside the machine; else the CPU (MPS has no float64)."""
        (n, d), c = x.shape, y.shape[1]
        need = 0 if centers is not None else direct_memory(n, d, c)
        fits = device.type == "cuda" and need <= self._budget(machine, device)
        return device if fits else torch.device("cpu")

    def _budget(self, machine: Machine, device: torch.device) -> int:
        """Bytes of the budget for the solve, less what the machine holds before training."""
        return max(1, parse_memory(self.memory, device) - machine.memory.before_training)


_TAGS = {
    "train_mse": "exact_train_mse",
    "val_mse": "exact_val_mse",
    "val_error": "exact_val_error",
    "val_error_noisy": "exact_val_error_noisy",
    "rkhs_norm": "exact_rkhs_norm",
    "distance": "distance_to_exact",
}


@dataclass(frozen=True)
class _Outcome:
    """What rank 0 found, broadcast to the other ranks."""

    solution: Interpolant | None = None
    results: dict[str, Any] | None = None
    skipped: str | None = None


def _named(part: str, errors: dict[str, float | None]) -> dict[str, float | None]:
    """Errors of f* on "val" or "test" rows, under the names of `results`."""
    return {f"exact_{part}_{name}": value for name, value in errors.items()}
