"""The sizes of a benchmark, from --scale, --train-size and the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kl.checks import check_one_of
from kl.errors import InputError
from recipes.bench.parts.limit import Limits
from recipes.bench.record import PARTS, SCALES

if TYPE_CHECKING:
    from datamodules import KernelDataModule
    from kl import Kernel
    from recipes.bench.options import BenchOptions
    from recipes.bench.parts.roofline import Roofline

FULL_GROWTH = (2_000, 5_000, 10_000, 20_000, 40_000, 60_000)


@dataclass(frozen=True)
class BenchData:
    """Training rows in memory."""

    name: str
    x: Tensor  # shape: (n, d), float32
    y: Tensor  # shape: (n, c), float32
    labels: Tensor | None  # shape: (n,), long; None for regression
    test: tuple[Tensor, Tensor] | None = None  # features and labels or targets of the test set

    def first(self, n: int) -> BenchData:
        """The first n rows, or all rows if there are fewer."""
        return BenchData(self.name, self.x[:n], self.y[:n], None if self.labels is None else self.labels[:n], self.test)

    def noisy(self, seed: int = 0) -> BenchData:
        """The same rows with a little noise on the features, so that they are not 8-bit."""
        generator = torch.Generator().manual_seed(seed)
        scale = 1e-3 * float(self.x.std())
        x = self.x + scale * torch.randn(self.x.shape, generator=generator)
        return BenchData(f"{self.name} + noise", x, self.y, self.labels)

    def datamodule(self, seed: int = 0) -> KernelDataModule:
        """These rows as a data module; without a test set, the first row serves as one."""
        from datamodules import ArrayDataModule

        y = self.y if self.labels is None else self.labels
        test = self.test or (self.x[:1], y[:1])
        return ArrayDataModule.from_arrays(self.x, y, *test, batch_size=None, seed=seed)


@dataclass(frozen=True)
class Sizes:
    """The sizes of the measurements."""

    parts: tuple[str, ...]
    train: int
    """Rows of the epochs and of the memory runs."""
    exact: int
    """Rows of the exact solves."""
    peers: int
    """Rows that every library trains on."""
    peer_floats: int
    """Rows of the floats of few features that every library trains on."""
    growth: tuple[int, ...]
    features: tuple[int, ...]
    """d of the growth with d, on `growth_rows` random rows."""
    classes: tuple[int, ...]
    """c of the growth with c."""
    growth_rows: int
    centers: int
    """Centres of general kernel models."""
    tune: int
    """Rows that kernel, bandwidth and ridge are chosen on."""
    epochs: int
    """Epochs of every training run; the first is not counted."""
    repeats: int
    """Repeats of everything else; the fastest counts."""
    time_limit: float
    """Seconds that a peer may take."""
    subsample: int | None = None
    """s of every training run; None leaves the choice to the machine."""
    peer_kernels: tuple[str, ...] = ("gaussian",)
    peer_features: tuple[int, ...] = (3,)
    """d of the floats."""
    peer_python: str | None = None
    """The Python that runs the other libraries; None means this one."""


def choose_sizes(options: BenchOptions, rows: int) -> Sizes:
    """The sizes that the options ask for, with data of `rows` rows.

    Raises:
        InputError: --scale, --only or --time-limit has an invalid value.
    """
    parts = choose_parts(options)
    full = options.scale == "full"
    train = min(rows, options.train_size or (60_000 if full else 4_000))
    growth = {n for n in (FULL_GROWTH if full else (train // 3,)) if 0 < n < train} | {train}
    return Sizes(
        parts=parts,
        train=train,
        exact=min(train, 10_000 if full else 2_000),
        peers=min(train, options.train_size or 10_000 if full else 1_500),
        peer_floats=50_000 if full else 1_500,
        growth=tuple(sorted(growth)),
        features=(10, 32, 128, 512, 784, 1536, 3072) if full else (32, 784),
        classes=(1, 4, 16, 64, 256, 1000) if full else (1, 16),
        growth_rows=min(train, 10_000 if full else 2_500),
        centers=min(train, 10_000 if full else 1_000),
        tune=min(train, 5_000 if full else 1_000),
        epochs=4 if full else 3,
        repeats=3 if full else 2,
        time_limit=options.time_limit or (900.0 if full else 60.0),
        subsample=None if full else max(1, min(500, train // 4)),  # so that set-ups do not take most of the time
        peer_kernels=("gaussian", "laplacian") if full else ("gaussian",),
        peer_features=(3, 10) if full else (3,),
        peer_python=options.peer_python,
    )


def choose_parts(options: BenchOptions) -> tuple[str, ...]:
    """The parts that --only names, in the order of `PARTS`; --scale and --time-limit are checked, too.

    Raises:
        InputError: an option has an invalid value.
    """
    check_one_of("scale", options.scale, SCALES)
    if options.time_limit is not None and not options.time_limit > 0:
        raise InputError(f"time_limit must be a number of seconds above 0; got {options.time_limit}")
    asked = PARTS if options.only is None else tuple(part.strip() for part in options.only.split(","))
    for part in asked:
        if part not in PARTS:
            raise InputError(f"only must be parts of {', '.join(PARTS)}, separated by commas; got {part!r}")
    return tuple(part for part in PARTS if part in asked)


def read_data(options: BenchOptions) -> BenchData:
    """The training rows that --data names, all of them or --train-size.

    Raises:
        InputError: the data is not available.
    """
    from datamodules.registry import NAMED
    from recipes.options.groups import DataOptions
    from recipes.run.build import build_data

    size = options.train_size
    facts = NAMED[options.data][0].facts if options.data in NAMED else None
    if size is None and options.scale == "quick" and facts and facts.n_train > 4_000:
        size = 4_000  # the most rows that `choose_sizes` takes, so no more become float32
    data = build_data(DataOptions(options.data, options.data_dir, train_size=size), options.seed)
    data.prepare_data()
    data.setup("fit")
    y = data.train_set.y
    labels = y.argmax(dim=1) if data.task == "classification" else None
    test_set = data.require_test_set()
    y_test = test_set.y
    test = test_set.x.float(), y_test.argmax(dim=1) if labels is not None else y_test.float()
    return BenchData(data.name, data.train_set.x.float(), y.float(), labels, test)


def chosen_kernels(data: BenchData, seed: int) -> dict[str, Kernel]:
    """Gaussian, Laplacian and ReLU NTK: at the bandwidths of record on MNIST, else at the median distance."""
    import kl

    if data.name == "mnist":
        return {"gaussian": kl.Gaussian(5.0), "laplacian": kl.Laplacian(10.0), "relu-ntk": kl.ReluNTK(depth=3)}
    radial = {"gaussian": kl.Gaussian("auto"), "laplacian": kl.Laplacian("auto")}
    resolved = {name: kernel.resolve(data.x, seed=seed) for name, kernel in radial.items()}
    return {**resolved, "relu-ntk": kl.ReluNTK(depth=3)}


@dataclass(frozen=True)
class Bench:
    """Everything that a part needs."""

    data: BenchData
    kernels: dict[str, Kernel]
    sizes: Sizes
    limits: Limits
    roofline: Roofline
    rate: float
    """Flops a second of a float32 product, for estimates."""
    accelerator: str = "cpu"
    """cpu or gpu."""
    seed: int = 0

    @property
    def device(self) -> str:
        """The torch device."""
        return "cuda" if self.accelerator == "gpu" else "cpu"

    def guess(self, n: int, d: int, passes: float, extra: float = 2.0) -> float:
        """Estimated seconds of `passes` passes of 2 n^2 d flops, and `extra` seconds."""
        return passes * 2 * n * n * d / self.rate + extra
