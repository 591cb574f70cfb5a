"""The ranks of `--devices N`: started and watched by the part of torch that torchrun uses, too.

torch.distributed.elastic.multiprocessing ends all ranks if one fails. torchrun's agent around it is left out, because
it restarts ranks, looks up this machine's full name again and again, and reports a failure in thirty lines.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from recipes.output.last_words import INTERRUPTED, NAME, PARENT, READER_GONE, REMEDY, LastWords, read_last, say_last

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    from recipes.run.processes import Processes

POLL = 0.1  # seconds between two checks of the ranks
AT_ONCE = 10  # seconds; a rank that is killed later was killed by torch, 30 s after it was asked to end


def launch_ranks(processes: Processes) -> NoReturn:
    """Run this command once for every device of this machine, and exit with the result of these processes.

    If one fails, the others get SIGTERM, and 30 s later SIGKILL. Only the process that is to blame is reported.
    """
    from torch.distributed import TCPStore
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, start_processes

    torch_says = logging.getLogger("torch.distributed.elastic")  # silenced, because it reports in many lines
    torch_says.addHandler(logging.NullHandler())
    torch_says.propagate = False
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ""  # no signals, so that they raise KeyboardInterrupt
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a single training process hears SIGINT, too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    node = os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or "0"
    shared = {PARENT: str(os.getpid()), "NODE_RANK": node}
    if "MASTER_PORT" not in os.environ and node == "0":
        # The ranks meet in a store of this process, so that no other program can take its port before them.
        address = os.environ.get("MASTER_ADDR", "127.0.0.1")
        store = TCPStore(address, 0, is_master=True, wait_for_workers=False)
        shared |= {"MASTER_ADDR": address, "MASTER_PORT": str(store.port)}
        shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    first = int(node) * processes.here
    names = [f"rank {first + i} of {processes.size}" for i in range(processes.here)]
    program, *words = _command()
    with tempfile.TemporaryDirectory(prefix="kl-ranks-", ignore_cleanup_errors=True) as folder:
        ranks = start_processes(
            name="rank",
            entrypoint=program,
            args={i: tuple(words) for i in range(len(names))},
            envs={i: {**shared, "LOCAL_RANK": str(i), NAME: name} for i, name in enumerate(names)},
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            done = ranks.wait(period=POLL)
        except (KeyboardInterrupt, SignalException):
            done = None
            ranks.close()
        said = {i: read_last(path) for i, path in ranks.error_files.items()}
    message, code = blamed(names, said, done.failures) if done is not None else interrupted(said)
    if message:
        say_last(message, code)
    raise SystemExit(code)


def _command() -> list[str]:
    """The command that starts this program again."""
    module = sys.modules["__main__"].__spec__
    program = [os.path.abspath(sys.argv[0])] if module is None else ["-m", module.name.removesuffix(".__main__")]
    return [sys.executable, *program, *sys.argv[1:]]


def interrupted(said: Mapping[int, LastWords | None]) -> tuple[str, int]:
    """The report of the first rank that Ctrl-C ended, and the exit code."""
    messages = [words.message for words in said.values() if words is not None and words.code == INTERRUPTED]
    return messages[0] if messages else "error: interrupted", INTERRUPTED


def blamed(
    names: list[str], said: Mapping[int, LastWords | None], failures: Mapping[int, ProcessFailure]
) -> tuple[str, int]:
    """The message about the end of a run, empty if there is nothing to report, and the exit code.

    Args:
        names: the names of the ranks of this machine.
        said: the reports of these ranks, by their number on this machine.
        failures: the failures among these ranks, by their number.
    """
    began = min((failure.timestamp for failure in failures.values()), default=0)
    # The blame goes to a rank that was killed; else to one that failed; else to the first that reported to have ended
    # because of another. Each entry is its kind, rank or time, message and exit code.
    ends: list[tuple[int, float, str, int]] = []
    for i, failure in failures.items():
        words, code = said[i], failure.exitcode
        if words is not None:
            kind, order = (2, words.timestamp) if words.code == INTERRUPTED or words.no_answer else (1, i)
            ends.append((kind, order, words.message, words.code))
        elif code == READER_GONE:
            ends.append((1, i, "", code))
        elif code > 0:
            ends.append((1, i, f"error: {names[i]} ended with exit code {code}: {REMEDY}", 1))
        else:
            by_torch = -code == signal.SIGTERM or failure.timestamp - began >= AT_ONCE
            kind, order = (2, failure.timestamp) if by_torch else (0, i)
            ends.append((kind, order, f"error: {names[i]} was killed by {failure.signal_name()}: {REMEDY}", 1))
    return min(ends)[2:] if ends else ("", 0)
