"""Ctrl-C that is never lost."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl


class Interrupts(pl.Callback):
    """Raises KeyboardInterrupt again at the next step where the one that Ctrl-C raised has been swallowed.

    Python drops an exception that a signal raises while a finalizer or a callback from C runs, and the run would go on.
    About one Ctrl-C in fifteen met that on runs of short steps.
    """

    def __init__(self) -> None:
        self._seen = False
        self._before: Any = None  # the handler to put back

    def on_train_start(self, *_: Any) -> None:
        """Listen; only a main thread may. Lightning puts back in the end what it found before this."""
        self._seen = False
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)

    def on_train_batch_start(self, *_: Any) -> None:
        """Stop here where nothing else has."""
        if self._seen:
            raise KeyboardInterrupt

    def on_exception(self, *_: Any) -> None:
        """Listen no more: Lightning does not come to `teardown` after an interrupt."""
        self.teardown()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Listen no more."""
        if self._before is not None:
            if signal.getsignal(signal.SIGINT) == self._handle:  # Lightning listens no more once it stops
                signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._seen = True
        signal.default_int_handler(number, frame)
