"""What ranks send each other, as counted and by the formula of docs/how/devices.md; `kl bench distributed`."""

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
from processes import on_ranks, shared
from training import quiet_trainer, regression

import kl
from recipes.bench.distributed.command import DistributedOptions, choose_series


class Counted(pl.Callback):
    """Bytes received in the steps of the last epoch."""

    def on_train_epoch_start(self, trainer, machine):
        self.before = machine.ranks.received

    def on_train_batch_end(self, trainer, machine, outputs, batch, index):
        self.received = machine.ranks.received - self.before
        self.steps = index + 1


def count(keep, centers):
    """Bytes a step, as counted and by formula."""
    data, counted = regression(n=400, d=40, test=4), Counted()
    common = {"batch_size": 50, "subsample": 100, "memory": "1GB"}
    if centers:
        machine = kl.GeneralKernelMachine(kl.Laplacian(5.0), centers, projection_period=4, **common)
    else:
        machine = kl.KernelMachine(kl.Laplacian(5.0), **common)
    if not keep:
        machine.on_train_start = lambda: None
    trainer = quiet_trainer(2, callbacks=[counted], **shared())
    trainer.fit(machine, datamodule=data)
    d, c, m, q = 40, machine.alpha.shape[1], machine.batch_rows, len(machine.weights)
    if centers:
        formula = m * (4 * d + 4 * c) + 4 * q * c + 16 * centers * c / machine.period
    else:
        formula = m * ((0 if keep else 4 * d + 4) + 4 * c) + 4 * q * c + 8 * c + 8
    return counted.received / counted.steps, formula


def counts():
    return [count(keep, centers) for keep, centers in ((False, None), (True, None), (False, 200))]


def test_counted_bytes_are_those_of_the_formula():
    """But for shares of a batch that are not equally large: the largest counts for all."""
    for counted, formula in on_ranks(2, counts)[0]:
        assert formula <= counted + 16  # the sum of the loss is not in the general models' formula
        assert counted <= 1.25 * formula


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--scale", "huge"], ["scale must be one of quick, full", "'huge'"]),
        (["--ranks", "two"], ["ranks must be auto, or whole numbers such as 1,2,4", "'two'"]),
        (["--ranks", "0"], ["ranks must be auto"]),
        (["--ranks", "100000"], ["ranks must be at most", "100000"]),
        (["--accelerator", "tpu"], ["accelerator must be auto, cpu or gpu"]),
        (["--seed", "-1"], ["seed must be a whole number from 0 to 2^63 - 1; got -1"]),
        (["--data", "nosuch"], ["'nosuch'"]),
        (["--data", "digits", "--train-size", "0"], ["train_size", "got 0"]),
        (["--data", "digits", "--train-size", "2000"], ["train_size", "1437", "2000"]),
    ],
)
def test_wrong_input(kl, arguments, fragments):
    result = kl("bench", "distributed", "--accelerator", "cpu", *arguments)
    assert result.code == 2
    assert not Path("lightning_logs").exists()
    for fragment in fragments:
        assert fragment in result.err


def seen(series, ranks, **values):
    """A run as a child reports it."""
    link = {"bandwidth": 1e9, "latency": 1e-4} if ranks > 1 else {}
    sizes = {"batch_size": 100, "q": 20, "s": 100, "d": 784, "c": 10, "coded": True, "period": None, "steps": 4}
    times = {
        "device": "cpu",
        "seconds": 0.8 / ranks + 0.1,
        "in_collectives": 0.1,
        "received": 1e5,
        "plain": 0.5 / ranks,
    }
    n = series.rows * (ranks if series.weak else 1)
    return {"series": vars(series), "ranks": ranks, "n": n, "error": None, **sizes, **times, "link": link, **values}


def test_the_report(kl, monkeypatch):
    def run_one(options, series, ranks, threads, accelerator):
        if series.keep and ranks == 2:
            return {"series": vars(series), "ranks": ranks, "n": series.rows, "error": "timed out after 1 s"}
        return seen(series, ranks)

    monkeypatch.setattr("recipes.bench.distributed.command.run_one", run_one)
    command = (
        "bench",
        "distributed",
        "--data",
        "digits",
        "--accelerator",
        "cpu",
        "--ranks",
        "1,2",
        "--log-dir",
        "here",
    )
    result = kl(*command, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    strong = [run for run in found["runs"] if run["series"]["name"] == "strong, EigenPro 2, K not kept"]
    assert strong[1]["speedup"] == pytest.approx(0.9 / 0.5)
    assert strong[1]["efficiency"] == pytest.approx(0.9)
    weak = [run for run in found["runs"] if run["series"]["weak"]]
    assert weak[1]["n"] == 2 * weak[0]["n"]
    assert json.loads(Path("here/results.json").read_text()) == found
    assert Path("here/results.png").read_bytes().startswith(b"\x89PNG")
    table = kl(*command).out
    for text in (
        "timed out after 1 s",
        "90%",
        "weak, EigenPro 2",
        "results: here/results.json",
    ):
        assert text in table


def test_the_data_limits_the_runs():
    options = DistributedOptions(scale="full")
    assert {series.rows for series in choose_series(options, rows=60_000, ranks=2)} == {20_000, 10_000}
    assert [series.rows for series in choose_series(options, rows=1437, ranks=8)] == [1437, 1437, 1437, 179]
    assert [series.rows for series in choose_series(options, rows=3, ranks=8)] == [3, 3, 3, 1]


def test_no_run_at_all_is_an_error(kl, monkeypatch):
    def run_one(options, series, ranks, threads, accelerator):
        return {"series": vars(series), "ranks": ranks, "n": series.rows, "error": "timed out after 1 s"}

    monkeypatch.setattr("recipes.bench.distributed.command.run_one", run_one)
    result = kl("bench", "distributed", "--data", "digits", "--accelerator", "cpu", "--ranks", "1", "--log-dir", "here")
    assert (result.code, "error: no run could be measured: timed out after 1 s" in result.err) == (1, True)
    assert not Path("here").exists()


@pytest.mark.slow
def test_it_runs(kl):
    result = kl("bench", "distributed", "--data", "digits", "--train-size", 400, "--ranks", "1,2", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [run["ranks"] for run in found["runs"]] == [1, 2] * 4
    assert not [run["error"] for run in found["runs"] if run["error"]]
    assert all(run["seconds"] > 0 for run in found["runs"])
