"""What TensorBoard shows beside the scalars: a page of runs against their limit, and the hyper-parameters tab."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import pytorch_lightning as pl

from callbacks.common import Machine, find_callback, tensorboard_loggers, val_name
from callbacks.exact_interpolation import ExactInterpolation
from kl.machines.data_facts import facts_of

_CHOSEN = ("batch_size", "critical_batch_size", "step_size", "top_q", "subsample", "preconditioner_rank")


class TensorBoardLayout(pl.Callback):
    """Writes the custom scalars page at fit start and fills the hyper-parameters tab at the end of training, once each.

    The tab's metrics are hp/train_mse, hp/train_error (for means over the batches with _running), hp/val_mse,
    hp/val_error, hp/val_error_noisy, hp/rkhs_norm and, with an `ExactInterpolation` among the callbacks,
    hp/exact_val_error, hp/exact_rkhs_norm and hp/distance. Make the logger with `default_hp_metric=False`; otherwise
    TensorBoard also shows an empty hp_metric.
    """

    def __init__(self) -> None:
        self._has_layout: WeakSet[Any] = WeakSet()
        self._has_parameters: WeakSet[Any] = WeakSet()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Write the page, once for every writer."""
        if not trainer.is_global_zero:
            return
        for logger in tensorboard_loggers(trainer):
            writer = logger.experiment
            if writer not in self._has_layout:
                writer.add_custom_scalars(layout(val_name(trainer)))
                self._has_layout.add(writer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Write parameters and final metrics, once for every writer."""
        if not trainer.is_global_zero:
            return
        for logger in tensorboard_loggers(trainer):
            if logger.experiment not in self._has_parameters:
                logger.log_hyperparams(run_parameters(trainer, pl_module), final_metrics(trainer, pl_module))
                self._has_parameters.add(logger.experiment)


def layout(rows: str) -> dict[str, dict[str, list[Any]]]:
    """The custom scalars page; `rows` is the name of the rows of val/*."""
    return {
        "Training and its exact limit": {
            "training mse": ["Multiline", ["^train/mse$", "^exact/train_mse$"]],
            "RKHS norm": ["Multiline", ["^rkhs/norm$", "^exact/rkhs_norm$"]],
            f"{rows} error": ["Multiline", ["^val/error$", "^exact/val_error$"]],
            "RKHS distance to the limit": ["Multiline", ["^exact/distance$"]],
        }
    }


def run_parameters(trainer: pl.Trainer, machine: Machine) -> dict[str, Any]:
    """The run's parameters as plain values, as requested or, for "auto", as chosen."""
    config = dict(machine.kernel.config())
    name = config.pop("kernel")
    n, d, c = machine.num_centers, machine.centers.shape[1], machine.alpha.shape[1]
    chosen = machine.parameters_chosen
    facts = facts_of(trainer)
    parameters = {
        "data": machine.data_info.get("name"),
        "task": machine.data_info.get("task"),
        "n": n,
        "d": d,
        "c": c,
        "label_noise": facts.label_noise,
        "noise_kind": facts.noise_kind,
        "validation": facts.validation or None,
        "epochs": trainer.current_epoch,
        "seed": machine.hparams.get("seed"),
        "kernel": name,
        **{f"kernel_{key}": value for key, value in config.items()},
        "solver": machine.method,
        **{key: chosen.get(key) for key in _CHOSEN},
    }
    plain = {key: value for key, value in parameters.items() if value is not None}
    return {key: value if isinstance(value, str | int | float | bool) else str(value) for key, value in plain.items()}


def final_metrics(trainer: pl.Trainer, machine: Machine) -> dict[str, float]:
    """The known metrics by which runs are compared."""
    training = ("train/mse", "train/error", "train/mse_running", "train/error_running")
    tags = (*training, "val/mse", "val/error", "val/error_noisy")
    known = {f"hp/{tag.replace('/', '_')}": trainer.callback_metrics.get(tag) for tag in tags}
    exact = find_callback(trainer, ExactInterpolation)
    results = (exact.results if exact is not None else None) or {}
    known |= {
        "hp/rkhs_norm": machine.rkhs_norm,
        "hp/exact_val_error": results.get("exact_val_error"),
        "hp/exact_rkhs_norm": results.get("exact_rkhs_norm"),
        "hp/distance": results.get("distance_to_exact"),
    }
    return {name: float(value) for name, value in known.items() if value is not None}
