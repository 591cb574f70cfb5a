"""EigenPro against plain kernel SGD: epochs and seconds to a training mse, by the number of damped eigenvectors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from matplotlib.axes import Axes

from recipes.reproduce.analysis.reached import epochs_of, seconds_of
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import OF_KERNEL, log_axis, panels, seconds_axis, style_of
from recipes.reproduce.page.presentation import Claim, Presentation, Table
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import KernelSpec
from recipes.reproduce.setting import Setting, title
from recipes.reproduce.sweep.point import Point, Result, Results

SOURCE = "[MB17] section 4"
AUTO = "auto"


class Acceleration(Experiment):
    """Runs to a small training mse at several q, both kernels, each at its automatic batch and step size."""

    name = "acceleration"
    title = "EigenPro against plain kernel SGD (q = 0): epochs and seconds to a training mse, by q"
    source = SOURCE

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """A run for each kernel and q."""
        return [make_fit(setting, kernel, q) for kernel in setting.kernels("mnist") for q in (*ranks(setting), None)]

    def present(self, setting: Setting, results: Results) -> Presentation:
        """Training mse against epochs and against seconds, a row for each kernel; acceleration against q."""
        kernels = setting.kernels("mnist")
        runs = {
            kernel: {q: results[make_fit(setting, kernel, q)] for q in (*ranks(setting), None)} for kernel in kernels
        }
        curves, grid = panels(len(kernels), 2, width=3.4, height=2.2)
        for row, kernel in zip(grid, kernels, strict=True):
            draw_curves(row, runs[kernel], targets(setting), last=kernel is kernels[-1])
            row[0].set_title(f"{kernel.title} kernel", loc="left")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        curves.legend(handles, labels, loc="outside right upper", frameon=False)
        factors, grid = panels(1, 2, width=3.2, height=2.4, sharey=True)
        draw_factors(grid[0], runs, targets(setting))
        handles, labels = grid[0, 0].get_legend_handles_labels()
        factors.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        sample = make_fit(setting, kernels[0], 0).sample
        cap = epochs_at_most(setting)
        return Presentation(
            figures={"acceleration-curves": curves, "acceleration": factors},
            rows=[row for kernel in kernels for row in records(kernel, runs[kernel], targets(setting))],
            claims=[claim for kernel in kernels for claim in claims(kernel, runs[kernel], targets(setting), cap)],
            tables=[
                reached_table(f"{title(sample.data)}, n={sample.rows}", runs, targets(setting), cap),
                plan_table(runs),
            ],
            sentences=[
                "Every run has its automatic batch and step size, given in the table. On a CPU the batch is m*/2 but "
                "at least 32, which for q = 0 is beyond m*: a smaller batch would need fewer epochs of more steps "
                "(see batch-size).",
                "Epochs are whole and a part: between the ends of two epochs the logarithm of the mse is taken to be "
                "linear. Seconds are of training steps; all else, from reading the data to the last test, has a column "
                "of its own.",
                f"A run that has not come to the mse in {cap} epochs gives a lower bound on the acceleration (>).",
            ],
        )


def ranks(setting: Setting) -> tuple[int, ...]:
    """The values of q; 0 is plain kernel SGD."""
    return setting.choose(tiny=(0, 40), quick=(0, 20, 80, 160), full=(0, 20, 40, 80, 160, 320))


def targets(setting: Setting) -> tuple[float, ...]:
    """Training mses, falling; runs stop at the last."""
    return setting.choose(tiny=(1e-2, 3e-3), quick=(1e-2, 1e-3, 1e-4), full=(1e-2, 1e-3, 1e-4))


def epochs_at_most(setting: Setting) -> int:
    """Epochs after which a run is given up."""
    return setting.choose(tiny=20, quick=100, full=250)


def make_fit(setting: Setting, kernel: KernelSpec, q: int | None) -> Fit:
    """Training to the smallest mse; q None is automatic."""
    n = setting.choose(tiny=300, quick=2000, full=10_000)
    sample = setting.sample("mnist", n, setting.choose(tiny=None, quick=1000, full=None))
    return Fit(
        sample=sample,
        kernel=kernel,
        epochs=epochs_at_most(setting),
        until_mse=targets(setting)[-1],
        test_every=0,
        top_q=q,
    )


def acceleration(plain: float | None, ours: float | None, at_least: float) -> tuple[float, bool] | None:
    """plain / ours, and whether that is a lower bound: then plain SGD was not there after `at_least`.

    None where our own run was not there.
    """
    if ours is None:
        return None
    return (at_least / ours, True) if plain is None else (plain / ours, False)


def in_epochs(plain: Result, ours: Result, target: float) -> tuple[float, bool] | None:
    """The acceleration in epochs."""
    return acceleration(epochs_of(plain, target), epochs_of(ours, target), plain["epochs"])


def in_seconds(plain: Result, ours: Result, target: float) -> tuple[float, bool] | None:
    """The acceleration in seconds of training steps."""
    return acceleration(seconds_of(plain, target), seconds_of(ours, target), sum(plain["seconds_per_epoch"]))


def draw_curves(row: Sequence[Axes], runs: dict[int | None, Result], goals: Sequence[float], last: bool) -> None:
    """Training mse of each q from the end of the first epoch on; the dotted lines are the targets."""
    for i, (q, fit) in enumerate(runs.items()):
        mses = fit["curves"]["train/mse"]
        style = {**style_of(i), "linestyle": "--" if q is None else "-", "markevery": (0.0, 0.15)}
        name = f"q = {fit['top_q']}" + (f" ({AUTO})" if q is None else "")
        row[0].plot(range(1, len(mses) + 1), mses, label=name, **style)
        row[1].plot(list(accumulate(fit["seconds_per_epoch"])), mses, **style)
    for axes, label in zip(row, ("epochs", "seconds of training"), strict=True):
        seconds_axis(axes, label if last else "")
        axes.set_yscale("log")
        for goal in goals:
            axes.axhline(goal, color="#777777", linestyle=":", linewidth=1)
    row[0].set_ylabel("training mse")


def draw_factors(row: Sequence[Axes], runs: dict[KernelSpec, dict[int | None, Result]], goals: Sequence[float]) -> None:
    """Acceleration against q at the smallest target that plain SGD reached, in epochs and in seconds."""
    for axes, ratio, label in zip(row, (in_epochs, in_seconds), ("epochs", "seconds"), strict=True):
        for marker, (kernel, by_q) in zip("os", runs.items(), strict=True):
            goal = common_target(by_q, goals)
            found = [(q, ratio(by_q[0], fit, goal)) for q, fit in by_q.items() if q]
            known = [(q, factor[0]) for q, factor in found if factor is not None]
            if known:
                qs, values = zip(*known, strict=True)
                name = f"{kernel.title}, to mse {goal:g}"
                axes.plot(qs, values, marker=marker, color=OF_KERNEL[kernel.name], label=name)
        axes.axhline(1, color="#777777", linestyle=":", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_xticks(
            ticks := sorted({q for by_q in runs.values() for q in by_q if q}), [str(q) for q in ticks], minor=False
        )
        axes.set_xlabel("q, damped eigenvectors")
        axes.set_title(f"in {label}", loc="left")
        log_axis(axes, "times faster than q = 0" if axes is row[0] else "")


def common_target(by_q: dict[int | None, Result], goals: Sequence[float]) -> float:
    """The smallest target that plain SGD reached; the largest of all where it reached none."""
    return min((goal for goal in goals if epochs_of(by_q[0], goal) is not None), default=goals[0])


def claims(kernel: KernelSpec, by_q: dict[int | None, Result], goals: Sequence[float], cap: int) -> list[Claim]:
    """That EigenPro is faster, and gains with q."""
    goal = common_target(by_q, goals)
    needed = {q: epochs_of(fit, goal) for q, fit in by_q.items() if q is not None}
    damped = [value for q, value in needed.items() if q]
    said = ", ".join(f"q={q}: {'more than ' + str(cap) if e is None else f'{e:.1f}'}" for q, e in needed.items())
    plain = needed[0]
    # Where plain SGD was not there in the epochs that it had, it needs more than them.
    limit = by_q[0]["epochs"] if plain is None else plain
    faster = None if plain is None and None in damped else all(value is not None and value < limit for value in damped)
    seconds = seconds_of(by_q[0], goal), seconds_of(by_q[None], goal)
    had = sum(by_q[0]["seconds_per_epoch"]) if seconds[0] is None else seconds[0]
    sooner = seconds[1] is not None and seconds[1] < had
    return [
        Claim(
            f"{kernel.title}: EigenPro needs fewer epochs than plain kernel SGD, at every q",
            faster,
            f"epochs to training mse {goal:g}: {said}",
            SOURCE,
        ),
        Claim(
            f"{kernel.title}: EigenPro with automatic q needs less time than plain kernel SGD",
            None if seconds[0] is None and not sooner else sooner,
            f"seconds of training to mse {goal:g}: {amount(seconds[1])} against {amount(seconds[0])}",
            SOURCE,
        ),
    ]


def amount(value: float | None) -> str:
    """Seconds or epochs, or that there are none."""
    return "not reached" if value is None else f"{value:.3g}"


def reached_table(
    what: str, runs: dict[KernelSpec, dict[int | None, Result]], goals: Sequence[float], cap: int
) -> Table:
    """Epochs to each target with the acceleration, and seconds to the last."""
    rows = []
    for kernel, by_q in runs.items():
        for q, fit in by_q.items():
            cells = []
            for goal in goals:
                epochs = epochs_of(fit, goal)
                text = f"> {cap}" if epochs is None else f"{epochs:.1f}"
                factor = in_epochs(by_q[0], fit, goal) if q != 0 else None
                cells.append(text + (f" ({'> ' * factor[1]}{factor[0]:.1f}x)" if factor else ""))
            seconds = amount(seconds_of(fit, goals[-1]))
            rows.append((run_name(kernel, q, fit), *cells, seconds, f"{fit['other_seconds']:.1f}"))
    header = ("", *(f"epochs to {goal:g}" for goal in goals), f"seconds to {goals[-1]:g}", "other seconds")
    return Table(f"{what}: epochs to a training mse (acceleration over q = 0)", header, rows)


def plan_table(runs: dict[KernelSpec, dict[int | None, Result]]) -> Table:
    """The parameters of every run."""
    rows = [
        (
            run_name(kernel, q, fit),
            str(fit["batch_size"]),
            str(fit["critical_batch_size"]),
            f"{fit['step_size']:.4g}",
            f"{fit['lambda_1_damped']:.2e}",
        )
        for kernel, by_q in runs.items()
        for q, fit in by_q.items()
    ]
    return Table("automatic parameters", ("", "m", "m*", "step size", "lambda_1 of the damped kernel"), rows)


def run_name(kernel: KernelSpec, q: int | None, fit: Result) -> str:
    """Kernel and q."""
    return f"{kernel}, q={fit['top_q']}" + (f" ({AUTO})" if q is None else "")


def records(kernel: KernelSpec, by_q: dict[int | None, Result], goals: Sequence[float]) -> list[dict[str, Any]]:
    """A record for each run and target."""
    return [
        {
            "data": fit["data_source"],
            "n": fit["n"],
            "kernel": kernel.name,
            "bandwidth": kernel.bandwidth,
            "q": fit["top_q"],
            "q_chosen": AUTO if q is None else "given",
            "m": fit["batch_size"],
            "step_size": fit["step_size"],
            "target_mse": goal,
            "epochs": epochs_of(fit, goal),
            "seconds": seconds_of(fit, goal),
            "other_seconds": fit["other_seconds"],
            "epochs_run": fit["epochs"],
            "acceleration_epochs": (factor := in_epochs(by_q[0], fit, goal)) and factor[0],
            "acceleration_is_lower_bound": None if factor is None else factor[1],
        }
        for q, fit in by_q.items()
        for goal in goals
    ]
