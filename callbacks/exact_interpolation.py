"""The exact limit of training beside the run: its errors, its norm, and how far the machine still is from it."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from callbacks.common import Machine, val_rows, validation_metrics
from callbacks.exact_cache import load_solution, save_solution, solution_key
from kl import Interpolant, KLError, interpolate, least_squares
from kl.checks import check_count, check_positive
from kl.exact.cost import check_solver, choose_solver, direct_memory, estimate_seconds, pcg_plan
from kl.exact.equations import Progress, duration
from kl.exact.interpolate import RESIDUAL_ACCEPTED, check_tolerance
from kl.metrics import error, mse
from kl.rows.rows import RowDataset
from kl.system.files import cache_folder, expand_home
from kl.system.memory import parse_memory
from kl.system.wording import counted

log = logging.getLogger(__name__)

MAX_ROWS = 100_000
MAX_SECONDS = 1800.0


class ExactInterpolation(pl.Callback):
    """Solves for the limit f* of training, and logs it beside the run at every epoch.

    f* is the minimum-norm interpolant of the training set; of a machine that trains with a ridge the ridge solution,
    and of one with centres of its own the least-squares function in their span.

    Logs exact/train_mse, exact/val_mse, exact/val_error, exact/val_error_noisy (with label noise), exact/rkhs_norm,
    exact/distance = |f_t - f*|_H, exact/gap_train_mse = train/mse - exact/train_mse and
    exact/gap_val_error = val/error - exact/val_error. Errors are fractions in [0, 1].

    The distance costs no kernel evaluation. Both functions are expansions on the training rows, and their values there
    are known, so

        |f_t - f*|^2 = <f_t - f*, f_t - f*> = sum_i (alpha_i - alpha*_i) . (f_t(x_i) - f*(x_i))

    This is |f_t|^2 - 2 sum_i alpha_i . f*(x_i) + |f*|^2 without its cancellation, which hides distances below about
    5e-3 |f*| (digits, Laplacian). With centres of its own it is (alpha - alpha*)^T K(Z, Z) (alpha - alpha*). It has a
    floor of its own: training sees float32 kernel values, the solve float64 ones, and their limits differ by about
    3e-4 |f*| there. A smaller value means "at the limit of the float32 kernel".

    The solution is kept on disk and read again by any run on the same data, targets, kernel and ridge. So is the state
    of conjugate gradients that were interrupted: the next such run goes on from there. Before the solve its estimated
    time is logged, during it what is left.

    Args:
        memory: budget of the solve and of what the machine holds meanwhile: "8GB", bytes, or "auto" (half of what is
            free). As of `kl.interpolate`; the kernel rows that a machine keeps are only computed afterwards.
        cache_dir: folder of kept solutions; None is $XDG_CACHE_HOME/kl/exact, else ~/.cache/kl/exact.
        max_rows: above this n nothing is solved (a kept solution is still read), since the time grows as n^2 at least.
        solver: "auto", "direct" or "pcg", as of `kl.interpolate`.
        tolerance: the relative residual to reach.
        max_seconds: conjugate gradients that take longer are left out; their state is kept, and `kl interpolate` with
            the same options goes on from it.

    Attributes:
        results: exact_train_mse, exact_train_error, exact_val_mse, exact_val_error, exact_val_error_noisy (of the rows
            that val/* is of), exact_test_mse, exact_test_error, exact_test_error_noisy (where a validation part is held
            out only after `trainer.test`), exact_rkhs_norm, distance_to_exact, solver, iterations, relative_residual,
            jitter, seconds (of the solve, also where it was kept), cached; single values are None where they do not
            apply, as errors of regression. None where skipped.
        skipped: why nothing was solved; None where it was.
        solution: the `kl.Interpolant`, None where skipped.

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
        parse_memory(memory)  # a mistake shows here, before any data is read
        self.memory = memory
        self.cache_dir = Path(expand_home(cache_dir)) if cache_dir is not None else cache_folder() / "exact"
        self.max_rows = check_count("max_rows", max_rows)
        self.max_seconds = check_positive("max_seconds", max_seconds)
        self.results: dict[str, Any] | None = None
        self.skipped: str | None = None
        self.solution: Interpolant | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Read or solve on rank 0 and tell every rank; the others wait however long it takes."""
        found, centers = _Outcome(skipped="fast_dev_run"), None
        data, device = trainer.datamodule, trainer.strategy.root_device  # type: ignore[attr-defined]
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            if getattr(data, "streamed", False):
                found = _Outcome(skipped="the training rows are a stream, and a solve needs them in memory")
            elif getattr(data, "augmentation", None) is not None:
                found = _Outcome(
                    skipped="the training rows are augmented, others in every epoch, and have no such limit"
                )
            else:
                centers = pl_module.limit_centers() if pl_module.own_centers else None  # on all ranks
                found = pl_module.ranks.broadcast_result(lambda: self._find(pl_module, data, device, centers))
        self.skipped, self.solution, self.results = found.skipped, found.solution, found.results
        if self.solution is None or self.results is None:
            if trainer.is_global_zero:
                level = logging.INFO if trainer.fast_dev_run else logging.WARNING  # type: ignore[attr-defined]
                log.log(level, "exact interpolation: left out: %s", self.skipped)
            return
        self.solution = replace(self.solution, centers=data.train_set.x if centers is None else centers)
        device = pl_module.alpha.device  # once: the distance is asked for at every epoch
        self._alpha, self._fitted = self.solution.alpha.to(device), self.solution.fitted.to(device)
        self.results["distance_to_exact"] = self.distance(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Log the limit, the distance to it and the gaps."""
        if self.results is None:
            return
        self.results["distance_to_exact"] = self.distance(pl_module)
        logged = {f"exact/{tag}": self.results[name] for tag, name in _TAGS.items()}
        metrics = {**pl_module.train_metrics, **validation_metrics(trainer)}
        for ours, tag in (("train/mse", "train_mse"), ("val/error", "val_error")):
            if ours in metrics and logged[f"exact/{tag}"] is not None:
                logged[f"exact/gap_{tag}"] = metrics[ours] - logged[f"exact/{tag}"]
        pl_module.log_dict({name: value for name, value in logged.items() if value is not None}, batch_size=1)

    def on_test_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Take the limit's errors on a test set that was not to be looked at before."""
        test = getattr(trainer.datamodule, "test_set", None)  # type: ignore[attr-defined]
        if self.solution is None or self.results is None or test is None or self.results["exact_test_mse"] is not None:
            return
        solution, classifier = self.solution, pl_module.is_classifier
        self.results |= pl_module.ranks.broadcast_result(lambda: _errors("test", test, solution, classifier))

    @torch.no_grad()
    def distance(self, machine: Machine) -> float:
        """|f_t - f*|_H of the machine as it is now; floor and formula as above."""
        if self.solution is None:
            raise RuntimeError(f"there is no exact solution to measure from: {self.skipped or 'fit() has not started'}")
        device = machine.alpha.device  # after the fit Lightning has taken the machine off the GPU
        weights = machine.alpha - machine.own_rows(self._alpha.to(device))
        if machine.own_centers:
            return math.sqrt(float(machine.sq_norm_of(weights).sum()))
        values = machine.fitted_values() - machine.own_rows(self._fitted.to(device))
        return math.sqrt(max(float(machine.owners.all_reduce_sum((weights * values).sum())), 0.0))

    def _find(self, machine: Machine, data: Any, device: torch.device, centers: Tensor | None) -> _Outcome:
        """The kept or the computed solution with its errors, or why there is none."""
        kernel, x, y = machine.kernel, data.train_set.x, data.train_set.y
        key = solution_key(kernel, x, y, machine.ridge, centers)
        path = self.cache_dir / f"{key}.pt"
        solution = load_solution(path, key, kernel, x, y, self.tolerance, self.solver, centers)
        cached = solution is not None
        if solution is not None:
            log.info("exact interpolation: read from %s", path)
        else:
            try:
                if centers is None:
                    solution = self._solve(machine, x, y, device, path.with_suffix(".partial"))
                else:
                    solution = self._solve_least_squares(machine, centers, x, y, device)
            except KLError as reason:  # beyond the budget, or singular: the run itself can do without
                return _Outcome(skipped=str(reason))
            save_solution(path, key, solution)
        rows, test = val_rows(data), getattr(data, "test_set", None)
        validated = _errors("val", rows, solution, machine.is_classifier)
        results = {
            "exact_train_mse": mse(solution.fitted, y),
            "exact_train_error": error(solution.fitted, y) if machine.is_classifier else None,
            **validated,
            **_errors("test", None, solution, machine.is_classifier),
            **({name.replace("val", "test"): value for name, value in validated.items()} if rows is test else {}),
            "exact_rkhs_norm": solution.rkhs_norm,
            "distance_to_exact": None,
            "solver": solution.solver,
            "iterations": solution.iterations,
            "relative_residual": solution.relative_residual,
            "jitter": solution.jitter,
            "seconds": solution.seconds,
            "cached": cached,
        }
        return _Outcome(replace(solution, centers=solution.centers[:0]), results)  # all ranks have the rows

    def _solve(self, machine: Machine, x: Tensor, y: Tensor, device: torch.device, checkpoint: Path) -> Interpolant:
        kernel, (n, d), c = machine.kernel, x.shape, y.shape[1]
        if n > self.max_rows:
            raise KLError(
                f"n={n} training rows are more than max_rows={self.max_rows} (the time grows as n^2 at least): use "
                f"--train-size {self.max_rows} or less, or ExactInterpolation(max_rows={n}) from Python"
            )
        # MPS has no float64.
        if device.type != "cuda" or direct_memory(n, d, c) > self._budget(machine, device):
            device = torch.device("cpu")
        budget = self._budget(machine, device)
        solver = choose_solver(self.solver, n, d, c, budget, device)
        if direct_memory(n, d, c) <= budget if solver == "direct" else pcg_plan(n, d, c, budget)[0]:
            seconds = estimate_seconds(kernel, x.to(device), solver, budget, c)
            log.info(
                "exact interpolation: solving n=%d rows on %s (%s), about %s", n, device, solver, duration(seconds)
            )  # else interpolate() says what is missing
        solution = interpolate(
            kernel,
            x.to(device),
            y.to(device),
            machine.ridge,
            budget,
            solver,
            self.tolerance,
            checkpoint,
            self._patience(),
        )
        solution.require_better_than_zero()
        log.info(
            "exact interpolation: took %s, relative residual %.1e, |f*| = %.6g",
            duration(solution.seconds),
            solution.relative_residual,
            solution.rkhs_norm,
        )
        return on_cpu(solution)

    def _solve_least_squares(
        self, machine: Machine, centers: Tensor, x: Tensor, y: Tensor, device: torch.device
    ) -> Interpolant:
        n, p = len(x), len(centers)
        log.info("exact limit: least squares of n=%d rows over the span of p=%d centres", n, p)
        device = device if device.type == "cuda" else torch.device("cpu")  # MPS has no float64
        budget = self._budget(machine, device)
        solution = least_squares(
            machine.kernel, centers.to(device), x.to(device), y.to(device), machine.ridge, budget, self._patience()
        )
        log.info("exact limit: took %s, |f*| = %.6g", duration(solution.seconds), solution.rkhs_norm)
        return on_cpu(solution)

    def _patience(self) -> Callable[[Progress], None]:
        """A listener that ends conjugate gradients when they have taken too long."""
        start = time.monotonic()

        def listen(progress: Progress) -> None:
            if progress.solver == "least squares" and progress.seconds_left > self.max_seconds:
                raise KLError(
                    f"least squares would take about {duration(progress.seconds_left)}, more than "
                    f"max_seconds={self.max_seconds:g}: use fewer --centers"
                )
            if progress.solver == "pcg" and time.monotonic() - start > self.max_seconds:
                raise KLError(
                    f"conjugate gradients took more than max_seconds={self.max_seconds:g} (relative residual "
                    f"{progress.relative_residual:.1e} after {counted(int(progress.done), 'iteration')}): go on with "
                    "`kl interpolate` and the same options, or give a ridge"
                )

        return listen

    def _budget(self, machine: Machine, device: torch.device) -> int:
        """Bytes for the solve beside the machine, whose rows of K are computed only when training starts."""
        held = getattr(machine, "memory", None)
        used = held.total - held.items.get("K(X, X), kept rows", 0) if held is not None else 0
        return max(1, parse_memory(self.memory, device) - used)


_TAGS = {
    "train_mse": "exact_train_mse",
    "val_mse": "exact_val_mse",
    "val_error": "exact_val_error",
    "val_error_noisy": "exact_val_error_noisy",
    "rkhs_norm": "exact_rkhs_norm",
    "distance": "distance_to_exact",
}


def on_cpu(solution: Interpolant) -> Interpolant:
    """The same with its tensors on the CPU."""
    names = ("centers", "alpha", "fitted", "rkhs_norm_per_class")
    return replace(solution, **{name: getattr(solution, name).cpu() for name in names})


@dataclass(frozen=True)
class _Outcome:
    """What rank 0 found and the other ranks are told."""

    solution: Interpolant | None = None
    results: dict[str, Any] | None = None
    skipped: str | None = None


def _errors(
    part: str,  # "val" or "test"
    rows: RowDataset | None,
    solution: Interpolant,
    classifier: bool,
) -> dict[str, float | None]:
    """Errors of f* on a set of rows, in float64: large weights of both signs cancel."""
    names = mean, wrong, noisy = tuple(f"exact_{part}_{name}" for name in ("mse", "error", "error_noisy"))
    results: dict[str, float | None] = dict.fromkeys(names, None)
    if rows is None:
        return results
    scores = solution.predict(rows.x)
    results[mean] = mse(scores, rows.y)
    if classifier:
        results[wrong] = error(scores, rows.y)
        if rows.y_noisy is not None:
            results[noisy] = error(scores, rows.y_noisy)
    return results
