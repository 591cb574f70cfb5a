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
    Mutant(
        "compiled code computes what torch.jit.trace follows",
        "kl/compiled/__init__.py",
        "if torch.jit.is_tracing() or torch.compiler.is_compiling():",
        "if torch.compiler.is_compiling():",
        "tests/kl/compiled/test_kernel_values.py -k traced",
    ),
    Mutant(
        "a ReLU kernel with a formula of its own is computed as its parent",
        "kl/kernels/relu.py",
        'defined_with(type(self), "_tangent", "_recur", "_evaluate") and ',
        "",
        "tests/kl/compiled/test_kernel_values.py -k recursion_of_its_own",
    ),
    Mutant(
        "compiled code reads rows outside a kept matrix",
        "kl/compiled/kept_rows.py",
        "if low < 0 or high >= len(matrix):",
        "if low < 0:",
        "tests/kl/compiled/test_kept_rows.py -k outside",
    ),
]
