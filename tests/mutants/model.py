"""Faults in fitted functions on their own."""

from mutants import Mutant

MUTANTS = [
    Mutant(
        "a kernel of other parameters takes the place of a saved model's",
        "kl/model.py",
        'model._kernel_of(extra["kernel"], resuming=False)',
        "model.kernel",
        "tests/kl/test_model.py -k must_be_the_files",
    ),
    Mutant(
        "an interpolant far from 0 predicts without its origin",
        "kl/exact/interpolate.py",
        "centers, x = centers - origin, x - origin",
        "centers = centers - origin",
        "tests/kl/test_model.py -k predicts",
    ),
    Mutant(
        "8-bit centres that are not so to the bit",
        "kl/model.py",
        "float(k.max()) < LEVELS and torch.equal(k / levels, centers)",
        "float(k.max()) < LEVELS",
        "tests/kl/test_model.py -k 8_bit",
    ),
    Mutant(
        "a saved model loses its origin",
        "kl/model.py",
        '"origin": self.origin.cpu()',
        '"origin": 0 * self.origin.cpu()',
        "tests/kl/test_model.py -k predicts",
    ),
    Mutant(
        "large weights that cancel are multiplied in float32",
        "kl/machines/function.py",
        "> COARSE * float(scores.abs().max())",
        "< 0.0",
        "tests/kl/test_model.py -k cancel",
    ),
    Mutant(
        "gradients of large weights that cancel are of float32",
        "kl/machines/function.py",
        "if self._is_coarse(scores.detach(), Rows.of(x.detach(), like=centers), centers, weights):",
        "if False:",
        "tests/kl/test_model.py -k cancel",
    ),
]
