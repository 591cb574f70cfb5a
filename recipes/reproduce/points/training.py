"""Training for a point: a quiet Trainer, the metrics that it recorded, and the test error at the end."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import TYPE_CHECKING

from recipes.reproduce.sweep.point import Context, Result
from recipes.run.quiet import interrupts_raised, quiet_trainer

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from callbacks import History, Timing
    from datamodules import KernelDataModule
    from kl.machines.evaluated import EvaluatedModule


def train(
    context: Context,
    module: EvaluatedModule,
    data: KernelDataModule,
    epochs: int,
    test_every: int,
    observers: Iterable[pl.Callback] = (),
) -> Result:
    """Train for at most `epochs` epochs, and evaluate.

    The result has `curves` (by tag, a list over epochs; val/* has the epochs of `test_every` only), tested_epochs,
    epochs, seconds_per_epoch (of training steps), `diverged`, `final` (the last values by tag, test error included),
    data_source, n, d and c.
    """
    import callbacks
    import kl

    history, timing = callbacks.History(), callbacks.Timing()
    trainer = _trainer(context, epochs, test_every, [history, timing, *observers])
    diverged = False
    try:
        _fit_and_test(trainer, module, data)
    except kl.DivergenceError:
        diverged = True
    return {
        **_curves(trainer, history, timing),
        "diverged": diverged,
        "final": {**module.train_metrics, **module.eval_metrics},
        "data_source": data.source,
        "n": len(data.train_set),
        "d": data.num_features,
        "c": data.num_outputs,
    }


def error_within(result: Result, seconds: float) -> float | None:
    """The test error after the last epoch that ends within that many seconds of training; None if none does.

    Args:
        result: of `train`, with a test after each epoch.
        seconds: of training steps.
    """
    ended = sum(spent <= seconds for spent in accumulate(result["seconds_per_epoch"]))
    return result["curves"]["val/error"][ended - 1] if ended else None


def _trainer(context: Context, epochs: int, test_every: int, observers: list[pl.Callback]) -> pl.Trainer:
    """A Trainer that writes nothing and only logs its progress now and then."""
    from callbacks import EpochLines, Interrupts

    observers = [Interrupts(), EpochLines(seconds=10), *observers]
    return quiet_trainer(
        epochs, context.accelerator, callbacks=observers, check_val_every_n_epoch=test_every or epochs + 1
    )


def _fit_and_test(trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule) -> None:
    """Train, and evaluate on the test set after the last epoch, unless the end of that epoch did."""
    with interrupts_raised():
        trainer.fit(module, datamodule=data)
        if trainer.current_epoch % (trainer.check_val_every_n_epoch or 1):
            trainer.validate(module, datamodule=data, verbose=False)


def _curves(trainer: pl.Trainer, history: History, timing: Timing) -> Result:
    """The values of the epochs by tag, the epochs with a test, the number of epochs, and the seconds of each."""
    values = {tag: [value for _, value in points] for tag, points in history.history.items()}
    tested = [epoch for epoch, _ in history.history.get("val/error", history.history.get("val/mse", []))]
    return {
        "curves": values,
        "tested_epochs": tested,
        "epochs": trainer.current_epoch,
        "seconds_per_epoch": list(timing.seconds_per_epoch),
    }
