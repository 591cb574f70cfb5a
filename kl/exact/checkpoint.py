"""The state of an unfinished solve on disk, and the name of the equations that it belongs to."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from kl.errors import CheckpointError
from kl.kernels.kernel import Kernel
from kl.system.saved import load_values, save_values

log = logging.getLogger(__name__)

FORMAT = 3  # version; raise it when the content of a file or the meaning of a solution changes
SAVE_SECONDS = 30.0  # seconds between two writes, so that writing does not slow the solve
T = TypeVar("T")


def solution_key(
    kernel: Kernel,
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (n, c)
    ridge: float,
    centers: Tensor | None = None,  # shape: (p, d)
    weights: Tensor | None = None,  # shape: (n,)
) -> str:
    """A hash of all that the solution depends on: the bytes of x, y, centres and weights, kernel, ridge, format."""
    tensors = [x, y, *(more for more in (centers, weights) if more is not None)]
    about = [FORMAT, kernel.config(), float(ridge), *(f"{tuple(t.shape)} {t.dtype}" for t in tensors)]
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=20)
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Checkpoint:
    """A file that holds the last state of a solve.

    Args:
        path: of the file.
        key: the `solution_key` of the equations.
    """

    def __init__(self, path: str | os.PathLike[str], key: str) -> None:
        self.path, self._key = Path(path), key
        self._saved = time.monotonic()

    def load(self, device: torch.device, take: Callable[[dict[str, Any]], T]) -> T | None:
        """What `take` makes of the saved state; None if there is no file.

        Args:
            device: where the tensors of the state go.
            take: called with the saved state; raises KeyError, TypeError or ValueError if it is damaged.

        Raises:
            CheckpointError: the file is damaged, or belongs to other equations.
        """
        if not self.path.exists():
            return None
        try:
            found = load_values(self.path, device)
            state = take(found["state"]) if found["key"] == self._key else None
        except (CheckpointError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint must be a file of an unfinished exact solve; {self.path} is damaged or something else: "
                "delete it, or give another path"
            ) from error
        if state is None:
            raise CheckpointError(
                f"checkpoint {self.path} must belong to the same data, targets, weights, kernel and ridge, and belongs "
                "to others: delete it, or give another path"
            )
        return state

    def save(self, state: dict[str, Any], now: bool = False) -> None:
        """Write the state, at most every half a minute unless `now`; if the disk refuses it, a log line says so."""
        if not now and time.monotonic() - self._saved < SAVE_SECONDS:
            return
        self._saved = time.monotonic()
        try:
            save_values(self.path, {"key": self._key, "state": state})
        except OSError as error:
            log.warning("the state of the exact solve could not be kept in %s (%s)", self.path, error)

    def delete(self) -> None:
        """Remove the file, if there is one."""
        with suppress(OSError):  # there may be no file, for example if the folder is a file
            self.path.unlink()
