"""The end of a process that has no more to do."""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ends_at_once() -> Iterator[None]:
    """End the process where the block exits with a code, and leave its memory to the system.

    Python itself frees object by object what Lightning's imports have left, which takes a second. As at Python's own
    end, other threads are waited for, exit functions run, and the streams are flushed. A process ends as usual if it
    is connected to other ranks or to a GPU, which expect a farewell, or if a profiler or debugger watches it.
    """
    try:
        yield
    except SystemExit as end:
        if not isinstance(end.code, int) or _is_watched() or _is_connected():
            raise
        try:
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                if stream is not None and not stream.closed:
                    stream.flush()
            ctypes.CDLL(None).fflush(None)  # what libraries print
        finally:
            os._exit(end.code)


def _is_watched() -> bool:
    """Whether a profiler, a tracer, a debugger or a prompt waits for the end of the program."""
    monitoring = getattr(sys, "monitoring", None)  # from Python 3.12 on
    tools = monitoring is not None and any(monitoring.get_tool(tool) for tool in range(6))
    return bool(tools or sys.getprofile() or sys.gettrace() or sys.flags.interactive or sys.flags.inspect)


def _is_connected() -> bool:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "distributed") or not hasattr(torch, "cuda"):
        return False
    return torch.cuda.is_initialized() or (torch.distributed.is_available() and torch.distributed.is_initialized())
