"""The exact interpolant of compressed images, with noise in place of the detail that compression removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.sweep.point import Context, Point, Result

if TYPE_CHECKING:
    import torch

BLOCK = 8  # side in pixels of the blocks that JPEG transforms


@dataclass(frozen=True, kw_only=True)
class LostDetail(Point):
    """JPEG rounds each coefficient of a block's cosine transform to a multiple of its step, which leaves it uncertain
    by half a step to either side. This adds to each coefficient a uniform number from `share` times that interval,
    clamps to [0, 1], rounds to 256 levels, and solves K alpha = Y on the changed training images; test images are
    changed in the same way.

    The result has test_error (a fraction), rkhs_norm, added (root mean square of the added noise, in grey levels of
    255), n, data_source and seconds.
    """

    kind: ClassVar[str] = "lost-detail"

    sample: Sample
    kernel: KernelSpec
    share: float
    """0 changes nothing; 1 is the whole interval that the rounding leaves open."""
    quality: int = 75
    """The quality of the JPEG files, which determines libjpeg's steps."""

    def run(self, context: Context) -> Result:
        """Add, solve, and evaluate on the test set."""
        import torch

        import kl
        from kl.metrics import error
        from kl.rkhs import evaluate
        from recipes.options.groups import RunOptions
        from recipes.run.processes import device_of

        device = device_of(RunOptions(accelerator=context.accelerator))
        data = self.sample.datamodule(context)
        steps = quantisation_steps(self.quality)
        generator = torch.Generator().manual_seed(self.sample.seed)
        x, added = with_detail(data.train_set.x, self.share * steps, generator)
        test, _ = with_detail(data.require_test_set().x, self.share * steps, generator)
        x, y = x.to(device), data.train_set.y.to(device)
        kernel = self.kernel.build()
        solved = kl.interpolate(kernel, x, y, memory=context.memory, solver="direct")
        solved.require_better_than_zero()
        scores = evaluate(kernel, x, solved.alpha, test.to(device)).cpu()
        return {
            "test_error": error(scores, data.require_test_set().y),
            "rkhs_norm": float(solved.rkhs_norm_per_class.square().sum().sqrt()),
            "added": 255 * added,
            "n": len(x),
            "data_source": data.source,
            "seconds": solved.seconds,
        }

    def describe(self) -> str:
        """The draw, the kernel and the share."""
        return f"exact limit, {self.sample}, {self.kernel}, {self.share:.0%} of JPEG's rounding put back as noise"

    @property
    def seconds(self) -> float:
        """The n^3 of a factorisation, and the cost of every solve."""
        n = self.sample.rows
        return 0.5 + 3e-8 * n * n + n**3 / 3 / 1.5e11


def quantisation_steps(quality: int) -> torch.Tensor:
    """The steps of JPEG's luminance coefficients, (8, 8), in pixels of [0, 1]; rows are vertical frequencies."""
    from io import BytesIO

    import torch
    from PIL import Image
    from PIL.JpegImagePlugin import JpegImageFile

    file = BytesIO()
    Image.new("L", (BLOCK, BLOCK)).save(file, "JPEG", quality=quality)
    file.seek(0)
    table = JpegImageFile(file).quantization[0]
    return torch.tensor(table, dtype=torch.float32).view(BLOCK, BLOCK) / 255


def with_detail(x: torch.Tensor, steps: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, float]:
    """Square images (n, d) of pixels in [0, 1] with a uniform number of [-step/2, step/2] in each cosine coefficient.

    Returns the images, and the root mean square of the added detail before clamping and rounding.
    """
    import torch
    from scipy.fft import idctn

    side = round(x.shape[1] ** 0.5)
    blocks = side // BLOCK
    coefficients = (torch.rand(len(x), blocks, blocks, BLOCK, BLOCK, generator=generator) - 0.5) * steps
    pixels = torch.from_numpy(idctn(coefficients.numpy(), axes=(3, 4), norm="ortho"))
    detail = pixels.transpose(2, 3).reshape(len(x), -1)
    return (x + detail).clamp_(0, 1).mul_(255).round_().div_(255), float(detail.square().mean().sqrt())
