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
from recipes.run.imports import quick_imports

if TYPE_CHECKING:
    from torch import Tensor

    from datamodules import KernelDataModule
    from kl import Interpolant


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

    The solution is kept in ~/.cache/kl/exact ($XDG_CACHE_HOME/kl/exact).
    kl interpolate and kl fit read it there, unless --solver names
    another solver or --tolerance asks for a smaller residual.

    loo: leave-one-out, the errors on each training row of the solution
    without that row, in closed form.

    Conjugate gradients that are interrupted go on when the same command is given again.

    For example: kl interpolate --data mnist --train-size 3000 --kernel gaussian --bandwidth 5
    """
    with quick_imports():
        import time

        import kl
        from kl.exact.cost import check_solver
        from kl.exact.interpolate import check_tolerance
        from kl.exact.limit import NoLimit, evaluate_on, exact_limit
        from kl.machines.described import describe_data, scale_of
        from kl.metrics import evaluate_scores
        from kl.probabilities import SCORES, fit_temperature, log_losses
        from kl.system.files import expand_home
        from kl.system.memory import peak_memory
        from recipes.commands.export import save_model
        from recipes.output.report import kernel_results, kernel_text, print_json, print_table
        from recipes.run.build import build_data_and_kernel, check_new_file, check_run
        from recipes.run.mirror_images import check_mirrored
        from recipes.run.processes import device_of

    check_run(run)
    if run.precision != "high":
        raise kl.InputError(f"precision must be high, since the exact solve ends in float64; got {run.precision!r}")
    check_solver(solver.solver)
    check_tolerance(solver.tolerance)
    save = None if solver.save is None else Path(expand_home(solver.save))
    if save is not None:
        check_new_file("save", save)
    datamodule, chosen = build_data_and_kernel(data, kernel, run, check_mirrored(data))
    datamodule.prepare_data()
    datamodule.setup()
    start, device = time.perf_counter(), device_of(run)
    chosen = chosen.resolve(datamodule.train_set.x, seed=run.seed)  # as in kl fit, so that its solutions are found
    x, y = datamodule.train_set.x.to(device), datamodule.train_set.y.to(device)
    found = exact_limit(
        chosen,
        x,
        y,
        ridge=exact.ridge,
        memory=run.memory,
        solver=solver.solver,
        tolerance=solver.tolerance,
        leave_one_out=solver.leave_one_out,
    )
    if isinstance(found, NoLimit):
        raise found.reason
    solved, classifier = found.solution, datamodule.task == "classification"
    info = describe_data(datamodule)
    scale = scale_of(info)
    train = evaluate_scores(solved.fitted, y, None, classifier, scale)
    validated = evaluate_on(datamodule.validation_set, solved, classifier, scale)
    left = None if solver.leave_one_out is False else solved.leave_one_out  # a kept solution may have them
    without: dict[str, float | None] = dict.fromkeys(("mse", "error", "log_loss"))
    if left is not None:
        without |= evaluate_scores(left.predictions, y, None, classifier, scale)
    if left is not None and classifier:
        predictions, labels = left.predictions.cpu(), datamodule.train_set.y.argmax(dim=1)
        info["temperature"] = fit_temperature(predictions, labels)
        without["log_loss"] = float(log_losses(predictions, labels, info["temperature"]).mean())
    if save is not None:
        save_model("save", kl.KernelModel.from_interpolant(solved, info), save)
    tested = scores_on_test(datamodule, solved, info)
    results: dict[str, Any] = {
        "data": datamodule.name,
        "data_source": datamodule.source,
        **kernel_results(chosen),
        "n": len(x),
        "d": datamodule.num_features,
        "c": datamodule.num_outputs,
        "label_noise": datamodule.label_noise,
        "validation": datamodule.validation,
        "train_mse": train["mse"],
        "train_error": train["error"],
        "loo_mse": without["mse"],
        "loo_error": without["error"],
        "loo_log_loss": without["log_loss"],
        "loo_standard_error": left and in_squared_unit(left.standard_error, scale),
        **{f"val_{name}": value for name, value in validated.items()},
        **{f"test_{name}": tested.get(name) for name in ("mse", "error", "error_noisy", *SCORES)},
        "rkhs_norm": solved.rkhs_norm,
        "rkhs_norm_per_class": solved.rkhs_norm_per_class.tolist(),
        "solver": solved.solver,
        "iterations": solved.iterations,
        "relative_residual": solved.relative_residual,
        "tolerance": solver.tolerance,
        "converged": solved.relative_residual <= solver.tolerance,
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
        (name.replace("_", " "), form.format(results[name]))
        for name, form in SHOWN.items()
        if results[name] is not None
    ]
    rows += [(name.replace("_", " "), f"{results[name]:.3g}") for name in ("relative_residual", "jitter", "ridge")]
    rows.append(("tolerance reached", "yes" if results["converged"] else "no"))
    rows += [("solver", results["solver"]), ("iterations", str(results["iterations"]))]
    if found.read_from is not None:
        rows.append(("read from", str(found.read_from)))
    rows += [("seconds", f"{results['seconds_total']:.2f}")]
    if save is not None:
        rows.append(("saved", str(save)))
    rows.append(("peak memory", f"{results['peak_memory_bytes'] / 1e9:.2f} GB"))
    print_table(
        f"{results['data']}  n={results['n']} d={results['d']} c={results['c']}  {kernel_text(chosen)}", ("", ""), rows
    )


def scores_on_test(
    datamodule: KernelDataModule, solved: Interpolant, info: dict[str, Any]
) -> dict[str, float | None] | dict[str, float]:
    """All scores on the test rows, in the target's own unit, from one evaluation of f there; none without test rows."""
    from kl.machines.described import scale_of
    from kl.metrics import evaluate_scores
    from kl.probabilities import classification_scores, regression_scores

    rows = datamodule.test_set
    if rows is None:
        return {}
    outputs, scale, classifier = solved.predict(rows.x).cpu(), scale_of(info), datamodule.task == "classification"
    errors = evaluate_scores(outputs, rows.y, rows.y_noisy, classifier, scale)
    if classifier:
        return errors | classification_scores(outputs, rows.y.argmax(dim=1), info.get("temperature"))
    return errors | regression_scores(*(each.double() * (1 if scale is None else scale) for each in (outputs, rows.y)))


def in_squared_unit(standard_error: float | None, scale: Tensor | None) -> float | None:
    """The standard error of an mse over all outputs in the square of the target's own unit.

    Of several outputs the mean square of their units stands for all of them.
    """
    if standard_error is None or scale is None:
        return standard_error
    return standard_error * float(scale.square().mean())


SHARE, NUMBER = "{:.2%}", "{:.6g}"
SHOWN = {
    "train_mse": NUMBER,
    "train_error": SHARE,
    "loo_mse": NUMBER,
    "loo_standard_error": NUMBER,
    "loo_error": SHARE,
    "loo_log_loss": NUMBER,
    "val_mse": NUMBER,
    "val_error": SHARE,
    "val_error_noisy": SHARE,
    "test_mse": NUMBER,
    "test_error": SHARE,
    "test_error_noisy": SHARE,
    "test_balanced_accuracy": SHARE,
    "test_roc_auc": NUMBER,
    "test_log_loss": NUMBER,
    "test_brier": NUMBER,
    "test_calibration_error": NUMBER,
    "test_rmse": NUMBER,
    "test_mae": NUMBER,
    "test_r2": NUMBER,
    "rkhs_norm": NUMBER,
}
"""The results that the table shows if they are known, and how."""
