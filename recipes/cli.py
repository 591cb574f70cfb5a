"""The command `kl`: how it ends, and how it reports an error to the user.

Nothing here imports torch, and the commands are imported after the signal handlers are set, so `kl --help` and Ctrl-C
answer at once.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import time
import traceback
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from recipes.output.last_words import INTERRUPTED, NAME, READER_GONE, REMEDY, end_with_parent, is_rank, say_last
from recipes.output.remedies import OptionsFormatter, as_options
from recipes.output.streams import OutputLost, check_streams

if TYPE_CHECKING:
    import typer

FIRST_SPEAKS = 1.0  # seconds that other ranks wait for the first rank, which may report the same error
REMEDIES = {
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "free some space, or write elsewhere",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or write elsewhere",
    errno.EMFILE: "raise the limit of open files, as by: ulimit -n 1024",
    errno.ENFILE: "close other programs' files: the system allows no more",
    errno.ENOMEM: "give a smaller --memory, or use fewer rows",
}


class _Interrupt:
    """Raises KeyboardInterrupt on a signal and records it, because an interrupted import may raise another error."""

    came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt


def main() -> None:
    """Run the command line; exit with 0, 1 (failed), 2 (wrong input), 130 (interrupted) or 141 (output's reader gone).

    Ctrl-C, SIGTERM and the SIGHUP of a closed terminal all interrupt the command, which then cleans up. Signals that
    are ignored, as under nohup, stay ignored.
    """
    interrupt = _Interrupt()
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == usual:
            signal.signal(number, interrupt)
    if is_rank():
        end_with_parent()
    try:
        try:
            if not check_streams():
                _fail("standard output is closed: send it to a file, or to /dev/null", 1)
            code = _run()
            sys.stdout.flush()
        except Exception as error:
            if interrupt.came:
                raise KeyboardInterrupt from error
            _report(error)
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        _end_quietly(interrupt)
    if code == INTERRUPTED:
        _fail("interrupted", code)
    sys.exit(code)


def _run() -> int:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # hides what torch's threads print about a lost rank
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OptionsFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    for name in ("kl", "datamodules", "callbacks", "recipes"):
        logging.getLogger(name).setLevel(logging.INFO)
    from kl.system.packages import require_own

    for name in ("datamodules", "callbacks"):  # kl.__main__ has looked at recipes
        require_own(name)
    from recipes.app import app

    code = app(standalone_mode=False)
    return code if isinstance(code, int) else 0


def _end_quietly(interrupt: _Interrupt) -> None:
    """From here on, let signals end Python at once, because a signal during its cleanup would print a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is interrupt:
            signal.signal(number, signal.SIG_DFL)


def _report(error: Exception) -> NoReturn:
    """Report the error on one line and exit; an error of the program itself is raised again."""
    if isinstance(error, OutputLost):
        if error.by_reader:
            sys.exit(READER_GONE)
        _fail(str(error), 1)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        remedy = f": {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
        _fail(f"{where}{error.strerror or error}{remedy}", 1)
    if isinstance(error, MemoryError):
        _fail(f"memory is exhausted ({error}): {REMEDIES[errno.ENOMEM]}", 1)
    import typer

    if isinstance(error, typer.TyperException):  # a mistake in the options themselves
        _fail(error.format_message() + _came(error), error.exit_code)
    if isinstance(error, typer.Abort):
        _fail("interrupted", INTERRUPTED)
    from kl.errors import InputError, KLError, NoAnswerError

    if isinstance(error, KLError):
        _fail(as_options(str(error)), 2 if isinstance(error, InputError) else 1, isinstance(error, NoAnswerError))
    if not is_rank():
        raise error
    fault = " ".join(f"{type(error).__name__}: {error}".split())
    trace = "".join(traceback.format_exception(error))
    say_last(f"{trace}error: {os.environ[NAME]} failed: {fault}: {REMEDY}", 1)
    sys.exit(1)


def _came(error: typer.TyperException) -> str:
    """The text "; got ...", with the value that was given for the option of an error; empty if unknown."""
    param = getattr(error, "param", None)
    names = [name for name in getattr(param, "opts", []) if name.startswith("--") and name != "--config"]
    for i, word in enumerate(sys.argv[:-1]):
        if word in names:
            return f"; got {sys.argv[i + 1]!r}"
    file = getattr(getattr(error, "ctx", None), "default_map", None) or {}
    return f"; got {file[param.name]!r} from --config" if names and param is not None and param.name in file else ""


def _fail(message: str, code: int, no_answer: bool = False) -> NoReturn:
    """Report an error and exit. If several processes of a machine find the same error, only the first reports it.

    This applies to processes of torchrun before they are connected. Tasks of SLURM may be independent, so all report.
    """
    local_rank = os.environ.get("LOCAL_RANK", "0")
    another = local_rank.isdecimal() and int(local_rank) > 0
    if another and code != INTERRUPTED:
        time.sleep(FIRST_SPEAKS)
    # After an interrupt torch is not imported, because its first import may have been interrupted.
    if another and not is_rank() and (code == INTERRUPTED or not _is_connected()):
        sys.exit(code)
    say_last("error: " + " ".join(message.split()), code, no_answer=no_answer)
    sys.exit(code)


def _is_connected() -> bool:
    import torch.distributed as dist

    return dist.is_initialized()
