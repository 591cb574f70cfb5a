"""What ranks exchange, as counted and by formula; the model of many devices; `kl bench distributed`."""

import json
import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
from processes import on_ranks, shared
from training import quiet_trainer, regression

import kl
from kl.distributed.scaling import Device, Link, Problem, exchange_dominates_from, exchange_seconds, predict, step_bytes
from recipes.bench.distributed.command import DistributedOptions, choose_series

EIGENPRO_2 = Problem(n=10_000, d=100, c=10, m=500, s=1000, q=60)
DEVICE, LINK = Device(flops=1e12, bandwidth=1e11, memory=10**9, overhead=0.0), Link(bandwidth=1e9, latency=1e-5)


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
    letters = {"m": machine.batch_rows, "s": len(machine.vectors), "q": len(machine.weights)}
    period = machine.period if centers else None
    problem = Problem(n=400, d=40, c=machine.alpha.shape[1], **letters, p=centers, period=period)
    return counted.received / counted.steps, step_bytes(problem, float(keep))


def counts():
    return [count(keep, centers) for keep, centers in ((False, None), (True, None), (False, 200))]


def test_counted_bytes_are_those_of_the_formula():
    """But for shares of a batch that are not equally large: the largest counts for all."""
    for counted, formula in on_ranks(2, counts)[0]:
        assert formula <= counted + 16  # the sum of the loss is not in the general models' formula
        assert counted <= 1.25 * formula


def test_bytes_of_a_step():
    assert step_bytes(EIGENPRO_2) == 500 * (404 + 40) + 4 * 60 * 10 + 88
    assert step_bytes(EIGENPRO_2, kept=1.0) == 500 * 40 + 4 * 60 * 10 + 88
    coded = Problem(**{**vars(EIGENPRO_2), "coded": True})
    assert step_bytes(coded) == 500 * (112 + 32 + 40) + 4 * 60 * 10 + 88
    general = Problem(**{**vars(EIGENPRO_2), "p": 2000, "period": 10})
    assert step_bytes(general) == 500 * (400 + 40) + 4 * 60 * 10 + 16 * 2000 * 10 / 10


def test_one_device_exchanges_nothing():
    found = predict(EIGENPRO_2, DEVICE, LINK, 1)
    assert found.exchange == 0
    values = 500 * 10_000
    flops = values * (2 * 100 + 2 * 10) + 500 * 4 * 1000 * 10 + 6 * 1000 * 60 * 10
    assert found.keeps_kernel  # 0.4 of 1 GB
    small = predict(EIGENPRO_2, Device(1e12, 1e11, 10**8, 0.0), LINK, 1)
    assert not small.keeps_kernel
    assert small.computing == pytest.approx(flops / 1e12)
    assert small.epoch == pytest.approx(20 * small.computing)
    assert found.computing == pytest.approx(4 * values / 1e11)  # read from memory


def test_computing_shrinks_with_ranks_and_the_exchange_does_not():
    tiny = Device(1e12, 1e11, 0, 0.0)
    one, two, four = (predict(EIGENPRO_2, tiny, LINK, ranks) for ranks in (1, 2, 4))
    assert one.computing > two.computing > four.computing > one.computing / 5
    assert four.exchange > two.exchange > 0
    assert four.memory < two.memory < one.memory
    seconds = exchange_seconds(EIGENPRO_2, LINK, 4, kept=False)
    assert exchange_seconds(EIGENPRO_2, LINK, 4, kept=True) < seconds
    assert exchange_seconds(EIGENPRO_2, LINK, 4, False, on_cpu=True) == pytest.approx(seconds + 2 * LINK.latency)


def test_where_the_exchange_takes_over():
    tiny = Device(1e12, 1e11, 0, 0.0)
    ranks = exchange_dominates_from(EIGENPRO_2, tiny, LINK)
    at, before = predict(EIGENPRO_2, tiny, LINK, ranks), predict(EIGENPRO_2, tiny, LINK, ranks // 2)
    assert at.exchange > at.computing
    assert before.exchange <= before.computing
    larger = Problem(**{**vars(EIGENPRO_2), "n": 1_000_000})
    assert exchange_dominates_from(larger, tiny, LINK) > ranks
    assert exchange_dominates_from(EIGENPRO_2, tiny, Link(math.inf, 0.0)) is None


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--scale", "huge"], ["scale must be one of quick, full", "'huge'"]),
        (["--ranks", "two"], ["ranks must be auto, or whole numbers such as 1,2,4", "'two'"]),
        (["--ranks", "0"], ["ranks must be auto"]),
        (["--ranks", "100000"], ["ranks must be at most", "100000"]),
        (["--accelerator", "tpu"], ["accelerator must be auto, cpu or gpu"]),
        (["--seed", "-1"], ["seed must be a whole number of at least 0; got -1"]),
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
        "stated, not measured",
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
    assert all(run["seconds"] > 0 and run["predicted_seconds"] > 0 for run in found["runs"])
