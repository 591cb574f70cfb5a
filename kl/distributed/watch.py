"""The processes of a run watch one another: where one is killed, fails or hangs, the others stop and say so."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import NamedTuple

import torch.distributed as dist

from kl.distributed.ranks import Ranks
from kl.errors import InputError, KLError
from kl.system.signals import INTERRUPTED

INTERVAL = 0.5  # seconds between two looks
SILENT_LOOKS = 60  # without a sign of life: 30 s, and a computer that sleeps does not look
GRACE = 5.0  # seconds that a process has to leave training by itself
REMEDY = "all ranks stop; where an epoch was finished, --resume last goes on from there"


class Failure(NamedTuple):
    """Why a run stops."""

    rank: int
    """Which one was lost or failed."""
    message: str
    """Empty where that rank says itself what happened."""
    code: int
    """Exit code of all ranks: 2 for wrong input, 130 for an interrupt, else 1."""


class Watch:
    """Ends this process soon after another rank of its run has ended, failed or stopped.

    Without it, those that wait for a lost rank in a collective wait as long as the process group's timeout, and each
    reports a broken connection. Here, twice a second, threads of every rank tell a store on rank 0 that the rank
    lives; rank 0 looks at all of them, the others at rank 0, and a process at those that it has started. The first to
    find a rank lost, or to fail, leaves the reason in the store, and the command line reports it alone. Where the main
    thread has not left training `GRACE` seconds later, as it waits for the lost rank, the process ends with that code.

    A process that is gone is found within a second, one that has stopped within 30. One that lives and yet does not
    come to a collective is left to the process group's timeout.

    Args:
        parent: the process that started this one as a rank of the run, and that rank; None where none did.

    Attributes:
        failure: why the run stops; None while all is well.
        before_end: what is to be done before the process is ended here.
    """

    def __init__(self, parent: tuple[int, int] | None = None) -> None:
        self.parent = parent
        self.ranks = Ranks()
        self.failure: Failure | None = None
        self.before_end: Callable[[], None] | None = None
        self._children: Sequence[subprocess.Popen] = ()
        self._store: dist.TCPStore | None = None
        self._answers = 0  # of the store so far
        self._threads: list[threading.Thread] = []
        self._found, self._left = threading.Event(), threading.Event()

    # Called by the main thread

    def watch_children(self, children: Sequence[subprocess.Popen], ranks: Ranks) -> None:
        """Look at processes that this one has started, the ranks that follow it, until `leave`."""
        self._children, self.ranks = children, ranks
        self._begin()

    def enter(self, ranks: Ranks, address: str) -> None:
        """Look at all ranks until `leave`; to be called on all of them, once they are connected.

        Args:
            ranks: this process among them.
            address: of the machine of rank 0, which all can reach.
        """
        patience = timedelta(seconds=INTERVAL * SILENT_LOOKS)

        def connect(port: int) -> dist.TCPStore:
            return dist.TCPStore(address, port, is_master=ranks.rank == 0, wait_for_workers=False, timeout=patience)

        served = connect(0) if ranks.rank == 0 else None
        port = ranks.broadcast_result(lambda: served.port if served is not None else 0)
        store = served if served is not None else connect(port)
        store.set(f"alive/{ranks.rank}", "0")
        ranks.all_gather_object(None)  # all have given a first sign of life
        self.ranks, self._store, self.failure, self._answers = ranks, store, None, 0
        self._begin()
        self._start(self._exchange)

    def leave(self) -> None:
        """Look no more: this rank has left training."""
        self._left.set()
        for thread in self._threads:
            thread.join(INTERVAL)  # one that waits for a lost rank ends with the process
        self._threads.clear()

    def close(self) -> None:
        """Let go of the store, once all have left."""
        self._store = None

    def fail(self, error: BaseException) -> None:
        """Tell all ranks that this one fails, unless there is a reason to stop already; `failure` has the one there is.

        An error of rank 0 comes first where all have it; and a broken connection has a reason, which is waited for.
        """
        if self._store is None:
            self.failure = Failure(self.ranks.rank, "", _exit_code(error))
            return
        if not isinstance(error, KeyboardInterrupt) and not (isinstance(error, KLError) and self.ranks.rank == 0):
            self._found.wait(1.0 if isinstance(error, KLError) else GRACE)
        self._blame(Failure(self.ranks.rank, "", _exit_code(error)))
        if self.ranks.rank == 0:
            time.sleep(2 * INTERVAL)  # the store ends with this process: let the others look

    @property
    def failed_elsewhere(self) -> bool:
        """Whether another rank is the reason to stop."""
        return self.failure is not None and self.failure.rank != self.ranks.rank

    # The threads

    def _begin(self) -> None:
        if not self._threads:
            self._found.clear()
            self._left.clear()
            self._start(self._look)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True, name="watch of the ranks")
        self._threads.append(thread)
        thread.start()

    def _look(self) -> None:
        """Look at the processes started here and at what `_exchange` finds, until there is a reason to stop."""
        answered, since, look = self._answers, 0, 0
        while not self._left.wait(INTERVAL):
            look += 1
            if self._store is None or self._answers > answered:
                answered, since = self._answers, look
            failure = self._lost_child() or self.failure
            # A look longer than rank 0 has: it is the one to report another.
            if failure is None and look - since > SILENT_LOOKS + 1:
                failure = self._first_lost()
            if failure is not None:
                self._stop(failure)
                return

    def _exchange(self) -> None:
        """Give signs of life and look at those of others; a request waits for ever where rank 0 has stopped."""
        store, rank, size = self._store, self.ranks.rank, self.ranks.size
        assert store is not None  # enter() made it
        others = [f"alive/{one}" for one in (range(1, size) if rank == 0 else [0])]
        signs: dict[str, tuple[bytes, int]] = {}
        while not self._left.wait(INTERVAL) and self.failure is None:
            self._answers += 1
            try:
                store.set(f"alive/{rank}", str(self._answers))
                if store.check(["failure"]):
                    self.failure = Failure(*json.loads(store.get("failure")))
                    return
                for other, sign in zip(others, store.multi_get(others), strict=True):
                    if sign != signs.get(other, (b"", 0))[0]:
                        signs[other] = sign, self._answers
                    elif self._answers - signs[other][1] >= SILENT_LOOKS:
                        lost = int(other.split("/")[1])
                        silent = f"has given no sign of life for {INTERVAL * SILENT_LOOKS:.0f} s"
                        self._blame(Failure(lost, f"rank {lost} of {size} {silent}: {REMEDY}", 1))
                        return
            except RuntimeError:  # the store has gone with rank 0
                if not self._left.is_set():
                    self.failure = self._first_lost()
                return

    def _lost_child(self) -> Failure | None:
        for i, child in enumerate(self._children, start=1):
            code = child.poll()
            if code is not None:
                rank = self.ranks.rank + i
                if code == 2:  # wrong input: it has said so
                    return self._blame(Failure(rank, "", 2))
                what = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
                return self._blame(Failure(rank, f"rank {rank} of {self.ranks.size} {what}: {REMEDY}", 1))
        return None

    def _first_lost(self) -> Failure:
        """Rank 0 cannot be asked whether this has been reported: rank 1 does it."""
        if self.parent is not None and self.parent[1] == 0:
            time.sleep(2 * INTERVAL)  # where rank 0 is gone, `end_with_parent` reports it and ends this process
        failure = Failure(0, f"rank 0 of {self.ranks.size} has ended or hangs: {REMEDY}", 1)
        if self.ranks.rank == 1:
            tell(failure.message)
        return failure

    def _blame(self, failure: Failure) -> Failure:
        """Leave a reason to stop and report it; returns the one that was there already, if one was."""
        first = failure
        if self._store is not None:
            with contextlib.suppress(RuntimeError):  # it has gone with rank 0
                first = Failure(*json.loads(self._store.compare_set("failure", "", json.dumps(failure))))
        if first == failure and failure.message:
            tell(failure.message)
        self.failure = first
        self._found.set()
        return first

    def _stop(self, failure: Failure) -> None:
        """Give the main thread time to leave training; else end the process, and those that it has started."""
        self.failure = failure
        self._found.set()
        if self._left.wait(GRACE):
            return
        try:
            self.clean_up()
            if self.parent is not None and failure.rank == self.parent[1] and failure.message:
                os.kill(self.parent[0], signal.SIGKILL)  # it hangs, or this process would have ended with it
        finally:
            os._exit(failure.code)

    def clean_up(self) -> None:
        """Kill the processes that this one has started, and do what is to be done before it ends."""
        for child in self._children:
            child.kill()
        if self.before_end is not None:
            self.before_end()


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return 2 if isinstance(error, InputError) else 1


def end_with_parent(parent: int, message: str) -> None:
    """End this process with exit code 1, from now on, as soon as the one that has started it is gone."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(INTERVAL)
        if message:
            tell(message)
        os._exit(1)

    threading.Thread(target=look, daemon=True, name="watch of the parent").start()


def tell(message: str) -> None:
    """One line on standard error, where somebody listens."""
    with contextlib.suppress(OSError):
        print(f"error: {message}", file=sys.stderr, flush=True)


def signal_name(number: int) -> str:
    """SIGKILL, say; of real-time signals the number."""
    names = {each.value: each.name for each in signal.Signals}
    return names.get(number, f"signal {number}")
