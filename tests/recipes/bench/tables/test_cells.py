"""A cell: its loss, its failure, and how it is kept; and the process that measures cells."""

import os
import time
from dataclasses import replace
from multiprocessing import Pipe

import numpy as np
import pytest

from recipes.bench.tables import methods
from recipes.bench.tables.cells import Asked, ended, keep, kept, loss, measure, place
from recipes.bench.tables.sets import Split
from recipes.bench.tables.worker import Worker


@pytest.fixture
def asked(folder, tiny):
    return Asked("wave", str(folder / "uci/wave.npz"), 0, "ridge", tiny)


def test_losses_by_hand():
    none = np.zeros((2, 1))
    classes = Split(none, np.array([0, 1]), none, np.array([0, 1]), 2)
    assert loss(np.array([1, 1]), classes) == 0.5
    numbers = Split(none, np.array([-1.0, 1.0]), none, np.array([10.0, 20.0]), 0, 15.0, 5.0)
    assert loss(np.array([-1.0, 2.0]), numbers) == pytest.approx((25 / 2) ** 0.5)  # 10 and 25 for 10 and 20


def test_a_measured_cell(asked):
    cell = measure(asked)
    assert (cell.state, cell.reason, cell.candidates) == ("done", None, 4)
    assert 0 < cell.value < 10
    assert cell.seconds > 0
    assert (cell.train_rows, cell.test_rows, cell.features) == (30, 10, 2)


def test_failures_have_their_reason(asked, monkeypatch):
    monkeypatch.setitem(methods.METHODS, "ridge", lambda *_: 1 / 0)
    assert (measure(asked).state, measure(asked).reason) == ("failed", "ZeroDivisionError: division by zero")
    bad = methods.Fitted(lambda x: np.full(len(x), np.nan), 1, {})
    monkeypatch.setitem(methods.METHODS, "ridge", lambda *_: bad)
    assert (measure(asked).value, measure(asked).reason) == (None, "predictions that are not finite")
    assert measure(replace(asked, path="nowhere.npz")).reason.startswith("FileNotFoundError")


def test_warnings_are_kept(asked, monkeypatch):
    def warn(split, protocol):
        import warnings

        warnings.warn("did not converge", UserWarning, stacklevel=1)
        return methods.Fitted(lambda x: np.zeros(len(x)), 1, {})

    monkeypatch.setitem(methods.METHODS, "ridge", warn)
    assert measure(asked).warnings == ("UserWarning: did not converge",)


def test_what_is_kept(asked, tmp_path):
    assert kept(tmp_path, asked) is None
    done = replace(ended(asked, "done", ""), value=1.5, reason=None)
    keep(tmp_path, asked, done)
    assert kept(tmp_path, asked) == done
    for other in (replace(asked, split=1), replace(asked, protocol=replace(asked.protocol, seed=1))):
        assert kept(tmp_path, other) is None
    keep(tmp_path, asked, ended(asked, "timed out", "stopped after 1 s"))
    assert kept(tmp_path, asked).state == "timed out"
    for state in ("failed", "not run"):  # they are tried again
        keep(tmp_path, asked, ended(asked, state, "why"))
        assert kept(tmp_path, asked) is None
    place(tmp_path, asked).write_text("{")
    assert kept(tmp_path, asked) is None


def sleep(line):
    line.send("ready")
    line.recv()
    time.sleep(60)


def die(line):
    line.send("ready")
    line.recv()
    os._exit(3)


@pytest.mark.parametrize(
    ("serve", "state", "reason"),
    [(sleep, "timed out", "stopped after 0.3 s"), (die, "failed", "its process ended with exit code 3")],
)
def test_a_process_that_hangs_or_dies_is_a_row(asked, monkeypatch, serve, state, reason):
    monkeypatch.setattr("recipes.bench.tables.worker.multiprocessing.get_context", lambda _: Fork(serve))
    start = time.perf_counter()
    with Worker(1) as worker:
        cell = worker.measure(replace(asked, protocol=replace(asked.protocol, hard_seconds=0.3)))
    assert (cell.state, cell.reason) == (state, reason)
    assert time.perf_counter() - start < 20


class Fork:
    """A context whose processes run another function, without the imports of a new interpreter."""

    def __init__(self, serve):
        self.serve = serve

    def Pipe(self):  # noqa: N802
        return Pipe()

    def Process(self, *, args, **_):  # noqa: N802
        import multiprocessing

        return multiprocessing.context.ForkProcess(target=self.serve, args=args, daemon=True)


def test_environment_is_restored(monkeypatch):
    from recipes.bench.tables.worker import _environment

    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with _environment(1):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]) == ("1", "1")
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
