"""The scale of an experiment, and the data that it uses at that scale."""

from __future__ import annotations

from dataclasses import dataclass, field

from kl.checks import check_one_of
from recipes.reproduce.points.sample import ROWS, KernelSpec, Sample, gaussian, laplacian
from recipes.reproduce.sweep.point import Context

SCALES = ("tiny", "quick", "full")
TITLES = {
    "mnist": "MNIST",
    "fashion-mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar10-jpeg": "CIFAR-10 (JPEG)",
    "digits": "digits",
}
# The bandwidths of the Gaussian and of the Laplacian kernel, from [B18]. Digits have no published ones; theirs are half
# the median distance and the median distance, as the paper's are on MNIST.
BANDWIDTHS = {"mnist": (5.0, 10.0), "fashion-mnist": (5.0, 10.0), "cifar10": (5.0, 10.0), "digits": (1.5, 3.0)}


@dataclass(frozen=True)
class Setting:
    """The size of an experiment: "tiny" (seconds, on digits), "quick" (a minute), "full" (the paper's size)."""

    scale: str
    context: Context = field(default_factory=Context)

    def __post_init__(self) -> None:
        check_one_of("scale", self.scale, SCALES)

    def data(self, name: str) -> str:
        """The set to use for the paper's `name`: digits at the tiny scale, and at the quick scale without its files.

        At the full scale a set that is missing is downloaded.
        """
        if self.scale == "tiny" or (self.scale == "quick" and not on_disk(name, self.context.data_dir)):
            return "digits"
        return name

    def distinct(self, *names: str) -> list[str]:
        """The first of the names for each different set of `data(name)`."""
        return list({self.data(name): name for name in reversed(names)}.values())[::-1]

    def sample(self, name: str, n: int | None, test_size: int | None = None, seed: int = 0, **options: bool) -> Sample:
        """A draw of at most n rows of `data(name)`; all rows if n is None or the set has no more."""
        data = self.data(name)
        rows = ROWS.get(data)
        fewer = None if n is None or (rows is not None and n >= rows) else n
        if data == "digits":
            options.pop("grayscale", None)
            test_size = None  # all 360
        return Sample(data=data, n=fewer, test_size=test_size, seed=seed, **options)

    def sizes(self, name: str, *sizes: int) -> list[int]:
        """The sizes in increasing order, each cut to the number of rows of `data(name)`, without repeats."""
        rows = ROWS[self.data(name)]
        return sorted({min(size, rows) for size in sizes})

    def kernels(self, name: str) -> tuple[KernelSpec, KernelSpec]:
        """The Gaussian and the Laplacian kernel with the bandwidths of [B18] for `data(name)`."""
        for_gaussian, for_laplacian = BANDWIDTHS[self.data(name)]
        return gaussian(for_gaussian), laplacian(for_laplacian)

    def choose(self, *, tiny, quick, full):  # type: ignore[no-untyped-def]
        """The value for this scale."""
        return {"tiny": tiny, "quick": quick, "full": full}[self.scale]


def on_disk(name: str, data_dir: str | None) -> bool:
    """Whether a set that is downloaded lies in the data folder already."""
    from datamodules import build_datamodule

    module = build_datamodule(name, data_dir=data_dir)
    return getattr(module, "found_in")() is not None  # noqa: B009 (of those that are downloaded)


def title(data: str) -> str:
    """A set's name in figures."""
    return TITLES.get(data, data)
