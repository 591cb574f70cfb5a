"""Faults in the validation part, label noise, early stopping, and what `kl predict` writes."""

from mutants import Mutant

SPLIT = "tests/test_validation_split.py"
BEST = "tests/test_best_epoch.py"

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
    Mutant(
        "the best epoch is by clean labels",
        "callbacks/best.py",
        'noisy = "_noisy" if "val/error_noisy" in values else ""',
        'noisy = ""',
        f"{BEST} -k compared",
    ),
    Mutant(
        "NaN is the best epoch",
        "callbacks/best.py",
        "value if math.isfinite(value) else math.inf",
        "value if math.isfinite(value) else -math.inf",
        f"{BEST} -k compared",
    ),
    Mutant(
        "the test set is evaluated with the last weights",
        "recipes/training.py",
        "if kept is not None and kept.chooser.best != kept.chooser.last:",
        "if kept is None:",
        f"{BEST} -k evaluated_once",
    ),
    Mutant(
        "the test set validates",
        "datamodules/base.py",
        "if self.val_set is None:\n            warnings.filterwarnings",
        "self.validation_set = self.test_set\n        if self.val_set is None:\n            warnings.filterwarnings",
        f"{BEST} -k depends_on_the_test_set",
    ),
    Mutant(
        "resume forgets the best epoch",
        "callbacks/best.py",
        'self.best, self.last = state_dict["best"], state_dict["last"]',
        'self.last = state_dict["last"]',
        f"{BEST} -k resumed_run_keeps",
    ),
    Mutant(
        "the best epoch's file stays where it was",
        "callbacks/best.py",
        "if source.resolve() != self.path.resolve():",
        "if source is None:",
        f"{BEST} -k 'resumed_run_keeps or crash'",
    ),
    Mutant(
        "any best.ckpt will do",
        "callbacks/best.py",
        'return bool(state.get("best") == best and checkpoint.get("epoch") == best["epoch"] - 1)',
        "return True",
        f"{BEST} -k 'resumed_run_keeps'",
    ),
    Mutant(
        "patience does not stop",
        "callbacks/best.py",
        "trainer.should_stop = True",
        "pass",
        f"{BEST} -k patience_stops",
    ),
]
