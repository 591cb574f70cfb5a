"""What ends a process whose main thread cannot: signals while it waits, and another rank that is lost."""

import subprocess
import sys

import pytest

from kl.distributed.watch import Failure, Watch, signal_name, tell

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


def test_nobody_listens(monkeypatch):
    class Closed:
        """A pipe whose reader has gone."""

        tried = 0

        def write(self, _):
            self.tried += 1
            raise BrokenPipeError

    closed = Closed()
    monkeypatch.setattr(sys, "stderr", closed)
    tell("this is not heard, and no error")
    assert closed.tried == 1


def test_names_of_signals():
    assert signal_name(9) == "SIGKILL"
    assert signal_name(50) == "signal 50"


def test_a_reason_to_stop_stands_without_the_store(capsys):
    class Gone:
        """The store of a rank 0 that was lost."""

        def compare_set(self, *_):
            raise RuntimeError("connection reset")

    watch = Watch()
    watch._store = Gone()
    failure = Failure(1, "rank 1 of 2 was killed", 1)
    assert watch._blame(failure) == watch.failure == failure
    assert capsys.readouterr().err == "error: rank 1 of 2 was killed\n"


def test_what_is_begun_is_cleaned_up():
    done, watch = [], Watch()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    watch._children, watch.before_end = [child], lambda: done.append("ended")
    watch.clean_up()
    assert (child.wait(10), done) == (-9, ["ended"])
