"""`kl bench stability`: its cases, what a run records, and that an interrupted experiment goes on."""

import json
from pathlib import Path

import pytest

from recipes import stability
from recipes.stability import MADE, Case, StabilityOptions, all_cases, make_data, quick_cases, run_case, run_cases

pytestmark = pytest.mark.numeric

SMALL = [
    Case("data", "line", 40, "gaussian"),
    Case("batches", "clusters", 40, "laplacian", batch="4m*"),
    Case("ranks", "cube", 40, "sum", factor=4, top_q="large"),
]


def test_cases_are_many_and_different():
    cases = all_cases()
    assert len(cases) >= 120
    assert len({case.key for case in cases}) == len(cases)
    assert {case.kernel for case in cases} == {*stability.RADIAL, *stability.OTHERS, "sum"}
    assert {case.data for case in cases} == set(stability.DATA)
    quick = quick_cases()
    assert len({case.key for case in quick}) == len(quick) == 24
    assert {case.key for case in quick} <= {case.key for case in cases}
    assert not {case.data for case in quick} & set(stability.IMAGES)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.group)
def test_a_run_records_what_came_of_it(case):
    result = run_case(case, StabilityOptions())
    assert result["failed"] is None
    assert not result["diverged"]
    assert not result["nan"]
    assert result["train_mse"] > 0
    assert result["direct_norm"] > 0
    assert Case(**json.loads(json.dumps(result))["case"]) == case


@pytest.mark.parametrize("name", MADE)
def test_made_data(name):
    data = make_data(Case("data", name, 50, "gaussian"), None)
    data.setup()
    assert data.train_set.x.shape[0] == 50
    again = make_data(Case("data", name, 50, "gaussian"), None)
    again.setup()
    assert data.train_set.x.equal(again.train_set.x)


def test_finished_runs_are_not_done_again(tmp_path, monkeypatch):
    done = []

    def run(case, options):
        done.append(case)
        return {"case": vars(case), "failed": None, "diverged": False, "nan": False, "cuts": 0, "train_mse": 1.0}

    monkeypatch.setattr(stability, "run_case", run)
    run_cases(SMALL[:2], tmp_path, StabilityOptions())
    path = tmp_path / "runs.jsonl"
    path.write_text(path.read_text()[:-20])  # an interrupt while the second was written
    results = run_cases(SMALL, tmp_path, StabilityOptions())
    assert done == [*SMALL[:2], *SMALL[1:]]
    assert [Case(**result["case"]) for result in results] == SMALL
    run_cases(SMALL, tmp_path, StabilityOptions())
    assert len(done) == 4


def test_runs_without_data_are_left_out_and_tried_again(tmp_path):
    case = Case("data", "folder:nowhere", 20, "gaussian")
    for _ in range(2):
        assert run_cases([case], tmp_path, StabilityOptions())[0]["failed"]
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 2


def test_command_writes_table_json_csv_and_plot(kl, monkeypatch, caplog):
    monkeypatch.setattr(stability, "quick_cases", lambda: SMALL)
    result = kl("bench", "stability", "--log-dir", "here")
    assert result.code == 0, result.err
    for text in ("diverged", "step cut", "batches", "results.csv"):
        assert text in result.out
    assert "run 3/3: cube n=40 sum bandwidth x4 q=large seed 0" in caplog.text
    again = kl("bench", "stability", "--log-dir", "here", "--json")
    assert "3 of 3 runs are in here already" in caplog.text
    found = json.loads(again.out)
    assert (found["count"], found["diverged"], found["nan"]) == (3, 0, 0)
    assert {path.name for path in Path("here").iterdir()} == {
        "results.json",
        "results.csv",
        "runs.jsonl",
        "stability.png",
    }
    assert len(Path("here/results.csv").read_text().splitlines()) == 4


def test_unknown_scale(kl):
    result = kl("bench", "stability", "--scale", "huge")
    assert result.code == 2
    assert "scale must be one of quick, full; got 'huge'" in result.err
