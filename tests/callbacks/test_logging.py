"""What the callbacks log, with every logger and with none; stopping and timing."""

import io
import math
from contextlib import redirect_stderr, redirect_stdout

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from training import quiet_trainer

import callbacks
import kl
from callbacks import RKHSNorm, StopWhenInterpolated, TensorBoardLayout, Timing
from datamodules import ArrayDataModule, DigitsDataModule

SCALARS = {
    "train/mse",
    "train/error",
    "val/mse",
    "val/error",
    "rkhs/norm",
    "exact/train_mse",
    "exact/val_error",
    "exact/rkhs_norm",
    "exact/distance",
    "precond/step_size",
    "time/epoch_seconds",
    "memory/peak",
}


def fit(each, *, epochs=2, data=None, machine=None, ckpt_path=None, **options):
    data = data or DigitsDataModule(train_size=150, test_size=60)
    trainer = quiet_trainer(epochs, callbacks=each, **options)
    machine = machine or kl.KernelMachine("laplacian", batch_size=50)
    trainer.fit(machine, datamodule=data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer, machine


def every_callback(folder):
    return [
        callbacks.ConvergenceFigure(),  # before ExactInterpolation: the order must not matter
        TensorBoardLayout(),
        callbacks.ExactInterpolation(cache_dir=folder / "cache"),
        RKHSNorm(per_step=True),
        StopWhenInterpolated(mse=1e-30),
        Timing(),
        callbacks.Spectrum(),
        callbacks.ConfusionMatrix(),
        callbacks.WorstErrors(),
        callbacks.LearntFeatures(),
    ]


def regression_data():
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    return ArrayDataModule.from_arrays(x, x[:, 0].sin(), x[:20], x[:20, 0].sin())


def test_tensorboard_has_every_tag(tmp_path):
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    data = DigitsDataModule(train_size=150, test_size=60, label_noise=0.2)
    trainer, machine = fit(every_callback(tmp_path), logger=logger, log_every_n_steps=1, data=data, epochs=3)
    events = EventAccumulator(logger.log_dir, size_guidance={"tensors": 0}).Reload()
    scalars = events.Tags()["scalars"]
    assert not SCALARS - set(scalars)
    assert {f"rkhs/norm_class_{k}" for k in range(10)} <= set(scalars)
    assert set(events.Tags()["images"]) == {"precond/eigenvalues", "val/confusion", "val/worst_errors", "convergence"}
    assert len(events.Scalars("rkhs/norm")) == trainer.current_epoch > 1
    assert events.Scalars("rkhs/norm")[-1].value == pytest.approx(machine.rkhs_norm, rel=1e-6)
    assert len(events.Scalars("rkhs/norm_step")) == trainer.global_step
    assert events.Images("precond/eigenvalues")[0].step == 0
    assert events.Images("convergence")[0].step == trainer.global_step

    layouts = events.Tensors("custom_scalars__config__")
    assert len(layouts) == 1
    page = layout_pb2.Layout.FromString(layouts[0].tensor_proto.string_val[0])
    drawn = [[tag.strip("^$") for tag in chart.multiline.tag] for chart in page.category[0].chart]
    assert ["train/mse", "exact/train_mse"] in drawn
    assert ["rkhs/norm", "exact/rkhs_norm"] in drawn
    assert ["val/error", "exact/val_error"] in drawn
    assert {tag for chart in drawn for tag in chart} <= set(scalars)

    plugin = events.summary_metadata
    assert [name for name in plugin if name == "_hparams_/session_start_info"]
    start = plugin_data_pb2.HParamsPluginData.FromString(
        plugin["_hparams_/session_start_info"].plugin_data.content
    ).session_start_info.hparams
    assert start["kernel"].string_value == "laplacian"
    assert start["batch_size"].number_value == 50
    assert start["n"].number_value == 150
    assert start["label_noise"].number_value == 0.2
    for tag in ("hp/val_error", "hp/train_mse", "hp/rkhs_norm", "hp/exact_val_error", "hp/distance"):
        assert len(events.Scalars(tag)) == 1
    assert events.Scalars("hp/distance")[0].value == pytest.approx(events.Scalars("exact/distance")[-1].value, rel=1e-6)


def test_a_second_fit_on_one_logger_repeats_neither_page_nor_parameters(tmp_path):
    logger, layout = TensorBoardLogger(tmp_path, default_hp_metric=False), TensorBoardLayout()
    _, machine = fit([layout], logger=logger, log_every_n_steps=1, epochs=1)
    fit([layout], logger=logger, log_every_n_steps=1, epochs=1, machine=machine)
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir).Reload()
    assert len(events.Tensors("custom_scalars__config__")) == 1
    assert len(events.Scalars("hp/train_mse")) == 1


def test_csv_has_the_scalars_and_the_figures_are_files(tmp_path):
    logger = CSVLogger(tmp_path)
    fit(every_callback(tmp_path), logger=logger, log_every_n_steps=1)
    folder = tmp_path / "lightning_logs" / "version_0"
    header = (folder / "metrics.csv").read_text().split("\n")[0].split(",")
    assert not SCALARS - set(header)
    names = {path.name for path in (folder / "figures").iterdir()}
    assert {"precond_eigenvalues.png", "val_confusion.png", "convergence.png"} <= names


@pytest.mark.parametrize("options", [{}, {"limit_val_batches": 0}, {"max_steps": 1}, {"check_val_every_n_epoch": 5}])
def test_without_a_logger_nothing_is_written(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    trainer, _ = fit(every_callback(tmp_path / "kept"), default_root_dir=tmp_path, **options)
    assert trainer.state.finished
    assert {path.name for path in tmp_path.iterdir()} == {"kept"}


@pytest.mark.parametrize("kind", [TensorBoardLogger, CSVLogger])
def test_fast_dev_run_writes_nothing(tmp_path, kind):
    trainer, _ = fit(
        [*every_callback(tmp_path), callbacks.ProgressBar()],
        logger=kind(tmp_path),
        fast_dev_run=True,
        enable_progress_bar=True,
    )
    assert trainer.log_dir is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_regression_with_every_callback(tmp_path):
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    fit(every_callback(tmp_path), logger=logger, log_every_n_steps=1, data=regression_data())
    tags = EventAccumulator(logger.log_dir).Reload().Tags()
    assert "exact/train_mse" in tags["scalars"]
    assert not [tag for tag in tags["scalars"] if "error" in tag]
    assert set(tags["images"]) == {"precond/eigenvalues", "convergence"}


def test_rkhs_norm_without_the_classes():
    trainer, machine = fit([RKHSNorm(per_class=False)])
    assert not [tag for tag in trainer.callback_metrics if tag.startswith("rkhs/norm_")]
    x, alpha = machine.centers.double(), machine.alpha.detach()
    true = kl.rkhs_norm(machine.kernel, x, alpha)
    assert float(trainer.callback_metrics["rkhs/norm"]) == pytest.approx(true, rel=1e-5)


def test_stops_at_the_first_epoch_without_error():
    errors = []

    class Errors(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            errors.append(pl_module.train_metrics["train/error"])

    stop = StopWhenInterpolated()
    trainer, _ = fit([Errors(), stop], epochs=50, data=DigitsDataModule(train_size=200, label_noise=0.3))
    assert 1 < stop.stopped_epoch < 50
    assert trainer.current_epoch == stop.stopped_epoch
    assert len(errors) == stop.stopped_epoch
    assert errors[-1] == 0
    assert all(error > 0 for error in errors[:-1])


def test_stops_at_an_mse_and_not_before():
    stop = StopWhenInterpolated(mse=1e-4)
    trainer, machine = fit([stop], epochs=300, data=regression_data())
    assert stop.stopped_epoch == trainer.current_epoch < 300
    assert machine.train_metrics["train/mse"] <= 1e-4
    stop = StopWhenInterpolated(mse=1e-30)
    fit([stop], epochs=2, data=regression_data())
    assert stop.stopped_epoch is None


def test_a_resumed_run_keeps_the_epoch_it_was_fitted_at(tmp_path):
    data = {"data": DigitsDataModule(train_size=200, label_noise=0.3)}
    first, rest = StopWhenInterpolated(), StopWhenInterpolated()
    trainer, _ = fit([first], epochs=50, **data)
    trainer.save_checkpoint(tmp_path / "fitted.ckpt")
    trainer, _ = fit([rest], epochs=first.stopped_epoch + 2, ckpt_path=tmp_path / "fitted.ckpt", **data)
    assert rest.stopped_epoch == first.stopped_epoch > 1
    assert trainer.current_epoch == first.stopped_epoch + 2  # it has been said once, and does not stop it again


def test_min_epochs_goes_on_but_the_first_epoch_is_kept():
    stop = StopWhenInterpolated(mse=10.0)
    trainer, _ = fit([stop], epochs=5, min_epochs=3)
    assert stop.stopped_epoch == 1
    assert trainer.current_epoch == 3


def test_regression_needs_an_mse():
    with pytest.raises(kl.InputError, match="needs mse for regression"):
        fit([StopWhenInterpolated()], data=regression_data())


@pytest.mark.parametrize("mse", [0, -1.0, math.nan, math.inf, "small", True])
def test_mse_is_checked(mse):
    with pytest.raises(kl.InputError, match="mse must be"):
        StopWhenInterpolated(mse=mse)


def test_timing_leaves_out_validation_and_the_ends_of_epochs(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("callbacks.timing.time.perf_counter", lambda: clock[0])

    class Clock(pl.Callback):
        def on_train_batch_start(self, *_):
            clock[0] += 1

        def on_validation_batch_start(self, *_):
            clock[0] += 100

        def on_train_epoch_end(self, *_):
            clock[0] += 1000

    timing = Timing()
    trainer, _ = fit([Clock(), timing], epochs=3)
    assert timing.seconds_per_epoch == [3.0] * 3  # 150 rows in batches of 50
    assert float(trainer.callback_metrics["time/epoch_seconds"]) == 3
    fit([Clock(), timing], epochs=1, val_check_interval=1)
    assert timing.seconds_per_epoch == [3.0]
    assert float(trainer.callback_metrics["memory/peak"]) > 1e7


def test_progress_goes_to_standard_error_and_counts_the_whole_run():
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        trainer, machine = fit([callbacks.ProgressBar()], epochs=3, enable_progress_bar=True)
        trainer.test(machine, verbose=False, datamodule=trainer.datamodule)
        trainer.predict(machine, datamodule=trainer.datamodule)
    assert out.getvalue() == ""
    last = [line for line in err.getvalue().replace("\r", "\n").split("\n") if "epoch 3/3" in line][-1]
    assert "9/9" in last
    assert "100%" in last
    assert all(name in last for name in ("error=", "norm=", "train error=", "val error="))
    assert "v_num" not in err.getvalue()
    assert "<" in last  # time left


def test_progress_of_a_resumed_run_goes_on(tmp_path):
    trainer, _ = fit([], epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    err = io.StringIO()
    with redirect_stderr(err):
        fit([callbacks.ProgressBar()], epochs=2, enable_progress_bar=True, ckpt_path=tmp_path / "one.ckpt")
    lines = err.getvalue().replace("\r", "\n").split("\n")
    assert [line for line in lines if "epoch 2/2" in line and "6/6" in line]
    assert not [line for line in lines if "epoch 1/2" in line]


def test_progress_without_a_known_end_has_a_bar_an_epoch():
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        fit([callbacks.ProgressBar(), StopWhenInterpolated(mse=10.0)], epochs=-1, enable_progress_bar=True)
    assert "epoch 1:" in err.getvalue()
    assert "1/1" in err.getvalue()  # a training batch holds all steps of so short an epoch
    assert out.getvalue() == ""


def test_epoch_lines_leave_out_what_comes_too_soon(caplog):
    for seconds, lines in ((0.0, 3), (1e6, 0)):
        caplog.clear()
        with caplog.at_level("INFO", logger="callbacks.epoch_lines"):
            fit([callbacks.EpochLines(seconds=seconds)], epochs=3)
        assert sum("RKHS norm" in record.message for record in caplog.records) == lines


def test_epoch_lines_of_regression_have_the_test_mse(caplog):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 3, generator=generator), 1e4 * torch.randn(40, 1, generator=generator)
    data = ArrayDataModule.from_arrays(x[:30], y[:30], x[30:], y[30:])
    with caplog.at_level("INFO", logger="callbacks.epoch_lines"):
        trainer, machine = fit([callbacks.EpochLines()], epochs=1, data=data)
    [line] = [record.message for record in caplog.records if "epoch 1/1" in record.message]
    train, test = machine.train_metrics["train/mse"], float(trainer.callback_metrics["val/mse"])
    assert f"train mse {train:.3e}, test mse {test:.3e}, RKHS norm {machine.rkhs_norm:.6g}" in line
