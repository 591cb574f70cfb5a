"""The bandwidth of a kernel, chosen on rows held out of the training set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from kl.errors import SingularKernelError
from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.sweep.point import Context, Point, Result

FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class BandwidthSearch(Point):
    """The exact interpolant of some training rows at several bandwidths, and its error on other training rows.

    The bandwidths are multiples of the median distance between the rows. No test row is used. The result has
    median_distance; `tried`, for each bandwidth its factor, bandwidth, error (a fraction) and relative_residual, or, if
    K is singular, error None and the `reason`; and the bandwidth of the smallest error (of equal errors the bandwidth
    nearest to the median distance) and that error.
    """

    kind: ClassVar[str] = "bandwidth-search"

    sample: Sample
    """n_train + n_held_out rows; its test set is not used."""
    kernel: KernelSpec
    """The kernel without a bandwidth."""
    n_train: int
    n_held_out: int
    factors: tuple[float, ...] = FACTORS
    """Bandwidths to try, as multiples of the median distance."""

    def run(self, context: Context) -> Result:
        """Solve once for each bandwidth.

        Raises:
            SingularKernelError: K is singular at every bandwidth.
        """
        import torch

        import kl
        from kl.metrics import error
        from kl.rkhs import evaluate
        from recipes.options.groups import RunOptions
        from recipes.run.processes import device_of

        rows = self.sample.datamodule(context).train_set
        generator = torch.Generator().manual_seed(self.sample.seed)  # a whole set comes in its own order
        order = torch.randperm(len(rows), generator=generator)
        train, held_out = order[: self.n_train], order[self.n_train : self.n_train + self.n_held_out]
        device = device_of(RunOptions(accelerator=context.accelerator))
        x, y = rows.x[train].to(device), rows.y[train].to(device)
        median = kl.median_distance(x, seed=self.sample.seed)
        tried: list[Result] = []
        for factor in self.factors:
            bandwidth = three_digits(factor * median)
            found: Result = {"factor": factor, "bandwidth": bandwidth, "error": None}
            kernel = replace(self.kernel, bandwidth=bandwidth).build()
            try:
                solved = kl.interpolate(kernel, x, y, memory=context.memory, solver="direct")
            except SingularKernelError as singular:
                found["reason"] = str(singular)
            else:
                scores = evaluate(kernel, x, solved.alpha, rows.x[held_out].to(device)).cpu()
                found["error"] = error(scores, rows.y[held_out])
                found["relative_residual"] = solved.relative_residual
            tried.append(found)
        return {"median_distance": median, "n": len(train), "tried": tried, **best(tried)}

    def describe(self) -> str:
        """The draw, the kernel, and how many bandwidths."""
        return (
            f"bandwidth search, {self.sample}, {self.kernel}, {len(self.factors)} bandwidths, "
            f"{self.n_train} rows and {self.n_held_out} held out"
        )

    @property
    def seconds(self) -> float:
        """One exact solve for each bandwidth."""
        return 0.5 + len(self.factors) * (0.05 + 1e-7 * self.n_train**2)


def best(tried: list[Result]) -> Result:
    """The bandwidth of the smallest error and that error; of equal errors, the one with the factor nearest to 1.

    Raises:
        SingularKernelError: no bandwidth has an error.
    """
    solved = [each for each in tried if each["error"] is not None]
    if not solved:
        raise SingularKernelError(
            f"the kernel matrix is singular at each of the {len(tried)} bandwidths tried: {tried[-1]['reason']}"
        )
    chosen = min(solved, key=lambda each: (each["error"], abs(math.log(each["factor"]))))
    return {"bandwidth": chosen["bandwidth"], "error": chosen["error"]}


def at_an_end(result: Mapping[str, object]) -> bool:
    """Whether the chosen bandwidth is the smallest or the largest tried, so that a better one may lie beyond."""
    tried = result["tried"]
    assert isinstance(tried, list)
    bandwidths = [each["bandwidth"] for each in tried]
    return result["bandwidth"] in (min(bandwidths), max(bandwidths))


def three_digits(value: float) -> float:
    """The number rounded to three significant digits."""
    return float(f"{value:.3g}")
