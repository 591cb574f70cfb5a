"""`kl bench`: its table, its JSON, its folder, and what it refuses."""

import json
from pathlib import Path

import pytest

FAST = ("--data", "digits", "--train-size", 120)
TOP = {"schema", "command", "commit", "date", "machine", "data", "options", "sizes", "log_dir", "measurements"}
ROW = {"part", "name", "n", "d", "seconds", "ratio", "against", "target", "met", "error", "detail", "mm_ratio"}


def test_json_and_folder(kl):
    result = kl("bench", *FAST, "--only", "limit,exact", "--json")
    assert result.code == 0, result.err
    assert result.out.count("\n") == 1
    found = json.loads(result.out)
    assert set(found) == TOP | {"seconds_total"}
    assert {"cpu", "cores", "torch", "gpu"} <= set(found["machine"])
    assert (found["data"]["name"], found["data"]["n"], found["data"]["d"]) == ("digits", 120, 64)
    assert all(set(row) == ROW for row in found["measurements"])
    assert {row["part"] for row in found["measurements"]} == {"limit", "exact"}
    assert not [row["error"] for row in found["measurements"] if row["error"]]
    folder = Path(found["log_dir"])
    assert folder == Path("lightning_logs/bench/version_0")
    assert json.loads((folder / "results.json").read_text()) == found
    assert (folder / "results.png").read_bytes().startswith(b"\x89PNG")


def test_table(kl, caplog):
    result = kl("bench", *FAST, "--only", "limit,exact", "--log-dir", "mine")
    assert result.code == 0, result.err
    for text in ("digits  n=120 d=64 c=10", "limit: plain products", "ratio to KernelRidge", "results: mine/results"):
        assert text in result.out
    assert "[1/3] limit: float32 mm of the same flops; about" in caplog.text
    assert Path("mine/results.json").is_file()


def test_a_task_that_fails_does_not_stop_the_others(kl, monkeypatch):
    monkeypatch.setattr("recipes.bench.parts.exact.relative_residual", lambda *_: 1 / 0)
    found = json.loads(kl("bench", *FAST, "--only", "limit,exact", "--json").out)
    errors = {row["error"] for row in found["measurements"] if row["part"] == "exact"}
    assert errors == {"ZeroDivisionError: division by zero"}
    assert any(row["part"] == "limit" and row["seconds"] > 0 for row in found["measurements"])


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--scale", "huge"], ["scale must be one of quick, full", "'huge'"]),
        (["--only", "limit,speed"], ["only must be parts of limit, epochs", "'speed'"]),
        (["--only", ""], ["only must be parts of"]),
        (["--time-limit", "0"], ["time_limit must be", "got 0"]),
        (["--time-limit", "nan"], ["time_limit must be", "nan"]),
        (["--accelerator", "tpu"], ["accelerator must be auto, cpu or gpu"]),
        (["--peer-python", "/no/python"], ["peer_python must be the path", "/no/python"]),
        (["--train-size", "0"], ["train_size", "got 0"]),
        (["--train-size", "9999999"], ["train_size", "9999999"]),
        (["--data", "mnits"], ["did you mean 'mnist'"]),
        (["--seed", "-1"], ["seed"]),
        (["--log-dir", "/proc/none"], ["log_dir"]),
    ],
)
def test_errors(kl, arguments, fragments):
    result = kl("bench", *(() if "--data" in arguments else ("--data", "digits")), *arguments)
    assert result.code == 2, result.err
    assert result.err.count("\n") == 1
    for fragment in fragments:
        assert fragment in result.err
    assert result.out == ""
    assert not Path("lightning_logs").exists()


def test_help_and_config_of_the_group(kl):
    shown = kl("bench", "--help")
    assert shown.code == 0
    assert "--time-limit" in shown.out
    printed = kl("bench", *FAST, "--print-config")
    assert "train_size: 120" in printed.out
    assert not Path("lightning_logs").exists()


def test_a_sub_command_runs_alone(kl):
    shown = kl("bench", "distributed", "--help")
    assert shown.code == 0, shown.err
    assert "--log-dir" in shown.out
