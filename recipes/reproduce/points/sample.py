"""The data and the kernel of a point, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules import KernelDataModule
    from kl import Kernel
    from recipes.reproduce.sweep.point import Context


ROWS = {"mnist": 60_000, "fashion-mnist": 60_000, "cifar10": 50_000, "digits": 1437}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A draw of training and test rows."""

    data: str
    """The value of --data."""
    n: int | None = None
    """Training rows; None takes all."""
    test_size: int | None = None
    """Test rows; None takes all."""
    seed: int = 0
    """Seed of the draw and of the noise."""
    grayscale: bool = False
    unit_norm: bool = False
    """Whether each row is divided by its Euclidean length."""

    def datamodule(
        self, context: Context, label_noise: float = 0.0, augment: str | None = None, validation: float = 0.0
    ) -> KernelDataModule:
        """The data module, set up; `validation` is the share of the training rows to hold out.

        Raises:
            InputError: the rows are not available.
        """
        from datamodules import build_datamodule
        from kl import RowDataset

        extra: dict[str, Any] = {"grayscale": True} if self.grayscale else {}
        if augment is not None:
            extra["augment"] = augment
        data = build_datamodule(
            self.data,
            data_dir=context.data_dir,
            train_size=self.n,
            test_size=self.test_size,
            label_noise=label_noise,
            noise_seed=self.seed,
            seed=self.seed,
            batch_size=None,
            validation=validation,
            **extra,
        )
        data.prepare_data()
        data.setup()
        if self.unit_norm:
            for part in ("train_set", "validation_set", "test_set"):
                rows = getattr(data, part)
                if rows is None:
                    continue
                x = rows.x / rows.x.norm(dim=1, keepdim=True).clamp_(min=1e-12)
                setattr(data, part, RowDataset(x, rows.y, rows.y_noisy))
        return data

    @property
    def rows(self) -> int:
        """n, or the number of all rows."""
        return self.n or ROWS.get(self.data, 2000)

    def __str__(self) -> str:
        gray = " gray" if self.grayscale else ""
        return f"{self.data}{gray} n={self.rows} seed {self.seed}"


KERNEL_TITLES = {
    "gaussian": "Gaussian",
    "laplacian": "Laplacian",
    "matern32": "Matérn 3/2",
    "matern52": "Matérn 5/2",
    "relu-ntk": "ReLU NTK",
    "relu-nngp": "ReLU NNGP",
}


@dataclass(frozen=True, kw_only=True)
class KernelSpec:
    """A kernel by its name and its parameters."""

    name: str
    bandwidth: float | None = None
    depth: int | None = None

    def build(self) -> Kernel:
        """The kernel.

        Raises:
            InputError: there is no such kernel.
        """
        import kl

        return kl.build_kernel(self.name, bandwidth=self.bandwidth, depth=self.depth)

    @property
    def title(self) -> str:
        """The kernel's name in a figure's legend."""
        return KERNEL_TITLES.get(self.name, self.name)

    def __str__(self) -> str:
        if self.depth is not None:
            return f"{self.name} of depth {self.depth}"
        return self.name if self.bandwidth is None else f"{self.name} {self.bandwidth:g}"


def gaussian(bandwidth: float) -> KernelSpec:
    """The Gaussian kernel."""
    return KernelSpec(name="gaussian", bandwidth=bandwidth)


def laplacian(bandwidth: float) -> KernelSpec:
    """The Laplacian kernel."""
    return KernelSpec(name="laplacian", bandwidth=bandwidth)
