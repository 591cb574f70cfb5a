"""The machine that a checkpoint holds, whichever of kl's machines it is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from kl.errors import CheckpointError
from kl.kernels.registry import GivenKernel
from kl.machines.checkpoints import errors_name, read_checkpoint
from kl.machines.machine import machine_part
from kl.machines.state import StatefulExpansion


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
        kind, known = machine_part(checkpoint)["kind"], _kinds()
        if kind not in known:
            raise CheckpointError(f"the checkpoint must hold one of {', '.join(known)}; got {kind!r}")
        return known[kind].restored(checkpoint, kernel=kernel).eval()


def _kinds() -> dict[str, type[StatefulExpansion]]:
    """kl's own machines by the names of their classes: all that a file can ask for."""
    return {cls.__name__: cls for cls in sorted(_leaves(StatefulExpansion), key=lambda each: each.__name__)}


def _leaves(cls: type[StatefulExpansion]) -> Iterator[type[StatefulExpansion]]:
    """The subclasses of a class, at any depth, that have no subclass in kl."""
    below = [each for each in cls.__subclasses__() if each.__module__.startswith("kl.")]
    if not below:
        yield cls
    for subclass in below:
        yield from _leaves(subclass)
