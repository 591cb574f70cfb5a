"""Which rank is to blame for the end of a run, and what is said of it."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from recipes.cli import INTERRUPTED, READER_GONE
from recipes.output.last_words import FILE, PARENT, REMEDY, LastWords, read_last, say_last
from recipes.run.launch import blamed, interrupted

NAMES = [f"rank {i} of 3" for i in range(3)]
LOST = LastWords("error: rank 0 of 3 got no answer", 99.9, 1, no_answer=True)
KEPT = LastWords("interrupted: 3 finished epochs are kept", 100.0, INTERRUPTED, no_answer=False)
BAD = LastWords("error: bad", 100.0, 2, no_answer=False)
ALSO_BAD = replace(BAD, message="error: bad (on rank 1 of 3)", timestamp=99.0)


def killed(number, name):
    return f"error: rank {number} of 3 was killed by {name}: {REMEDY}"


@pytest.mark.parametrize(
    ("ranks", "message", "code"),
    [
        ({}, "", 0),
        # Killed, however soon the others have noticed; but not where torch has done it, for want of an answer.
        ({0: (1, 99, LOST), 1: (-9, 100, None)}, killed(1, "SIGKILL"), 1),
        ({0: (1, 99, LOST), 1: (-9, 130, None)}, LOST.message, 1),
        ({0: (130, 100, KEPT), 2: (-11, 100, None)}, killed(2, "SIGSEGV"), 1),
        # The first of those that find the same mistake, even if it was ended while it ended.
        ({0: (2, 100, BAD), 1: (2, 99, ALSO_BAD)}, BAD.message, 2),
        ({0: (-15, 100, BAD), 1: (130, 100, KEPT)}, BAD.message, 2),
        ({0: (1, 99, LOST), 1: (2, 99, ALSO_BAD)}, ALSO_BAD.message, 2),
        ({1: (7, 100, None)}, f"error: rank 1 of 3 ended with exit code 7: {REMEDY}", 1),
        # Where none failed by itself, what came first.
        ({0: (1, 101, replace(LOST, timestamp=101.0)), 1: (130, 100, KEPT)}, KEPT.message, 130),
        ({0: (1, 99, LOST), 1: (130, 100, KEPT)}, LOST.message, 1),
        ({1: (-15, 100, None), 2: (-15, 100, None)}, killed(1, "SIGTERM"), 1),
        # Nobody reads standard output any more.
        ({0: (READER_GONE, 100, None)}, "", READER_GONE),
    ],
)
def test_who_is_to_blame(ranks, message, code):
    failures = {i: ProcessFailure(i, pid=1, exitcode=each[0], error_file="") for i, each in ranks.items()}
    for i, failure in failures.items():
        failure.timestamp = ranks[i][1]
    assert blamed(NAMES, {i: each[2] for i, each in ranks.items()}, failures) == (message, code)


def test_an_interrupted_run_ends_as_its_first_rank():
    assert interrupted({0: LOST, 1: KEPT, 2: replace(KEPT, message="other")}) == (KEPT.message, 130)
    assert interrupted({0: LOST, 1: None}) == ("error: interrupted", 130)


def test_what_a_rank_says_first_stands(tmp_path, monkeypatch, capsys):
    path = tmp_path / "error.json"
    monkeypatch.setenv(PARENT, "1")
    monkeypatch.setenv(FILE, str(path))
    assert read_last(str(path)) is None
    say_last("error: first", 2)
    say_last("error: second", 1)
    found = read_last(str(path))
    assert (found.message, found.code, os.listdir(tmp_path)) == ("error: first", 2, ["error.json"])
    # Where no file can be written, the user reads it nevertheless.
    monkeypatch.setenv(FILE, str(tmp_path / "gone" / "error.json"))
    say_last("error: third", 1)
    assert capsys.readouterr().err == "error: third\n"


def test_torch_reads_what_a_rank_says(tmp_path):
    path = tmp_path / "error.json"
    path.write_text(json.dumps(asdict(BAD)))
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(path))
    assert (failure.message, failure.timestamp) == (BAD.message, 100)


@pytest.mark.parametrize("heard", [True, False])
def test_a_rank_ends_with_the_command_that_started_it(heard):
    """Also where nobody listens to why."""
    code = "import time; from recipes.output.last_words import end_with_parent; end_with_parent(); time.sleep(100)"
    read, write = os.pipe()
    if not heard:
        os.close(read)
    environment = {**os.environ, PARENT: "0", "LOCAL_RANK": "0"}  # no parent of this process
    assert subprocess.run([sys.executable, "-c", code], env=environment, stderr=write, timeout=60).returncode == 1
    os.close(write)
    if heard:
        with open(read) as file:
            assert file.read() == f"error: the command that started the ranks was killed: {REMEDY}\n"
