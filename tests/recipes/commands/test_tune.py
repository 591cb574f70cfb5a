"""`kl tune`: its table, its folder, how an interrupted search goes on, and what it refuses."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

from kl.tuning import search

FAST = ("--data", "digits", "--train-size", 120, "--test-size", 60)
GRID = ("--kernels", "laplacian,gaussian", "--bandwidths", "2,4", "--ridges", "0,1e-3,1")


def test_table_folder_and_what_kl_fit_and_kl_interpolate_make_of_it(kl, caplog):
    result = kl("tune", *FAST, *GRID)
    assert result.code == 0, result.err
    assert "digits  n=120 d=64 c=10  by loo on 120 rows, 12 candidates" in result.out
    assert "test of the first, solved on all rows: error" in result.out
    assert "tuning on all rows: 4 of 4 kernels and bandwidths" in caplog.text
    folder = Path("lightning_logs/tune/digits")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.yaml",
        "points",
        "results.csv",
        "results.json",
        "tune.png",
    ]
    assert (folder / "tune.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((folder / "results.json").read_text())
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mse"]) for row in rows] == [each["mse"] for each in found["points"]]
    assert found["best"] == min(found["points"], key=lambda each: each["mse"])
    config = yaml.safe_load((folder / "config.yaml").read_text())
    best = found["best"]
    assert (config["kernel"], config["bandwidth"], config["ridge"]) == (
        best["kernel"],
        best["bandwidth"],
        best["ridge"],
    )
    solved = json.loads(kl("interpolate", "--config", folder / "config.yaml", "--json").out)
    assert (solved["kernel"], solved["bandwidth"], solved["ridge"], solved["n"]) == (
        best["kernel"],
        best["bandwidth"],
        best["ridge"],
        120,
    )
    assert solved["test_mse"] == pytest.approx(found["test_mse"])
    assert solved["rkhs_norm"] == pytest.approx(best["rkhs_norm"], rel=1e-6)
    trained = kl("fit", "--config", folder / "config.yaml", "--fast-dev-run", "--json")
    assert trained.code == 0, trained.err
    assert json.loads(trained.out)["bandwidth"] == best["bandwidth"]


def test_kl_fit_and_kl_interpolate_read_the_solution_of_the_best(kl, monkeypatch, caplog):
    from kl.exact import limit

    solve, solves = limit.interpolate, []
    monkeypatch.setattr(limit, "interpolate", lambda *args, **options: solves.append(1) or solve(*args, **options))
    kl("tune", "--data", "digits", "--train-size", 121, "--test-size", 60, *GRID)
    config = ("--config", "lightning_logs/tune/digits/config.yaml")
    assert len(solves) == 1
    assert json.loads(kl("fit", *config, "--epochs", 1, "--json").out)["exact_loo_error"] < 0.5
    assert "read from" in kl("interpolate", *config).out
    assert len(solves) == 1
    assert "solving" not in caplog.text


def test_json_is_one_object(kl):
    result = kl("tune", *FAST, *GRID, "--by", "kfold", "--folds", 4, "--metric", "log_loss", "--json")
    assert result.code == 0, result.err
    assert result.out.count("\n") == 1
    found = json.loads(result.out)
    assert (found["by"], found["metric"], found["stage"]) == ("kfold", "log_loss", "all rows")
    assert len(found["points"]) == 12
    assert found["best"]["score"] == min(each["log_loss"] for each in found["points"])
    assert {"test_mse", "test_error", "seconds_tuning", "remarks", "commit"} <= set(found)


def test_two_stages_one_standard_error_and_parameters_of_kernels(kl, monkeypatch):
    monkeypatch.setattr(search, "SUBSAMPLE_ROWS", 60)
    options = ("--kernels", "gaussian,relu-ntk", "--depth", 2, "--ridges", "0,0.1", "--one-standard-error", "--json")
    found = json.loads(kl("tune", *FAST, *options).out)
    assert {(each["stage"], each["rows"]) for each in found["points"]} == {("subsample", 60), ("all rows", 120)}
    assert found["stage"] == found["best"]["stage"] == "all rows"
    ntk = [each for each in found["points"] if each["kernel"] == "relu-ntk"]
    assert all(each["kernel_parameters"]["depth"] == 2 and each["bandwidth"] is None for each in ntk)


def test_a_validation_part_is_what_scores_are_taken_on(kl):
    found = json.loads(kl("tune", *FAST, *GRID, "--validation", 0.25, "--json").out)
    assert (found["by"], found["n"]) == ("validation", 90)
    best = found["best"]
    solved = json.loads(kl("interpolate", "--config", "lightning_logs/tune/digits/config.yaml", "--json").out)
    assert solved["val_mse"] == pytest.approx(best["mse"], rel=1e-6)
    assert solved["val_error"] == best["error"]


def test_the_same_command_goes_on_after_an_interrupt(kl, monkeypatch):
    wanted = json.loads(kl("tune", *FAST, *GRID, "--log-dir", "whole", "--json").out)
    score, done = search.score_all, []

    def interrupted(problem, kernel, ridges):
        done.append(kernel)
        if len(done) == 3:
            raise KeyboardInterrupt
        return score(problem, kernel, ridges)

    monkeypatch.setattr(search, "score_all", interrupted)
    stopped = kl("tune", *FAST, *GRID)
    assert stopped.code == 130
    folder = Path("lightning_logs/tune/digits")
    assert [path.name for path in folder.iterdir()] == ["points"]
    assert len(list((folder / "points").iterdir())) == 2
    found = json.loads(kl("tune", *FAST, *GRID, "--json").out)
    assert len(done) == 3 + 2
    assert found["points"] == wanted["points"]
    assert json.loads(kl("tune", *FAST, *GRID, "--json").out)["points"] == wanted["points"]
    assert len(done) == 5
    kl("tune", *FAST[:3], 110, *GRID, "--json")  # other rows
    assert len(done) == 9


def test_the_defaults_are_those_of_python():
    from kl.tuning.tune import KERNELS, RIDGES
    from recipes.commands.tune import TuneOptions, build_kernels, read_ridges

    assert tuple(each.name for each in build_kernels(TuneOptions())) == KERNELS
    assert tuple(read_ridges(TuneOptions())) == RIDGES


def test_kernels_of_a_file_run_no_code(kl):
    Path("mine.py").write_text("from pathlib import Path\nPath('it_ran').touch()\n")
    Path("options.yaml").write_text("kernels: laplacian,mine:K\n")
    result = kl("tune", "--config", "options.yaml")
    assert result.code == 2
    assert "add --kernels laplacian,mine:K" in result.err
    assert not Path("it_ran").exists()


def test_a_kernel_of_ones_own(kl):
    Path("mine.py").write_text(
        "import dataclasses, kl\n\n\n@dataclasses.dataclass(frozen=True)\nclass Wide(kl.Gaussian):\n    pass\n"
    )
    result = kl("tune", *FAST, "--kernels", "mine:Wide,gaussian", "--bandwidths", 3, "--ridges", 0, "--json")
    assert result.code == 0, result.err
    first, second = json.loads(result.out)["points"]
    assert (first["kernel"], second["kernel"]) == ("mine:Wide", "gaussian")
    assert first["mse"] == second["mse"]
    config = yaml.safe_load(Path("lightning_logs/tune/digits/config.yaml").read_text())
    assert config["kernel"] == json.loads(result.out)["best"]["kernel"]


def test_numbers(kl):
    import numpy as np

    x = torch.randn(80, 3, generator=torch.Generator().manual_seed(0)).numpy()
    np.savez("data.npz", x_train=x[:60], y_train=np.sin(x[:60, 0]), x_test=x[60:], y_test=np.sin(x[60:, 0]))
    result = kl("tune", "--data", "npz:data.npz", *GRID)
    assert result.code == 0, result.err
    assert "error" not in result.out.replace("standard error", "")
    assert Path("lightning_logs/tune/npz-data.npz/results.json").exists()


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (("--kernels", "laplacian,nothing"), "unknown kernel 'nothing'", 2),
        (("--kernels", "laplacian,,gaussian"), "kernels must be separated by commas, none of them empty", 2),
        (("--kernels", ""), "kernels must be separated by commas, none of them empty; got ''", 2),
        (("--bandwidths", "wide"), "bandwidths must be numbers separated by commas; got 'wide'", 2),
        (
            ("--bandwidths", "1,-2"),
            "bandwidths must be a finite number above 0; got -2.0: leave it out, or give auto",
            2,
        ),
        (
            ("--ridges", "0,-1"),
            "ridges must be a finite number, 0 or above; got -1.0: leave it out; 0 is without a ridge",
            2,
        ),
        (("--ridges", ""), "ridges must be separated by commas", 2),
        (("--by", "cv"), "by must be one of auto, loo, kfold, validation; got 'cv'", 2),
        (("--by", "validation"), "give --validation 0.1 as well", 2),
        (("--by", "loo", "--validation", 0.1), "leave --validation out", 2),
        (("--by", "kfold", "--folds", 1), "folds must be at least 2", 2),
        (("--metric", "auc"), "metric must be one of auto, mse, error, log_loss; got 'auc'", 2),
        (("--subsample", "some"), "subsample must be a whole number or auto; got 'some'", 2),
        (("--finalists", 0), "finalists must be a whole number, 1 or above; got 0", 2),
        (("--depth", 3), "depth must be a parameter of one of the kernels; got kernels laplacian", 2),
        (("--precision", "medium"), "precision must be high", 2),
        (("--name", ".."), "name must be the name of a folder", 2),
        (("--log-dir", "/proc/none"), "log_dir must be a folder that can be written", 2),
        (("--train-size", 1), "the training set of digits must hold at least two classes", 2),
        (("--memory", "1KB"), "more than the budget of 1 KB", 1),
    ],
)
def test_what_is_refused_leaves_nothing_behind(kl, options, message, code):
    arguments = ("--data", "digits", *(() if "--train-size" in options else ("--train-size", 60)), *options)
    result = kl("tune", *arguments)
    assert result.code == code, result.err
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert result.out == ""
    assert not Path("lightning_logs").exists()
