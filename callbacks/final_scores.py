"""Metrics beside mse and error at the end of a run: of probabilities and balanced classes, and of regression."""

from __future__ import annotations

import pytorch_lightning as pl

from callbacks.common import Machine
from callbacks.figures import log_figure
from callbacks.reliability import reliability_figure
from callbacks.scores import outputs_of, val_outputs
from kl.machines.data_facts import facts_of
from kl.probabilities import classification_scores, fit_temperature, probabilities, regression_scores


class FinalScores(pl.Callback):
    """Logs the scalars final/test_* once, for the weights that the run ends with.

    They are `kl.probabilities.classification_scores` and `regression_scores` on the clean test rows, in the target's
    own unit. Probabilities are softmax(f / T). With a validation part the scores wait for `trainer.test`, and T has the
    least log loss on that part. Without one T is that of the machine's `data_info`, which an `ExactInterpolation` may
    have set; else there are no probabilities, because nothing but the test set could choose T. Nothing is measured
    without test rows and under fast_dev_run.

    Attributes:
        results: the scores by name; empty before the end.
        temperature: T; None if nothing chooses it, and for regression.

    Source: Guo et al. 2017, arXiv:1706.04599.
    """

    def __init__(self) -> None:
        self.results: dict[str, float] = {}
        self.temperature: float | None = None

    # Not at fit end: by then Lightning has taken the machine off the GPU.
    def on_train_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Measure a run without a validation part."""
        if not facts_of(trainer).validation:
            self._measure(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: Machine) -> None:
        """Measure a run with a validation part, with the weights that are tested."""
        if facts_of(trainer).validation:
            self._measure(trainer, pl_module)

    def _measure(self, trainer: pl.Trainer, machine: Machine) -> None:
        facts = facts_of(trainer)
        rows, held = facts.test_set, facts.val_set if facts.validation else None
        if rows is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        # Without a validation part val/* is of these rows, and other callbacks have their scores already.
        shared = val_outputs(trainer, machine) if rows is facts.val_set else None
        outputs = outputs_of(machine, rows) if shared is None else shared
        if machine.is_classifier:
            labels = rows.y.argmax(dim=1)
            if held is not None:
                self.temperature = fit_temperature(outputs_of(machine, held), held.y.argmax(dim=1))
            else:
                self.temperature = machine.data_info.get("temperature")
            self.results = classification_scores(outputs, labels, self.temperature)
            if self.temperature is not None:
                found = probabilities(outputs, self.temperature)
                log_figure(trainer, "test/reliability", reliability_figure(found, labels))
        else:
            scores = (machine.in_target_units(each).double() for each in (outputs, rows.y))
            self.results = regression_scores(*scores)
        for logger in trainer.loggers:
            values = {f"final/test_{name}": value for name, value in self.results.items()}
            logger.log_metrics(values, trainer.global_step)
