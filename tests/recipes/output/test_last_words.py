"""Which rank is to blame for the end of a run, and what is said of it."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from recipes.cli import INTERRUPTED, READER_GONE
from recipes.output.last_words import FILE, PARENT, REMEDY, LastWords, read_last, say_last
from recipes.run.launch import end_as, end_interrupted, signal_name


def ended(code, at=100):
    """How torch has found a rank."""
    return SimpleNamespace(exitcode=code, timestamp=at)


def said(message, code, at=100.0, fault="", no_answer=False):
    return LastWords(message, at, code, fault, no_answer)


LOST = said("error: rank 0 of 3 got no answer", 1, at=99.9, no_answer=True)
KEPT = said("interrupted: 3 finished epochs are kept", INTERRUPTED)


@pytest.mark.parametrize(
    ("ranks", "code", "text"),
    [
        ({}, 0, ""),
        # Killed, however soon the others have noticed; but not where torch has done it, for want of an answer.
        ({0: (ended(1, 99), LOST), 1: (ended(-9), None)}, 1, f"error: rank 1 of 3 was killed by SIGKILL: {REMEDY}"),
        ({0: (ended(1, 99), LOST), 1: (ended(-9, 130), None)}, 1, LOST.message),
        ({0: (ended(130), KEPT), 2: (ended(-11), None)}, 1, f"error: rank 2 of 3 was killed by SIGSEGV: {REMEDY}"),
        # The first of those that find the same mistake.
        ({0: (ended(2), said("error: bad", 2)), 1: (ended(2), said("error: bad (on rank 1)", 2, 99))}, 2, "error: bad"),
        ({0: (ended(-15), said("error: bad", 2)), 1: (ended(130), KEPT)}, 2, "error: bad"),
        ({0: (ended(1), LOST), 1: (ended(2), said("error: bad (on rank 1)", 2))}, 2, "error: bad (on rank 1)"),
        # A fault of the program, with its traceback.
        (
            {0: (ended(1), LOST), 1: (ended(1), said("Traceback\n", 1, fault="KeyError: 3"))},
            1,
            f"Traceback\nerror: rank 1 of 3 failed: KeyError: 3: {REMEDY}",
        ),
        ({1: (ended(7), None)}, 1, f"error: rank 1 of 3 ended with exit code 7: {REMEDY}"),
        # Where nothing failed by itself, what came first.
        ({0: (ended(1), replace(LOST, timestamp=101.0)), 1: (ended(130), KEPT)}, 130, KEPT.message),
        ({0: (ended(1), LOST), 1: (ended(130), KEPT)}, 1, LOST.message),
        ({0: (ended(-15), None), 1: (ended(-15), None)}, 1, f"error: rank 0 of 3 was killed by SIGTERM: {REMEDY}"),
        # Nobody reads standard output any more.
        ({0: (ended(READER_GONE), None)}, READER_GONE, ""),
    ],
)
def test_who_is_to_blame(capsys, ranks, code, text):
    failures = {i: failure for i, (failure, _) in ranks.items()}
    with pytest.raises(SystemExit) as stop:
        end_as(failures, {i: words for i, (_, words) in ranks.items()}, 0, 3)
    assert (stop.value.code, capsys.readouterr().err) == (code, f"{text}\n" if text else "")


def test_the_end_of_an_interrupted_run_is_that_of_its_first_rank(capsys):
    other = said("interrupted: 2 finished epochs are kept", INTERRUPTED)
    with pytest.raises(SystemExit) as stop:
        end_interrupted({0: LOST, 1: KEPT, 2: other})
    assert (stop.value.code, capsys.readouterr().err) == (INTERRUPTED, f"{KEPT.message}\n")
    with pytest.raises(KeyboardInterrupt):
        end_interrupted({0: None, 1: None})


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
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    path = tmp_path / "error.json"
    path.write_text(json.dumps(asdict(said("error: bad", 2, at=12.5))))
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(path))
    assert (failure.message, failure.timestamp) == ("error: bad", 12)


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


def test_names_of_signals():
    assert signal_name(9) == "SIGKILL"
    assert signal_name(50) == "signal 50"
