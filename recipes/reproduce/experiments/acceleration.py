"""EigenPro against plain kernel SGD: epochs and seconds to a training mse, by the number of damped eigenvectors."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from recipes.reproduce.analysis.reached import epochs_of, seconds_of
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import Style, counts, finish, kernel_look, log, name_once, panel, panels, style_of
from recipes.reproduce.page.presentation import Claim, Presentation, Table
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import KernelSpec
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Point, Result, Results
from recipes.reproduce.table import DataFrame, Row, by_epoch, derived, groups, rows_of, sweep_table, table

SOURCE = "[MB17] section 4"
AUTO = "auto"
COLUMNS = (
    "data n kernel bandwidth q q_chosen m step_size target_mse epochs seconds other_seconds epochs_run "
    "acceleration_epochs acceleration_is_lower_bound"
)


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
        goals, cap = targets(setting), epochs_at_most(setting)
        runs = sweep_table(
            self.points(setting, results),
            results,
            asked=lambda run: run["point"].top_q,
            q_chosen=lambda run: AUTO if run["asked"] is None else "given",
            note=lambda run: f" ({AUTO})" if run["asked"] is None else "",
        )
        reached = reached_table(runs, goals)
        return Presentation(
            figures={"acceleration-curves": draw_curves(runs, goals), "acceleration": draw_factors(reached)},
            rows=rows_of(reached, COLUMNS),
            claims=[
                claim for own in groups(runs, "spec") for claim in claims(own["spec"].iat[0], by_q(own), goals, cap)
            ],
            tables=[
                reached_summary(reached, goals, cap),
                Table.of(
                    "automatic parameters",
                    runs,
                    ("", "{spec}, q={q}{note}"),
                    ("m", "{m}"),
                    ("m*", "{critical_batch_size}"),
                    ("step size", "{step_size:.4g}"),
                    ("lambda_1 of the damped kernel", "{lambda_1_damped:.2e}"),
                ),
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
    """Training mses in falling order; runs stop at the last."""
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
    """plain / ours, and whether it is a lower bound, because plain SGD had not reached the target after `at_least`.

    None if our own run did not reach the target.
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


def by_q(runs: DataFrame) -> dict[int | None, Row]:
    """One kernel's runs by the requested q."""
    return {run["asked"]: run for run in rows_of(runs)}


def reached_table(runs: DataFrame, goals: Sequence[float]) -> DataFrame:
    """A row for each run and target: epochs and seconds until the run reached the target, None if it did not.

    `in_epochs` and `in_seconds` are accelerations over the kernel's run at q = 0; `common` is its `common_target`.
    """
    plain = {run["spec"]: run for run in rows_of(runs[runs["asked"] == 0])}
    pairs = [(at, {**run, "target_mse": goal}) for at, run in enumerate(rows_of(runs)) for goal in goals]
    return derived(
        table(row for _, row in pairs).set_axis([at for at, _ in pairs]),
        common=lambda run: common_target({0: plain[run["spec"]]}, goals),
        in_epochs=lambda run: in_epochs(plain[run["spec"]], run, run["target_mse"]),
        in_seconds=lambda run: in_seconds(plain[run["spec"]], run, run["target_mse"]),
        acceleration_epochs=lambda run: run["in_epochs"] and run["in_epochs"][0],
        acceleration_seconds=lambda run: run["in_seconds"] and run["in_seconds"][0],
        acceleration_is_lower_bound=lambda run: run["in_epochs"] and run["in_epochs"][1],
        seconds=lambda run: seconds_of(run, run["target_mse"]),
        epochs_run=lambda run: run["epochs"],
        epochs=lambda run: epochs_of(run, run["target_mse"]),
    )


def draw_curves(runs: DataFrame, goals: Sequence[float]) -> Figure:
    """Training mse of each q from the end of the first epoch on; the dotted lines are the targets."""
    kernels = groups(by_epoch(runs), "spec")
    order = list(dict.fromkeys(runs["asked"]))

    def look(run: Row) -> Style:
        line = "--" if run["asked"] is None else "-"
        return {**style_of(order.index(run["asked"])), "linestyle": line, "markevery": (0.0, 0.15)}

    figure, axes = panels(len(kernels), 2, width=3.4, height=2.2)
    for row, own in zip(axes, kernels, strict=True):
        for each, x, name in zip(row, ("epoch", "seconds"), ("epochs", "seconds of training"), strict=True):
            across = log(name if own is kernels[-1] else "")
            panel(each, own, x, "train_mse", "point", look, label="q = {q}{note}", across=across)
            for goal in goals:
                each.axhline(goal, color="#777777", linestyle=":", linewidth=1)
        row[0].set_title(f"{own['spec'].iat[0].title} kernel", loc="left")
    name_once(figure)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def draw_factors(reached: DataFrame) -> Figure:
    """Acceleration against q at the smallest target that plain SGD reached, in epochs and in seconds."""
    shown = reached[(reached["target_mse"] == reached["common"]) & reached["asked"].astype(bool)]
    scales: Style = {"across": counts("q, damped eigenvectors"), "up": log("times faster than q = 0")}
    figure, (axes,) = panels(1, 2, width=3.2, height=2.4, sharey=True)
    for each, name in zip(axes, ("epochs", "seconds"), strict=True):
        named: Style = {"label": "{spec.title}, to mse {common:g}", "title": f"in {name}"}
        panel(each, shown, "q", f"acceleration_{name}", "kernel", kernel_look, **named, **scales)
        each.axhline(1, color="#777777", linestyle=":", linewidth=1)
    finish(figure, 2)
    return figure


def common_target(by_q: dict[int | None, Result], goals: Sequence[float]) -> float:
    """The smallest target that plain SGD reached; the largest target if it reached none."""
    return min((goal for goal in goals if epochs_of(by_q[0], goal) is not None), default=goals[0])


def claims(kernel: KernelSpec, by_q: dict[int | None, Result], goals: Sequence[float], cap: int) -> list[Claim]:
    """That EigenPro needs fewer epochs at every q, and less time at the automatic q."""
    goal = common_target(by_q, goals)
    needed = {q: epochs_of(fit, goal) for q, fit in by_q.items() if q is not None}
    damped = [value for q, value in needed.items() if q]
    said = ", ".join(f"q={q}: {'more than ' + str(cap) if e is None else f'{e:.1f}'}" for q, e in needed.items())
    plain = needed[0]
    # If plain SGD did not reach the target, it needs more than the epochs that it ran.
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
    """Seconds or epochs as text; "not reached" for None."""
    return "not reached" if value is None else f"{value:.3g}"


def reached_summary(reached: DataFrame, goals: Sequence[float], cap: int) -> Table:
    """Epochs to each target with the acceleration, and seconds to the last."""

    def text(run: Row) -> str:
        said, factor = f"> {cap}" if run["epochs"] is None else f"{run['epochs']:.1f}", run["in_epochs"]
        return said + (f" ({'> ' * factor[1]}{factor[0]:.1f}x)" if factor and run["asked"] != 0 else "")

    last = reached[reached["target_mse"] == goals[-1]]
    return Table.of(
        "{set}, n={n}: epochs to a training mse (acceleration over q = 0)",
        last.assign(texts=derived(reached, text=text).groupby(level=0)["text"].agg(list)),
        ("", "{spec}, q={q}{note}"),
        *((f"epochs to {goal:g}", f"{{texts[{i}]}}") for i, goal in enumerate(goals)),
        (f"seconds to {goals[-1]:g}", "{seconds:.3g}", "not reached"),
        ("other seconds", "{other_seconds:.1f}"),
    )
