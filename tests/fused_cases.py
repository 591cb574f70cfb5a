"""Fused products by Triton's interpreter: `TRITON_INTERPRET=1 python fused_cases.py OUT`, a process of its own.

Triton decides between its compiler and its interpreter when it is imported.
"""

import sys
from unittest import mock

import torch

import kl.products.fused as fused
from kl.kernels import ExponentialPower, Gaussian, InverseMultiquadric, Laplacian, Matern32, Matern52, ReluNNGP, ReluNTK
from kl.products.blocks import kernel_matmul
from kl.rows.rows import Rows

KERNELS = {
    "gaussian": Gaussian(2.0),
    "laplacian": Laplacian(2.0),
    "matern32": Matern32(2.0),
    "matern52": Matern52(2.0),
    "exponential_power": ExponentialPower(2.0, 0.7),
    "inverse_multiquadric": InverseMultiquadric(2.0),
    "relu_ntk": ReluNTK(3, 0.5),
    "relu_nngp": ReluNNGP(3),
}
FEATURES = {kind: 5 if kind == "few" else 41 for kind in fused.TILES}
TILES = fused.Tiles(16, 16, 16)
CPU = torch.device("cpu")
# Rows of x, rows of z and parts of z, around the borders of tiles of 16.
SIZES = [(1, 1, 1), (16, 16, 1), (17, 33, 2), (33, 15, 4), (15, 70, 3), (2, 64, 4)]


def rows(kind, n):
    """n rows with rows of NaN before and after them in memory, where they are floats."""
    with mock.patch("kl.rows.int8.int8_is_exact", return_value=True):
        x = fused.probed_rows(kind, n + 6, FEATURES[kind], CPU)
    if kind in ("floats", "few", "rounded"):
        x.data[:3] = x.data[-3:] = x.sq_norm[:3] = x.sq_norm[-3:] = torch.nan
    assert fused.kind_of(Gaussian(1.0), x, x) == kind
    return x[3:-3]


def chosen(m):
    """Rows of m that z holds, two of three from the last to the first, and `same`, with numbers outside 0..p-1."""
    held = torch.tensor([i for i in reversed(range(m)) if i % 3])
    same = torch.tensor([-1, len(held), 1000]).repeat(m)[:m]
    same[held] = torch.arange(len(held))
    return held, same


def product(kernel, x, z, v, same, parts=1, tiles=TILES):
    """What a test compares: the fused product, the engine's product, and what both were made from."""
    ours, others = (each.floats() if each.codes is not None else each for each in (x, z))
    return {
        "fused": fused.fused_matmul(kernel, x, z, v, same, tiles, parts),
        "engine": kernel_matmul(kernel, ours, others, v, same),
        "x": x.data.clone(),
        "z": z.data.clone(),
        "v": v,
        "same": same,
    }


def weights(p, c):
    return torch.randn(p, c, generator=torch.Generator().manual_seed(p + c), dtype=torch.float64)


def equal_rows(kind, named):
    """K(x, x) for rows so far apart that K is the identity, if rounding leaves no distance between equal rows."""
    x = rows(kind, 40)
    same = torch.arange(40) if named else None
    return fused.fused_matmul(Laplacian(1e-4), x, x, torch.eye(40), same, TILES, 2)


def far_rows():
    """K(x, x) where |x|^2 cancels, of floats far from 0."""
    x = Rows.of(1e3 + torch.randn(20, 30, generator=torch.Generator().manual_seed(0)))
    return fused.fused_matmul(Laplacian(0.01), x, x, torch.eye(20), torch.arange(20), TILES)


def broken_rows():
    """K(x, z) v where a row of x, and then a weight, is NaN."""
    x, v = Rows(torch.rand(20, 30), torch.full((20,), 10.0)), torch.ones(20, 1)
    x.data[3] = torch.nan
    z = Rows(torch.rand(20, 30), torch.full((20,), 10.0))
    poisoned = v.clone()
    poisoned[19] = torch.nan
    return [fused.fused_matmul(Gaussian(2.0), a, z, b, None, TILES) for a, b in ((x, v), (z, poisoned))]


def zero_rows():
    """Products of ReLU kernels, where rows of x and of z are 0."""
    x = rows("floats", 20).data.clone()
    x[::5] = 0
    x = Rows.of(x)
    kernels = [ReluNTK(1, 0.5), ReluNTK(2), ReluNTK(4, 0.5), ReluNNGP(3)]
    return [product(kernel, x, x, weights(20, 2), torch.arange(20)) for kernel in kernels]


def choices():
    """What the probe says of a device as slow as the interpreter, at sizes that this can take."""
    with mock.patch.multiple(fused, PROBED_ROWS=130, PROBED_COLUMNS=70, ROUNDS=1):
        return {
            kind: (
                fused._probe("cpu", None, Laplacian(1.0), kind, FEATURES[kind], 16),
                fused.relative_error(
                    Laplacian(2.0), rows(kind, 50), rows(kind, 50)[:40], weights(40, 3).float(), torch.arange(50)
                ),
            )
            for kind in ("floats", "few", "rounded")
        }


def main(path):
    found = {}
    for kind in fused.TILES:
        for name, kernel in KERNELS.items():
            x, (held, same) = rows(kind, 31), chosen(31)
            found[kind, name] = product(kernel, x, x[held], weights(len(held), 3), same)
        for c in (1, 17):
            x = rows(kind, 21)
            found[kind, c] = product(Gaussian(2.0), x, x[:20], weights(20, c), torch.arange(21))
        for m, p, parts in SIZES:
            found[kind, m, p] = product(
                Matern32(2.0), rows(kind, m + p)[:m], rows(kind, m + p)[m:], weights(p, 2), None, parts
            )
        found["equal", kind] = equal_rows(kind, True)
    found["equal", "unnamed"] = equal_rows("codes", False)
    found["far"], found["broken"], found["zero"] = far_rows(), broken_rows(), zero_rows()
    found["default tiles"] = product(
        Gaussian(2.0), rows("codes", 140), rows("codes", 70), weights(70, 3), None, 1, None
    )
    x = rows("floats", 4)
    found["empty"] = [
        fused.fused_matmul(Gaussian(1.0), *pair, weights(len(pair[1]), 2)) for pair in ((x[:0], x), (x, x[:0]))
    ]
    found["choices"] = choices()
    torch.save(found, path)


if __name__ == "__main__":
    main(sys.argv[1])
