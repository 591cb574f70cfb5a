"""A process that measures cells one after the other, and is replaced when a cell takes too long or kills it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Self

from recipes.bench.tables.cells import FAILED, TIMED_OUT, Asked, Cell, ended, measure

START_SECONDS = 120.0  # that a process may take to import the libraries


class Worker:
    """Measures cells in a process of its own, each within a time limit. Use it as a context manager.

    The libraries are imported before the first cell, so that no method pays for it.

    Args:
        threads: of the process; None means all cores.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads
        self._process: multiprocessing.process.BaseProcess | None = None
        self._line: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._line is not None and kind is None:
            self._line.close()  # by which it ends
        self._stop(wait=kind is None)

    def measure(self, asked: Asked) -> Cell:
        """The cell; one that timed out, or whose process died, says so."""
        line = self._line or self._start()
        try:
            line.send(asked)
            if line.poll(asked.protocol.hard_seconds):
                found: Cell = line.recv()
                return found
        except (EOFError, BrokenPipeError, ConnectionResetError):
            code = self._stop(wait=True)
            how = f"by signal {-code}, as where memory is short" if code < 0 else f"with exit code {code}"
            return ended(asked, FAILED, f"its process ended {how}")
        self._stop()
        return ended(asked, TIMED_OUT, f"stopped after {asked.protocol.hard_seconds:g} s")

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True, name="kl bench tables")
        with _environment(self._threads):
            self._process.start()
        theirs.close()
        self._line = ours
        if ours.poll(START_SECONDS):
            with contextlib.suppress(EOFError):  # it died; the first cell says so
                ours.recv()
        return ours

    def _stop(self, wait: bool = False) -> int:
        process, line = self._process, self._line
        self._process = self._line = None
        if process is None or line is None:
            return 0
        if wait:
            process.join(5)
        if process.is_alive():
            process.kill()
        process.join()
        line.close()
        return process.exitcode or 0


@contextlib.contextmanager
def _environment(threads: int | None) -> Iterator[None]:
    """Environment variables that a process started in the block inherits."""
    # Threads that wait for others burn cores that may be shared: HistGradientBoosting took seven times as long so.
    ours = {"OMP_WAIT_POLICY": "PASSIVE"}
    if threads is not None:
        ours |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(line: Connection) -> None:
    """Answer cells until the line ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered by the command, which ends this process
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(EOFError):
        with contextlib.suppress(ImportError):
            import xrfm  # noqa: F401
        from recipes.bench.tables import methods  # noqa: F401

        line.send("ready")
        while True:
            line.send(measure(line.recv()))
