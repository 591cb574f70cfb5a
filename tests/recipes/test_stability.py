"""Many small runs with automatic parameters: none of them diverges, and few have to slow down."""

import json
from dataclasses import asdict, dataclass, replace

import pytest
import torch
from training import quiet_trainer

import kl
from datamodules import ArrayDataModule, build_datamodule
from kl.errors import DataNotFoundError

pytestmark = pytest.mark.numeric

DIRECT_ROWS = 2000  # up to this n the kernel matrix is also factorised
RADIAL = ("gaussian", "laplacian", "exponential-power", "matern32", "matern52", "inverse-multiquadric")
OTHERS = {"polynomial": {"degree": 3}, "relu-ntk": {}, "relu-nngp": {}}
IMAGES = ("mnist", "fashion-mnist", "cifar10")
MADE = ("clusters", "duplicates", "line", "cube", "far", "extreme")
DATA = ("digits", *IMAGES, "synthetic1", "synthetic2", *MADE)
CONFLICTING = ("clusters", "extreme")  # conflicting repeats and an extreme target: the guard may halve the step once


@dataclass(frozen=True)
class Case:
    """One run; `factor` times the automatic bandwidth."""

    group: str
    data: str
    n: int
    kernel: str
    factor: float = 1.0
    batch: str = "auto"  # m: auto, a number, or one of m*/4, 4m* and n
    top_q: str = "auto"  # q: auto, a number, or large (n/2)
    seed: int = 0

    @property
    def epochs(self):
        """Fewer where they are long."""
        return 20 if self.n <= 500 else 8 if self.n <= 2000 else 2

    def __str__(self):
        forced = "".join(f" {name}={v}" for name, v in (("m", self.batch), ("q", self.top_q)) if v != "auto")
        bandwidth = f" bandwidth x{self.factor:g}" if self.factor != 1 else ""
        return f"{self.group}: {self.data} n={self.n} {self.kernel}{bandwidth}{forced} seed {self.seed}"


def all_cases():
    """Every case, by the question it belongs to."""
    kernels = [Case("kernels", "digits", 500, k, f) for k in (*RADIAL, "sum") for f in (1, 0.25, 4, 16)]
    kernels += [Case("kernels", "digits", 500, k) for k in OTHERS]
    data = [Case("data", d, 1000, k) for d in DATA for k in ("laplacian", "gaussian", "relu-ntk")]
    hard = ("mnist", "cifar10", "line", "cube", "clusters", "duplicates", "far", "extreme", "synthetic1")
    bandwidths = [Case("bandwidths", d, 500, "gaussian", f) for d in hard for f in (0.25, 4, 16)]
    batches = [
        Case("batches", d, 200, k, batch=m)
        for d in ("digits", "mnist", "line")
        for k in ("laplacian", "gaussian")
        for m in ("1", "m*/4", "4m*", "n")
    ]
    ranks = [
        Case("ranks", d, 500, k, top_q=q)
        for d in ("digits", "line", "mnist")
        for k in ("laplacian", "gaussian", "relu-ntk")
        for q in ("0", "1", "large")
    ]
    small = [
        Case("sizes", d, n, k, seed=s) for d in ("mnist", "cube") for n in (50, 200) for k in RADIAL[:2] for s in (0, 1)
    ]
    middle = [Case("sizes", d, n, k) for d in ("mnist", "fashion-mnist") for n in (2500, 5000) for k in RADIAL[:2]]
    large = [Case("sizes", "mnist", 20000, "laplacian"), Case("sizes", "fashion-mnist", 20000, "gaussian")]
    seeds = [
        Case("seeds", d, 300, k, seed=s) for d in ("digits", "synthetic1") for k in RADIAL[:2] for s in (1, 2, 3, 4)
    ]
    return [*kernels, *data, *bandwidths, *batches, *ranks, *small, *middle, *large, *seeds]


SMALL = [
    Case("data", "line", 40, "gaussian"),
    Case("batches", "clusters", 40, "laplacian", batch="4m*"),
    Case("ranks", "cube", 40, "sum", factor=4, top_q="large"),
]


def make_kernel(case, x):
    """The kernel of a case with its bandwidths resolved on x and multiplied by the factor."""

    def scaled(name):
        kernel = kl.build_kernel(name).resolve(x, seed=case.seed)
        return replace(kernel, bandwidth=kernel.bandwidth * case.factor)

    if case.kernel == "sum":
        return scaled("gaussian") + 0.5 * scaled("laplacian")
    if case.kernel in OTHERS:
        return kl.build_kernel(case.kernel, **OTHERS[case.kernel]).resolve(x, seed=case.seed)
    return scaled(case.kernel)


def make_data(case, data_dir=None):
    """The data of a case: a known set, or arrays that are made to be difficult.

    clusters: 10 tight groups far apart; duplicates: every row five times; line: d = 1; cube: d = 3; far: rows near
    (1e4, ..., 1e4); extreme: one target of 1000 among those of about 1.
    """
    if case.data not in MADE:
        extra = {"grayscale": True} if case.data == "cifar10" else {}
        sizes = {"train_size": case.n, "test_size": 20, "batch_size": None}
        seeds = {"seed": case.seed, "noise_seed": case.seed}
        return build_datamodule(case.data, data_dir=data_dir, **sizes, **seeds, **extra)
    generator = torch.Generator().manual_seed(case.seed)
    d = {"line": 1, "cube": 3}.get(case.data, 20)
    x = torch.randn(case.n, d, generator=generator)
    y = torch.sin(x @ torch.randn(d, 2, generator=generator))
    if case.data == "clusters":
        centres = 30 * torch.randn(10, d, generator=generator)
        x = centres[torch.arange(case.n) % 10] + 0.1 * x
    if case.data == "duplicates":
        rows = torch.arange(case.n) % max(1, case.n // 5)
        x, y = x[rows], y[rows]
    if case.data == "far":
        x = x + 1e4
    if case.data == "extreme":
        y[case.n // 2] = 1000.0
    return ArrayDataModule.from_arrays(x, y, x[:20], y[:20], seed=case.seed, batch_size=None)


def batch_and_rank(case, kernel, x, y):
    """batch_size and top_q of a case."""
    critical = 0
    if "m*" in case.batch:
        planned = kl.KernelMachine(kernel, seed=case.seed)
        planned.prepare(x, y)
        critical = planned.plan.critical_batch_size
    n = len(x)
    batch = {"auto": "auto", "n": n, "m*/4": max(1, critical // 4), "4m*": min(4 * critical, n)}
    rank = {"auto": "auto", "large": n // 2}
    return batch.get(case.batch) or int(case.batch), rank.get(case.top_q) or int(case.top_q)


def check_steady(case, data_dir=None):
    """Train one machine: it neither diverges nor gets NaN, and cuts its step at most where the data conflicts."""
    data = make_data(case, data_dir)
    data.prepare_data()
    data.setup()
    x, y = data.train_set.x, data.train_set.y
    kernel = make_kernel(case, x)
    batch_size, top_q = batch_and_rank(case, kernel, x, y)
    machine = kl.KernelMachine(kernel, batch_size=batch_size, top_q=top_q, seed=case.seed)
    trainer = quiet_trainer(case.epochs, num_sanity_val_steps=0, limit_val_batches=0)
    trainer.fit(machine, datamodule=data)  # a divergence would raise
    assert torch.isfinite(machine.alpha).all()
    assert torch.isfinite(machine.fitted.flush()).all()
    assert machine.run.guard.cuts <= (case.data in CONFLICTING)
    assert machine.train_metrics["train/mse"] > 0
    if len(x) <= DIRECT_ROWS:
        assert kl.interpolate(kernel, x, y).rkhs_norm > 0


@pytest.mark.slow
@pytest.mark.parametrize("case", all_cases(), ids=str)
def test_many_runs(case, request):
    data_dir = request.getfixturevalue("data_dir") if case.data in IMAGES else None
    try:
        check_steady(case, data_dir)
    except DataNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_small_runs(case):
    check_steady(case)


def test_cases_are_many_and_different():
    cases = all_cases()
    assert len(cases) == 187
    assert len({json.dumps(asdict(case)) for case in cases}) == len(cases)
    assert {case.kernel for case in cases} == {*RADIAL, *OTHERS, "sum"}
    assert {case.data for case in cases} == set(DATA)


@pytest.mark.parametrize("name", MADE)
def test_made_data(name):
    data = make_data(Case("data", name, 50, "gaussian"))
    data.setup()
    assert data.train_set.x.shape[0] == 50
    again = make_data(Case("data", name, 50, "gaussian"))
    again.setup()
    assert data.train_set.x.equal(again.train_set.x)
