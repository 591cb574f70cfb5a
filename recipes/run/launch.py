"""The ranks of `--devices N`: started and watched by the part of torch that does it for torchrun.

torch.distributed.elastic.multiprocessing ends all where one fails. torchrun's agent around it is left out: it restarts
ranks, looks up this machine's full name again and again, and reports a failure in thirty lines.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from recipes.output.last_words import INTERRUPTED, PARENT, READER_GONE, REMEDY, LastWords, read_last, say_last

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    from recipes.run.processes import Processes

POLL = 0.1  # seconds between two looks at the ranks
SAID = (2, INTERRUPTED, READER_GONE)  # exit codes of a rank that has said why itself, or has nobody to say it to
AT_ONCE = 10  # seconds; a rank that is killed later was killed by torch, 30 s after it was asked to end


def launch_ranks(processes: Processes) -> NoReturn:
    """Run this command once for every device of this machine, and end as these processes do.

    Where one fails the others get SIGTERM, and 30 s later SIGKILL. The one that is to blame is reported, alone.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, start_processes

    _silence_torch()
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # heard while one process trains, too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    store, shared = _meeting_point()
    first, size = int(shared["NODE_RANK"]) * processes.here, processes.size
    ranks = {
        i: {**shared, "LOCAL_RANK": str(i), "RANK": str(first + i), "WORLD_SIZE": str(size)}
        for i in range(processes.here)
    }
    program, *words = _command()
    with tempfile.TemporaryDirectory(prefix="kl-ranks-", ignore_cleanup_errors=True) as folder:
        context = start_processes(
            name="rank",
            entrypoint=program,
            args={i: tuple(words) for i in ranks},
            envs=ranks,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            done = context.wait(period=POLL)
        except (KeyboardInterrupt, SignalException):
            done = None
            context.close()
        said = {i: read_last(path) for i, path in context.error_files.items()}
    del store  # needed until here
    if done is None:
        end_interrupted(said)
    end_as(done.failures, said, first, size)


def _silence_torch() -> None:
    """Keep from the user what torch says of ranks that fail: it is said here in one line."""
    logger = logging.getLogger("torch.distributed.elastic")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ""  # none: they raise KeyboardInterrupt, as in all commands


def _meeting_point() -> tuple[Any, dict[str, str]]:
    """A store in which the ranks find each other, if no port is given, and the environment variables that name it.

    It listens before the ranks start, so that no other program takes its port meanwhile.
    """
    address = os.environ.get("MASTER_ADDR", "127.0.0.1")
    node = os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or "0"
    shared = {"MASTER_ADDR": address, "NODE_RANK": node, PARENT: str(os.getpid())}
    if "MASTER_PORT" in os.environ or node != "0":
        return None, shared
    from torch.distributed import TCPStore

    store = TCPStore(address, 0, is_master=True, wait_for_workers=False)
    there = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    return store, {**shared, **there, "MASTER_PORT": str(store.port)}


def _command() -> list[str]:
    """This process's own command, for another."""
    module = sys.modules["__main__"].__spec__
    program = [os.path.abspath(sys.argv[0])] if module is None else ["-m", module.name.removesuffix(".__main__")]
    return [sys.executable, *program, *sys.argv[1:]]


# Which rank is to blame


class _End(NamedTuple):
    """How a rank has ended. The smallest is the one to blame."""

    kind: int
    """0: it was killed; 1: it failed; 2: it was interrupted, or ended because of another."""
    order: float
    """Among those of one kind: the rank, or when it said so."""
    message: str
    code: int


def end_interrupted(said: dict[int, LastWords | None]) -> NoReturn:
    """End as Ctrl-C has ended the first rank."""
    for words in said.values():
        if words is not None and words.code == INTERRUPTED:
            say_last(words.message, INTERRUPTED)
            raise SystemExit(INTERRUPTED)
    raise KeyboardInterrupt


def end_as(failures: dict[int, ProcessFailure], said: dict[int, LastWords | None], first: int, size: int) -> NoReturn:
    """End as the rank that is to blame; well where none has failed.

    Args:
        failures: the ranks of this machine that did not end well, from 0.
        said: the last words of its ranks.
        first: which rank its rank 0 is among all.
        size: how many there are on all machines.
    """
    if not failures:
        raise SystemExit(0)
    began = min(failure.timestamp for failure in failures.values())
    ends = []
    for i, failure in failures.items():
        name, words = f"rank {first + i} of {size}", said[i]
        if words is None:
            ends.append(_end_of_silent(name, i, failure, at_once=failure.timestamp - began < AT_ONCE))
        else:
            ends.append(_end_of(name, i, words))
    end = min(ends)
    if end.message:
        say_last(end.message, end.code)
    raise SystemExit(end.code)


def _end_of(name: str, rank: int, words: LastWords) -> _End:
    message = words.message
    if words.fault:
        message += f"error: {name} failed: {words.fault}: {REMEDY}"
    if words.code == INTERRUPTED or words.no_answer:
        return _End(2, words.timestamp, message, words.code)
    return _End(1, rank, message, words.code)


def _end_of_silent(name: str, rank: int, failure: ProcessFailure, at_once: bool) -> _End:
    code = failure.exitcode
    if code in SAID:
        return _End(1, rank, "", code)
    if code > 0:
        return _End(1, rank, f"error: {name} ended with exit code {code}: {REMEDY}", 1)
    message = f"error: {name} was killed by {signal_name(-code)}: {REMEDY}"
    if at_once and -code != signal.SIGTERM:
        return _End(0, rank, message, 1)
    return _End(2, failure.timestamp, message, 1)


def signal_name(number: int) -> str:
    """SIGKILL, say; of real-time signals the number."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
