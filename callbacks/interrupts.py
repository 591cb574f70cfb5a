"""Ctrl-C that is never lost."""

from __future__ import annotations

import signal
from typing import Any

import pytorch_lightning as pl

from kl.system.signals import LastingInterrupt, in_main_thread


class Interrupts(pl.Callback):
    """Raises KeyboardInterrupt again at the next step where the one that Ctrl-C raised has been swallowed.

    See `kl.system.signals.LastingInterrupt`. SIGHUP is taken as Ctrl-C where Python has a handler for it.
    """

    def __init__(self) -> None:
        self._interrupt = LastingInterrupt()
        self._before: dict[int, Any] = {}  # the handlers to put back

    def on_train_start(self, *_: Any) -> None:
        """Listen; only a main thread may. Lightning puts back in the end what it found before this."""
        self._interrupt = LastingInterrupt()
        if in_main_thread():
            numbers = [signal.SIGINT, *([signal.SIGHUP] if callable(signal.getsignal(signal.SIGHUP)) else [])]
            self._before = {number: signal.signal(number, self._interrupt) for number in numbers}

    def on_train_batch_start(self, *_: Any) -> None:
        """Stop here where nothing else has."""
        self._interrupt.check()

    def on_exception(self, *_: Any) -> None:
        """Listen no more: Lightning does not come to `teardown` after an interrupt."""
        self.teardown()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Listen no more."""
        for number, handler in self._before.items():
            if signal.getsignal(number) is self._interrupt:  # Lightning listens no more once it stops
                signal.signal(number, handler)
        self._before = {}
