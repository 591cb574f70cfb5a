"""`kl interpolate`: the exact minimum-norm interpolant, without any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recipes.options.groups import (
    DataOptions,
    ExactOptions,
    ExactSolverOptions,
    KernelOptions,
    OutputOptions,
    RunOptions,
    takes,
)


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
    import time

    import kl
    from kl.exact.cost import check_solver
    from kl.exact.interpolate import check_tolerance
    from kl.exact.limit import NoLimit, evaluate_on, exact_limit
    from kl.machines.evaluated import describe_data
    from kl.metrics import evaluate_scores
    from kl.system.files import expand_home
    from kl.system.memory import peak_memory
    from recipes.commands.export import save_model
    from recipes.output.report import kernel_results, kernel_text, print_json, print_table
    from recipes.run.build import build_data, build_kernel, check_new_file, check_run
    from recipes.run.processes import device_of

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
    chosen = chosen.resolve(datamodule.train_set.x, seed=run.seed)  # as kl fit does, whose solutions are then found
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
    if save is not None:
        save_model("save", kl.KernelModel.from_interpolant(solved, describe_data(datamodule)), save)
    train = evaluate_scores(solved.fitted, y, None, classifier)
    left = None if solver.leave_one_out is False else solved.leave_one_out  # a kept solution may have them
    without = {"mse": None, "error": None} if left is None else evaluate_scores(left.predictions, y, None, classifier)
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
        "loo_standard_error": None if left is None else left.standard_error,
        **{f"val_{name}": value for name, value in evaluate_on(datamodule.validation_set, solved, classifier).items()},
        **{f"test_{name}": value for name, value in evaluate_on(datamodule.test_set, solved, classifier).items()},
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
        (name.replace("_", " "), f"{results[name]:.2%}" if name in SHARES else f"{results[name]:.6g}")
        for name in SHOWN
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


SHOWN = (
    "train_mse",
    "train_error",
    "loo_mse",
    "loo_standard_error",
    "loo_error",
    "val_mse",
    "val_error",
    "val_error_noisy",
    "test_mse",
    "test_error",
    "test_error_noisy",
    "rkhs_norm",
)
SHARES = [name for name in SHOWN if "_error" in name and name != "loo_standard_error"]
