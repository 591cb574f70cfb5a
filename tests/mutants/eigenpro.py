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
    Mutant(
        "the rank for a given batch is the largest whose critical batch fits it",
        "kl/plan.py",
        "largest_for(max(batch_size or 0, wanted))",
        "largest_for(batch_size or wanted)",
        "tests/test_top_q.py -k 'gap_of_the_spectrum or automatic_batch'",
    ),
    Mutant(
        "the rank stays below a gap of the spectrum",
        "kl/top_q.py",
        "return q + gap",
        "return q",
        "tests/test_top_q.py -k beyond_a_gap",
    ),
    Mutant(
        "the rank for a given batch takes no account of what a step costs",
        "kl/top_q.py",
        "(step_flops + ranks * rank_flops) / eta",
        "1 / eta",
        "tests/test_top_q.py -k fastest_rank",
    ),
    Mutant(
        "no message where the batch is far above the critical one",
        "kl/plan.py",
        "if batch_size and m > FAR_ABOVE * critical:",
        "if False:",
        "tests/test_top_q.py -k far_above",
    ),
    Mutant(
        "training does not use the ridge",
        "kl/machine.py",
        "return residual.add_(self.alpha.detach()[local], alpha=self.ridge) if self.ridge else residual",
        "return residual",
        "tests/test_ridge_training.py -k comes_to",
    ),
    Mutant(
        "the preconditioner does not know the ridge",
        "kl/preconditioner.py",
        "damping_weights(system.eigenvalues, top_q, damping, shift)",
        "damping_weights(system.eigenvalues, top_q, damping)",
        "tests/test_ridge_training.py -k damped_spectrum",
    ),
    Mutant(
        "the step size does not know the ridge",
        "kl/plan.py",
        "damped_diagonal(*whole).max())) + ridge.value",
        "damped_diagonal(*whole).max()))",
        "tests/test_ridge_training.py -k the_plan_is",
    ),
    Mutant(
        "the guard does not know the ridge",
        "kl/guard.py",
        "if self._ridge:",
        "if False:",
        "tests/test_ridge_training.py -k guard",
    ),
    Mutant(
        "the limit beside a run with a ridge has none",
        "callbacks/exact_interpolation.py",
        "            machine.ridge,\n",
        "            0.0,\n",
        "tests/test_ridge_training.py -k distance",
    ),
]
