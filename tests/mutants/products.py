"""Faults in the products of kernel matrices."""

from mutants import Mutant

MUTANTS = [
    Mutant(
        "equal rows are not at distance 0",
        "kl/pair.py",
        "inner.scatter_(1, column,",
        "inner.clone().scatter_(1, column,",
        "tests/test_rows_engine.py tests/test_kernels.py tests/test_matrix.py",
    ),
]
