"""`kl bench tables`: a run on two generated tables, what it keeps, and what it refuses."""

import csv
import json
from pathlib import Path

import pytest

from recipes.bench.tables.protocol import Protocol

TWO = ("--sets", "wave,halves", "--methods", "kl,ridge", "--log-dir", "out")


def test_a_run_and_its_resumption(kl, folder, monkeypatch, caplog):
    """The second run finds all cells of the first but one. They are measured in this process, which saves imports."""
    from recipes.bench.tables import cells

    monkeypatch.setattr("recipes.bench.tables.worker.Worker.measure", lambda _, asked: cells.measure(asked))
    run = ("bench", "tables", "--data-dir", folder, *TWO)
    result = kl(*run)
    assert result.code == 0, result.err
    for text in ("2 sets, 8 fits", "24 candidates", "wave", "rmse", "halves", "mean rank", "critical difference of"):
        assert text in result.out
    assert "[1/8] wave, split 0: kl; about" in caplog.text
    found = json.loads(Path("out/results.json").read_text())
    assert [(each["set"], each["method"], each["failures"]) for each in found["summary"]] == [
        *(("wave", "kl", 0), ("wave", "ridge", 0), ("halves", "kl", 0), ("halves", "ridge", 0))
    ]
    assert all(each["mean"] is not None and each["seconds"] > 0 for each in found["summary"])
    assert found["sets"]["wave"] == {"metric": "rmse", "train_rows": 40, "features": 2}
    rows = list(csv.DictReader(Path("out/results.csv").read_text().splitlines()))
    assert [row["value"] for row in rows] == [str(cell["value"]) for cell in found["cells"]]
    assert Path("out/ranks.png").read_bytes().startswith(b"\x89PNG")

    gone = Path("out/cells/halves/ridge-1.json")
    gone.unlink()
    asked = []

    def measure(self, each):
        asked.append((each.set, each.method, each.split))
        return cells.ended(each, "failed", "ValueError: broken")

    monkeypatch.setattr("recipes.bench.tables.worker.Worker.measure", measure)
    again = json.loads(kl(*run, "--json").out)
    assert asked == [("halves", "ridge", 1)]
    assert again["cells"][:-1] == found["cells"][:-1]
    assert again["cells"][-1]["reason"] == "ValueError: broken"
    assert again["summary"][-1]["failures"] == 1
    assert dict(zip(again["ranks"]["methods"], again["ranks"]["mean_ranks"], strict=True))["ridge"] >= 1.5
    assert "7 of 8 fits are in out" in caplog.text
    first = json.loads(kl(*run, "--splits", "1", "--json").out)
    assert [(cell["set"], cell["split"]) for cell in first["cells"]] == [*(("wave", 0),) * 2, *(("halves", 0),) * 2]
    said = kl(*run)
    assert said.code == 0
    assert len(asked) == 2  # what failed is tried again
    assert "(1 of 2 failed)" in said.out
    assert "failed: ridge on halves: ValueError: broken" in said.out


def test_the_seconds_of_a_scale_can_be_changed():
    """A method is stopped after as many times these seconds as before."""
    changed = Protocol.of("full").within(300)
    assert (changed.seconds, changed.hard_seconds) == (300, 1800)
    assert "none begun after 300 s" in changed.budget
    assert "After 1800 s" in changed.budget


@pytest.mark.slow
def test_a_run_in_its_own_process(kl, folder):
    found = json.loads(kl("bench", "tables", "--data-dir", folder, *TWO, "--json").out)
    assert [cell["state"] for cell in found["cells"]] == ["done"] * 8


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--sets", "wave,wine"], ["sets must be of wave, halves", "'wine'"]),
        ([], ["got 'yacht', which --scale quick takes"]),
        (["--sets", "wave", "--methods", "kl,forest"], ["methods must be of kl, svm, ridge", "'forest'"]),
        (["--sets", "wave", "--scale", "huge"], ["scale must be one of quick, medium, full", "'huge'"]),
        (["--sets", "wave", "--splits", "0"], ["splits must be", "got 0"]),
        (["--sets", "wave", "--seed", "-1"], ["seed"]),
        (["--sets", "wave", "--seconds", "0"], ["seconds must be a finite number above 0", "got 0"]),
        (["--sets", "wave", "--log-dir", "/proc/no"], ["log_dir must be a folder that can be written"]),
        (["--data-dir", "nowhere"], ["data_dir must be a folder with uci/NAME.npz", "nowhere", "give --data-dir"]),
    ],
)
def test_wrong_input_is_one_line(kl, folder, arguments, fragments):
    data = () if "--data-dir" in arguments else ("--data-dir", folder)
    result = kl("bench", "tables", *data, *arguments)
    assert result.code == 2
    assert all(fragment in result.err for fragment in fragments), result.err
    assert result.err.count("\n") == 1
