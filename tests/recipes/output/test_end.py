"""The end of a process: what Python's own end would have done for a user is done."""

import os
import subprocess
import sys

import pytest

from recipes.output.end import ends_at_once

PROGRAM = """
import atexit, sys, threading, time
from recipes.output.end import ends_at_once

class Freed:
    def __del__(self):
        print("freed")

kept = Freed()
atexit.register(print, "exit function")

def late():
    time.sleep(0.2)
    print("thread")

threading.Thread(target=late).start()
print("unflushed", end=" ")
with ends_at_once():
    {end}
print("went on")
"""


def run(end):
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run([sys.executable, "-c", PROGRAM.format(end=end)], capture_output=True, text=True, env=buffered)


def test_threads_exit_functions_and_streams_come_first_and_nothing_is_freed():
    found = run("sys.exit(3)")
    assert (found.returncode, found.stdout, found.stderr) == (3, "unflushed thread\nexit function\n", "")


def test_other_ends_are_those_of_python():
    assert run("pass").stdout == "unflushed went on\nthread\nexit function\nfreed\n"
    text = run('sys.exit("words")')
    assert (text.returncode, text.stderr) == (1, "words\n")
    error = run("raise ValueError(5)")
    assert (error.returncode, error.stderr.splitlines()[-1]) == (1, "ValueError: 5")


@pytest.mark.parametrize(("gpu", "ranks"), [(False, False), (True, False), (False, True)])
def test_a_process_with_other_ranks_or_a_gpu_ends_as_usual(gpu, ranks):
    found = run(
        "from types import SimpleNamespace as Fake\n"
        f"    sys.modules['torch'] = Fake(cuda=Fake(is_initialized=lambda: {gpu}),\n"
        f"        distributed=Fake(is_available=lambda: True, is_initialized=lambda: {ranks}))\n"
        "    sys.exit(0)"
    )
    assert found.stdout.endswith("freed\n") == (gpu or ranks), found.stderr


@pytest.mark.parametrize("kind", ["profile", "trace"])
def test_a_watched_process_ends_as_usual(monkeypatch, kind):
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("ended at once"))
    watch, before = getattr(sys, f"set{kind}"), getattr(sys, f"get{kind}")()
    watch(lambda *_: None)
    try:
        with pytest.raises(SystemExit), ends_at_once():
            sys.exit(0)
    finally:
        watch(before)


def test_closed_streams_change_no_exit_code():
    for end in ("sys.stdout.close(); sys.exit(3)", "sys.stdout = sys.stderr = None; sys.exit(3)"):
        assert run(end).returncode == 3


def test_text_of_libraries_is_printed():
    assert run("import ctypes; ctypes.CDLL(None).printf(b'from C'); sys.exit(0)").stdout.count("from C") == 1
