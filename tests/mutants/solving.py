"""Faults in conjugate gradients on kernel matrices of low rank."""

from mutants import Mutant

MUTANTS = [
    Mutant(
        "kernel matrices of low rank are left to float32",
        "kl/exact/low_rank.py",
        "if solver is None:",
        "if solver is not None or True:",
        "tests/kl/exact/test_conjugate_gradients.py",
    ),
    Mutant(
        "the residual of a solve on the range is not the true one",
        "kl/exact/refinement.py",
        "best = Solved(alpha, fitted, relative, solver",
        "best = Solved(alpha, fitted, min(relative, wanted), solver",
        "tests/kl/exact/test_conjugate_gradients.py",
    ),
    Mutant(
        "targets outside the range are not told of",
        "kl/exact/low_rank.py",
        "if solved.relative_residual > tolerance and solver.rank < len(system):",
        "if solver.rank > len(system):",
        "tests/kl/exact/test_conjugate_gradients.py",
    ),
    Mutant(
        "a factor of the range has no later blocks",
        "kl/exact/low_rank.py",
        "while float(diagonal.mean()) > least:",
        "while not len(factor):",
        "tests/kl/exact/test_conjugate_gradients.py",
    ),
    Mutant(
        "a machine on a kernel of low rank is left to float32",
        "kl/exact/machine.py",
        "if preconditioner.exhausted or self._by_factor:",
        "if False:",
        "tests/kl/exact/test_machine.py",
    ),
    Mutant(
        "a resumed machine forgets that it solves on the range",
        "kl/exact/machine.py",
        'extra["by_factor"]',
        "False",
        "tests/kl/exact/test_machine.py",
    ),
    Mutant(
        "a budget is looked at after a bandwidth is chosen",
        "kl/machines/interpolating.py",
        "            self._require_room(",
        "            (lambda *_: None)(",
        "tests/kl/eigenpro/test_memory.py -k before_any_work",
    ),
]
