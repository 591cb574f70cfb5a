"""The machine that a checkpoint holds, whichever of kl's machines it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from kl.errors import CheckpointError
from kl.kernels.registry import GivenKernel, given_kernels, stored_kernel
from kl.machines.checkpoints import errors_name, faults_in, machine_part, read_checkpoint, require_values
from kl.machines.function import PARTS, KernelFunction, decode_centers, require_function

if TYPE_CHECKING:
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
        One of the classes in `KINDS`, in evaluation mode.

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
        kind = _known_part(checkpoint)["kind"]
        cls: type[StatefulExpansion] = getattr(import_module(KINDS[kind]), kind)
        return cls.restored(checkpoint, kernel=kernel).eval()


def load_function(path: str | os.PathLike[str], kernel: Sequence[str] | None = None) -> KernelFunction:
    """The function of the machine that a checkpoint holds, on the CPU, without its training; no code of it is run.

    It needs no Lightning, whose import takes longer than most predictions.

    Args:
        path: see `load_machine`.
        kernel: the classes of the kernel that are not kl's, as "package.module:Class".

    Raises:
        CheckpointError: as `load_machine`, whatever the state of the parts of training.
        InputError: as `load_machine`.
    """
    checkpoint, given = read_checkpoint(path), given_kernels(kernel)
    with errors_name(path):
        options = checkpoint.get("hyper_parameters", {})
        require_values("hyper_parameters", options, {})
        stored = {"levels": 0.0, **options, **_known_part(checkpoint)}
        require_values("kernel_machine", stored, {"kernel": dict, "data_info": dict, "precision": str, "levels": float})
        state = {name: each for name, each in checkpoint["state_dict"].items() if name in PARTS}
        decode_centers(state, stored["levels"])
        require_function(state, stored["data_info"])
        with faults_in("kernel or precision"):
            function = KernelFunction(stored_kernel(stored["kernel"], given), stored["precision"])
        return function.become(**state, data_info=stored["data_info"]).eval()


def _known_part(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The `machine_part` of a checkpoint, which names one of `KINDS`."""
    part = machine_part(checkpoint)
    if part["kind"] not in KINDS:
        raise CheckpointError(f"the checkpoint must hold one of {', '.join(KINDS)}; got {part['kind']!r}")
    return part
