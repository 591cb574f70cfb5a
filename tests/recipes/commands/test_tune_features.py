"""`kl tune --learn-features`: its table, its folder, what kl fit makes of it, and what it refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

TABLE = ("--data", "csv:waves.csv", "--target", "height", "--learn-features", 2, "--candidates", 3)


@pytest.fixture
def waves(kl):
    """A table of 100 rows in waves.csv, whose height follows two of five columns."""
    x = np.random.default_rng(0).normal(size=(100, 5))
    frame = pd.DataFrame(x, columns=list("abcde"))
    frame["height"] = 10 * np.sin(2 * frame.a) * frame.b + 100
    frame.to_csv("waves.csv", index=False)
    return frame


def test_a_table_from_the_search_to_kl_fit(kl, waves, caplog):
    result = kl("tune", *TABLE, "--name", "t")
    assert result.code == 0, result.err
    assert "waves  n=80 d=5 c=1  on 5 parts of 80 rows, " in result.out
    assert "mse of round 0" in result.out
    assert "candidate 3 of 3, about 0" in caplog.text
    folder = Path("lightning_logs/tune/t")
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "results.csv", "results.json"]
    found = json.loads((folder / "results.json").read_text())
    best = found["best"]
    assert best in found["points"]
    assert len(found["points"]) == 3
    assert best["mse"] == min(best["mse_of_rounds"]) < best["mse_of_rounds"][0]
    assert 0.5 < best["mse"] / found["test_mse"] < 20  # both in the unit of height, whose variance is about 25
    assert f"mse {found['test_mse']:.3e}" in result.out
    with (folder / "results.csv").open() as file:
        assert [float(row["mse"]) for row in csv.DictReader(file)] == [each["mse"] for each in found["points"]]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["learn_features"] == 2
    for name in ("metric", "bandwidth_factor", "ridge"):
        assert config[name] == best[name]
    assert config["metric_power"] == best["power"]
    fitted = json.loads(kl("fit", "--config", folder / "config.yaml", "--json").out)
    assert fitted["test_mse"] == pytest.approx(found["test_mse"], rel=1e-3)


def test_the_plain_kernel_if_no_metric_is_better(kl, waves, monkeypatch):
    """Then config.yaml has its bandwidth as a number."""
    from kl.tuning.features import FeatureCandidate

    monkeypatch.setattr(FeatureCandidate, "errors", lambda self, *_: [self.ridge, 2.0])
    found = json.loads(kl("tune", *TABLE, "--name", "t", "--json").out)
    config = yaml.safe_load(Path("lightning_logs/tune/t/config.yaml").read_text())
    assert "learn_features" not in config
    assert isinstance(config["bandwidth"], float)
    exact = json.loads(kl("interpolate", "--config", "lightning_logs/tune/t/config.yaml", "--json").out)
    assert exact["test_mse"] == pytest.approx(found["test_mse"], rel=1e-6)


def test_classes_and_kernels(kl):
    options = ("--data", "digits", "--train-size", 60, "--test-size", 50, "--learn-features", 1, "--candidates", 2)
    result = kl("tune", *options, "--kernels", "gaussian", "--subsample", 40, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert (found["rows"], found["best"]["kernel"]) == (40, "gaussian")
    assert found["test_error"] < 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ridges", "1"), "ridges is not for learn_features, whose search draws it; got 1: leave it out"),
        (("--by", "kfold"), "by is not for learn_features"),
        (("--validation", 0.1), "validation rows would go unused"),
        (("--learn-features", 0), "learn_features must be a whole number, 1 or above; got 0"),
        (("--candidates", 0), "candidates must be a whole number, 1 or above; got 0"),
        (("--kernels", "none"), "unknown kernel 'none'"),
        (("--train-size", 10), "x must have at least 20 rows"),
    ],
)
def test_wrong_options(kl, options, message):
    result = kl("tune", "--data", "digits", "--learn-features", 2, *options)
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("error: ")
    assert message in result.err
    assert "Traceback" not in result.err


def test_candidates_without_rounds(kl):
    result = kl("tune", "--data", "digits", "--candidates", 5)
    assert result.code == 2
    assert "candidates is for learn_features; got 5: give --learn-features 5 as well" in result.err
