"""Starting the ranks of one machine: as Lightning does it for DDP, and ending them together."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

from lightning_fabric.plugins import ClusterEnvironment
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from kl.distributed.ranks import Ranks
from kl.distributed.watch import GRACE, REMEDY, Watch, end_with_parent

PARENT = "KL_PARENT"  # environment variable: the process that starts the others of its machine
_children: list[subprocess.Popen] = []  # of this process, whichever Trainer has started them
_ends_with_parent = False  # whether this process sees to that already


class RankLauncher(_SubprocessScriptLauncher):
    """Runs the command once more for every other device of this machine, unless torchrun or SLURM did.

    Lightning's launcher, when one of them dies, kills all without a word after up to five seconds. Here a `Watch` says
    what happened. Ctrl-C and SIGHUP are for the process that was started by hand; it stops the others.

    Args:
        environment: as Lightning found it.
        num_processes: devices of this machine.
        num_nodes: machines.
    """

    def __init__(self, environment: ClusterEnvironment, num_processes: int, num_nodes: int) -> None:
        super().__init__(environment, num_processes, num_nodes)
        self.size = num_processes * num_nodes
        self.watch = Watch(self._parent())

    def _parent(self) -> tuple[int, int] | None:
        """The process that has started this one, and its rank; this one ends with it."""
        global _ends_with_parent
        local_rank, parent = int(os.environ.get("LOCAL_RANK", "0")), os.environ.get(PARENT)
        if local_rank == 0 or parent is None:
            return None
        rank = self.cluster_environment.node_rank() * self.num_processes
        message = f"rank {rank} of {self.size} was killed: {REMEDY}" if local_rank == 1 else ""
        if not _ends_with_parent:
            end_with_parent(int(parent), message)
            _ends_with_parent = True
        return int(parent), rank

    def _call_children_scripts(self) -> None:
        os.environ[PARENT] = str(os.getpid())
        with _no_interrupts():
            super()._call_children_scripts()
            _children.extend(self.procs)
            self.procs = []  # Lightning's observer gets none to look at
            atexit.register(self._end_children)
            self.watch_children()

    def watch_children(self) -> None:
        """Look at the processes that this one has started, now or for an earlier Trainer."""
        if _children:
            first = self.cluster_environment.node_rank() * self.num_processes
            self.watch.watch_children(_children, Ranks(first, self.size))

    def _end_children(self) -> None:
        """Wait for those that go on after training; where it has failed, kill those that do not end by themselves."""
        deadline = None if self.watch.failure is None else time.monotonic() + GRACE
        for child in _children:
            try:
                child.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()

    def kill(self, signum: int) -> None:
        """Send a signal to the processes that were started here."""
        for child in _children:
            child.send_signal(signum)


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Processes started meanwhile never see Ctrl-C or the end of the terminal: they inherit these signals as blocked.

    This one sees them afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
