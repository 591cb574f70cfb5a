"""The tables of a report: what the runs are, their options, their numbers, and where these come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from recipes.options.groups import DataOptions, ExactOptions, KernelOptions, RunOptions, SolverOptions, TrainerOptions
from recipes.output.fit_table import fit_columns, rows_of
from recipes.report.reading import Checked, Run, option_text

Row = tuple[str, ...]

NOT_COMPARED = ("name", "log_dir", "fast_dev_run")  # options that change no number
STATES = {True: "finished", False: "not finished", None: "unknown"}
CONFUSED = 10  # pairs of classes that are listed
_GROUPS = (DataOptions, KernelOptions, SolverOptions, ExactOptions, RunOptions, TrainerOptions)


def runs_table(runs: Sequence[Run]) -> list[Row]:
    """What each run is, a line for each property that one of them has."""
    rows = {
        "folder": [str(run.folder) for run in runs],
        "state": [STATES[run.finished] for run in runs],
        "data": [_data(run.results) for run in runs],
        "label noise": [_noise(run.results) for run in runs],
        "kernel": [_kernel(run.results) for run in runs],
        "ridge": [_number(run.results, "ridge", 0.0) for run in runs],
        "solver": [str(run.results.get("solver") or "") for run in runs],
        "epochs": [_number(run.results, "epochs") for run in runs],
        "batch (critical)": [_batch(run.results) for run in runs],
        "step size": [_number(run.results, "step_size") for run in runs],
        "q, of s rows": [_damped(run.results) for run in runs],
        "seconds": [_seconds(run.results) for run in runs],
        "peak memory": [_memory(run.results) for run in runs],
    }
    return _known(rows)


def numbers_table(runs: Sequence[Run], letters: Sequence[str]) -> tuple[Row, list[Row]]:
    """The final numbers of each run beside those of its limit: header and lines."""
    columns = [
        (f"{letter}: {heading}" if letter else heading, cells)
        for letter, run in zip(letters, runs, strict=True)
        for heading, cells in fit_columns(dict(run.results))
    ]
    return ("", *(heading for heading, _ in columns)), rows_of(columns)


def options_table(runs: Sequence[Run]) -> list[Row]:
    """The options that differ between runs; of one run, those that are not `kl fit`'s defaults, with the default."""
    known = [run.options for run in runs if run.options is not None]
    compared = [*known, default_options()] if len(runs) == 1 else known
    names = [name for name in dict.fromkeys(name for each in compared for name in each) if name not in NOT_COMPARED]
    differ = [name for name in names if len({each.get(name, "") for each in compared}) > 1]
    shown: list[dict[str, str] | None] = [run.options for run in runs]
    if len(runs) == 1:
        shown.append(default_options())
    return [
        (f"--{name.replace('_', '-')}", *("unknown" if each is None else each.get(name) or "–" for each in shown))
        for name in differ
    ]


def default_options() -> dict[str, str]:
    """The options of `kl fit` that nobody gives, as texts."""
    given = {each.name: each.default for group in _GROUPS for each in fields(group)}
    return {name: option_text(value) for name, value in given.items() if name != "resume"}


def origin_table(runs: Sequence[Run]) -> list[Row]:
    """Command, commit, date, machine and versions, a line for each that is known of a run."""
    found = [_origin(run.origin) for run in runs]
    names = dict.fromkeys(name for each in found for name in each)
    return _known({name: [each.get(name, "") for each in found] for name in names})


def confused_table(confusion: Checked) -> list[Row]:
    """The pairs of classes that are mistaken most often: true, predicted, rows."""
    names = confusion["names"]
    wrong = [(count, true, predicted) for true, predicted, count in confusion["counts"] if true != predicted]
    worst = sorted(wrong, key=lambda each: (-each[0], each[1:]))[:CONFUSED]
    return [(names[true], names[predicted], str(count)) for count, true, predicted in worst]


def errors_table(errors: Sequence[Checked]) -> list[Row]:
    """The worst errors: row, truth, prediction, margin or residual."""
    return [
        (str(each["row"]), _output(each["true"]), _output(each["predicted"]), f"{each['by']:.6g}") for each in errors
    ]


def _known(rows: Mapping[str, list[str]]) -> list[Row]:
    return [(name, *cells) for name, cells in rows.items() if any(cells)]


def _origin(origin: Checked) -> dict[str, str]:
    machine = origin.get("machine") or {}
    if isinstance(machine, str):
        machine = {"cpu": machine}
    versions = machine.get("versions")
    packages = versions if isinstance(versions, dict) else {}
    lines = {
        "command": origin.get("command"),
        "commit": origin.get("commit"),
        "date": origin.get("date"),
        "processor": machine.get("cpu"),
        "cores, threads": ", ".join(str(machine[name]) for name in ("cores", "threads") if machine.get(name)),
        "compiled code": str(machine.get("compiled") or "none").strip("_") if "compiled" in machine else None,
        "GPU": (machine.get("gpu") or "none") if "gpu" in machine else None,
        "system": machine.get("platform"),
        "Python": machine.get("python"),
        "torch": machine.get("torch"),
        **packages,
    }
    return {str(name): str(value) for name, value in lines.items() if value}


def _data(results: Checked) -> str:
    sizes = [f"{name}={results[name]:g}" for name in ("n", "d", "c") if results.get(name) is not None]
    held = f"{results['validation_rows']:g} held out" if results.get("validation_rows") else ""
    return ", ".join(text for text in (results.get("data") or "", " ".join(sizes), held) if text)


def _noise(results: Checked) -> str:
    noise = results.get("label_noise")
    return f"{noise:.4g} ({results.get('noise_kind')})" if noise else ""


def _kernel(results: Checked) -> str:
    parameters = results.get("kernel_parameters") or {}
    values = ", ".join(f"{name}={_brief(value)}" for name, value in parameters.items())
    return f"{results.get('kernel') or ''}({values})" if values else results.get("kernel") or ""


def _batch(results: Checked) -> str:
    critical = _number(results, "critical_batch_size")
    return _number(results, "batch_size") + (f" ({critical})" if critical else "")


def _damped(results: Checked) -> str:
    return ", ".join(text for name in ("top_q", "subsample") if (text := _number(results, name)))


def _seconds(results: Checked) -> str:
    total, each = results.get("seconds_total"), results.get("seconds_per_epoch")
    texts = [f"{total:.1f} in all"] if total is not None else []
    return ", ".join([*texts, f"{sum(each) / len(each):.2f} an epoch"] if each else texts)


def _memory(results: Checked) -> str:
    found = results.get("peak_memory_bytes")
    return f"{found / 1e9:.2f} GB" if found is not None else ""


def _number(results: Checked, name: str, silent: float | None = None) -> str:
    value = results.get(name)
    return "" if value is None or value == silent else f"{value:.6g}"


def _brief(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _output(value: str | list[float]) -> str:
    return value if isinstance(value, str) else ", ".join(f"{each:.6g}" for each in value)
