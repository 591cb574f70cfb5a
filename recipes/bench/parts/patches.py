"""Features of image patches, and the kernel matrix of them, beside float32 products of the same flops."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kl.features.patches import Patches
from kl.kernels import Gaussian
from kl.products.blocks import kernel_matrix
from kl.rows.rows import Rows
from kl.system.clock import fastest
from recipes.bench.parts.limit import MM
from recipes.bench.record import EXTRACTION, EXTRACTION_WITH_UNITS, FEATURES, Measurement, Task

if TYPE_CHECKING:
    from recipes.bench.settings import Bench

SHAPES = {"gray": (1, 28, 28), "colour": (3, 32, 32)}
COUNT = 1024  # patches of a dictionary
SQUARE = 1536  # side of a product whose operands and result stay near the processor
BATCH = 1024  # rows of a block of the kernel matrix


def patch_tasks(bench: Bench) -> list[Task]:
    """A task for each kind of image and encoding."""
    n = min(bench.sizes.train, 2_000 if bench.sizes.repeats > 2 else 200)
    tasks = []
    for name, shape in SHAPES.items():
        flops = flops_of(n, shape)
        for encoding in ("count", "rectified"):
            tasks.append(
                Task(
                    "patches",
                    f"{name}, {encoding}",
                    3 * (bench.sizes.repeats + 1) * flops / bench.rate + 2.0,
                    lambda name=name, encoding=encoding: measure(bench, name, encoding, n),  # type: ignore[misc]
                )
            )
    return tasks


def measure(bench: Bench, name: str, encoding: str, n: int) -> list[Measurement]:
    """The features of n images, and K of rows as long."""
    images = pictures(n, SHAPES[name], bench.seed).to(bench.device)
    patches = Patches(count=COUNT, encoding=encoding, seed=bench.seed).fit(images, progress=lambda line: None)
    seconds = fastest(lambda: patches.transform(images, lambda line: None), bench.sizes.repeats, bench.device)
    flops = flops_of(n, SHAPES[name])
    plain = flops / product_rate(flops, SHAPES[name], bench)
    found = [
        Measurement(
            "patches",
            f"features, {name}, {encoding}",
            n,
            patches.columns,
            seconds,
            seconds / plain,
            MM,
            EXTRACTION_WITH_UNITS if has_matrix_units(bench.device) else EXTRACTION,
            detail={"patches": COUNT, "plain_seconds": plain, "gflops": 1e-9 * flops / seconds},
        )
    ]
    # Features of random values in their place, because computing so many features would take long.
    m, generator = bench.sizes.growth_rows, torch.Generator().manual_seed(bench.seed)
    x = torch.randint(256, (m, patches.columns), generator=generator).float().to(bench.device)
    kernel, rows = Gaussian("auto").resolve(x), Rows.of(x)
    out = torch.empty(m, m, device=x.device)
    seconds = fastest(lambda: kernel_matrix(kernel, rows, rows, out=out), bench.sizes.repeats, bench.device)
    plain = bench.limits.of(x, BATCH).seconds
    found.append(
        Measurement(
            "patches",
            f"K, {name}, {encoding}",
            m,
            x.shape[1],
            seconds,
            seconds / plain,
            MM,
            FEATURES,
            detail={"exact": rows.codes is not None, "plain_seconds": plain},
        )
    )
    return found


def flops_of(n: int, shape: tuple[int, int, int]) -> float:
    """Flops of the responses of all patches of n images: 2 positions d m, of size 6."""
    channels, height, width = shape
    return 2.0 * n * (height - 5) * (width - 5) * channels * 36 * COUNT


def product_rate(flops: float, shape: tuple[int, int, int], bench: Bench) -> float:
    """Flops a second of float32 products, in the shape of the responses or square, whichever is faster."""
    d = shape[0] * 36
    best = 0.0
    for m, k, p in ((BATCH, d, COUNT), (SQUARE, SQUARE, SQUARE)):
        a, b = torch.rand(m, k, device=bench.device), torch.rand(k, p, device=bench.device)
        out, count = torch.empty(m, p, device=bench.device), max(1, math.ceil(flops / (2 * m * k * p)))

        def products(a: Tensor = a, b: Tensor = b, out: Tensor = out, count: int = count) -> None:
            for _ in range(count):
                torch.mm(a, b, out=out)

        best = max(best, 2.0 * m * k * p * count / fastest(products, bench.sizes.repeats, bench.device))
    return best


def pictures(n: int, shape: tuple[int, int, int], seed: int) -> Tensor:
    """Smooth random images, uint8, shape (n, channels, height, width)."""
    channels, height, width = shape
    noise = torch.rand(n, channels, height + 2, width + 2, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(noise, 3, 1).mul_(255).to(torch.uint8)


def has_matrix_units(device: str) -> bool:
    """Whether the device multiplies 8-bit integers in matrix units: AMX of a CPU, or a GPU."""
    return device != "cpu" or bool(torch.cpu._is_amx_tile_supported())
