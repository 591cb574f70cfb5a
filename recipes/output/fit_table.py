"""The table of a training run: what was reached, beside the exact limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kl.system.wording import counted

ROWS = {
    "train mse": ("train_mse", "exact_train_mse", "{:.3e}"),
    "train error": ("train_error", "exact_train_error", "{:.2%}"),
    "train mse, mean over the epoch's batches": ("train_mse_running", None, "{:.3e}"),
    "train error, mean over the epoch's batches": ("train_error_running", None, "{:.2%}"),
    "leave-one-out mse": ("loo_mse", "exact_loo_mse", "{:.3e}"),
    "leave-one-out error": ("loo_error", "exact_loo_error", "{:.2%}"),
    "validation mse": ("val_mse", "exact_val_mse", "{:.3e}"),
    "validation error": ("val_error", "exact_val_error", "{:.2%}"),
    "validation error, noisy labels": ("val_error_noisy", "exact_val_error_noisy", "{:.2%}"),
    "test mse": ("test_mse", "exact_test_mse", "{:.3e}"),
    "test error": ("test_error", "exact_test_error", "{:.2%}"),
    "test error, noisy labels": ("test_error_noisy", "exact_test_error_noisy", "{:.2%}"),
    "test balanced accuracy": ("test_balanced_accuracy", None, "{:.2%}"),
    "test area under the ROC curve": ("test_roc_auc", None, "{:.4f}"),
    "test log loss": ("test_log_loss", None, "{:.4f}"),
    "test Brier score": ("test_brier", None, "{:.4f}"),
    "test calibration error": ("test_calibration_error", None, "{:.4f}"),
    "test root mean squared error": ("test_rmse", None, "{:.4g}"),
    "test mean absolute error": ("test_mae", None, "{:.4g}"),
    "test R2": ("test_r2", None, "{:.4f}"),
    "RKHS norm": ("rkhs_norm", "exact_rkhs_norm", "{:.6g}"),
    "RKHS distance to the limit": ("distance_to_exact", None, "{:.4g}"),
}
"""By label: the names of a run's number and of its limit's among the results, and the format of both."""

Column = tuple[str, dict[str, str]]
"""A heading, and cells by the labels of `ROWS`."""


def fit_columns(results: dict[str, Any]) -> list[Column]:
    """The run, its last epoch if another was the best, and its limit if that is known.

    Args:
        results: those of `fit_results`, of which a run on its way has only some.
    """
    best, last = results.get("best_epoch"), results.get("last") or {}
    method, ours = results.get("solver") or "run", {name: results.get(name) for name, _, _ in ROWS.values()}
    if best is None:
        shown = [(f"{method}, {counted(results.get('epochs') or 0, 'epoch')}", ours)]
    else:
        shown = [(f"{method}, best epoch: {best}", ours)]
        if best != last.get("epoch"):
            shown.append((f"last epoch: {last.get('epoch')}", last))
    if results.get("exact_rkhs_norm") is not None:
        limits = {name: results.get(limit) for name, limit, _ in ROWS.values() if limit}
        shown.append(("ridge solution" if results.get("ridge") else "exact limit", limits))
    return [
        (heading, {label: _cell(values, name, form, results) for label, (name, _, form) in ROWS.items()})
        for heading, values in shown
    ]


def rows_of(columns: Sequence[Column]) -> list[tuple[str, ...]]:
    """The lines that have a number in one of the columns, with their label."""
    return [
        (label, *(cells[label] for _, cells in columns)) for label in ROWS if any(cells[label] for _, cells in columns)
    ]


def _cell(values: dict[str, Any], name: str, form: str, results: dict[str, Any]) -> str:
    if name == "distance_to_exact":
        return distance_text(values.get(name), results.get("exact_rkhs_norm"), form)
    return _format(values.get(name), form)


def distance_text(distance: float | None, limit_norm: float | None, form: str = "{:.4g}") -> str:
    """A distance to the limit for people: "below" its floor where it is under that, because it is rounding there."""
    from callbacks.exact_interpolation import DISTANCE_FLOOR

    floor = f"{DISTANCE_FLOOR * (limit_norm or 0.0):.1g}"
    return _format(distance, form) if distance is None or distance >= float(floor) else f"below {floor}"


def _format(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
