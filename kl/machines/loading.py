"""The machine that a checkpoint holds, whichever of kl's it is."""

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
        kind, known = machine_part(checkpoint)["kind"], _kinds()
        if kind not in known:
            raise CheckpointError(f"the checkpoint must hold one of {', '.join(known)}; got {kind!r}")
        return known[kind].restored(checkpoint, kernel=kernel).eval()


def _kinds() -> dict[str, type[StatefulExpansion]]:
    """kl's own machines by the names of their classes: all that a file can ask for."""
    return {cls.__name__: cls for cls in _leaves(StatefulExpansion)}


def _leaves(cls: type[StatefulExpansion]) -> Iterator[type[StatefulExpansion]]:
    """The classes of kl below one that have no further ones below them."""
    below = [each for each in cls.__subclasses__() if each.__module__.startswith("kl.")]
    if not below:
        yield cls
    for subclass in sorted(below, key=lambda known: known.__module__):
        yield from _leaves(subclass)
