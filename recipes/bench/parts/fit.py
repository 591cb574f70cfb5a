"""Training through a Trainer without output, timed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from recipes.run.quiet import interrupts_raised, quiet_loggers, quiet_trainer

if TYPE_CHECKING:
    from callbacks import Timing


def fit(
    machine: pl.LightningModule,
    datamodule: pl.LightningDataModule,
    epochs: int,
    accelerator: str,
    callbacks: tuple[pl.Callback, ...] = (),
    **options: Any,
) -> Timing:
    """Train through a Trainer that writes and logs nothing; `options` are further arguments of the Trainer."""
    from callbacks import Timing
    from recipes.run.quiet import quiet_lightning

    quiet_lightning()
    timing = Timing()
    with quiet_loggers("kl", "callbacks", "datamodules"), interrupts_raised():  # the benchmark has lines of its own
        trainer = quiet_trainer(epochs, accelerator, callbacks=[timing, *callbacks], **options)
        trainer.fit(machine, datamodule=datamodule)
    return timing
