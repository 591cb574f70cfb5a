"""The machine's scores on the rows of val/*, computed once for all callbacks that draw them."""

from __future__ import annotations

from weakref import WeakKeyDictionary, ref

import pytorch_lightning as pl
import torch
from torch import Tensor

from callbacks.common import Machine
from kl.machines.data_facts import facts_of
from kl.rows.rows import RowDataset

CHUNK = 4096  # rows at a time

# What was computed last: trainer -> (step, machine, scores).
_kept: WeakKeyDictionary[pl.Trainer, tuple[int, ref, Tensor]] = WeakKeyDictionary()


@torch.no_grad()
def outputs_of(machine: Machine, rows: RowDataset) -> Tensor:
    """f at the rows, shape (t, c), on the CPU; called on every rank, because a machine may need all to predict."""
    return torch.cat([machine(x.to(machine.device)).cpu() for x in rows.x.split(CHUNK)])


def val_scores(trainer: pl.Trainer, machine: Machine) -> Tensor | None:
    """The `val_outputs` of a classifier; None for regression."""
    return val_outputs(trainer, machine) if machine.is_classifier else None


def val_outputs(trainer: pl.Trainer, machine: Machine) -> Tensor | None:
    """f(x) on the data module's val_set, shape (t, c), on the CPU.

    None under fast_dev_run, and without a validation or test set. Call it on every rank, because a machine may need all
    ranks to predict.
    """
    rows = facts_of(trainer).val_set
    if trainer.fast_dev_run or rows is None:  # type: ignore[attr-defined]
        return None
    if trainer in _kept:
        step, owner, scores = _kept[trainer]
        if step == trainer.global_step and owner() is machine:
            return scores
    scores = outputs_of(machine, rows)
    _kept[trainer] = (trainer.global_step, ref(machine), scores)
    return scores


def val_labels(trainer: pl.Trainer) -> Tensor:
    """The clean classes of the rows of val_set, shape (t,)."""
    rows = facts_of(trainer).val_set
    assert rows is not None  # val_scores was not None
    return rows.y.argmax(dim=1)


def class_names(machine: Machine, c: int) -> list[str]:
    """The names of the c classes, or their numbers if the data has no names."""
    names = machine.data_info.get("class_names") or []
    return names if len(names) == c else [str(k) for k in range(c)]
