"""`kl interpolate`: the exact minimum-norm interpolant, without any training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.options.groups import (
    DataOptions,
    ExactOptions,
    ExactSolverOptions,
    KernelOptions,
    OutputOptions,
    RunOptions,
    takes,
)

if TYPE_CHECKING:
    from kl import Interpolant
    from kl.rows.rows import RowDataset


@takes(DataOptions, KernelOptions, ExactOptions, ExactSolverOptions, RunOptions, OutputOptions)
def interpolate(
    data: DataOptions,
    kernel: KernelOptions,
    exact: ExactOptions,
    solver: ExactSolverOptions,
    run: RunOptions,
    output: OutputOptions,
) -> None:
    """Solve for the exact minimum-norm interpolant and report its errors and its RKHS norm.

    Conjugate gradients that are interrupted go on when the same command is given again.

    For example: kl interpolate --data mnist --train-size 3000 --kernel gaussian --bandwidth 5
    """
    import time

    import kl
    from kl.exact.checkpoint import solution_key
    from kl.exact.cost import check_solver
    from kl.exact.interpolate import check_tolerance
    from kl.machines.evaluated import describe_data
    from kl.system.files import cache_folder, expand_home
    from kl.system.memory import peak_memory
    from recipes.commands.export import save_model
    from recipes.output.report import kernel_results, kernel_text, print_json, print_table
    from recipes.run.build import build_data, build_kernel, check_new_file, check_run, device_of

    check_run(run)
    if run.precision != "high":
        raise kl.InputError(f"precision must be high, since the exact solve ends in float64; got {run.precision!r}")
    check_solver(solver.solver)
    check_tolerance(solver.tolerance)
    save = None if solver.save is None else Path(expand_home(solver.save))
    if save is not None:
        check_new_file("save", save)
    chosen = build_kernel(kernel)
    datamodule = build_data(data, run.seed, shift=chosen.shift_invariant, memory=run.memory)
    datamodule.prepare_data()
    datamodule.setup()
    start, device = time.perf_counter(), device_of(run)
    x, y = datamodule.train_set.x.to(device), datamodule.train_set.y.to(device)
    chosen = chosen.resolve(x, seed=run.seed)
    solved = kl.interpolate(
        chosen,
        x,
        y,
        ridge=exact.ridge,
        memory=run.memory,
        solver=solver.solver,
        tolerance=solver.tolerance,
        checkpoint=cache_folder() / "exact" / f"{solution_key(chosen, x, y, exact.ridge)}.partial",
    )
    solved.require_better_than_zero()
    if save is not None:
        save_model("save", kl.KernelModel.from_interpolant(solved, describe_data(datamodule)), save)
    results: dict[str, Any] = {
        "data": datamodule.name,
        "data_source": datamodule.source,
        **kernel_results(chosen),
        "n": len(x),
        "d": datamodule.num_features,
        "c": datamodule.num_outputs,
        "label_noise": datamodule.label_noise,
        "validation": datamodule.validation,
        **train_errors(solved, y, datamodule.task == "classification"),
        **errors("val", datamodule.validation_set, solved, datamodule.task == "classification"),
        **errors("test", datamodule.test_set, solved, datamodule.task == "classification"),
        "rkhs_norm": solved.rkhs_norm,
        "rkhs_norm_per_class": solved.rkhs_norm_per_class.tolist(),
        "solver": solved.solver,
        "iterations": solved.iterations,
        "relative_residual": solved.relative_residual,
        "tolerance": solved.tolerance,
        "converged": solved.converged,
        "ridge": solved.ridge,
        "jitter": solved.jitter,
        "saved": None if save is None else str(save),
        "seconds_total": time.perf_counter() - start,
        "peak_memory_bytes": peak_memory(device),
    }
    if output.json:
        print_json(results)
        return
    rows = [
        (name.replace("_", " "), f"{results[name]:.2%}" if "error" in name else f"{results[name]:.6g}")
        for name in ("train_mse", "train_error", *ERRORS["val"], *ERRORS["test"], "rkhs_norm")
        if results[name] is not None
    ]
    rows += [(name.replace("_", " "), f"{results[name]:.3g}") for name in ("relative_residual", "jitter", "ridge")]
    rows.append(("tolerance reached", "yes" if solved.converged else "no"))
    rows += [("solver", results["solver"]), ("iterations", str(results["iterations"]))]
    rows += [("seconds", f"{results['seconds_total']:.2f}")]
    if save is not None:
        rows.append(("saved", str(save)))
    rows.append(("peak memory", f"{results['peak_memory_bytes'] / 1e9:.2f} GB"))
    print_table(
        f"{results['data']}  n={results['n']} d={results['d']} c={results['c']}  {kernel_text(chosen)}", ("", ""), rows
    )


ERRORS = {part: tuple(f"{part}_{name}" for name in ("mse", "error", "error_noisy")) for part in ("val", "test")}


def train_errors(solved: Interpolant, y: Any, classifier: bool) -> dict[str, float | None]:
    """mse and error of an interpolant on its training set."""
    from kl.metrics import error, mse

    return {"train_mse": mse(solved.fitted, y), "train_error": error(solved.fitted, y) if classifier else None}


def errors(part: str, rows: RowDataset | None, solved: Interpolant, classifier: bool) -> dict[str, float | None]:
    """mse and errors of an interpolant on a validation or test set; None where there is none."""
    from kl.metrics import error, mse

    if rows is None:
        return dict.fromkeys(ERRORS[part])
    scores = solved.predict(rows.x).cpu()
    noisy = rows.y_noisy if classifier else None
    values = (
        mse(scores, rows.y),
        error(scores, rows.y) if classifier else None,
        None if noisy is None else error(scores, noisy),
    )
    return dict(zip(ERRORS[part], values, strict=True))
