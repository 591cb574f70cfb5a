"""Faults in the products of kernel matrices."""

from mutants import Mutant

MUTANTS = [
    Mutant(
        "equal rows are not at distance 0",
        "kl/rows/pair.py",
        "inner.scatter_(1, column,",
        "inner.clone().scatter_(1, column,",
        "tests/kl/products/test_blocks.py tests/kl/kernels/test_kernels.py tests/kl/products/test_kept.py",
    ),
]
