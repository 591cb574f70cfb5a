"""The exact interpolant of one draw of the rows, for several fractions of label noise at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.sweep.point import Context, Point, Result

if TYPE_CHECKING:
    from torch import Tensor

    import kl
    from datamodules import KernelDataModule


@dataclass(frozen=True, kw_only=True)
class Exact(Point):
    """K alpha = Y for the labels at each level of noise: one matrix, as many right-hand sides as levels times classes.

    The result has `levels`, in the order of `noises`, each with train_error, train_mse, test_error, test_error_noisy
    (fractions; against clean test labels, and against test labels noised like the training labels),
    test_mse, rkhs_norm, rkhs_norm_per_class and relative_residual; and solver, iterations, jitter, data_source.
    """

    kind: ClassVar[str] = "exact"

    sample: Sample
    kernel: KernelSpec
    noises: tuple[float, ...] = (0.0,)

    def run(self, context: Context) -> Result:
        """Solve, and evaluate on the test set."""
        import kl
        from kl.rkhs import evaluate
        from recipes.options.groups import RunOptions
        from recipes.run.processes import device_of

        device = device_of(RunOptions(accelerator=context.accelerator))
        modules = [self.sample.datamodule(context, noise) for noise in self.noises]
        x = modules[0].train_set.x.to(device)
        y = targets(modules).to(device)
        kernel = self.kernel.build()
        # Conjugate gradients need hundreds of iterations for the Gaussian's fast decaying eigenvalues.
        solver = "direct" if self.kernel.name == "gaussian" else "auto"
        solved = kl.interpolate(kernel, x, y, memory=context.memory, solver=solver)
        solved.require_better_than_zero()
        scores = evaluate(kernel, x, solved.alpha, modules[0].require_test_set().x.to(device)).cpu()
        return {
            "levels": by_noise(self.noises, modules, solved, scores),
            "n": len(x),
            "d": x.shape[1],
            "c": modules[0].num_outputs,
            "data_source": modules[0].source,
            "solver": solved.solver,
            "iterations": solved.iterations,
            "jitter": solved.jitter,
            "seconds": solved.seconds,
        }

    def describe(self) -> str:
        """The draw, the kernel and the levels."""
        levels = ", ".join(f"{noise:.0%}" for noise in self.noises)
        return f"exact limit, {self.sample}, {self.kernel}, label noise {levels}"

    @property
    def seconds(self) -> float:
        """The n^3 of a factorisation, and the cost of every solve."""
        n = self.sample.rows
        return 0.3 + 3e-8 * n * n + n**3 / 3 / 1.5e11


def targets(modules: Sequence[KernelDataModule]) -> Tensor:
    """The training targets at all levels of noise beside one another, shape (n, levels times c)."""
    import torch

    return torch.cat([each.train_set.y for each in modules], dim=1)


def by_noise(
    noises: Sequence[float],
    modules: Sequence[KernelDataModule],
    solved: kl.Interpolant,
    scores: Tensor,  # f at the test rows, on the CPU, shape: (m, levels times c)
) -> list[Result]:
    """The errors and norms of each level of noise, from one solution of `targets`."""
    from kl.metrics import error, mse

    fitted, y = solved.fitted.cpu(), targets(modules).double()
    left = y - fitted - solved.ridge * solved.alpha.cpu()
    levels = []
    for i, (noise, module) in enumerate(zip(noises, modules, strict=True)):
        c = module.num_outputs
        own = slice(i * c, (i + 1) * c)
        test, noisy = module.require_test_set().y, module.require_test_set().y_noisy
        levels.append(
            {
                "noise": noise,
                "train_mse": mse(fitted[:, own], y[:, own]),
                "train_error": error(fitted[:, own], y[:, own]),
                "test_mse": mse(scores[:, own], test),
                "test_error": error(scores[:, own], test),
                "test_error_noisy": error(scores[:, own], test if noisy is None else noisy),
                "rkhs_norm": float(solved.rkhs_norm_per_class[own].square().sum().sqrt()),
                "rkhs_norm_per_class": solved.rkhs_norm_per_class[own].tolist(),
                "relative_residual": float(left[:, own].norm() / y[:, own].norm()),
            }
        )
    return levels
