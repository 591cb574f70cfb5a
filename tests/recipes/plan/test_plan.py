"""`kl plan`: what it says before a run, and that `kl fit` then does just that."""

import json
import math
from pathlib import Path

import pytest
from training import memory_for

from datamodules import DigitsDataModule
from kl import KernelMachine
from kl.estimate import epoch_flops, estimate_training
from kl.exact.patience import Patience

FAST = ("--data", "digits", "--train-size", 300, "--test-size", 100)


@pytest.fixture(autouse=True)
def _no_kept_solution(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def plan_json(kl, *arguments):
    result = kl("plan", *arguments, "--json")
    assert result.code == 0, result.err
    assert result.out.count("\n") == 1
    return json.loads(result.out)


def test_json_and_fit_agree(kl):
    found = plan_json(kl, *FAST)
    assert not Path("lightning_logs").exists()
    assert found["memory_total"] == sum(found["memory_items"].values()) <= found["memory_budget"]
    assert found["kept_rows"] == found["n"] == 300
    assert found["exact"]["solver"] == "direct"
    seconds = [value for name, value in found.items() if name.startswith("seconds_")]
    assert all(value > 0 for value in seconds)
    done = json.loads(kl("fit", *FAST, "--epochs", 1, "--no-exact", "--json").out)
    for name in ("batch_size", "critical_batch_size", "top_q", "subsample", "step_size", "bandwidth", "n", "d", "c"):
        assert found[name] == done[name]


def test_all_seconds_are_in_the_total(kl):
    found = plan_json(kl, *FAST, "--epochs", 7)
    epoch = found["seconds_per_epoch"] + found["seconds_training_error"] + found["seconds_evaluation"]
    before = found["seconds_reading_data"] + found["seconds_planning"] + found["seconds_filling"]
    assert found["exact"]["seconds"] > 0
    assert found["seconds_total"] == pytest.approx(before + 7 * epoch + found["exact"]["seconds"], rel=1e-9)
    without = plan_json(kl, *FAST, "--epochs", 7, "--no-exact")
    assert without["exact"] is None
    epoch = without["seconds_per_epoch"] + without["seconds_training_error"] + without["seconds_evaluation"]
    assert without["seconds_total"] == pytest.approx(without["seconds_setup"] + 7 * epoch, rel=1e-9)


def test_an_exact_limit_that_is_kept_takes_no_time(kl):
    assert kl("fit", *FAST, "--epochs", 1).code == 0
    found = plan_json(kl, *FAST)
    assert found["exact"] == {"solver": None, "memory": None, "seconds": 0, "cached": True, "left_out": None}
    assert "exact limit (kept)" in kl("plan", *FAST).out


def test_an_exact_limit_that_fit_leaves_out_takes_no_time(kl, monkeypatch, caplog):
    monkeypatch.setattr("callbacks.exact_interpolation.Patience", lambda *_: Patience(max_rows=299))
    found = plan_json(kl, *FAST)
    assert (found["exact"]["solver"], found["exact"]["seconds"]) == (None, 0)
    planned = [each for each in caplog.messages if "left out" in each]
    assert "n=300 training rows are more than max_rows=299" in found["exact"]["left_out"]
    caplog.clear()
    assert kl("fit", *FAST, "--epochs", 1).code == 0
    assert [each for each in caplog.messages if "exact interpolation: left out" in each] == planned
    assert "exact limit (left out)" in kl("plan", *FAST).out


def test_conjugate_gradients(kl):
    found = plan_json(kl, *FAST, "--solver", "pcg", "--epochs", 7)
    assert found["solver"] == "conjugate gradients"
    assert found["memory_total"] == sum(found["memory_items"].values()) <= found["memory_budget"]
    assert found["preconditioner_rank"] == 32
    total = found["seconds_planning"] + found["seconds_filling"] + 7 * found["seconds_per_epoch"]
    assert found["seconds_total"] == pytest.approx(total, rel=1e-9)
    shown = kl("plan", *FAST, "--solver", "pcg").out
    assert "an epoch, one iteration" in shown
    assert "kept part of its lower triangle" in shown


def test_a_batch_has_at_most_the_rows_of_an_epoch(kl):
    found = plan_json(kl, *FAST, "--solver", "eigenpro4", "--centers", 50, "--batch-size", 10**9)
    assert found["batch_size"] == 300
    assert found["steps_per_epoch"] == 1


def test_table(kl):
    result = kl("plan", *FAST, "--no-exact")
    assert result.code == 0, result.err
    for text in ("training data", "total", "budget", "critical batch m*", "all rows", "part of K", "an epoch's steps"):
        assert text in result.out
    assert "exact limit" not in result.out


def test_without_and_with_part_of_the_kernel_matrix(kl):
    whole = plan_json(kl, *FAST, "--subsample", 50, "--no-exact")
    least = sum(size for name, size in whole["memory_items"].items() if "kept" not in name)
    none = plan_json(kl, *FAST, "--subsample", 50, "--no-exact", "--memory", least)
    assert none["kept_rows"] == 0
    assert none["seconds_filling"] == 0
    part = plan_json(kl, *FAST, "--subsample", 50, "--no-exact", "--memory", least + 4 * 300 * 150)
    assert 0 < part["kept_rows"] < 300
    assert part["flops_per_epoch"] < none["flops_per_epoch"]
    assert part["kernel_values_per_second"] > 0


@pytest.mark.parametrize("command", ["plan", "fit"])
def test_a_budget_too_small_is_refused_before_anything_is_written(kl, command):
    result = kl(command, *FAST, "--memory", "20KB")
    assert result.code == 1
    assert result.out == ""
    errors = [line for line in result.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "more than the budget of 20 KB: raise --memory to" in errors[0]
    assert list(Path().iterdir()) == []


def test_measuring_leaves_the_machine_as_it_was():
    data = DigitsDataModule(train_size=200, test_size=20, batch_size=None)
    data.setup()
    machine = KernelMachine("laplacian", subsample=50, memory="5MB")
    machine.prepare(data.train_set.x, data.train_set.y)
    found = estimate_training(machine, data.train_set, data.test_set.x)
    assert not machine.alpha.any()
    assert not machine.fitted.flush().any()
    assert not machine.fitted.sq_norm.any()
    assert len(machine.fitted.matrix.kept) == 0
    assert all(math.isfinite(value) and value > 0 for name, value in found.items() if name != "bytes_per_step")
    assert found["bytes_per_step"] == 0
    assert estimate_training(machine, data.train_set)["seconds_evaluation"] == 0


@pytest.mark.parametrize("kept", [0, 60, 200])
def test_a_timed_step_reads_as_many_kept_rows_as_a_step_of_the_run(kept, monkeypatch):
    data = DigitsDataModule(train_size=200, test_size=20)
    data.setup()
    memory = memory_for(200, 64, 10, 50, kept_rows=kept, columns=True, integers=1)
    machine = KernelMachine("laplacian", subsample=50, batch_size=50, memory=memory)
    machine.prepare(data.train_set.x, data.train_set.y)
    assert machine.memory.kept_rows == kept
    seen = []

    def step(iteration, rows):
        seen.append((len(rows), int((rows < len(iteration.fitted.matrix.kept)).sum())))

    monkeypatch.setattr("kl.estimate.KEPT_VALUES", 1)
    monkeypatch.setattr("kl.eigenpro.iteration.EigenProIteration.step", step)
    estimate_training(machine, data.train_set)
    assert set(seen) == {(50, 50 * kept // 200)}


def test_flops_of_an_epoch():
    n, d, c, s, q, m = 100, 5, 2, 10, 3, 20
    products = 2 * n * n * c + 4 * n * s * c + 5 * 6 * c * s * q
    assert epoch_flops(n, d, c, s, q, m, kept_rows=n, keep_columns=True) == products
    assert epoch_flops(n, d, c, s, q, m, kept_rows=0, keep_columns=True) == products + 2 * d * n * n
    assert epoch_flops(n, d, c, s, q, m, kept_rows=50, keep_columns=False) == products + d * n * n + 2 * s * d * n
