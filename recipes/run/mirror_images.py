"""--augment flip for solvers whose centres are training rows: a kernel that does not tell mirror images apart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kl.errors import InputError
from recipes.options.solvers import SOLVERS

if TYPE_CHECKING:
    from datamodules import KernelDataModule
    from kl import Kernel
    from recipes.options.groups import DataOptions

FLIP = "flip"


def takes_random_images(solver: str) -> bool:
    """Whether a solver has centres of its own, so that training images may change from epoch to epoch."""
    return SOLVERS[solver].machine_class.own_centers


def check_mirrored(options: DataOptions, solver: str | None = None) -> bool:
    """Whether mirror images are to be trained on, by a solver whose centres are training rows.

    Args:
        options: the options of the data.
        solver: the value of --solver; None solves exactly.

    Raises:
        InputError: --augment is malformed or asks for other changes, or the solver learns features.
    """
    from datamodules.augment import Augmentation

    if options.augment is None:
        return False
    Augmentation.parse(options.augment)
    if solver == "rfm":
        raise InputError(
            f"augment {options.augment} is not for learning features, whose kernels do not take mirror images; got "
            "--solver rfm or --learn-features: leave one of them out"
        )
    if options.augment != FLIP:
        raise InputError(
            f"augment must be {FLIP} where the centres are the training rows, since shifted images are none of them; "
            f"got {options.augment!r}: give --augment {FLIP}, or kl fit --solver eigenpro4"
        )
    return True


def without_flip(options: DataOptions) -> DataOptions:
    """The options of data that stay as they are; patches get their mirror images."""
    return replace(options, augment=None, patch_mirrored=options.patch_mirrored or options.features != "plain")


def mirrored_kernel(kernel: Kernel, datamodule: KernelDataModule) -> Kernel:
    """`kl.kernels.Mirrored` of a kernel on the rows of a data module, which is set up.

    Raises:
        InputError: the rows are no images, the cells of their patches are not their own mirror image, or there is no
            such kernel.
    """
    from datamodules.augment import Augmentation
    from datamodules.patches import errors_say_patches
    from kl.kernels import GramKernel, Mirrored

    datamodule.prepare_data()
    datamodule.setup()
    if datamodule.patches is not None:
        with errors_say_patches():
            shape, axes = datamodule.patches.mirror
    else:
        Augmentation(flip=True).require_images(datamodule.image_shape, datamodule.name)
        assert datamodule.image_shape is not None  # the line above has looked
        shape, axes = datamodule.image_shape, (2,)
    if not isinstance(kernel, GramKernel):
        raise InputError(
            f"augment {FLIP} needs a kernel of distances or inner products; got {type(kernel).__name__}: try "
            "--kernel laplacian"
        )
    return Mirrored(kernel, shape, axes)
