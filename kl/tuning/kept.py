"""Scores of finished kernels on disk, so that an interrupted search goes on."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from kl.errors import CheckpointError
from kl.kernels.kernel import Kernel
from kl.system.saved import load_values, save_values
from kl.tuning.losses import Losses
from kl.tuning.problem import Problem
from kl.tuning.scoring import Scored

log = logging.getLogger(__name__)

VERSION = 2  # of the content of a file, and of how scores are computed


class Kept:
    """A folder with one file for each finished kernel.

    Args:
        folder: where the files are; None keeps nothing.
        problem: the rows that the scores are of.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, problem: Problem) -> None:
        self._folder = None if folder is None else Path(folder)
        self._rows = "" if folder is None else _digest_of(problem)

    def key(self, kernel: Kernel, *what: Any) -> str:
        """A digest of the rows, the kernel, and of what else the scores depend on; empty if nothing is kept.

        Raises:
            InputError: scores are kept, and the kernel has no configuration.
        """
        if self._folder is None:
            return ""
        what = (kernel.config(), *what)
        return hashlib.blake2b(repr((VERSION, self._rows, what)).encode(), digest_size=16).hexdigest()

    def load(self, key: str) -> list[Scored] | None:
        """The scores that were kept under a key; None if there are none, or if their file is damaged."""
        if self._folder is None or not (path := self._path(key)).exists():
            return None
        try:
            values = load_values(path)
            if values.get("key") != key:
                raise CheckpointError("the file is another one's")
            return [_read(each) for each in values["scores"]]
        except (CheckpointError, KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("%s cannot be used, so its kernel is scored again: %s", path, error)
            return None

    def save(self, key: str, scores: Sequence[Scored]) -> None:
        """Keep the scores of a finished kernel.

        Raises:
            OSError: the file cannot be written.
        """
        if self._folder is not None:
            values = [{"ridge": s.ridge, "rkhs_norm": s.rkhs_norm, "losses": asdict(s.losses)} for s in scores]
            save_values(self._path(key), {"key": key, "scores": values})

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{key}.pt"


def _digest_of(problem: Problem) -> str:
    digest = hashlib.blake2b(repr((problem.classes, problem.folds, problem.seed)).encode(), digest_size=16)
    held: tuple[Tensor, ...] = problem.held_out or ()
    for part in (problem.x, problem.y, *held):
        digest.update(f"{tuple(part.shape)} {part.dtype}".encode())
        part = part.float() if part.dtype.itemsize == 2 else part  # NumPy has no bfloat16
        digest.update(part.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(values: dict[str, Any]) -> Scored:
    """A score, checked field by field."""
    losses = values["losses"]
    if set(losses) != {each.name for each in fields(Losses)}:
        raise ValueError("it lacks losses")
    outputs = tuple(float(value) for value in losses["output_mse"])
    single = {name: value for name, value in losses.items() if name != "output_mse"}
    numbers: dict[str, Any] = {name: None if value is None else float(value) for name, value in single.items()}
    if not math.isfinite(float(values["ridge"])) or not math.isfinite(float(losses["mse"])):
        raise ValueError("it holds a number that is not finite")
    return Scored(float(values["ridge"]), Losses(**numbers, output_mse=outputs), float(values["rkhs_norm"]))
