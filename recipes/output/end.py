"""The end of a process that has no more to do."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ends_at_once() -> Iterator[None]:
    """End the process where the block exits with a code, and leave its memory to the system.

    Python itself frees object by object what Lightning's imports have left, which takes a second. As at Python's own
    end, other threads are waited for, exit functions run, and the streams are flushed. A process that is connected to
    other ranks ends as usual, because they may still talk to it.
    """
    try:
        yield
    except SystemExit as end:
        ranks = sys.modules.get("torch.distributed")
        if not isinstance(end.code, int) or (ranks is not None and ranks.is_available() and ranks.is_initialized()):
            raise
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)
