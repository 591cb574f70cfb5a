"""The roofline: the seconds that the machine's own parts, timed in the same run, allow for an epoch of EigenPro 2."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from torch import Tensor

import kl
from kl.compiled import code_for
from kl.compiled.kernel_values import of_distances, relu
from kl.products.blocks import PADDED, thin_matmul
from kl.rows.float_product import bfloat16_products
from kl.rows.int8 import MULTIPLE
from kl.system.clock import fastest
from recipes.bench.parts.fit import fit

ROOFLINE = "roofline"
SIDE = 1024  # rows and columns of a tile whose product stays in cache
SIDE_ON_GPU = 8192
CACHED = 2**18  # values of a tile that functions are timed on: 1 MB
CACHED_ON_GPU = 2**25
READ = 2**27  # values of the memory that is read: 512 MB
BATCHES = 200  # empty training batches
DIGIT_PRODUCTS = 6
# What a kernel value needs beyond its inner product: names of `FUNCTIONS`, once for each hidden layer of a network.
PROFILES = {"gaussian": ("exp",), "laplacian": ("sqrt", "exp"), "relu-ntk": ("sqrt", "acos")}
FUNCTIONS: dict[str, Callable[..., Tensor]] = {"exp": torch.exp, "sqrt": torch.sqrt, "acos": torch.acos}
UNITS = ("int8", "float32", "bfloat16", "digits")  # the last are six int8 products, see `kl.rows.digits`


class EmptyMachine(pl.LightningModule):
    """A LightningModule whose steps do nothing, by manual optimisation as those of the kernel machines."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """Nothing."""

    def configure_optimizers(self) -> None:
        """None."""


@dataclass(frozen=True)
class Shape:
    """What an epoch computes: n rows of d features, c targets, s rows of the subsample and steps of m rows.

    Lightning's training batches hold `steps_per_batch` steps.
    """

    n: int
    d: int
    c: int
    s: int
    q: int
    m: int
    steps_per_batch: int = 1

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.n // self.m)

    @property
    def batches(self) -> int:
        """Training batches of an epoch."""
        return -(-self.steps // self.steps_per_batch)


class Roofline:
    """The parts of a machine, each timed when it is first asked for, and what they allow.

    An epoch computes n^2 kernel values and multiplies each with c weights; kept values are read meanwhile, so that
    the slower of reading and multiplying counts. The n s values of K(X, X_S) are multiplied twice, for f(X_B) and for
    the correction. Each step multiplies c vectors three times with s x q eigenvectors. Each part runs at its own
    fastest rate, of torch or of kl's compiled code, one part after the other, and nothing else takes time but
    Lightning's empty training batches. The training error, which follows the steps, is not a part of an epoch.

    Args:
        repeats: timed runs of each part; the fastest counts.
        device: the torch device.

    Source: Williams, Waterman and Patterson 2009, Roofline, doi:10.1145/1498765.1498785.
    """

    def __init__(self, repeats: int, device: str) -> None:
        self.repeats, self.device = max(repeats, 3), torch.device(device)
        self.measured: dict[str, tuple[float, str]] = {}
        """Rates by part, and their units."""

    def epoch(self, shape: Shape, kernel: kl.Kernel, unit: str, keep: bool, keep_columns: bool) -> float:
        """The seconds that the parts allow for an epoch.

        Args:
            shape: what the epoch computes.
            kernel: a kernel whose name is in `PROFILES`.
            unit: the unit of the inner products, of `UNITS`.
            keep: whether K(X, X) is kept.
            keep_columns: whether K(X, X_S) is kept.
        """
        n, s = shape.n, shape.s
        multiply, read = 2 * shape.c / self.weights(shape.c), 4 / self.read()
        each = 2 * shape.d / self.product(unit, shape.d) + self.profile(kernel)
        values = n * n * (max(read, multiply) if keep else each + multiply)
        values += n * s * (max(read, 2 * multiply) if keep or keep_columns else each + 2 * multiply)
        projections = shape.steps * 6 * s * shape.q * shape.c / self.product("float32", s)
        return values + projections + shape.batches * self.launch()

    def product(self, unit: str, d: int) -> float:
        """Flops a second, or operations of integers, of products of rows of d features in cache."""
        if unit == "digits":
            return self.product("int8", d) / DIGIT_PRODUCTS
        return self._rate(f"{unit} product, d = {d}", "op/s", lambda: self._product(unit, d))

    def profile(self, kernel: kl.Kernel) -> float:
        """Seconds that a kernel value takes: its functions one after the other, or its formula in compiled code."""
        layers = kernel.depth - 1 if isinstance(kernel, kl.ReluNTK) else 1
        apart = layers * sum(1 / self._function(name) for name in PROFILES[kernel.name])
        if code_for(torch.zeros(1, device=self.device)) is None:
            return apart
        return min(apart, 1 / self._rate(f"formula of {kernel.name}", "values/s", lambda: self._formula(kernel)))

    def weights(self, c: int) -> float:
        """Flops a second of a tile of kernel values times c columns of weights."""
        return self._rate(f"float32 product with {c} weights", "FLOP/s", lambda: self._weights(c))

    def read(self) -> float:
        """Bytes a second that are read from memory."""
        return self._rate("memory, read", "B/s", self._read)

    def launch(self) -> float:
        """Seconds of a training batch of Lightning's manual optimisation that does nothing."""
        return 1 / self._rate("empty batches", "batches/s", self._batches)

    def _function(self, name: str) -> float:
        """Values a second of a function on a tile in cache."""
        return self._rate(f"{name} in cache", "values/s", lambda: self._values(FUNCTIONS[name]))

    def _rate(self, name: str, units: str, measure: Callable[[], float]) -> float:
        if name not in self.measured:
            self.measured[name] = (measure(), units)
        return self.measured[name][0]

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def _product(self, unit: str, d: int) -> float:
        side = SIDE_ON_GPU if self._on_gpu else SIDE
        if unit == "int8":
            a = torch.randint(-127, 127, (side, d + -d % MULTIPLE), device=self.device).to(torch.int8)
            out = torch.empty(side, side, dtype=torch.int32, device=self.device)
            return self._times(lambda: torch._int_mm(a, a.T, out=out), 2 * side * side * d)
        x, floats = torch.rand(side, d, device=self.device), torch.empty(side, side, device=self.device)
        with bfloat16_products(unit == "bfloat16", self.device):
            return self._times(lambda: torch.mm(x, x.T, out=floats), 2 * side * side * d)

    def _values(self, function: Callable[..., Tensor]) -> float:
        x = torch.rand(CACHED_ON_GPU if self._on_gpu else CACHED, device=self.device)
        out = torch.empty_like(x)
        return self._times(lambda: function(x, out=out), len(x))

    def _formula(self, kernel: kl.Kernel) -> float:
        tile, ones = torch.rand(CACHED).view(-1, SIDE), torch.ones(SIDE)
        code = code_for(tile)
        assert code is not None  # `profile` has asked
        if isinstance(kernel, kl.ReluNTK):
            return self._times(lambda: relu(code, tile, ones, ones, kernel.depth, True, kernel.bias), CACHED)
        assert isinstance(kernel, kl.RadialKernel)
        return self._times(lambda: of_distances(code, kernel._formula, tile, kernel._rate), CACHED)

    def _weights(self, c: int) -> float:
        side, width = SIDE_ON_GPU if self._on_gpu else SIDE, c + -c % PADDED
        k, v = torch.rand(side, side, device=self.device), torch.rand(side, c, device=self.device)
        filled, out = torch.rand(side, width, device=self.device), torch.empty(side, width, device=self.device)
        ways = [lambda: thin_matmul(k, v), lambda: thin_matmul(k.T, v), lambda: torch.mm(k, filled, out=out)]
        return max(self._times(way, 2 * side * side * c) for way in ways)

    def _read(self) -> float:
        x = torch.zeros(READ // 2**13, 2**13, device=self.device)
        ways = [functools.partial(torch.sum, x), functools.partial(torch.mv, x, x[0]), functools.partial(torch.amax, x)]
        return max(self._times(way, 4 * READ, 1) for way in ways)

    def _batches(self) -> float:
        from datamodules import ArrayDataModule

        rows = torch.zeros(BATCHES, 1)
        data = ArrayDataModule.from_arrays(rows, rows, rows[:1], rows[:1], batch_size=1)
        timing = fit(EmptyMachine(), data, self.repeats + 1, "gpu" if self._on_gpu else "cpu", limit_val_batches=0)
        return BATCHES / min(timing.seconds_per_epoch[1:])

    def _times(self, work: Callable[[], object], amount: float, runs: int = 10) -> float:
        """`amount` for the seconds of one of several runs in a row, the fastest of `repeats` such rows."""
        work()

        def several() -> None:
            for _ in range(runs):
                work()

        return amount * runs / fastest(several, self.repeats, self.device)
