"""The best epoch on the validation part: found, kept, gone on from and stopped by; and the test set, which waits."""

import json
import logging
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from processes import on_ranks, shared
from training import quiet_trainer

import kl as kernel_learning
from callbacks import BestCheckpoint, BestEpoch, ExactInterpolation, last_checkpoint
from datamodules import DigitsDataModule
from kl.errors import CheckpointError, InputError
from kl.probabilities import SCORES

# With these the validation error of digits is lowest at the second epoch: later ones fit the wrong labels.
DATA = {"train_size": 400, "test_size": 200, "label_noise": 0.3, "validation": 0.25}
OPTIONS = (
    *("--data", "digits", "--train-size", 400, "--test-size", 200, "--label-noise", 0.3, "--validation", 0.25),
    *("--kernel", "laplacian", "--bandwidth", 20, "--batch-size", 64, "--step-size", 100, "--top-q", 14),
)


class Watch(pl.Callback):
    """The values and the weights of every epoch."""

    def __init__(self):
        self.epochs, self.weights = [], []

    def on_train_epoch_end(self, trainer, machine):
        self.epochs.append({"epoch": trainer.current_epoch + 1, **machine.train_metrics, **machine.eval_metrics})
        self.weights.append(machine.alpha.clone())


def machine_of():
    return kernel_learning.KernelMachine(kernel_learning.Laplacian(20.0), batch_size=64, step_size=100.0, top_q=14)


def fit_json(kl, *arguments):
    result = kl("fit", *arguments, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def values_of(found):
    """All but what differs between equal runs."""
    own = ("log_dir", "checkpoint", "last_checkpoint", "convergence_figure", "peak_memory_bytes")
    return {name: value for name, value in found.items() if "seconds" not in name and name not in own}


def test_the_best_epoch_is_the_one_of_least_validation_error_and_its_weights_are_kept(tmp_path):
    watch, best, exact = Watch(), BestEpoch(), ExactInterpolation()
    kept = BestCheckpoint(tmp_path, best)
    trainer = quiet_trainer(
        6, enable_checkpointing=True, callbacks=[watch, exact, best, last_checkpoint(tmp_path), kept]
    )
    trainer.fit(machine_of(), datamodule=DigitsDataModule(**DATA))
    expected = min(watch.epochs, key=lambda values: (values["val/error_noisy"], values["val/mse_noisy"]))
    assert 1 < expected["epoch"] < 6
    assert {tag: best.best[tag] for tag in expected} == expected
    assert {tag: best.last[tag] for tag in expected} == watch.epochs[-1]
    assert best.best["exact/distance"] > best.last["exact/distance"] > 0
    for path, epoch in ((kept.path, expected["epoch"]), (tmp_path / "last.ckpt", 6)):
        assert torch.equal(torch.load(path, weights_only=True)["state_dict"]["alpha"], watch.weights[epoch - 1])


def test_the_test_set_is_evaluated_once_with_the_weights_of_the_best_epoch(kl, monkeypatch):
    passes = []
    loader = DigitsDataModule.test_dataloader
    monkeypatch.setattr(DigitsDataModule, "test_dataloader", lambda data: passes.append(data) or loader(data))
    found = fit_json(kl, *OPTIONS, "--epochs", 6)
    assert len(passes) == 1
    data = passes[0]
    assert (found["validation"], found["validation_rows"], found["n"]) == (0.25, 100, 300)
    assert 1 < found["best_epoch"] < found["last"]["epoch"] == found["epochs"] == 6
    assert [Path(found[name]).name for name in ("checkpoint", "last_checkpoint")] == ["best.ckpt", "last.ckpt"]
    for values, name in ((found, "checkpoint"), (found["last"], "last_checkpoint")):
        state = {
            name: value.double().numpy()
            for name, value in torch.load(found[name], weights_only=True)["state_dict"].items()
        }

        def f(x, state=state):
            x = x.double().numpy() - state["origin"]
            return np.exp(-np.linalg.norm(x[:, None] - state["centers"][None], axis=2) / 20) @ state["alpha"]

        for part, rows in (("val", data.validation_set), ("test", data.test_set)):
            if f"{part}_mse" not in values:  # of the last epoch there is no test error
                continue
            scores = f(rows.x)
            for error, y in (("error", rows.y), ("error_noisy", rows.y_noisy)):
                assert values[f"{part}_{error}"] == pytest.approx(np.mean(scores.argmax(1) != y.numpy().argmax(1)))
            assert values[f"{part}_mse"] == pytest.approx(np.mean((scores - rows.y.numpy()) ** 2), rel=1e-3)
        train = data.train_set
        assert values["train_mse"] == pytest.approx(np.mean((f(train.x) - train.y.numpy()) ** 2), rel=1e-3)
    assert not [name for name in found["last"] if "test" in name]
    assert found["val_error_noisy"] < found["last"]["val_error_noisy"]
    assert found["exact_val_error"] is not None
    assert found["exact_test_error"] is not None


@pytest.mark.slow
def test_nothing_but_the_test_errors_depends_on_the_test_set(kl):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=200) > 0).astype(int)  # some labels are wrong
    arrays = {"x_train": x[:150], "y_train": y[:150], "x_test": x[150:], "y_test": y[150:]}
    np.savez("a.npz", **arrays)
    np.savez("b.npz", **{**arrays, "y_test": 1 - y[150:]})
    options = ("--validation", 0.2, "--epochs", 5, "--kernel", "laplacian", "--bandwidth", 2, "--patience", 2)
    a, b = (values_of(fit_json(kl, "--data", f"npz:{name}.npz", *options)) for name in "ab")
    differ = {name for name in a if a[name] != b[name]} - {"data", "data_source"}
    scores = {name for name in SCORES if a[f"test_{name}"] is not None}
    assert scores == {"balanced_accuracy", "roc_auc", "log_loss", "brier", "calibration_error"}
    errors = {"test_mse", "test_error", "exact_test_mse", "exact_test_error"}
    assert differ == errors | {f"test_{name}" for name in scores}
    assert a["test_error"] + b["test_error"] == pytest.approx(1)
    np.savez("none.npz", x_train=x[:150], y_train=y[:150])
    none = values_of(fit_json(kl, "--data", "npz:none.npz", *options))
    assert none["test_error"] is none["exact_test_error"] is None
    assert {name for name in a if a[name] != none[name]} - {"data", "data_source"} == differ


@pytest.mark.slow
def test_a_resumed_run_keeps_the_best_epoch(kl):
    whole = fit_json(kl, *OPTIONS, "--epochs", 6, "--name", "whole")
    fit_json(kl, *OPTIONS, "--epochs", 4, "--name", "parts")
    elsewhere = Path(shutil.copytree("lightning_logs/parts/version_0/checkpoints", "moved"))
    parts = fit_json(kl, *OPTIONS, "--epochs", 6, "--name", "parts", "--resume", "last")
    moved = fit_json(kl, *OPTIONS, "--epochs", 6, "--name", "other", "--resume", "moved/last.ckpt")
    assert whole["best_epoch"] < 4
    for found in (parts, moved):
        assert values_of(found) == values_of(whole)
        for name in ("checkpoint", "last_checkpoint"):
            ours, theirs = (torch.load(run[name], weights_only=True)["state_dict"]["alpha"] for run in (found, whole))
            assert torch.equal(ours, theirs)
    assert Path(moved["checkpoint"]).is_relative_to(moved["log_dir"])
    (elsewhere / "best.ckpt").unlink()
    result = kl("fit", *OPTIONS, "--epochs", 6, "--name", "third", "--resume", "moved/last.ckpt")
    assert result.code == 2
    best = whole["best_epoch"]
    assert f"best epoch of the run so far is {best}, and moved/best.ckpt does not hold it: put the" in result.err
    assert not Path("lightning_logs/third").exists()
    shutil.copy(whole["last_checkpoint"], elsewhere / "best.ckpt")  # some other checkpoint
    assert (
        "does not hold it" in kl("fit", *OPTIONS, "--epochs", 6, "--name", "third", "--resume", "moved/last.ckpt").err
    )


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_best_epoch_of_a_crash_before_its_file_is_in_the_last_one(tmp_path):
    """last.ckpt is written first: after a crash between the two it is the best epoch's only file."""
    for part, epochs in (("a", 2), ("b", 3)):
        best = BestEpoch()
        kept = BestCheckpoint(tmp_path, best)
        trainer = quiet_trainer(epochs, enable_checkpointing=True, callbacks=[best, last_checkpoint(tmp_path), kept])
        resumed = {} if part == "a" else {"ckpt_path": tmp_path / "last.ckpt", "weights_only": True}
        trainer.fit(machine_of(), datamodule=DigitsDataModule(**DATA), **resumed)
        assert best.best["epoch"] == 2
        weights = torch.load(kept.path, weights_only=True)["state_dict"]["alpha"]
        if part == "a":
            expected = weights
            kept.path.unlink()
    assert torch.equal(weights, expected)


def test_patience_stops_a_run(kl):
    found = fit_json(kl, *OPTIONS, "--epochs", 30, "--patience", 2, "--no-exact")
    assert found["epochs"] == found["best_epoch"] + 2 < 30
    assert found["last"]["epoch"] == found["epochs"]
    # A run that stopped goes on: the patience that is left is none.
    more = fit_json(kl, *OPTIONS, "--epochs", 30, "--patience", 2, "--no-exact", "--resume", "last")
    assert more["epochs"] == found["epochs"] + 1


def test_an_interrupt_while_the_test_set_is_evaluated_says_what_is_left(kl, monkeypatch):
    def interrupt(data):
        raise KeyboardInterrupt

    monkeypatch.setattr(DigitsDataModule, "test_dataloader", interrupt)
    result = kl("fit", *OPTIONS, "--epochs", 2, "--no-exact")
    assert result.code != 0
    assert "interrupted: 2 finished epochs are kept, and the test set is not evaluated: go on with" in result.err


@pytest.mark.parametrize("exact", [(), ("--no-exact",)])
def test_the_table_names_both(kl, exact, caplog):
    with caplog.at_level(logging.INFO, logger="callbacks"):
        result = kl("fit", *OPTIONS, "--epochs", 4, *exact)
    assert result.code == 0, result.err
    for text in ("n=300 (100 held out)", "best epoch: 2", "last epoch: 4", "validation error, noisy labels"):
        assert text in result.out
    assert "best.ckpt" in result.out
    assert "last.ckpt" in result.out
    assert "epoch 4/4: " in caplog.text
    assert ", validation error " in caplog.text  # of the epochs' lines
    lines = [line for line in result.out.splitlines() if line.strip().startswith("test error ")]
    assert [line.count("%") for line in lines] == [1 if exact else 2]  # nothing of the last epoch


def test_one_column_where_the_last_epoch_is_the_best(kl):
    result = kl("fit", *OPTIONS, "--epochs", 1)
    assert "best epoch: 1" in result.out
    assert "last epoch: 1" not in result.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--patience", 3), "patience=3 stops by a validation part, and with validation 0 the test set would choose"),
        (("--patience", 0, "--validation", 0.1), "patience must be a whole number of epochs of at least 1; got 0"),
        (("--validation", 1), r"validation must be a fraction of the training rows in [0, 1); got 1"),
    ],
)
def test_options_out_of_range(kl, options, message):
    result = kl("fit", "--data", "digits", *options)
    assert result.code == 2
    assert message in result.err
    assert not Path("lightning_logs").exists()


def test_a_resumed_run_needs_the_same_validation_part(kl):
    fit_json(kl, *OPTIONS, "--epochs", 1, "--no-exact")
    result = kl("fit", *OPTIONS, "--epochs", 2, "--no-exact", "--validation", 0.2, "--resume", "last")
    assert result.code == 2
    assert "resume with the same" in result.err


def test_a_dry_run(kl):
    assert kl("fit", *OPTIONS, "--fast-dev-run").code == 0
    assert not list(Path().iterdir())


def test_a_choice_needs_something_to_choose_by():
    with pytest.raises(InputError, match=r"with validation=0 is of the test set: hold a part of the training rows out"):
        quiet_trainer(1, callbacks=[BestEpoch()]).fit(machine_of(), datamodule=DigitsDataModule())
    with pytest.raises(InputError, match="patience must be"):
        BestEpoch(patience=0)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"last": None}, "state of BestEpoch has no best: another version of kl wrote it"),
        ({"best": 3, "last": None}, "must have best of type dict"),
        ({"best": {"epoch": "1"}, "last": {"epoch": 1}}, "best epoch must have epoch of type int"),
    ],
)
def test_a_state_that_is_none_is_refused(state, message):
    with pytest.raises(CheckpointError, match=message):
        BestEpoch().load_state_dict(state)


def measured(*values):
    """The best of such epochs, counted from 0."""
    from callbacks.best import _merit

    return min(range(len(values)), key=lambda i: _merit(values[i], ("error", "mse")))


def test_what_is_compared():
    nan, inf = math.nan, math.inf
    assert measured({"val/error": 0.2, "val/mse": 1.0}, {"val/error": 0.1, "val/mse": 2.0}) == 1
    assert measured({"val/error": 0.1, "val/mse": 2.0}, {"val/error": 0.1, "val/mse": 1.0}) == 1
    assert measured({"val/mse": 2.0}, {"val/mse": 1.0}, {"val/mse": 1.0}) == 1
    assert measured({"val/mse": nan}, {"val/mse": inf}, {"val/mse": 1e30}) == 2
    noisy = [
        {"val/error": error, "val/mse": 1.0, "val/error_noisy": 1 - error, "val/mse_noisy": 1.0} for error in (0.1, 0.2)
    ]
    assert measured(*noisy) == 1


def chosen(folder):
    best = BestEpoch(patience=2)
    trainer = quiet_trainer(
        20,
        **shared(),
        enable_checkpointing=True,
        callbacks=[best, last_checkpoint(folder), BestCheckpoint(folder, best)],
    )
    trainer.fit(machine_of(), datamodule=DigitsDataModule(**DATA))
    return best.best, trainer.current_epoch


def test_ranks_choose_the_same_epoch(tmp_path):
    alone, ended = chosen(tmp_path / "alone")
    ranks = on_ranks(2, chosen, tmp_path / "shared")
    assert ranks[0] == ranks[1]
    assert (ranks[0][0]["epoch"], ranks[0][1]) == (alone["epoch"], ended)
    ours, theirs = (
        torch.load(tmp_path / part / "best.ckpt", weights_only=True)["state_dict"] for part in ("shared", "alone")
    )
    order, other = (state["centers"].tolist() for state in (ours, theirs))
    assert order == other
    assert torch.allclose(ours["alpha"], theirs["alpha"], atol=1e-4)
