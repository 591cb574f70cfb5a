"""Exact kernel machines on features of image patches, at several ridges and levels of label noise."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from recipes.reproduce.points.exact import by_noise, targets
from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.sweep.point import Context, Point, Result

if TYPE_CHECKING:
    from torch import Tensor

    import kl
    from datamodules import KernelDataModule

WRONG, SHOWN = 15, 64  # misclassified test images and patches of the dictionary that a result holds, for pictures
SIDES = {"cifar10": (3, 32), "digits": (1, 8)}  # channels and pixels of a side; others have (1, 28)


@dataclass(frozen=True, kw_only=True)
class PatchSpec:
    """The options of `kl.Patches` that change its features; that class describes each."""

    count: int = 1024
    size: int = 6
    whitening: float = 0.01
    dictionary: str = "random"
    mirrored: bool = False
    encoding: str = "count"
    active: float = 0.3
    threshold: float = 0.15
    pool: int | None = None
    stride: int | None = None

    def build(self, seed: int) -> kl.Patches:
        """The patches, which have learnt nothing yet.

        Raises:
            InputError: an option is out of its range.
        """
        import kl

        return kl.Patches(**asdict(self), seed=seed)

    def __str__(self) -> str:
        cells = "2 x 2 cells" if self.pool is None else f"cells of {self.pool} at stride {self.stride or 'auto'}"
        mirrored = ", mirrored" if self.mirrored else ""
        return f"{self.count} {self.dictionary} patches, {self.encoding}, eps {self.whitening:g}, {cells}{mirrored}"


@dataclass(frozen=True, kw_only=True)
class PatchExact(Point):
    """(K + ridge I) alpha = Y on features of image patches, with a bandwidth in median distances of training rows.

    The features are computed once. For each ridge there is one factorisation, with as many right-hand sides as levels
    of noise times classes. The result has

    - `levels`, ridge by ridge and noise by noise, each with ridge, noise, what `points.exact` gives of a level, and
      solve_seconds and evaluation_seconds, which the levels of a ridge share;
    - extraction_seconds, of learning the dictionary and of all features, and seconds, of everything but reading data;
    - d (columns), bandwidth, exact (whether the products were of 8-bit codes), n, c, data_source;
    - `wrong`, of the first ridge and noise: row, predicted and true class name of some misclassified test images;
    - `dictionary`, the first whitened patches, and `patch_shape`: channels, rows, columns. Both are
      None for pixels.
    """

    kind: ClassVar[str] = "patch-exact"

    sample: Sample
    patches: PatchSpec | None
    """None takes the pixels instead."""
    kernel: KernelSpec
    """The kernel without a bandwidth."""
    bandwidth_factor: float = 1.0
    """Times the median distance between training rows of features."""
    ridges: tuple[float, ...] = (0.0,)
    noises: tuple[float, ...] = (0.0,)

    def run(self, context: Context) -> Result:
        """Compute the features, solve for each ridge, and evaluate on the test set."""
        import time

        import kl
        from kl.rkhs import evaluate
        from recipes.options.groups import RunOptions
        from recipes.run.processes import device_of

        device = device_of(RunOptions(accelerator=context.accelerator))
        modules = [self.sample.datamodule(context, noise) for noise in self.noises]
        start = time.perf_counter()
        x, test, learnt = self._features(modules[0], str(device))
        extracted = time.perf_counter()
        y = targets(modules).to(device)
        median = self.kernel.build().resolve(x, self.sample.seed).bandwidth  # type: ignore[attr-defined]
        kernel = replace(self.kernel, bandwidth=self.bandwidth_factor * median).build()
        levels: list[Result] = []
        for ridge in self.ridges:
            begin = time.perf_counter()
            solved = kl.interpolate(kernel, x, y, ridge, memory=context.memory, solver="direct")
            solved.require_better_than_zero()
            done = time.perf_counter()
            scores = evaluate(kernel, x, solved.alpha, test).cpu()
            same = {"ridge": ridge, "solve_seconds": done - begin, "evaluation_seconds": time.perf_counter() - done}
            levels += [{**same, **level} for level in by_noise(self.noises, modules, solved, scores)]
            if ridge == self.ridges[0]:
                wrong = some_wrong(modules[0], scores[:, : modules[0].num_outputs])
        return {
            "levels": levels,
            "n": len(x),
            "d": x.shape[1],
            "c": modules[0].num_outputs,
            "data_source": modules[0].source,
            "bandwidth": self.bandwidth_factor * median,
            "exact": kl.Rows.of(x).codes is not None,
            "extraction_seconds": extracted - start,
            "seconds": time.perf_counter() - start,
            "wrong": wrong,
            **shown(learnt),
        }

    def _features(self, data: KernelDataModule, device: str) -> tuple[Tensor, Tensor, kl.Patches | None]:
        """The features of training and test rows, on the device, and the patches; the pixels without patches."""
        from datamodules.patches import as_images

        x, test = (rows.x.to(device) for rows in (data.train_set, data.require_test_set()))
        if self.patches is None:
            return x, test, None
        patches = self.patches.build(self.sample.seed).fit(as_images(x, data.image_shape, data.name))
        return patches.transform_rows(x), patches.transform_rows(test), patches

    def describe(self) -> str:
        """The draw, the features, the kernel and the ridges."""
        features = "pixels" if self.patches is None else str(self.patches)
        ridges = ", ".join(f"{ridge:g}" for ridge in self.ridges)
        at = f"{self.kernel} at {self.bandwidth_factor:g} median distances"
        return f"exact machines, {self.sample}, {features}, {at}, ridge {ridges}"

    @property
    def seconds(self) -> float:
        """The responses, a factorisation for each ridge, and the products of both sets of rows."""
        channels, side = SIDES.get(self.sample.data, (1, 28))
        n, m = self.sample.rows, self.sample.test_size or 10_000
        d, each = channels * side**2, 0.0
        if self.patches is not None:
            spec = self.patches
            d = spec.count * 4 * (2 if spec.mirrored else 1)
            each = max(side - spec.size + 1, 1) ** 2 * d / 4 * (2 * channels * spec.size**2 + 60)
        products = 2 * d * n * (2 * n + m) / 1e11
        return 0.3 + (n + m) * each / 6e10 + len(self.ridges) * (products + n**3 / 3 / 5e10)


def some_wrong(
    data: KernelDataModule,
    scores: Tensor,  # shape: (m, c)
) -> list[Result]:
    """Row, predicted and true class name of `WRONG` misclassified test images, evenly spread over all of them.

    Some sets come class by class, so the first ones would be of one class.
    """
    predicted, true = scores.argmax(dim=1), data.require_test_set().y.argmax(dim=1)
    names = data.class_names
    rows = (predicted != true).nonzero().flatten()
    kept = rows[[i * len(rows) // WRONG for i in range(WRONG)]] if len(rows) > WRONG else rows
    return [
        {"row": row, "predicted": names[int(predicted[row])], "true": names[int(true[row])]} for row in kept.tolist()
    ]


def shown(patches: kl.Patches | None) -> dict[str, Any]:
    """The first `SHOWN` whitened patches of a dictionary, whole numbers of norm 127, and the shape of each."""
    if patches is None or patches.learnt is None or patches.image is None:
        return {"dictionary": None, "patch_shape": None}
    shape = (patches.image[0], patches.size, patches.size)
    kept = patches.learnt.patches[:SHOWN].cpu()
    assert kept.shape[1] == math.prod(shape)
    return {"dictionary": kept.int().tolist(), "patch_shape": shape}
