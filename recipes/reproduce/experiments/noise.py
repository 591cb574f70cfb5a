"""Error and norm of interpolated and overfitted classifiers under label noise."""

from __future__ import annotations

from typing import Any

from recipes.reproduce.analysis.growth import GROWTH_NOISES, grouped, growth_points, growth_records
from recipes.reproduce.analysis.norm_figures import draw_against_n
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.page.drawing import OF_KERNEL, curve, legend_below, log_axis, panels, percent_axis, rows_axis
from recipes.reproduce.page.presentation import Claim, Presentation, Table, mean_and_spread
from recipes.reproduce.points.sample import KernelSpec
from recipes.reproduce.published import B18
from recipes.reproduce.setting import Setting, title
from recipes.reproduce.shared_points import whole
from recipes.reproduce.sweep.point import Point, Results

CLASSES = 10
NEAR = 0.05  # an error counts as near to the Bayes error within five points


class Noise(Experiment):
    """MNIST: error and norm against n at 0, 1, 10% noise; error against noise up to 80%."""

    name = "noise"
    title = "Test error and RKHS norm, overfitted and interpolated, under label noise up to 80%"
    source = f"{B18} section 4"

    def points(self, setting: Setting, results: Results) -> list[Point]:
        """Those of `norm-growth` at the paper's bandwidths."""
        kernels = setting.kernels("mnist")
        points = [point for kernel in kernels for point in growth_points(setting, kernel)]
        return points + [whole(setting, "mnist", kernel) for kernel in kernels]

    def present(self, setting: Setting, results: Results) -> Presentation:
        """Two figures: against n, and against the noise."""
        from datamodules.noise import noisy_bayes_error

        kernels = setting.kernels("mnist")
        records = [record for kernel in kernels for record in growth_records(setting, results, kernel)]
        name = title(records[0]["data"])
        against_n, axes = panels(2, len(kernels), width=3.4, sharex="col")
        for column, kernel in enumerate(kernels):
            own = [record for record in records if record["kernel"] == kernel.name]
            draw_against_n(axes[0, column], own, "test_error_noisy")
            draw_against_n(axes[1, column], own, "rkhs_norm")
            axes[0, column].set_title(f"{name}, {kernel.title} {kernel.bandwidth:g}", loc="left")
            percent_axis(axes[0, column], "test error, noised labels" if column == 0 else "")
            log_axis(axes[1, column], r"RKHS norm $|f|_H$" if column == 0 else "")
            rows_axis(axes[1, column], [record["n"] for record in own])
        legend_below(against_n, 3)

        sweep, (panel_row,) = panels(1, 2, width=3.4)
        rows: list[dict[str, Any]] = []
        claims, table = [], []
        for kernel in kernels:
            found = results[whole(setting, "mnist", kernel)]
            levels = sorted(found["levels"], key=lambda level: level["noise"])
            noises = [level["noise"] for level in levels]
            colour = {"color": OF_KERNEL[kernel.name], "marker": "o" if kernel.name == "gaussian" else "s"}
            clean = levels[0]["test_error"]
            bayes = [noisy_bayes_error(clean, noise, CLASSES) for noise in noises]
            for panel, key in zip(panel_row, ("test_error_noisy", "test_error"), strict=True):
                curve(panel, noises, [level[key] for level in levels], f"{kernel.title}, interpolated", **colour)
            if kernel is kernels[-1]:
                label = f"Bayes error (Prop. 1, e of the {kernel.title})"
                panel_row[0].plot(noises, bayes, color="black", linestyle="--", label=label)
            for level, least in zip(levels, bayes, strict=True):
                same = {name: level[name] for name in ("noise", "test_error", "test_error_noisy", "rkhs_norm")}
                rows.append({"n": found["n"], "kernel": kernel.name, **same, "bayes_error": least, "part": "sweep"})
                cells = (f"{level[name]:.2%}" for name in ("test_error_noisy", "test_error"))
                table.append((f"{kernel}, {level['noise']:.0%}", *cells, f"{least:.2%}", f"{level['rkhs_norm']:.1f}"))
            claims.append(near_bayes(kernel, levels, bayes, found["n"]))
        for panel, which in zip(panel_row, ("noised", "clean"), strict=True):
            panel.set_title(f"{name}, n={found['n']}, {which} test labels", loc="left")
            panel.set_xlabel("fraction of labels replaced")
            percent_axis(panel, "test error" if which == "noised" else "")
        legend_below(sweep, 3)
        rows += [{**record, "part": "growth"} for record in records]
        claims += [close_errors(kernel, records) for kernel in kernels]
        missing = sum(not record["fitted"] for record in records)
        return Presentation(
            figures={"noise-n": against_n, "noise-sweep": sweep},
            rows=rows,
            claims=claims,
            tables=[
                Table(
                    f"{name}, n={found['n']}: the exact interpolant",
                    ("label noise", "error, noised labels", "clean labels", "Bayes error", "norm"),
                    table,
                )
            ],
            sentences=[
                "The Bayes error is Prop. 1's, eps (c - 1)/c + (1 - eps) e, where e, the Bayes error without noise, is "
                "estimated by the interpolant's error there.",
                f"Bands are one standard deviation over draws of rows and noise; {draws(records)}.",
            ]
            + [f"{missing} overfitted runs had training errors left after their last epoch and are left out."]
            * bool(missing),
        )


def draws(records: list[dict[str, Any]]) -> str:
    """Of which there is a single one, and so no band."""
    single = []
    for way in ("interpolated", "overfitted"):
        sizes, groups = grouped(records, "seed", way=way, kernel=records[0]["kernel"], noise=GROWTH_NOISES[0])
        single += [f"{way} n={n}" for n, group in zip(sizes, groups, strict=True) if len(group) == 1]
    return f"single draws, without one: {', '.join(single)}" if single else "there are several of each"


def near_bayes(kernel: KernelSpec, levels: list[dict[str, Any]], bayes: list[float], n: int) -> Claim:
    """That noise of up to 80% leaves the error near the Bayes error of the noised problem."""
    gaps = {level["noise"]: level["test_error_noisy"] - least for level, least in zip(levels, bayes, strict=True)}
    worst = max(gaps, key=lambda noise: gaps[noise])
    beyond = min((noise for noise in gaps if gaps[noise] > NEAR), default=1.0)
    within = max(noise for noise in gaps if noise < beyond)  # 0, where the gap is 0, is among them
    return Claim(
        f"{kernel.title}: up to 80% noise the interpolant's error stays near the noised problem's Bayes error",
        gaps[worst] <= NEAR,
        f"n={n}: at most {100 * gaps[worst]:.1f} points above it, at {worst:.0%} noise; within {100 * NEAR:.0f} points "
        f"up to {within:.0%}",
        f"{B18} section 4",
    )


def close_errors(kernel: KernelSpec, records: list[dict[str, Any]]) -> Claim:
    """That interpolated and overfitted classifiers have the same error."""
    gaps = {}
    for noise in GROWTH_NOISES:
        where = {"kernel": kernel.name, "noise": noise, "fitted": True}
        over = dict(zip(*grouped(records, "test_error_noisy", way="overfitted", **where), strict=True))
        exact = dict(zip(*grouped(records, "test_error_noisy", way="interpolated", **where), strict=True))
        for n, values in over.items():
            gaps[n, noise] = mean_and_spread(values)[0] - mean_and_spread(exact[n])[0]
    if not gaps:
        return Claim(f"{kernel.title}: errors agree", None, "no overfitted run was finished", f"{B18} section 4")
    worst = max(gaps, key=lambda key: abs(gaps[key]))
    return Claim(
        f"{kernel.title}: overfitted and interpolated classifiers have nearly the same test error, noise or not",
        abs(gaps[worst]) <= 0.02,
        f"the largest difference is {100 * gaps[worst]:+.2f} points, at n={worst[0]} and {worst[1]:.0%} noise",
        f"{B18} section 4",
    )
