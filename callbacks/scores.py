"""The machine's scores on the test set, computed once for all callbacks that draw them."""

from __future__ import annotations

from weakref import WeakKeyDictionary, ref

import pytorch_lightning as pl
import torch
from torch import Tensor

from callbacks.common import Machine

CHUNK = 4096  # test rows at a time

# What was computed last: trainer -> (step, machine, scores).
_kept: WeakKeyDictionary[pl.Trainer, tuple[int, ref, Tensor]] = WeakKeyDictionary()


@torch.no_grad()
def test_scores(trainer: pl.Trainer, machine: Machine) -> Tensor | None:
    """f(x) on the data module's test set, shape (t, c), on the CPU; None where there is none to evaluate.

    That is for regression, under fast_dev_run, and without a test set. To be called on every rank: a machine may need
    all of them to predict.
    """
    test = getattr(trainer.datamodule, "test_set", None)  # type: ignore[attr-defined]
    if trainer.fast_dev_run or not machine.is_classifier or test is None:  # type: ignore[attr-defined]
        return None
    if trainer in _kept:
        step, owner, scores = _kept[trainer]
        if step == trainer.global_step and owner() is machine:
            return scores
    scores = torch.cat([machine(rows.to(machine.device)).cpu() for rows in test.x.split(CHUNK)])
    _kept[trainer] = (trainer.global_step, ref(machine), scores)
    return scores


def test_labels(trainer: pl.Trainer) -> Tensor:
    """The clean classes of the test rows, shape (t,)."""
    return trainer.datamodule.test_set.y.argmax(dim=1)  # type: ignore[attr-defined]


def class_names(machine: Machine, c: int) -> list[str]:
    """The names of the c classes, or their numbers where the data has no names."""
    names = machine.data_info.get("class_names") or []
    return names if len(names) == c else [str(k) for k in range(c)]
