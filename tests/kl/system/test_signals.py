"""A signal ends a process whose main thread cannot answer it."""

import subprocess
import sys

import pytest

WAITING = """
import os, signal, threading
import torch.distributed as dist
from kl.system.signals import signals_end

signal.signal(signal.SIGTERM, signal.default_int_handler)
threading.Timer(1, os.kill, (os.getpid(), signal.{signal})).start()
with signals_end(lambda: print("left", flush=True)):
    dist.TCPStore("127.0.0.1", 0, world_size=2, is_master=True)  # for another that does not come
"""


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_a_signal_ends_a_process_that_waits_for_others(name):
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{WAITING.format(signal=name)}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "left\n", "")
