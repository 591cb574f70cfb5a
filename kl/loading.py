"""The machine that a checkpoint holds, whichever of kl's machines it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module

from kl.errors import CheckpointError
from kl.kernels.registry import GivenKernel
from kl.machines.checkpoints import errors_name, read_checkpoint
from kl.machines.machine import machine_part
from kl.machines.state import StatefulExpansion

KINDS = {
    "ConjugateGradientMachine": "kl.exact.machine",
    "GeneralKernelMachine": "kl.general.machine",
    "KernelMachine": "kl.eigenpro.machine",
    "KernelModel": "kl.model",
    "RecursiveFeatureMachine": "kl.features.machine",
}
"""kl's own machines and the modules that define them: all that a file can ask for."""


def load_machine(
    path: str | os.PathLike[str], kernel: GivenKernel | Sequence[GivenKernel] | None = None
) -> StatefulExpansion:
    """The machine that a checkpoint holds, on the CPU, ready to predict; no code from the file is run.

    Args:
        path: a file that `kl fit`, a Lightning Trainer or `KernelModel.save` wrote.
        kernel: the kernel, its class, or "package.module:Class", or a list of these for a sum or product. Give it when
            the kernel's class is not one of kl's, because a file does not get to say what code is imported; it must be
            the kernel of the file. None means one of kl's own kernels.

    Returns:
        A `KernelMachine`, `GeneralKernelMachine`, `ConjugateGradientMachine` or `KernelModel`, in evaluation mode.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else, or its kernel is not the one that was
            given.
        InputError: `kernel` is not a kernel, a class of kernels or a name.

    Example:
        >>> import tempfile, torch, kl
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
        >>> model = kl.KernelModel.from_interpolant(kl.interpolate(kl.Laplacian(1.0), x, y))
        >>> with tempfile.NamedTemporaryFile(suffix=".ckpt") as file:
        ...     model.save(file.name)
        ...     loaded = kl.load_machine(file.name)
        >>> loaded.kernel, loaded(x).round(decimals=6).flatten().tolist()
        (Laplacian(bandwidth=1.0), [1.0, 2.0])
    """
    checkpoint = read_checkpoint(path)
    with errors_name(path):
        kind = machine_part(checkpoint)["kind"]
        if kind not in KINDS:
            raise CheckpointError(f"the checkpoint must hold one of {', '.join(KINDS)}; got {kind!r}")
        cls: type[StatefulExpansion] = getattr(import_module(KINDS[kind]), kind)
        return cls.restored(checkpoint, kernel=kernel).eval()
