"""Faults in the choice of kernel, bandwidth and ridge: residuals of left-out rows, losses, stages, kept scores."""

from mutants import Mutant

SPECTRUM, TUNE = "tests/kl/tuning/test_spectrum.py", "tests/kl/tuning/test_tune.py"
LOSSES, COMMAND = "tests/kl/tuning/test_losses.py", "tests/recipes/commands/test_tune.py"

MUTANTS = [
    Mutant(
        "rounding errors of eigenvalues count",
        "kl/tuning/spectrum.py",
        "torch.where(values > least, values, 0.0)",
        "values.clamp(min=0)",
        SPECTRUM,
    ),
    Mutant(
        "without a ridge a row outside the span of the others is taken as one inside",
        "kl/tuning/spectrum.py",
        "torch.where(share > len(share) * EPS, (null",
        "torch.where(share >= 0, (null",
        SPECTRUM,
    ),
    Mutant(
        "without a ridge the fitted part of a fold is forgotten",
        "kl/tuning/spectrum.py",
        "alpha[fold] - block @ part",
        "alpha[fold]",
        SPECTRUM,
    ),
    Mutant(
        "a singular matrix is factorised",
        "kl/tuning/factor.py",
        "> LEAST_PIVOT * scale",
        "> 0 * scale",
        SPECTRUM,
    ),
    Mutant(
        "columns of the inverse factor start at the first row",
        "kl/tuning/factor.py",
        "self.lower[start:, start:]",
        "self.lower[: len(unit), : len(unit)]",
        SPECTRUM,
    ),
    Mutant(
        "the temperature is 1",
        "kl/tuning/losses.py",
        "fit_temperature(scores, labels))",
        "1.0)",
        LOSSES,
    ),
    Mutant(
        "equal rows weigh as one",
        "kl/tuning/problem.py",
        "merged.totals.sqrt()",
        "torch.ones_like(merged.totals)",
        TUNE,
    ),
    Mutant(
        "folds do not look at classes",
        "kl/tuning/problem.py",
        "distinct.targets if self.classes else None",
        "None",
        TUNE,
    ),
    Mutant(
        "kept scores of other rows are taken",
        "kl/tuning/kept.py",
        "repr((VERSION, self._rows, what))",
        "repr((VERSION, what))",
        TUNE,
    ),
    Mutant(
        "finalists are not searched beyond three ridges",
        "kl/tuning/search.py",
        "wanted = _next_to_best(scores, choice) if scores else {max(singular) + 1}",
        "wanted = set()",
        TUNE,
    ),
    Mutant(
        "the file of options may name code among its kernels",
        "recipes/options/config.py",
        '("kernel", "kernels", "data")',
        '("kernel", "data")',
        COMMAND,
    ),
]
