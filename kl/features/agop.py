"""The average gradient outer product (AGOP) of a kernel machine: the directions of the features it follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kl.checks import check_count, check_count_or_none, check_one_of, check_seed
from kl.distributed.ranks import Ranks
from kl.errors import InputError
from kl.features.structure import Structure
from kl.kernels.kernel import Kernel
from kl.products.gradients import gradient_matmul, gradient_row_matmul, gradient_sum, mean_row
from kl.rows.rows import Rows
from kl.rows.workspace import spans
from kl.system.memory import parse_memory

NARROWEST = 128  # centres of a tile for whose right side the outputs are split


@dataclass(frozen=True, eq=False)
class Agop:
    """G, the kept entries of an average of gradients' outer products.

    Args:
        structure: which entries are kept.
        parts: these entries, float64, of the shapes of `structure.shapes`.
        rows: rows in the average.

    Example:
        >>> import torch, kl
        >>> x = kl.Rows.of(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
        >>> kl.agop(kl.Polynomial(1), x, x, torch.ones(2, 1)).dense()  # the gradient is z_1 + z_2 everywhere
        tensor([[4., 4.],
                [4., 4.]], dtype=torch.float64)
    """

    structure: Structure
    parts: tuple[Tensor, ...]
    rows: int

    @property
    def is_zero(self) -> bool:
        """Whether all gradients are 0, so that there is nothing to learn."""
        return not any(bool(part.any()) for part in self.parts)

    def dense(self) -> Tensor:
        """G as a matrix with zeros for the entries that are not kept, shape (d, d)."""
        return self.structure.dense(self.parts)


def agop(
    kernel: Kernel,
    x: Rows,  # n rows
    z: Rows,  # p rows
    alpha: Tensor,  # shape: (p, c)
    *,
    metric: str | Structure | Sequence[Sequence[int]] = "full",
    sample: int | None = None,
    weights: Tensor | None = None,
    same: Tensor | None = None,
    centered: bool = False,
    sketch: int | None = None,
    reduction: str = "mean",
    seed: int = 0,
    memory: int | str = "256MB",
    ranks: Ranks | None = None,
) -> Agop:
    """G = (1 / sum_i w_i) sum_i w_i sum_o grad f_o(x_i) grad f_o(x_i)^T for f(x) = sum_j alpha_j K(x, z_j).

    The gradients are in the units of the outputs by those of the features. They are computed in the dtype of the kernel
    values and multiplied and summed in float64. The temporaries are limited by `memory`, not by n, p or c.

    With m rows and p centres, c outputs cost one kernel block and one product with a right side of c (d + 1) columns:
    2 m p c (d + 1) flops. A sketch of k signs costs 2 m p k (c + d + 1) flops instead. It replaces the c gradients of
    each row i by those of k random combinations sum_o s_iko f_o / sqrt(k), where each s is +1 or -1, drawn for each
    row anew. Because E[s s^T] is the identity, the sketch is unbiased: its expectation over the seed is G. Centred, the
    sum over o of mu_o mu_o^T that is subtracted is exact in both cases.

    Measured with the Laplacian in float32 on one AVX-512 core, m = 2000, p = 4000, d = 100: G takes as long as 3, 7 and
    60 products K alpha for c = 1, 10 and 100, and with a sketch of one sign as 3 to 4 for each of them. At
    d = 784 the numbers are 3 and 16 for c = 1 and 10, and 3 with the sketch.

    Args:
        kernel: the kernel; its bandwidth must be resolved.
        x: the rows whose gradients are averaged, such as the training rows.
        z: the centres.
        alpha: the weights, shape (p, c).
        metric: "full", "diagonal", or a list of groups of columns whose blocks are kept.
        sample: rows of x to draw without replacement; None, or at least n: all of them.
        weights: w, 0 or above, shape (n,); None is 1 for each. Rows of weight 0 are not drawn.
        same: for each row of x the index of the same row in z, -1 if z does not hold it, shape (n,).
        centered: subtract from each output's gradients their mean mu_o over the rows.
        sketch: k, the random combinations of outputs at each row; None takes all c outputs.
        reduction: "mean", or "sum", which does not divide by the sum of the weights.
        seed: seed of the draws.
        memory: bytes of the temporaries, beyond G, a few tiles of K and one byte for each sign.
        ranks: the processes that share the rows of the average, each of which is given the same arguments and gets all
            of G; None is one process.

    Returns:
        G, positive semi-definite up to rounding unless it is both centred and sketched.

    Raises:
        InputError: a shape or an option is wrong, alpha is not finite, or the kernel does not define its gradient.

    Source: Radhakrishnan, Beaglehole, Pandit and Belkin 2024, arXiv:2212.13881, Algorithm 1. Random signs:
    Hutchinson 1990, A stochastic estimator of the trace of the influence matrix.

    Example:
        >>> import torch, kl
        >>> x = kl.Rows.of(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double())
        >>> y = x.data[:, :1].sin()  # the target does not depend on the other columns
        >>> kernel = kl.Gaussian(2.0)
        >>> found = kl.agop(kernel, x, x, kl.interpolate(kernel, x.data, y).alpha, metric="diagonal")
        >>> (found.parts[0] / found.parts[0].sum())[0] > 0.98
        tensor(True)
    """
    d, c = x.data.shape[1], _check_alpha(alpha, z)
    structure = Structure.of(metric, d)
    check_one_of("reduction", reduction, ("mean", "sum"))
    if sketch is not None:
        sketch = check_count("sketch", sketch)
    w = _check_weights(weights, x)
    generator = torch.Generator().manual_seed(check_seed("seed", seed))
    chosen = _draw(w, check_count_or_none("sample", sample, "all rows"), generator)
    total, count, ranks = w[chosen].sum(), len(chosen), ranks or Ranks()
    signs = None if sketch is None else _signs(count, sketch, c, generator)[ranks.local_rows(count)].to(x.data.device)
    chosen = chosen[ranks.local_rows(count)]
    x, w = x[chosen], w[chosen]
    same, origin = None if same is None else same[chosen], mean_row(z)

    blocks = Blocks.of(parse_memory(memory, x.data.device), d, sketch or c, x.dtype.itemsize)
    parts, mean = structure.zeros(x.data), x.data.new_zeros(c, d, dtype=torch.float64)
    for rows in spans(len(x), blocks.rows):
        at, at_same = x[rows], None if same is None else same[rows]
        if signs is not None:
            found = gradient_row_matmul(kernel, at, z, alpha, signs[rows], at_same, origin)
            _add(structure, parts, found.double(), w[rows] / signs.shape[1])
            continue
        for outputs in spans(c, blocks.outputs):
            found = gradient_matmul(kernel, at, z, alpha[:, outputs], at_same, origin, blocks.columns).double()
            _add(structure, parts, found, w[rows])
            if centered:
                mean[outputs] += torch.tensordot(w[rows], found, 1)
    parts = tuple(ranks.all_reduce_sum(part) for part in parts)
    if centered:
        if signs is not None:
            mean = gradient_sum(kernel, x, z, alpha, w, same, origin)
        _subtract(structure, parts, ranks.all_reduce_sum(mean) / total, total, x.dtype)
    if reduction == "mean":
        for part in parts:
            part.div_(total)
    return Agop(structure, parts, count)


@dataclass(frozen=True)
class Blocks:
    """How many rows, outputs and centres are taken at a time."""

    rows: int
    outputs: int
    columns: int

    @classmethod
    def of(cls, budget: int, d: int, c: int, itemsize: int) -> Blocks:
        """A quarter of the budget goes to the right side of a tile, half to the gradients and their float64 copy."""
        row = (d + 1) * itemsize
        outputs = min(c, max(1, budget // (4 * NARROWEST * row)))
        columns = max(1, budget // (4 * outputs * row))
        return cls(max(1, budget // (2 * outputs * (d + 1) * (itemsize + 8))), outputs, columns)


def _add(structure: Structure, parts: tuple[Tensor, ...], found: Tensor, w: Tensor) -> None:
    """Add sum_ik w_i found_ik found_ik^T, with gradients `found` of shape (m, k, d)."""
    rows = found.flatten(0, 1)
    for part, more in zip(parts, structure.outer(rows, w.repeat_interleave(found.shape[1])), strict=True):
        part.add_(more)


def _subtract(structure: Structure, parts: tuple[Tensor, ...], mean: Tensor, total: Tensor, dtype: torch.dtype) -> None:
    """Subtract total sum_o mean_o mean_o^T. What is left is 0 where it is only rounding."""
    before = max(float(part.abs().max()) for part in parts)
    for part, less in zip(parts, structure.outer(mean), strict=True):
        part.sub_(less, alpha=float(total))
    if max(float(part.abs().max()) for part in parts) <= max((16 * torch.finfo(dtype).eps) ** 2, 1e-14) * before:
        for part in parts:
            part.zero_()


def _signs(n: int, k: int, c: int, generator: torch.Generator) -> Tensor:
    """+1 or -1, int8, shape (n, k, c); all at once, because draws in pieces would depend on the pieces."""
    return torch.randint(0, 2, (n, k, c), generator=generator, dtype=torch.int8).mul_(2).sub_(1)


def _draw(w: Tensor, sample: int | None, generator: torch.Generator) -> Tensor:
    """The sampled rows in increasing order, so that all rows in their own order are what None gives."""
    rows = w.nonzero().flatten()
    if sample is None or sample >= len(rows):
        return rows
    return rows[torch.randperm(len(rows), generator=generator)[:sample].sort().values.to(rows.device)]


def _check_alpha(alpha: Tensor, z: Rows) -> int:
    if not isinstance(alpha, Tensor) or alpha.ndim != 2 or len(alpha) != len(z):
        received = tuple(alpha.shape) if isinstance(alpha, Tensor) else type(alpha).__name__
        raise InputError(f"alpha must have one row for each of the {len(z)} centres, shape (p, c); got {received}")
    if not bool(alpha.isfinite().all()):
        raise InputError("alpha must be finite; got NaN or infinity: the fit before has diverged, fit again")
    return alpha.shape[1]


def _check_weights(weights: Tensor | None, x: Rows) -> Tensor:
    if weights is None:
        return torch.ones(len(x), dtype=torch.float64, device=x.data.device)
    w = torch.as_tensor(weights, dtype=torch.float64, device=x.data.device)
    if w.shape != (len(x),):
        raise InputError(f"weights must have one number for each of the {len(x)} rows; got shape {tuple(w.shape)}")
    if not bool(w.isfinite().all()) or bool((w < 0).any()) or not bool(w.any()):
        raise InputError("weights must be finite, 0 or above, and not all 0; give each row a number such as 1")
    return w
