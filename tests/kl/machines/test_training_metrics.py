"""Training metrics are over all training rows with the weights at the end of the epoch, or say that they are not."""

import json
import logging

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from training import fit, regression

from callbacks import EpochLines, StopWhenInterpolated
from callbacks.convergence import convergence_figure
from callbacks.tensorboard_layout import final_metrics
from datamodules import DigitsDataModule, IterableDataModule
from datamodules.synthetic import write_synthetic
from kl import GeneralKernelMachine, Laplacian
from kl.estimate import estimate_general
from recipes.reproduce.experiments.general.runs import run_table
from recipes.reproduce.points.general import GeneralFit
from recipes.reproduce.points.sample import Sample, laplacian
from recipes.reproduce.sweep.point import Context
from recipes.reproduce.table import rows_of


def scores(machine, x, bandwidth):
    """f(x) in float64, by the formula."""
    z = (machine.centers + machine.origin).double().numpy()
    K = np.exp(-np.linalg.norm(x.double().numpy()[:, None] - z[None], axis=2) / bandwidth)
    return K @ machine.alpha.detach().numpy()


class Epochs(pl.Callback):
    """What a machine says of each epoch, and what is true of it."""

    def __init__(self, bandwidth):
        self.bandwidth, self.said, self.true = bandwidth, [], []

    def on_train_epoch_end(self, trainer, pl_module):
        rows = trainer.datamodule.train_set
        f, y = scores(pl_module, rows.x, self.bandwidth), rows.y.double().numpy()
        wrong = np.mean(f.argmax(axis=1) != y.argmax(axis=1))
        self.said.append(dict(pl_module.train_metrics))
        self.true.append({"train/mse": np.mean((f - y) ** 2), "train/error": wrong})


@pytest.mark.parametrize("period", [1, 3])
@pytest.mark.parametrize("options", [{}, {"augment": "shift:1"}, {"label_noise": 0.2}])
def test_metrics_of_eigenpro_3_and_4_are_those_of_the_weights(period, options):
    epochs = Epochs(3.0)
    machine = GeneralKernelMachine(Laplacian(3.0), 60, projection_period=period, batch_size=70)
    fit(machine, DigitsDataModule(train_size=300, test_size=20, **options), 2, callbacks=[epochs])
    for said, true in zip(epochs.said, epochs.true, strict=True):
        assert said == pytest.approx(true, rel=1e-4)


def test_rows_are_taken_a_few_at_a_time(monkeypatch):
    """And encoded or not, shifted or not, they are the same."""
    monkeypatch.setattr("kl.general.machine.EVALUATED_ROWS", 32)
    epochs = Epochs(1.5)
    data = regression(n=100, d=4, c=2)
    data.setup()
    data.train_set.x += 50
    fit(GeneralKernelMachine(Laplacian(1.5), 30, batch_size=16), data, 2, callbacks=[epochs])
    assert [said["train/mse"] for said in epochs.said] == pytest.approx(
        [true["train/mse"] for true in epochs.true], rel=1e-3
    )


def test_running_metrics_are_means_over_the_batches_and_are_called_so():
    rows = regression(n=60, c=2)
    machine = GeneralKernelMachine(Laplacian(1.5), 20, batch_size=60, decay=0, running_metrics=True)
    trainer = fit(machine, rows, 1)
    zero = float(rows.train_set.y.square().mean())  # one batch, before its step: f = 0
    assert machine.train_metrics == {"train/mse_running": pytest.approx(zero, rel=1e-6)}
    assert final_metrics(trainer, machine)["hp/train_mse_running"] == pytest.approx(zero, rel=1e-6)


def stream(n=90):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n + 20, 4, generator=generator)
    y = torch.nn.functional.one_hot((x[:, 0] > 0).long(), 2).float()
    return IterableDataModule([(x[:n], y[:n])], (x[:n], y[:n]), (x[n:], y[n:]), n)


def test_metrics_of_a_stream_say_that_they_are_means(caplog):
    caplog.set_level(logging.INFO)
    machine = GeneralKernelMachine(Laplacian(1.5), 40, batch_size=30)
    fit(machine, stream(), 2, callbacks=[EpochLines()])
    assert set(machine.train_metrics) == {"train/mse_running", "train/error_running"}
    assert "train mse over the batches" in caplog.text
    assert "train error over the batches" in caplog.text
    assert "train mse 0" not in caplog.text


@pytest.mark.parametrize(("mse", "epochs"), [(None, 30), (0.2, 3)])
def test_a_stream_stops_by_its_means(mse, epochs):
    stop = StopWhenInterpolated(mse=mse)
    machine = GeneralKernelMachine(Laplacian(1.5), 60, batch_size=30, decay=0)
    trainer = fit(machine, stream(60), 60, callbacks=[stop])
    assert trainer.current_epoch == stop.stopped_epoch <= epochs
    assert machine.train_metrics["train/error_running"] == 0 or machine.train_metrics["train/mse_running"] <= mse


def test_stopping_looks_at_the_weights_of_the_end():
    """The mean over the first epoch's batches is above this mse, that of the weights after it below."""
    data = regression(n=60, c=1)
    epochs = Epochs(1.5)
    fit(GeneralKernelMachine(Laplacian(1.5), 60, batch_size=10, decay=0), data, 1, callbacks=[epochs])
    running = GeneralKernelMachine(Laplacian(1.5), 60, batch_size=10, decay=0, running_metrics=True)
    fit(running, data, 1)
    mse = 1.1 * epochs.true[0]["train/mse"]
    assert mse < 0.5 * running.train_metrics["train/mse_running"]
    stop = StopWhenInterpolated(mse=mse)
    fit(GeneralKernelMachine(Laplacian(1.5), 60, batch_size=10, decay=0), data, 5, callbacks=[stop])
    assert stop.stopped_epoch == 1


def test_the_figure_of_a_stream_names_the_mean():
    figure = convergence_figure({"train/mse_running": [(1, 0.1)], "rkhs/norm": [(1, 3.0)]}, {})
    left = figure.axes[0]
    assert left.get_title(loc="left") == "Train mse over the batches"
    assert left.lines[0].get_ydata().tolist() == [0.1]


def test_the_report_has_the_right_numbers(kl, tmp_path):
    """The means over the batches of this epoch are 2.534e-02 and 9.32%."""
    options = ("fit", "--data", "digits", "--centers", 300, "--epochs", 1, "--no-exact", "--bandwidth", 3.067)
    found = json.loads(kl(*options, "--solver", "eigenpro4", "--json").out)
    assert found["train_mse"] == pytest.approx(1.100e-2, rel=0.02)
    assert found["train_error"] == pytest.approx(0.0160, abs=0.002)
    assert found["train_mse_running"] is None


def test_the_report_of_a_stream_names_the_means(kl, tmp_path):
    write_synthetic(tmp_path / "big", kind=1, rows=400, test_rows=50, shard_rows=200)
    options = ("fit", "--data", f"stream:{tmp_path / 'big'}", "--solver", "eigenpro4", "--centers", 30, "--epochs", 1)
    result = kl(*options)
    assert "train mse, mean over the epoch's batches" in result.out
    assert "train error, mean over the epoch's batches" in result.out
    found = json.loads(kl(*options, "--json").out)
    assert (found["train_mse"], found["train_error"]) == (None, None)
    assert 0 < found["train_mse_running"] < 1
    assert 0 <= found["train_error_running"] <= 1


def test_a_plan_counts_the_pass_over_all_rows():
    data = DigitsDataModule(train_size=300)
    data.setup()
    seconds = []
    for running in (False, True):
        machine = GeneralKernelMachine(Laplacian(3.0), 60, running_metrics=running)
        machine.take(data)
        seconds.append(estimate_general(machine, data.train_set.x, 300)["seconds_training_error"])
    assert seconds[0] > 0
    assert seconds[1] == 0


def test_a_plan_names_the_pass(kl):
    result = kl("plan", "--data", "digits", "--train-size", 300, "--solver", "eigenpro4", "--centers", 60, "--json")
    found = json.loads(result.out)
    parts = ("seconds_per_epoch", "seconds_norm", "seconds_training_error")
    assert found["seconds_training_error"] > 0
    total = found["seconds_planning"] + 10 * sum(found[name] for name in parts)
    assert found["seconds_total"] == pytest.approx(total)


def test_records_of_reproduce_say_which_they_are():
    point = GeneralFit(sample=Sample(data="digits", n=150), kernel=laplacian(3.0), centers=30, epochs=1)
    result = point.run(Context(accelerator="cpu"))
    (row,) = rows_of(run_table("part", {"name": point}, {point: result}))
    assert row["train_mse"] == result["final"]["train/mse"]
    assert row["train_mse_running"] is None
    result.pop("train_metrics")  # as in the results of record
    (row,) = rows_of(run_table("part", {"name": point}, {point: result}))
    assert row["train_mse"] is None
    assert row["train_mse_running"] == result["final"]["train/mse"]
