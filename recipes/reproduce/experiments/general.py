"""General kernel models: EigenPro 2, 3 and 4 against epochs, seconds, centres and rows; and augmented images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recipes.reproduce.experiment import Experiment
from recipes.reproduce.experiments import kernels as kernels_experiment
from recipes.reproduce.page.drawing import (
    CYCLE,
    curve,
    epochs_axis,
    legend_below,
    log_axis,
    panels,
    percent_axis,
    rows_axis,
    seconds_axis,
    short_count,
)
from recipes.reproduce.page.presentation import Claim, Presentation, Table
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.general import GeneralFit
from recipes.reproduce.points.sample import KernelSpec
from recipes.reproduce.published import EIGENPRO_4, EIGENPRO_4_SOURCE, REPORT
from recipes.reproduce.setting import Setting, title
from recipes.reproduce.sweep.point import Point, Result, Results

DATA = ("cifar10", "fashion-mnist")
AUGMENT = {"cifar10": "shift:1,flip", "fashion-mnist": "shift:1"}  # shoes all point to the left
SAME = 0.01  # errors within a percentage point count as equal
PROJECTIONS = {"eigenpro": "an epoch of EigenPro 2", "factor": "a factor"}


class General(Experiment):
    """p centres beside a centre at every row; delayed projections beside one after each step."""

    name = "general"
    title = "EigenPro 3 and 4 with p centres on colour CIFAR-10 and Fashion-MNIST, beside EigenPro 2; augmented images"
    source = EIGENPRO_4_SOURCE

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """The searches for bandwidths first; then the runs."""
        names = setting.distinct(*DATA)
        searches: list[Point] = [
            kernels_experiment.search(setting, data, kernel)
            for data in names
            for kernel in kernels_experiment.MAIN
            if kernel in kernels_experiment.RADIAL
        ]
        if not all(point in results for point in searches):
            return searches
        found: list[Point] = list(searches)
        for data in names:
            for kernel in kernels_experiment.MAIN:
                found += runs(setting, data, kernel, results).values()
            found += augmented(setting, data).values()
        found += periods(setting).values()
        found += surface(setting).values()
        return found

    def present(self, setting: Setting, results: Results) -> Presentation:
        """A figure for each set, one of time against p, one of error against n and p."""
        names = setting.distinct(*DATA)
        figures: dict[str, Figure] = {}
        tables: list[Table] = []
        rows: list[dict[str, Any]] = []
        claims: list[Claim] = []
        for data in names:
            found = {kernel: runs(setting, data, kernel, results) for kernel in kernels_experiment.MAIN}
            figures[f"general-{setting.data(data)}"] = by_epoch_and_second(found, results)
            tables.append(course_table(data, found, results))
            rows += [record("curves", name, p, results[p]) for each in found.values() for name, p in each.items()]
            claims.append(gaussian_claim(setting, found, results))
        timed = periods(setting)
        figures["general-time"] = time_figure(timed, results)
        tables.append(time_table(timed, results))
        claims.append(delayed_claim(timed, results))
        rows += [record("time", PROJECTIONS[how], point, results[point]) for (_, how, _), point in timed.items()]
        grid = surface(setting)
        figures["general-surface"] = surface_figure(grid, results)
        rows += [record("surface", "", point, results[point]) for point in grid.values()]
        gains = {data: augmented(setting, data) for data in names}
        tables.append(augment_table(gains, results))
        claims += [augment_claim(each, results) for each in gains.values()]
        rows += [record("augment", name, p, results[p]) for each in gains.values() for name, p in each.items()]
        return Presentation(
            figures=figures,
            rows=rows,
            claims=claims,
            tables=[*tables, published_table()],
            sentences=[
                "Training errors of EigenPro 3 and 4 are over all rows after the last epoch, as EigenPro 2's; where "
                "train_mse_running has them instead, means over the batches of an epoch, each before its step. The "
                "step size falls to 0 over the last half of a run, so that a run of more epochs is not a run of fewer "
                "that went on.",
                "Seconds are of training steps, projections included; centres are random training rows.",
            ],
        )


def centers(setting: Setting) -> tuple[int, ...]:
    """Numbers of centres."""
    return setting.choose(tiny=(20, 60), quick=(100, 300, 600), full=(1000, 5000, 20_000))


def runs(setting: Setting, data: str, kernel: KernelSpec, results: Results) -> dict[str, Fit | GeneralFit]:
    """EigenPro 2 on all rows, EigenPro 4 for every p, EigenPro 3 for the middle one."""
    two = kernels_experiment.run(setting, data, kernel, results, whole=True)
    epochs = setting.choose(tiny=3, quick=10, full=10)
    sizes = centers(setting)
    four = {eigenpro_4(p): GeneralFit(sample=two.sample, kernel=two.kernel, centers=p, epochs=epochs) for p in sizes}
    middle = sizes[len(sizes) // 2]
    three = GeneralFit(sample=two.sample, kernel=two.kernel, centers=middle, period=1, epochs=epochs)
    return {"EigenPro 2": two, **four, f"EigenPro 3, p = {short_count(middle)}": three}


def eigenpro_4(p: int) -> str:
    """What a run with p centres is called."""
    return f"EigenPro 4, p = {short_count(p)}"


def base(setting: Setting) -> tuple[Any, KernelSpec]:
    """Fashion-MNIST as it is, and the Laplacian of [B18]."""
    n = setting.choose(tiny=200, quick=2000, full=None)
    sample = setting.sample("fashion-mnist", n, setting.choose(tiny=None, quick=1000, full=None))
    return sample, setting.kernels("fashion-mnist")[1]


def periods(setting: Setting) -> dict[tuple[int, str, int | None], GeneralFit]:
    """EigenPro 3 and 4 with both projections, by p, projection and period."""
    sample, kernel = base(setting)
    sizes = setting.choose(tiny=(20, 60), quick=(250, 500, 1000), full=(1000, 2000, 5000, 10_000, 20_000))
    epochs = setting.choose(tiny=2, quick=2, full=1)
    return {
        (p, projection, period): GeneralFit(
            sample=sample, kernel=kernel, centers=p, period=period, projection=projection, epochs=epochs
        )
        for p in sizes
        for projection in PROJECTIONS
        for period in (None, 1)
    }


def surface(setting: Setting) -> dict[tuple[int, int], GeneralFit]:
    """EigenPro 4 by n and p, p at most n."""
    sample, kernel = base(setting)
    sizes = setting.choose(tiny=(100, 200), quick=(250, 500, 1000, 2000), full=(1000, 3000, 10_000, 30_000, 60_000))
    by_p = setting.choose(tiny=(20, 60), quick=(60, 250, 1000), full=(300, 1000, 3000, 10_000, 20_000))
    epochs = setting.choose(tiny=3, quick=10, full=10)
    return {
        (n, p): GeneralFit(
            sample=setting.sample("fashion-mnist", n, sample.test_size),
            kernel=kernel,
            centers=p,
            epochs=epochs,
            test_every=epochs,
        )
        for n in sizes
        for p in by_p
        if p <= n
    }


def augmented(setting: Setting, data: str) -> dict[str, GeneralFit]:
    """Runs on n images: as they are, with as many centres; augmented; and with four times the centres."""
    n = setting.choose(tiny=60, quick=1000, full=10_000)
    epochs = setting.choose(tiny=3, quick=20, full=30)
    how = AUGMENT.get(setting.data(data), "shift:1")
    sample = setting.sample(data, n, setting.choose(tiny=None, quick=1000, full=None))
    return {
        name: GeneralFit(
            sample=sample,
            kernel=setting.kernels(data)[1],
            centers=centers,
            epochs=epochs,
            test_every=epochs,
            augment=augment,
        )
        for name, centers, augment in (
            ("as they are", n, None),
            ("augmented", n, how),
            ("augmented, 4 times the centres", 4 * n, how),
        )
    }


def test_error(result: Result) -> float:
    """After the last epoch; 1 where the run diverged at once."""
    return result["final"].get("val/error", 1.0)


def epoch_seconds(result: Result) -> float:
    """Of the fastest epoch."""
    return min(result["seconds_per_epoch"])


def by_epoch_and_second(found: dict[KernelSpec, dict[str, Fit | GeneralFit]], results: Results) -> Figure:
    """A row for each kernel: test error against epochs and against seconds."""
    figure, axes = panels(len(found), 2, width=3.4, height=1.9, sharey="row", sharex="col")
    for row, (kernel, each) in zip(axes, found.items(), strict=True):
        for i, (name, point) in enumerate(each.items()):
            draw(row, results[point], name, i)
        row[0].set_title(kernel.title, loc="left")
        percent_axis(row[0], "test error")
    epochs_axis(axes[-1, 0])
    seconds_axis(axes[-1, 1], "seconds of training steps")
    legend_below(figure, 3)
    return figure


def draw(row: Sequence[Axes], result: Result, name: str, i: int) -> None:
    """One run in both panels."""
    style: dict[str, Any] = {"color": CYCLE[i % len(CYCLE)], "marker": "osD^v"[i % 5], "markersize": 3}
    errors, tested = result["curves"].get("val/error", []), result["tested_epochs"]
    elapsed = list(accumulate(result["seconds_per_epoch"]))
    curve(row[0], tested, errors, name, **style)
    curve(row[1], [elapsed[epoch - 1] for epoch in tested], errors, **style)


def course_table(data: str, found: dict[KernelSpec, dict[str, Fit | GeneralFit]], results: Results) -> Table:
    """Errors and seconds of every run."""
    cells = [
        (
            f"{kernel.title}, {name}",
            f"{test_error(results[point]):.2%}",
            str(results[point]["epochs"]),
            f"{epoch_seconds(results[point]):.2f}",
            f"{sum(results[point]['seconds_per_epoch']):.1f}",
        )
        for kernel, each in found.items()
        for name, point in each.items()
    ]
    result = results[next(iter(next(iter(found.values())).values()))]
    header = ("", "test error", "epochs", "s an epoch", "s in all")
    return Table(f"{title(result['data_source'])}, n={result['n']}", header, cells)


def time_figure(timed: dict[tuple[int, str, int | None], GeneralFit], results: Results) -> Figure:
    """Seconds of an epoch against p."""
    figure, axes = panels(1, 1, width=4.6, height=3.0)
    panel = axes[0, 0]
    sizes = sorted({p for p, _, _ in timed})
    for i, projection in enumerate(PROJECTIONS):
        for period, line in ((None, "-"), (1, "--")):
            point = timed[sizes[0], projection, period]
            seconds = [epoch_seconds(results[timed[p, projection, period]]) for p in sizes]
            label = f"{point.method}, by {PROJECTIONS[projection]}"
            curve(panel, sizes, seconds, label, color=CYCLE[i], marker="os"[i], linestyle=line)
    rows_axis(panel, sizes, "p, centres")
    log_axis(panel, "seconds of an epoch")
    legend_below(figure, 2)
    return figure


def time_table(timed: dict[tuple[int, str, int | None], GeneralFit], results: Results) -> Table:
    """Seconds and errors of both, and how many times faster EigenPro 4 is."""
    cells = []
    for p, projection in sorted({(p, how) for p, how, _ in timed}):
        four, three = (results[timed[p, projection, period]] for period in (None, 1))
        ratio = epoch_seconds(three) / epoch_seconds(four)
        seconds = [f"{epoch_seconds(each):.2f}" for each in (four, three)]
        errors = [f"{test_error(each):.2%}" for each in (four, three)]
        cells.append((f"p = {p}, projected by {PROJECTIONS[projection]}", *seconds, f"{ratio:.1f}", *errors))
    result = next(iter(results[point] for point in timed.values()))
    epochs = next(iter(timed.values())).epochs
    header = ("", "EigenPro 4, s an epoch", "EigenPro 3", "times faster", f"test error after {epochs}", "EigenPro 3")
    return Table(f"{title(result['data_source'])}, n={result['n']}, Laplacian: T > 1 against T = 1", header, cells)


def delayed_claim(timed: dict[tuple[int, str, int | None], GeneralFit], results: Results) -> Claim:
    """That delayed projections are faster, the more the larger p, at the same error."""
    sizes = sorted({p for p, _, _ in timed})
    pairs = {p: [results[timed[p, "eigenpro", period]] for period in (None, 1)] for p in sizes}
    ratios = {p: epoch_seconds(three) / epoch_seconds(four) for p, (four, three) in pairs.items()}
    gaps = [test_error(four) - test_error(three) for four, three in pairs.values()]
    said = ", ".join(f"p={p}: {ratio:.1f} times" for p, ratio in ratios.items())
    return Claim(
        "EigenPro 4 is faster than EigenPro 3, the more the larger p, at the same test error (within a point)",
        min(ratios.values()) > 1 and ratios[sizes[-1]] > ratios[sizes[0]] and max(map(abs, gaps)) <= SAME,
        f"projected by an epoch of EigenPro 2: {said}; errors at most {100 * max(map(abs, gaps)):.2f} points apart",
        EIGENPRO_4_SOURCE,
    )


def gaussian_claim(setting: Setting, found: dict[KernelSpec, dict[str, Fit | GeneralFit]], results: Results) -> Claim:
    """That the Gaussian does worse than the other two, with centres of its own too."""
    p = max(centers(setting))
    points = {kernel.title: each[eigenpro_4(p)] for kernel, each in found.items()}
    largest = {name: test_error(results[point]) for name, point in points.items()}
    result = results[points["Gaussian"]]
    others = [error for name, error in largest.items() if name != "Gaussian"]
    return Claim(
        f"{title(result['data_source'])}, p={p}: the Gaussian's test error is larger than the Laplacian's "
        "and the ReLU NTK's",
        largest["Gaussian"] > max(others),
        ", ".join(f"{name} {error:.2%}" for name, error in largest.items()),
        REPORT,
    )


def surface_figure(grid: dict[tuple[int, int], GeneralFit], results: Results) -> Figure:
    """Test error by n and p, in a heat map with the numbers."""
    import numpy as np

    figure, axes = panels(1, 1, width=4.6, height=3.2)
    panel = axes[0, 0]
    rows, columns = sorted({p for _, p in grid}), sorted({n for n, _ in grid})
    values = np.full((len(rows), len(columns)), np.nan)
    for (n, p), point in grid.items():
        values[rows.index(p), columns.index(n)] = 100 * test_error(results[point])
    panel.imshow(values, origin="lower", cmap="Greys", aspect="auto", vmax=1.5 * np.nanmax(values))
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            panel.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=8)
    panel.set_xticks(range(len(columns)), [short_count(n) for n in columns])
    panel.set_yticks(range(len(rows)), [short_count(p) for p in rows])
    panel.set_xlabel("n, training rows")
    panel.set_ylabel("p, centres")
    panel.grid(visible=False)
    panel.set_title("test error, %", loc="left")
    return figure


def augment_table(gains: dict[str, dict[str, GeneralFit]], results: Results) -> Table:
    """Test error without, with, and with more centres, which are augmented images, too."""
    cells = []
    for each in gains.values():
        plain, changed, more = each.values()
        result = results[plain]
        name = f"{title(result['data_source'])} n={result['n']}, {plain.kernel}, {changed.augment}"
        cells.append((name, *(f"{test_error(results[point]):.2%}" for point in (plain, changed, more))))
    n = results[plain]["n"]
    heads = (f"as they are, p={n}", f"augmented, p={n}", f"augmented, p={more.centers}")
    return Table("augmented training images, test error", ("", *heads), cells)


def augment_claim(each: dict[str, GeneralFit], results: Results) -> Claim:
    """That it helps, where there are centres enough."""
    points = list(each.values())
    plain, same, more = (test_error(results[point]) for point in points)
    result = results[points[0]]
    return Claim(
        f"{title(result['data_source'])}, n={result['n']}: augmented images as training rows and as 4 n centres "
        "lower the test error",
        more < plain,
        f"{plain:.2%} as they are, {same:.2%} augmented with n centres, {more:.2%} with 4 n",
        "what p centres make possible",
    )


def published_table() -> Table:
    """The paper's own numbers, of another set and machine: for orientation."""
    cells = [
        (f"p = {p}", f"{a4:.2f}", f"{s4:.0f}", f"{a3:.2f}", f"{s3:.0f}", f"{s3 / s4:.1f}")
        for p, (a4, s4, a3, s3) in EIGENPRO_4.items()
    ]
    header = ("", "EigenPro 4, accuracy %", "s", "EigenPro 3, accuracy %", "s", "times faster")
    return Table("published: CIFAR5M features, n = 5e6, d = 1280, one epoch, one A100, Laplacian 20", header, cells)


def record(part: str, name: str, point: Fit | GeneralFit, result: Result) -> dict[str, Any]:
    """A run as one flat record."""
    running = isinstance(point, GeneralFit) and "train_metrics" not in result  # computed before there was another
    mse = result["final"].get("train/mse")
    return {
        "part": part,
        "name": name,
        "data": result["data_source"],
        "n": result["n"],
        "p": getattr(point, "centers", result["n"]),
        "kernel": point.kernel.name,
        "bandwidth": point.kernel.bandwidth,
        "T": result.get("projection_period"),
        "projection": result.get("projection"),
        "augment": getattr(point, "augment", None),
        "m": result["batch_size"],
        "epochs": result["epochs"],
        "seconds_per_epoch": epoch_seconds(result),
        "seconds": sum(result["seconds_per_epoch"]),
        "train_mse": None if running else mse,
        "train_mse_running": mse if running else None,
        "test_error": test_error(result),
        "diverged": result["diverged"],
    }
