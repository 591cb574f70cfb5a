"""Faults in the validation part, label noise, early stopping, and what `kl predict` writes."""

from mutants import Mutant

SPLIT = "tests/test_validation_split.py"

MUTANTS = [
    Mutant(
        "the noise count is rounded to even",
        "datamodules/sampling.py",
        "to_integral_value(ROUND_HALF_UP)",
        "to_integral_value()",
        "tests/test_data_noise.py",
    ),
    Mutant(
        "the noise count is of the binary fraction",
        "datamodules/sampling.py",
        "Decimal(str(float(share)))",
        "Decimal(float(share))",
        "tests/test_data_noise.py",
    ),
    Mutant(
        "training and test noise are of one seed",
        "datamodules/base.py",
        'f"{part} noise"',
        '"noise"',
        "tests/test_data_noise.py",
    ),
    Mutant(
        "the validation part is not stratified",
        "datamodules/base.py",
        'derive_seed(self.seed, "validation")\n        kept, held = hold_out(len(rows), self.validation, seed, labels)',
        'derive_seed(self.seed, "validation")\n        kept, held = hold_out(len(rows), self.validation, seed)',
        SPLIT,
    ),
    Mutant(
        "the validation part does not depend on the seed",
        "datamodules/base.py",
        'derive_seed(self.seed, "validation")',
        '0 * derive_seed(self.seed, "validation")',
        SPLIT,
    ),
    Mutant(
        "held out rows are trained on",
        "datamodules/base.py",
        "self.train_set = RowDataset(rows.x[kept], rows.y[kept])",
        "pass",
        SPLIT,
    ),
    Mutant(
        "held out labels are noised where they are called clean",
        "datamodules/base.py",
        "clean = rows.y[held] if labels is None else",
        "clean = rows.y[held] if True else",
        SPLIT,
    ),
    Mutant(
        "val/* is of the test set though rows are held out",
        "datamodules/base.py",
        "return self.validation_set if self.validation else self.test_set",
        "return self.test_set",
        SPLIT,
    ),
    Mutant(
        "of small classes always the same are held out",
        "datamodules/holdout.py",
        "np.arange(count) * n + rng.integers(n)",
        "np.arange(count) * n + n - 1",
        SPLIT,
    ),
    Mutant(
        "a class is held out whole",
        "datamodules/holdout.py",
        "np.setdiff1d(classes, classes[~held])",
        "()",
        SPLIT,
    ),
    Mutant(
        "a checkpoint goes on with another validation part",
        "datamodules/base.py",
        "if (share, rows) != (self.validation, self._digest_of_held_out()):",
        "if share != self.validation:",
        SPLIT,
    ),
    Mutant(
        "a test set is required again",
        "datamodules/arrays.py",
        "read_npz(self.path, KEYS, TEST_KEYS)",
        "read_npz(self.path, KEYS + TEST_KEYS)",
        SPLIT,
    ),
]
