"""The end of a process: what Python's own end would have done for a user is done."""

import subprocess
import sys

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
    return subprocess.run([sys.executable, "-c", PROGRAM.format(end=end)], capture_output=True, text=True)


def test_threads_exit_functions_and_streams_come_first_and_nothing_is_freed():
    found = run("sys.exit(3)")
    assert (found.returncode, found.stdout, found.stderr) == (3, "unflushed thread\nexit function\n", "")


def test_other_ends_are_those_of_python():
    assert run("pass").stdout == "unflushed went on\nthread\nexit function\nfreed\n"
    text = run('sys.exit("words")')
    assert (text.returncode, text.stderr) == (1, "words\n")
    error = run("raise ValueError(5)")
    assert (error.returncode, error.stderr.splitlines()[-1]) == (1, "ValueError: 5")


def test_a_process_with_other_ranks_ends_as_usual():
    connect = "import types; sys.modules['torch.distributed'] = types.SimpleNamespace(%s); sys.exit(0)"
    there = connect % "is_available=lambda: True, is_initialized=lambda: True"
    assert run(there).stdout.endswith("freed\n")
    alone = connect % "is_available=lambda: True, is_initialized=lambda: False"
    assert not run(alone).stdout.endswith("freed\n")
