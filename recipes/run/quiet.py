"""Training without output of its own: a Trainer that writes and shows nothing, and quiet loggers."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytorch_lightning as pl


def quiet_trainer(max_epochs: int, accelerator: str, **options: Any) -> pl.Trainer:
    """A Trainer of one device that writes and shows nothing, and validates nothing before it trains.

    Args:
        max_epochs: epochs to train.
        accelerator: "auto", "cpu", "gpu", or "cuda", which means "gpu".
        **options: further arguments of the Trainer, which take precedence.
    """
    import pytorch_lightning as pl

    quiet = {
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
    }
    accelerator = {"cuda": "gpu"}.get(accelerator, accelerator)
    return pl.Trainer(max_epochs=max_epochs, accelerator=accelerator, **{**quiet, **options})


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Raise KeyboardInterrupt if a Trainer is interrupted, in place of Lightning's SystemExit."""
    try:
        yield
    except SystemExit as stop:
        raise KeyboardInterrupt from stop


@contextmanager
def quiet_loggers(*names: str) -> Iterator[None]:
    """Let these loggers report errors only."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def quiet_lightning() -> None:
    """Hide Lightning's advice, because it does not apply to whole-tensor batches."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec")


@contextmanager
def quiet_writer() -> Iterator[None]:
    """Hide errors of the thread that writes event files, because the main thread raises them again."""
    usual = threading.excepthook

    def show(found: threading.ExceptHookArgs) -> None:
        if not (isinstance(found.exc_value, OSError) and type(found.thread).__module__.startswith("tensorboard.")):
            usual(found)

    threading.excepthook = show
    try:
        yield
    finally:
        threading.excepthook = usual


def silence() -> None:
    """Report errors only, because the first rank logs the same messages."""
    for name in ("kl", "datamodules", "callbacks", "recipes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
