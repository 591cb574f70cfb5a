"""Ctrl-C, SIGTERM and SIGHUP where Python would answer them at the wrong time."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The callbacks of weak dictionaries and sets, by module and name, which Python calls when a key is gone.
CALLBACKS = {("weakref", "remove"), ("_weakrefset", "_remove"), ("torch.utils.weak", "remove")}
INTERRUPTED = 130  # exit code of a process that one of these signals has ended


class LastingInterrupt:
    """A handler that raises KeyboardInterrupt, and raises it again at the next `check`.

    Python drops an exception that a signal raises while a finalizer or a callback from C runs; the run would then go
    on. About one Ctrl-C in fifteen was lost in this way on runs of short steps. Where Python is known to drop it, the
    handler leaves it to `check`, because Python would print a traceback.
    """

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Answer a signal."""
        self.came = True
        if not in_finalizer(frame):
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self.came:
            raise KeyboardInterrupt


@contextmanager
def signals_wait() -> Iterator[None]:
    """Keep Ctrl-C, SIGTERM and SIGHUP until the block is done; signals reach the main thread only.

    torch.save turns a KeyboardInterrupt in the middle of a file into a RuntimeError that reads like a full disk.
    """
    before = {number: signal.getsignal(number) for number in ENDING}
    if not in_main_thread() or None in before.values():  # None: a handler that was not set in Python
        yield
        return
    came: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        came.append(number)

    for number in ENDING:
        signal.signal(number, keep)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


@contextmanager
def signals_end(leave: Callable[[], None]) -> Iterator[None]:
    """End this process on Ctrl-C, SIGTERM and SIGHUP at once, even while the main thread waits in C++ code.

    The exit code is `INTERRUPTED`. Python itself would answer only when the C++ code returns, which for processes that
    connect is when all of them have connected. A signal is answered only if it has a handler in Python.

    Args:
        leave: called before the process ends, in another thread.
    """
    if not in_main_thread():
        yield
        return
    written, read = socket.socketpair()
    written.setblocking(False)

    def listen() -> None:
        while numbers := read.recv(16):  # none once the other end is closed
            if not set(ENDING).isdisjoint(numbers):
                try:
                    leave()
                finally:
                    os._exit(INTERRUPTED)

    thread = threading.Thread(target=listen, daemon=True, name="signals that end")
    before = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        written.close()
        thread.join()
        read.close()


def in_finalizer(frame: FrameType | None) -> bool:
    """Whether Python drops an exception of this frame, because a `__del__` or a callback of `CALLBACKS` runs."""
    while frame is not None:
        name = frame.f_code.co_name
        if name == "__del__" or (frame.f_globals.get("__name__"), name) in CALLBACKS:
            return True
        frame = frame.f_back
    return False


def in_main_thread() -> bool:
    """Whether this is the main thread, in which Python answers signals and which alone may set handlers."""
    return threading.current_thread() is threading.main_thread()
