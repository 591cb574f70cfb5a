"""Fits of one set of rows under one metric after the other, each learnt from the fit before."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kl.checks import check_count_or_none, check_one_of, check_positive
from kl.distributed.ranks import Ranks
from kl.errors import CheckpointError, InputError
from kl.features.agop import agop
from kl.features.metric import Metric
from kl.features.structure import Structure
from kl.kernels.configured import comes_from, kernel_from_config, own_classes
from kl.kernels.kernel import Kernel
from kl.machines.checkpoints import faults_in, require_values
from kl.rkhs import evaluate
from kl.rows.root import under_root
from kl.rows.rows import Rows
from kl.solve import Problem, Say, Solution, solve

SAMPLE = 10_000  # rows whose gradients are averaged
GRADIENTS = 10_000  # gradients in an average for which outputs are combined by random signs
WARM_EPOCHS = 0.5  # share of EigenPro's epochs in a round that starts from the weights of the round before


@dataclass(frozen=True)
class MetricOptions:
    """How a metric is made of gradients.

    Args:
        metric: "full", "diagonal", or groups of columns, each of which has a block.
        power: exponent of the gradients' outer product.
        scale: "max": the largest entry of M is 1; "trace": its trace is d.
        centered: whether each output's mean gradient is subtracted.
        sample: rows whose gradients are averaged; None takes all.
        sketch: random combinations of outputs at each row; None takes all outputs. "auto" takes as many as make 10,000
            gradients in all, or all outputs if that is less than twice the work.
        bandwidth_factor: a bandwidth "auto" is this times the median distance under the metric.

    Raises:
        InputError: an option is out of its range.
    """

    metric: str | tuple[tuple[int, ...], ...] = "full"
    power: float = 1.0
    scale: str = "max"
    centered: bool = False
    sample: int | None = SAMPLE
    sketch: int | str | None = "auto"
    bandwidth_factor: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.metric, str):
            check_one_of("metric", self.metric, ("full", "diagonal"))
        check_positive("power", self.power)
        check_one_of("scale", self.scale, ("max", "trace"))
        check_count_or_none("sample", self.sample, "all rows")
        if self.sketch != "auto":
            check_count_or_none("sketch", self.sketch, "all outputs")
        check_positive("bandwidth_factor", self.bandwidth_factor)

    def signs(self, rows: int, c: int) -> int | None:
        """The random combinations at each of so many rows of c outputs; None is all outputs.

        On MNIST, n = 4000, one sign a row gave the metric of all 10 outputs up to a cosine of 0.998, and the same test
        error up to 0.1 points, in a fifth of the time.
        """
        if self.sketch != "auto":
            return self.sketch  # type: ignore[return-value]  # checked above
        count = math.ceil(GRADIENTS / min(rows, self.sample or rows))
        return count if 2 * count < c else None


@dataclass(frozen=True)
class Fit:
    """A fit under one metric."""

    number: int
    """Metrics learnt before; 0 is the plain kernel."""
    metric: Metric | None
    """None is the identity."""
    solution: Solution


class Chain:
    """f_0, f_1, ... where f_t is solved with the kernel K(x M_t^(1/2), z M_t^(1/2)), M_0 is the identity, and

        M_{t+1} = G_t^power / max entry,    G_t = mean_i sum_o grad f_to(x_i) grad f_to(x_i)^T

    Args:
        problem: rows, targets and weights; the rows are not placed by a metric.
        kernel: the kernel; a bandwidth "auto" is chosen anew for every fit.
        options: how a metric is made of gradients.
        solving: ridge, solver, epochs and memory of `kl.solve.solve`.
        seed: of all that is drawn.
        leave_one_out: whether each fit has leave-one-out outputs.
        say: is told of the progress of a solve; None is silent.
        ranks: the processes that share the work, each of which is given the same arguments; None is one process.

    Attributes:
        last: the last fit; None before the first.

    Raises:
        InputError: the kernel defines no gradient, or an option does not fit it or the rows.

    Source: Radhakrishnan, Beaglehole, Pandit and Belkin 2024, arXiv:2212.13881, Algorithm 1.
    """

    def __init__(
        self,
        problem: Problem,
        kernel: Kernel,
        options: MetricOptions,
        solving: dict[str, Any],
        *,
        seed: int,
        leave_one_out: bool,
        say: Say | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        if not kernel.has_gradients:
            kernel.gradients(Rows.of(problem.x[:1]), Rows.of(problem.x[:1]))  # raises, and says what is missing
        if options.bandwidth_factor != 1 and getattr(kernel, "bandwidth", None) != "auto":
            raise InputError(
                f'bandwidth_factor multiplies a bandwidth "auto"; got {options.bandwidth_factor:g} with {kernel}'
            )
        self.structure = Structure.of(options.metric, problem.x.shape[1])
        self.problem, self.kernel, self.options, self.solving = problem, kernel, options, solving
        self._seed, self._leave_one_out, self._say, self.ranks = seed, leave_one_out, say, ranks or Ranks()
        self.last: Fit | None = None

    def step(self) -> Fit | None:
        """The next fit; None if the last f is constant on all rows, so that there is no metric to learn."""
        metric = None
        if self.last is not None:
            metric = self.learn(self.last)
            if metric is None:
                return None
        number = 0 if self.last is None else self.last.number + 1
        self.last = Fit(number, metric, self.solve(self.problem, metric, self._leave_one_out, WARM_EPOCHS))
        return self.last

    def state_dict(self) -> dict[str, Any]:
        """The last fit as plain values and tensors; empty before the first."""
        if self.last is None:
            return {}
        number, metric, solution = self.last.number, self.last.metric, self.last.solution
        state = None if metric is None else metric.state_dict()
        return {"number": number, "metric": state, "alpha": solution.alpha, "kernel": solution.kernel.config()}

    def load_state_dict(self, state: Any) -> None:
        """Go on after the fit that `state_dict` described; the state may come from a file, and is checked.

        Raises:
            CheckpointError: it is no such state, or one of other rows or another kernel.
        """
        if state == {}:
            self.last = None
            return
        require_values("chain of fits", state, {"number": int, "alpha": Tensor, "kernel": dict})
        alpha, shape = state["alpha"], (len(self.problem.x), self.problem.y.shape[1])
        if alpha.shape != shape or alpha.dtype != torch.float64 or not bool(alpha.isfinite().all()):
            raise CheckpointError(f"its alpha must be finite float64 numbers of shape {shape}: train again")
        with faults_in("kernel or metric"):
            kernel = kernel_from_config(state["kernel"], own_classes(self.kernel))
            metric = None if state.get("metric") is None else Metric.from_state(state["metric"])
        if not comes_from(kernel, self.kernel) or (metric is not None and metric.structure != self.structure):
            raise CheckpointError(
                f"its rounds are of {kernel} and a {'plain' if metric is None else metric.structure.kind} metric; got "
                f"{self.kernel} and {self.structure.kind}: resume with the same kernel and metric"
            )
        root, nan, device = root_of(metric, self.problem.x), float("nan"), self.problem.x.device
        known = Solution(kernel, self.problem.x, alpha.to(device), nan, nan, 0, "unknown", None, root)
        self.last = Fit(state["number"], metric, known)

    def learn(self, fit: Fit) -> Metric | None:
        """The metric that the gradients of a fit's f give; None if they are 0 at all rows."""
        solution, options = fit.solution, self.options
        rows = Rows.of(placed(self.problem.x, solution))
        found = agop(
            solution.kernel,
            rows,
            rows,
            solution.alpha,
            metric=self.structure,
            sample=options.sample,
            weights=self.problem.weights,
            same=torch.arange(len(rows), device=rows.data.device),
            centered=options.centered,
            sketch=options.signs(len(rows), solution.alpha.shape[1]),
            seed=self._seed + fit.number,
            ranks=self.ranks,
        )
        if fit.metric is not None:
            found = fit.metric.pull_back(found)
        if found.is_zero:
            return None
        # Ranks on other machines may find eigenvectors that differ in the last bits.
        return self.ranks.broadcast_result(lambda: Metric.of(found, options.power, options.scale))

    def solve(self, problem: Problem, metric: Metric | None, leave_one_out: bool, warm_epochs: float = 1.0) -> Solution:
        """The solution of a problem under a metric; its centres are the rows, not placed.

        Iterations start from the weights of the last fit, which is of the same rows or of some of them.

        Args:
            problem: rows, targets and weights.
            metric: M; None is the identity.
            leave_one_out: whether f without each row is wanted, where the solver gives it.
            warm_epochs: the share of EigenPro's epochs to take, if there is a last fit.
        """
        rows, initial, solving = self._placed(problem.x, metric), self._known_weights(problem), dict(self.solving)
        if initial is not None:
            solving["epochs"] = math.ceil(warm_epochs * solving["epochs"])
        found = solve(
            replace(problem, x=rows),
            self._resolved(rows),
            seed=self._seed,
            leave_one_out=leave_one_out,
            say=self._say,
            initial=initial,
            ranks=self.ranks,
            **solving,
        )
        return replace(found, centers=problem.x, root=root_of(metric, problem.x))

    def kernel_on(
        self,
        x: Tensor,  # shape: (n, d)
        metric: Metric | None,
    ) -> Kernel:
        """The kernel that a fit on these rows has under a metric, with its bandwidth."""
        return self._resolved(self._placed(x, metric))

    def _placed(self, x: Tensor, metric: Metric | None) -> Tensor:
        return under_root(x - self.kernel.origin_of(x), root_of(metric, x))

    def _known_weights(self, problem: Problem) -> Tensor | None:
        """The weights of the last fit at the rows of a problem, 0 at those it was not fitted on; None before it."""
        if self.last is None:
            return None
        alpha = problem.y.new_zeros(problem.y.shape)
        alpha[torch.isin(problem.first, self.problem.first)] = self.last.solution.alpha
        return alpha

    def _resolved(self, rows: Tensor) -> Kernel:
        kernel = self.kernel.resolve(rows, seed=self._seed)
        if self.options.bandwidth_factor == 1:
            return kernel
        bandwidth = self.options.bandwidth_factor * kernel.bandwidth  # type: ignore[attr-defined]
        return replace(kernel, bandwidth=bandwidth)  # type: ignore[type-var]


def root_of(metric: Metric | None, x: Tensor) -> Tensor | None:
    """M^(1/2) on the device of the rows; None for the identity."""
    return None if metric is None else metric.root.to(x.device)


def placed(
    x: Tensor,  # shape: (m, d)
    solution: Solution,
) -> Tensor:
    """What the kernel of a solution under a metric is computed on, shape (m, d)."""
    return under_root(x - solution.kernel.origin_of(solution.centers), solution.root)


def evaluate_solution(
    solution: Solution,
    x: Tensor,  # shape: (m, d)
) -> Tensor:
    """f(x), float64, shape (m, c)."""
    centers = placed(solution.centers, solution)
    return evaluate(solution.kernel, centers, solution.alpha, placed(x.to(solution.centers), solution))
