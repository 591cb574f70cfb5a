"""A Ctrl-C that Python swallows stops training at the next training batch."""

from __future__ import annotations

import signal
from typing import Any

import pytorch_lightning as pl

from kl.system.signals import LastingInterrupt, in_main_thread


class Interrupts(pl.Callback):
    """Raises KeyboardInterrupt again at the next batch if the one that Ctrl-C raised was swallowed.

    `kl.system.signals.LastingInterrupt` says why. SIGHUP is treated like Ctrl-C if it has a handler in Python.
    """

    counts_batches = False

    def __init__(self) -> None:
        self._interrupt = LastingInterrupt()
        self._before: dict[int, Any] = {}  # the handlers to put back

    def on_train_start(self, *_: Any) -> None:
        """Set the handlers, which only the main thread may do. At the end, Lightning restores the earlier handlers."""
        self._interrupt = LastingInterrupt()
        if in_main_thread():
            numbers = [signal.SIGINT, *([signal.SIGHUP] if callable(signal.getsignal(signal.SIGHUP)) else [])]
            self._before = {number: signal.signal(number, self._interrupt) for number in numbers}

    def on_train_batch_start(self, *_: Any) -> None:
        """Raise KeyboardInterrupt if a signal came and did not stop training."""
        self._interrupt.check()

    def on_exception(self, *_: Any) -> None:
        """Restore the handlers, because Lightning does not call `teardown` after an interrupt."""
        self.teardown()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Restore the handlers."""
        for number, handler in self._before.items():
            if signal.getsignal(number) is self._interrupt:  # else Lightning has restored the earlier ones
                signal.signal(number, handler)
        self._before = {}
