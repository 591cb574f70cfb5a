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
        "fused products read weights of columns that are not there",
        "kl/products/fused_kernel.py",
        "used = (columns < p)[:, None] &",
        "used = (columns < p + COLUMNS)[:, None] &",
        "tests/kl/products/test_fused.py",
    ),
    Mutant(
        "fused products forget equal rows",
        "kl/products/fused_kernel.py",
        "column_of_same[:, None] == columns[None, :]",
        "column_of_same[:, None] == start + columns[None, :]",
        "tests/kl/products/test_fused.py",
    ),
    Mutant(
        "fused products are in TF32",
        "kl/products/fused_kernel.py",
        'total = tl.dot(values, weights, total, input_precision="ieee")',
        "total = tl.dot(values, weights, total)",
        "tests/kl/products/test_fused.py",
    ),
    Mutant(
        "the probe lets wrong fused products pass",
        "kl/products/fused.py",
        "if not error <= TOLERATED:",
        "if error > 1:",
        "tests/kl/products/test_fused.py",
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
        "kl/compiled/thin_products.py",
        "len(index), len(matrix)):",
        "len(index), len(matrix) + 1):",
        "tests/kl/compiled/test_thin_products.py -k outside",
    ),
    Mutant(
        "labels of a batch are taken for row numbers",
        "kl/eigenpro/machine.py",
        "if len(batch) == 2:",
        "if False:",
        "tests/kl/machines/test_loaders.py -k without_row_numbers",
    ),
    Mutant(
        "batches outside of training hold row numbers alone",
        "kl/machines/loaders.py",
        "if trainer is not None and trainer.training else None",
        "if trainer is not None else None",
        "tests/kl/machines/test_loaders.py -k outside_of_training",
    ),
    Mutant(
        "kept rows stay in memory after training",
        "kl/eigenpro/machine.py",
        "self.fitted.release_rows()",
        "pass",
        "tests/kl/machines/test_state.py -k no_kernel_values",
    ),
    Mutant(
        "compiled formulas leave the rate out",
        "kl/rows/pair.py",
        "ours.grid[0] ** 2, rate)",
        "ours.grid[0] ** 2, 1.0)",
        "tests/kl/kernels/test_kernels.py tests/kl/products/test_blocks.py",
    ),
]
