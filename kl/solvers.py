"""The machine that a checkpoint holds, whichever of kl's it is."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kl.eigenpro.machine import KernelMachine
from kl.errors import CheckpointError
from kl.exact.machine import ConjugateGradientMachine
from kl.general.machine import GeneralKernelMachine
from kl.kernels.registry import GivenKernel
from kl.machines.checkpoints import errors_name, read_checkpoint
from kl.machines.machine import machine_part
from kl.machines.state import StatefulExpansion
from kl.model import KernelModel

KINDS: dict[str, type[StatefulExpansion]] = {
    cls.__name__: cls for cls in (KernelMachine, GeneralKernelMachine, ConjugateGradientMachine, KernelModel)
}
"""All that a file can ask for: what it calls itself is looked up here and nowhere else."""


def load_machine(
    path: str | os.PathLike[str], kernel: GivenKernel | Sequence[GivenKernel] | None = None
) -> StatefulExpansion:
    """The machine that a checkpoint holds, on the CPU, ready to predict; no code of the file's choice runs.

    Args:
        path: a file on disk.
        kernel: the kernel, its class, or "package.module:Class": needed where it is none of kl's; see
            `TrainedExpansion.restored`.

    Raises:
        CheckpointError: the file is missing, damaged, or of something else.
    """
    checkpoint = read_checkpoint(path)
    with errors_name(path):
        kind = machine_part(checkpoint)["kind"]
        if kind not in KINDS:
            raise CheckpointError(f"the checkpoint must hold one of {', '.join(KINDS)}; got {kind!r}")
        return KINDS[kind].restored(checkpoint, kernel=kernel).eval()
