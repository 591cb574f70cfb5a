"""The output of a benchmark: a table on the screen, results.json and results.png in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from kl.system.files import written_whole
from recipes.bench.record import PARTS
from recipes.output.report import plain_values, print_table

TITLES = {
    "limit": "limit: plain products of the flops of an epoch, 2 n^2 d, and the parts of the roofline",
    "epochs": "epochs: of training, through the Trainer",
    "exact": "exact: the minimum-norm interpolant",
    "peers": "peers: time to a training mse of 1e-4",
    "growth": "growth: an epoch with n, d and c, Gaussian, K not kept",
    "memory": "memory: the peak beyond Python and torch themselves",
    "general": "general: an epoch of p centres, Laplacian",
    "tune": "tune: the choice of kernel, bandwidth and ridge",
    "patches": "patches: features of images by 1024 patches of 6x6, and the Gaussian kernel matrix of them",
}
HEADER = ("", "n", "d", "seconds", "ratio", "to", "target", "", "to mm", "")
IN_TITLE = (1, 2, 5)  # columns that move to the title if all rows agree


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Write results.json, whole or not at all."""
    with written_whole(folder / "results.json") as file:
        file.write(json.dumps(plain_values(results), indent=1).encode() + b"\n")


def write_figure(folder: Path, results: dict[str, Any]) -> None:
    """Write results.png, if there is something to draw."""
    from callbacks.figures import PRINT_DPI
    from recipes.bench.plot import draw

    figure = draw(results)
    if figure is not None:
        figure.savefig(folder / "results.png", dpi=PRINT_DPI)
        figure.clear()


def print_results(results: dict[str, Any]) -> None:
    """Print a table for every part, with each target beside the measured ratio."""
    machine, data = results["machine"], results["data"]
    typer.echo(
        f"{data['name']}  n={data['n']} d={data['d']} c={data['c']}  on {machine['gpu'] or machine['cpu']}, "
        f"{machine['cores']} cores, torch {machine['torch']}"
    )
    for part in PARTS:
        rows = [row_of(each) for each in results["measurements"] if each["part"] == part]
        if rows:
            typer.echo("")
            print_part(TITLES[part], rows)
    reached = [each["met"] for each in results["measurements"] if each["met"] is not None]
    if reached:
        typer.echo(f"{sum(reached)} of {len(reached)} targets reached; {results['seconds_total']:.0f} s in all")
    typer.echo(f"results: {results['log_dir']}/results.json, results.png")


def print_part(title: str, rows: list[tuple[str, ...]]) -> None:
    """Print a table without its empty columns; columns of `IN_TITLE` with equal rows move to the title."""
    same = [i for i in IN_TITLE if len({row[i] for row in rows}) == 1 and rows[0][i]]
    said = ", ".join(f"{'ratio to' if HEADER[i] == 'to' else HEADER[i] + ' ='} {rows[0][i]}" for i in same)
    used = [i for i in range(len(HEADER)) if i == 0 or (i not in same and any(row[i] for row in rows))]
    header = tuple(HEADER[i] for i in used)
    print_table(f"{title} ({said})" if said else title, header, [tuple(row[i] for i in used) for row in rows])


def row_of(found: dict[str, Any]) -> tuple[str, ...]:
    """One measurement as a row of the table: its numbers, or its error."""
    seconds, ratio, target = found["seconds"], found["ratio"], found["target"]
    met = found["met"]
    return (
        found["name"],
        str(found["n"] or ""),
        str(found["d"] or ""),
        "" if seconds is None else f"{seconds:.3g}",
        "" if ratio is None else f"{ratio:.3f}",
        "" if ratio is None else short(found["against"]),
        "" if target is None else f"<= {target:g}",
        "" if met is None else ("reached" if met else "missed"),
        "" if found["mm_ratio"] is None else f"{found['mm_ratio']:.3f}",
        found["error"] or note_of(found),
    )


def note_of(found: dict[str, Any]) -> str:
    """The note at the end of a row."""
    detail, part = found["detail"], found["part"]
    if part == "limit":
        if "rate" in detail:
            scale, prefix = (1e-9, "G") if detail["rate"] > 1e8 else (1.0, "")
            return f"{scale * detail['rate']:.0f} {prefix}{detail['units']}"
        return f"{detail['gflops']:.0f} GFLOP/s, {detail['variant']}"
    if part == "exact" and detail.get("relative_residual") is not None:
        return f"residual {detail['relative_residual']:.1e}"
    if part == "peers":
        mse, test_mse, wrong = (detail.get(name) for name in ("train_mse", "test_mse", "test_error"))
        notes = [] if mse is None else [f"mse {mse:.1e}"]
        if wrong is not None:
            return ", ".join([*notes, f"test error {wrong:.2%}"])
        return ", ".join(notes + ([] if test_mse is None else [f"test mse {test_mse:.1e}"]))
    if part == "tune" and detail.get("choice") is not None:
        test = f"error {detail['test_error']:.2%}" if "test_error" in detail else f"mse {detail['test_mse']:.3e}"
        return f"test {test}, {detail['choice']}"
    if part == "growth" and detail.get("used_bytes") is not None:
        return f"{detail['used_bytes'] / 1e6:.0f} MB"
    if part == "memory" and detail.get("used_bytes") is not None:
        kept = detail["kept_rows"] / found["n"]
        return f"{detail['used_bytes'] / 1e6:.0f} of {detail['budget_bytes'] / 1e6:.0f} MB, {kept:.0%} of K kept"
    return ""


def short(against: str | None) -> str:
    """The reference of a ratio, shortened for the table."""
    return {
        "float32 mm of the same flops": "mm",
        "sklearn KernelRidge": "KernelRidge",
        "sklearn GridSearchCV": "GridSearchCV",
    }.get(against or "", against or "")
