"""Sweeps of points: kept one by one, never computed twice, the same however often they are stopped."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest

from kl import InputError, MemoryBudgetError, SingularKernelError
from recipes.reproduce import runner
from recipes.reproduce.experiment import Experiment
from recipes.reproduce.experiments import EXPERIMENTS
from recipes.reproduce.page.presentation import Claim, Comparison, Presentation, Table
from recipes.reproduce.points.sample import Sample, laplacian
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Context, Point
from recipes.reproduce.sweep.store import Store
from recipes.reproduce.sweep.sweep import Sweep
from recipes.reproduce.table import mean, spread

NAMES = [
    "convergence",
    "accuracy",
    "noise",
    "norm-growth",
    "synthetic",
    "geometry",
    "random-labels",
    "neighbours",
    "kernels",
    "batch-size",
    "acceleration",
    "bandwidth",
    "networks",
    "general",
    "features",
    "images",
]


@dataclass(frozen=True, kw_only=True)
class Square(Point):
    """A point that counts how often it is computed, and fails where it is told to."""

    kind: ClassVar[str] = "square"
    computed: ClassVar[list[int]] = []
    broken: ClassVar[set[int]] = set()

    value: int

    def run(self, context):
        if self.value in self.broken:
            raise SingularKernelError("nothing to be had")
        self.computed.append(self.value)
        return {"square": self.value**2, "data_source": "made up"}

    def describe(self):
        return f"the square of {self.value}"

    @property
    def seconds(self):
        return 1.0


class Hungry(Square):
    """A point that does not fit the memory."""

    def run(self, context):
        raise MemoryBudgetError("the solve needs 2 GB, more than the budget of 1 KB: use --train-size 1 or less")


class Squares(Experiment):
    """Squares of 1 to 4, and then of the largest of them."""

    name = "squares"
    title = "Squares, <b>not</b> circles"
    source = "Euclid"

    def points(self, setting, results):
        points = [Square(value=value) for value in (1, 2, 3, 4)]
        if all(point in results for point in points):
            points.append(Square(value=results[points[-1]]["square"]))
        return points

    def present(self, setting, results):
        from recipes.reproduce.page.drawing import panels

        figure, axes = panels(1, 1)
        axes[0, 0].plot([point.value for point in results])
        return Presentation(
            figures={"squares": figure},
            rows=[{"value": point.value, **result} for point, result in results.items()],
            comparisons=[Comparison("3 squared", results[Square(value=3)]["square"], 9.0, "Euclid", tolerance=0.5)],
            claims=[Claim("squares grow", True, "1 < 4", "Euclid")],
            tables=[Table("a table", ("a", "b"), [("1", "<2>")])],
            sentences=["2 < 3"],
        )


@pytest.fixture(autouse=True)
def _nothing_computed(monkeypatch):
    monkeypatch.setattr(Square, "computed", [])
    monkeypatch.setattr(Square, "broken", set())


@pytest.fixture
def only_squares(monkeypatch):
    monkeypatch.setattr(runner, "EXPERIMENTS", {"squares": Squares(), "more": More()})


class More(Squares):
    name = "more"

    def points(self, setting, results):
        return [Square(value=7)]

    def present(self, setting, results):
        return Presentation(figures={}, rows=[])


def sweep(folder):
    return Sweep(Store(folder), Context(accelerator="cpu"))


def test_points_are_computed_once_and_in_order(tmp_path):
    points = [Square(value=value) for value in (3, 1, 2)]
    found = sweep(tmp_path).run([*points, points[0]])
    assert list(found) == points
    assert [result["square"] for result in found.values()] == [9, 1, 4]
    assert sweep(tmp_path).run(points[::-1]) == found
    assert Square.computed == [3, 1, 2]


@pytest.mark.slow
def test_a_sweep_that_is_stopped_goes_on(tmp_path):
    points = [Square(value=value) for value in (1, 2, 3, 4)]
    Square.broken.add(3)
    with pytest.raises(SingularKernelError, match=r"the square of 3: nothing to be had"):
        sweep(tmp_path).run(points)
    assert len(list(tmp_path.iterdir())) == 2
    Square.broken.clear()
    assert sweep(tmp_path).run(points) == sweep(tmp_path / "other").run(points)
    assert Square.computed == [1, 2, 3, 4] * 1 + [1, 2, 3, 4]


@pytest.mark.parametrize("damage", ["", "{", '{"point": {}, "result": {}}', '{"result": 1}', "[]"])
def test_a_damaged_file_is_computed_again(tmp_path, damage):
    point = Square(value=5)
    sweep(tmp_path).run([point])
    (tmp_path / f"{point.key}.json").write_text(damage)
    assert sweep(tmp_path).run([point])[point]["square"] == 25
    assert Square.computed == [5, 5]


@pytest.mark.parametrize(("name", "value"), [("result", None), ("result", {}), ("seconds", None), ("seconds", "long")])
def test_a_record_without_what_it_should_hold_is_computed_again(tmp_path, name, value):
    point = Square(value=5)
    sweep(tmp_path).run([point])
    path = tmp_path / f"{point.key}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    assert sweep(tmp_path).run([point])[point]["square"] == 25
    assert Square.computed == [5, 5]


def test_a_budget_that_is_too_small_names_the_remedy_that_there_is(tmp_path):
    with pytest.raises(MemoryBudgetError, match=r"the square of 5: .* the budget of 1 KB: raise --memory$"):
        sweep(tmp_path).run([Hungry(value=5)])


def test_what_a_point_is(monkeypatch):
    key = Square(value=1).key
    assert Square(value=1).key == key
    assert Square(value=2).key != key
    monkeypatch.setattr(Square, "revision", 2)
    assert Square(value=1).key != key


def test_keys_are_the_same_in_every_process():
    code = (
        "from recipes.reproduce.points.exact import Exact; from recipes.reproduce.points.sample import *;"
        "print(Exact(sample=Sample(data='digits', n=7), kernel=laplacian(3.0), noises=(0.0, 0.1)).key)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    from recipes.reproduce.points.exact import Exact

    assert done.stdout.strip() == Exact(sample=Sample(data="digits", n=7), kernel=laplacian(3.0), noises=(0.0, 0.1)).key


def test_what_is_kept_is_json(tmp_path):
    store = Store(tmp_path)
    kept = store.write(Square(value=1), {"a": math.nan, "b": (1, 2), "c": {"d": math.inf}}, seconds=1.5)
    assert kept == {"a": None, "b": [1, 2], "c": {"d": None}} == store.read(Square(value=1))
    record = store.record(Square(value=1))
    assert record is not None
    assert record["seconds"] == 1.5
    assert store.read(Square(value=2)) is None


def test_points_that_results_name(tmp_path):
    made = runner.Runner(Setting("tiny", Context(accelerator="cpu")), tmp_path)
    results = made.compute(Squares())
    assert [point.value for point in results] == [1, 2, 3, 4, 16]
    assert results[Square(value=16)]["square"] == 256


def test_files_of_an_experiment(kl, tmp_path, only_squares, caplog):
    result = kl("reproduce", "squares", "--log-dir", "out", "--accelerator", "cpu")
    assert result.code == 0, result.err
    folder = tmp_path / "out" / "squares-quick"
    names = {path.name for path in folder.iterdir()}
    assert names == {"results.json", "results.csv", "squares.png", "squares.svg", "events.out.tfevents.0.reproduce"}
    record = json.loads((folder / "results.json").read_text())
    assert record["points"] == 5
    assert record["comparisons"][0]["difference"] == 0
    assert record["comparisons"][0]["agrees"] is True
    assert (folder / "results.csv").read_text().splitlines()[:2] == ["value,square,data_source", "1,1,made up"]
    assert "[4/4] the square of 4" in caplog.text
    assert "[1/1] the square of 16" in caplog.text
    assert "already" not in caplog.text
    computed = list(Square.computed)
    caplog.clear()
    again = kl("reproduce", "squares", "--log-dir", "out", "--accelerator", "cpu", "--json")
    assert Square.computed == computed
    assert "the square of" not in caplog.text
    assert json.loads(again.out)["rows"] == record["rows"]


def test_tensorboard_reads_the_figure(kl, tmp_path, only_squares):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # drawn again in place of the first
        assert kl("reproduce", "squares", "--log-dir", "out", "--accelerator", "cpu").code == 0
    events = EventAccumulator(str(tmp_path / "out" / "squares-quick"))
    events.Reload()
    assert len(events.Images("squares")) == 1


def test_all_of_them_and_a_report(kl, tmp_path, only_squares):
    result = kl("reproduce", "all", "--log-dir", "out", "--accelerator", "cpu", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [each["experiment"] for each in found["experiments"]] == ["squares", "more"]
    page = (tmp_path / found["report"]).read_text()
    assert "Squares, &lt;b&gt;not&lt;/b&gt; circles" in page
    assert "<td>&lt;2&gt;</td>" in page
    assert "1 of 1 numbers that have a tolerance" in page


def test_one_that_fails_does_not_stop_the_others(kl, tmp_path, only_squares):
    Square.broken.add(2)
    result = kl("reproduce", "all", "--log-dir", "out", "--accelerator", "cpu")
    assert result.code == 1
    assert "error: 1 of 2 experiments failed: squares" in result.err
    assert (tmp_path / "out" / "more-quick" / "results.json").is_file()
    assert not (tmp_path / "out" / "squares-quick").exists()
    assert "squares failed: the square of 2: nothing to be had" in (tmp_path / "out" / "report-quick.html").read_text()


def test_without_a_name_they_are_listed(kl):
    result = kl("reproduce")
    assert result.code == 0
    assert all(name in result.out for name in NAMES)
    assert list(json.loads(kl("reproduce", "--json").out)) == NAMES == list(EXPERIMENTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["norm-grwth"], r"NAME must be all or one of .*; got 'norm-grwth' \(did you mean norm-growth\?\)"),
        (["--scale", "big"], "scale must be one of tiny, quick, full; got 'big'"),
        (["noise", "--scale", "big"], "scale must be one of tiny, quick, full; got 'big'"),
        (["noise", "--memory", "much"], "memory must be"),
        (["noise", "--accelerator", "abacus"], "accelerator must be auto, cpu or gpu; got 'abacus'"),
        (["noise", "--log-dir", "file/x"], "log_dir must be a folder that can be written"),
    ],
)
def test_mistakes(kl, tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    result = kl("reproduce", *arguments)
    assert result.code == 2
    assert re.search(f"^error: {message}", result.err)
    assert result.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_an_interrupt_loses_one_point_at_most(tmp_path):
    command = [sys.executable, "-m", "recipes", "reproduce", "convergence", "--scale", "tiny", "--accelerator", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    points = tmp_path / "a" / "points"
    with subprocess.Popen(
        [*command, "--log-dir", str(tmp_path / "a")],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where a shell runs us with "&"
    ) as started:
        while not list(points.glob("*.json")) and started.poll() is None:
            time.sleep(0.01)
        started.send_signal(signal.SIGINT)
        message = started.communicate()[1]
    assert started.returncode == 130, message
    assert message.endswith("error: interrupted\n")
    assert re.search(r"[1-3] of 4 points are kept; the same command goes on", message)
    assert "Traceback" not in message
    kept = {path: path.stat().st_mtime_ns for path in points.glob("*.json")}
    assert not list(points.glob(".*"))
    rows = []
    for name in ("a", "b"):
        subprocess.run([*command, "--log-dir", str(tmp_path / name)], check=True, capture_output=True, env=environment)
        rows.append(json.loads((tmp_path / name / "convergence-tiny" / "results.json").read_text())["rows"])
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    assert rows[0] == rows[1]


def test_full_scale_needs_the_data(kl, tmp_path, monkeypatch):
    monkeypatch.setenv("KL_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.setattr("datamodules.mnist.download", _no_network)
    result = kl("reproduce", "convergence", "--scale", "full", "--accelerator", "cpu")
    assert result.code == 2
    assert "MNIST" in result.err or "mnist" in result.err
    assert "Traceback" not in result.err


def _no_network(*_, **__):
    raise InputError("mnist is neither on disk nor could it be downloaded")


def test_quick_takes_digits_where_there_is_nothing_else(tmp_path):
    setting = Setting("quick", Context(data_dir=str(tmp_path)))
    assert setting.data("mnist") == "digits"
    assert setting.sample("mnist", 5000, 2000).n is None
    assert setting.sample("mnist", 500, 2000, seed=3) == Sample(data="digits", n=500, seed=3)
    assert setting.distinct("mnist", "fashion-mnist") == ["mnist"]
    assert Setting("full").data("mnist") == "mnist"


def test_comparisons():
    close = Comparison("error", 1.3, 1.24, "a table", "%", spread=0.1, tolerance=0.15)
    assert (close.difference, close.agrees) == (pytest.approx(0.06), True)
    assert close.cells()[:4] == ("error, %", "1.3 ± 0.1", "1.24", "+0.06")
    assert Comparison("error", 1.4, 1.24, "a table", tolerance=0.15).agrees is False
    assert Comparison("error", 1.4, 1.24, "a table").agrees is None
    missing = Comparison("epochs", None, 873, "a table", tolerance=1.0, note="not reached in 900 epochs")
    assert (missing.difference, missing.agrees) == (None, None)
    assert "not reached" in missing.cells()[1]
    assert close.cells()[4] == "within 0.15"
    assert Claim("it grows", None, "no run ended", "a figure").verdict == "cannot be told"


def test_mean_and_spread():
    assert (mean([1.0, 2.0, 3.0]), spread([1.0, 2.0, 3.0])) == (2.0, 1.0)
    assert (mean([4.0]), spread([4.0])) == (4.0, 0.0)
