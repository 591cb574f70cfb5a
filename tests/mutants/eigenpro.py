"""Faults in EigenPro: its training metrics, parameters, guard and ridge."""

from mutants import Mutant

MUTANTS = [
    Mutant(
        "training metrics of EigenPro 3 and 4 are means over the batches",
        "kl/general.py",
        'return self._streamed or self.hparams["running_metrics"]',
        "return True",
        "tests/test_training_metrics.py -k metrics_of_eigenpro",
    ),
    Mutant(
        "means over the batches of a stream are called train/mse",
        "kl/general.py",
        'f"train/{name}_running": value',
        'f"train/{name}": value',
        "tests/test_training_metrics.py -k metrics_of_a_stream",
    ),
    Mutant(
        "training metrics of the first rows alone",
        "kl/general.py",
        "for some in spans(len(rows), EVALUATED_ROWS):",
        "for some in [slice(EVALUATED_ROWS)]:",
        "tests/test_training_metrics.py -k a_few_at_a_time",
    ),
]
