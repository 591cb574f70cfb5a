"""`kl fit --learn-features` and what the other commands do with it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

DIGITS = ("--data", "digits", "--train-size", 120, "--test-size", 60)
FAST = (*DIGITS, "--learn-features", 2, "--by", "holdout")
TABLE = ("--data", "csv:houses.csv", "--target", "price", "--learn-features", 2, "--by", "holdout")


def fit_json(kl, *arguments):
    result = kl("fit", *arguments, "--json")
    assert result.code == 0, result.err
    assert result.out.count("\n") == 1
    return json.loads(result.out)


@pytest.fixture
def houses(tmp_path):
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"area": rng.normal(size=150), "noise": rng.normal(size=150)})
    rows["town"] = rng.choice(["Ulm", "Bonn", "Kiel"], 150)
    rows["price"] = 100 + 30 * np.sin(rows["area"]) + 20 * (rows["town"] == "Ulm")
    rows.to_csv(tmp_path / "houses.csv", index=False)
    return rows


def test_the_report(kl, caplog):
    caplog.set_level("INFO")
    result = kl("fit", *FAST)
    assert result.code == 0, result.err
    for text in (
        "recursive feature machine, ",
        "of at most 2 rounds of a full metric, chosen by holdout",
        "exact limit: the kernel is learnt",
        "test error",
        "checkpoint:",
        "features:    lightning_logs/digits-laplacian/version_0/figures/features.png",
    ):
        assert text in result.out
    for number in range(3):
        assert f"round {number}: Laplacian(bandwidth=" in caplog.text
    assert Path("lightning_logs/digits-laplacian/version_0/figures/features.svg").is_file()


@pytest.mark.parametrize("metric", [pytest.param("full", marks=pytest.mark.slow), "diagonal"])
def test_json_of_images(kl, metric):
    found = fit_json(kl, *FAST, "--metric", metric)
    assert found["solver"] == "recursive feature machine"
    assert found["test_error"] < 0.2
    assert len(found["round_scores"]) <= 3
    assert found["round"] == int(np.argmin(found["round_scores"]))
    assert len(found["feature_importances"]) == 64
    assert sum(found["feature_importances"]) == pytest.approx(1)
    assert found["epochs"] == len(found["round_scores"]) + 1
    picture = Path(found["features_figure"])
    assert picture.is_absolute()
    assert picture.is_file()
    assert picture.is_relative_to(found["log_dir"])
    events = EventAccumulator(found["log_dir"]).Reload()
    assert {"features/score", "features/effective_rank", "features/bandwidth"} <= set(events.Tags()["scalars"])
    assert [event.value for event in events.Scalars("features/score")][:-1] == pytest.approx(found["round_scores"])
    assert "features" in events.Tags()["images"]


def test_json_of_a_table_and_predictions(kl, houses):
    found = fit_json(kl, *TABLE)
    shares = found["feature_importances"]
    assert list(shares) == ["area", "noise", "town"]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["noise"] < 0.1
    houses.drop(columns="price").to_csv("new.csv", index=False)
    result = kl("predict", found["checkpoint"], "--input", "new.csv", "--output", "out.csv")
    assert result.code == 0, result.err
    predicted = pd.read_csv("out.csv")["output_price"]
    assert np.sqrt(np.mean((predicted - houses["price"]) ** 2)) < 5
    assert kl("export", found["checkpoint"], "--output", "small.ckpt").code == 0
    assert kl("predict", "small.ckpt", "--input", "new.csv", "--output", "small.csv").code == 0
    np.testing.assert_allclose(pd.read_csv("small.csv")["output_price"], predicted, rtol=1e-6)


def test_other_solvers_have_no_rounds(kl):
    found = fit_json(kl, *DIGITS, "--epochs", 1, "--no-exact")
    names = ("round", "round_scores", "round_ridge", "feature_importances", "features_figure")
    assert [found[name] for name in names] == [None] * 5
    assert "features:" not in kl("fit", *DIGITS, "--epochs", 1, "--no-exact").out
    assert not list(Path("lightning_logs").rglob("features.*"))


def test_fast_dev_run(kl):
    found = fit_json(kl, *FAST, "--fast-dev-run")
    assert (found["round"], found["features_figure"]) == (0, None)
    assert len(found["feature_importances"]) == 64


@pytest.mark.slow
def test_solver_rfm_is_the_same(kl):
    found = fit_json(kl, *DIGITS, "--solver", "rfm", "--by", "holdout")
    assert 1 <= len(found["round_scores"]) <= 6


@pytest.mark.slow
def test_a_validation_part_chooses(kl):
    found = fit_json(kl, *DIGITS, "--learn-features", 2, "--validation", 0.25)
    assert found["validation_rows"] == 30
    assert found["round"] == int(np.argmin(found["round_scores"])) == found["best_epoch"] - 1
    assert found["val_mse"] == pytest.approx(min(found["round_scores"]))
    assert found["test_error"] < 0.2
    assert Path(found["features_figure"]).is_file()


def interrupted(monkeypatch, after):
    """End training as Ctrl-C does, when so many epochs are done."""
    from callbacks import LearntFeatures

    plain = LearntFeatures.on_train_epoch_start

    def stop(self, trainer, pl_module):
        if trainer.current_epoch == after:
            raise KeyboardInterrupt
        plain(self, trainer, pl_module)

    monkeypatch.setattr(LearntFeatures, "on_train_epoch_start", stop)


@pytest.mark.parametrize("after", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_resumed_it_ends_with_the_same_weights_to_the_bit(kl, monkeypatch, after):
    whole = fit_json(kl, *FAST, "--name", "whole")
    with monkeypatch.context() as patch:
        interrupted(patch, after)
        result = kl("fit", *FAST, "--name", "part")
        assert result.code == 130
        assert "--resume last" in result.err
    rest = fit_json(kl, *FAST, "--name", "part", "--resume", "last")
    ours, theirs = (torch.load(each["checkpoint"], weights_only=True) for each in (whole, rest))
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    for name, value in ours["state_dict"].items():
        assert torch.equal(value, theirs["state_dict"][name]), name
    assert ours["callbacks"]["LearntFeatures"] == theirs["callbacks"]["LearntFeatures"]
    for name in ("round", "round_scores", "feature_importances", "test_error", "rkhs_norm"):
        assert rest[name] == whole[name]


@pytest.mark.slow
def test_the_same_command_does_not_resume_a_run_that_has_ended(kl):
    fit_json(kl, *FAST, "--name", "done")
    result = kl("fit", *FAST, "--name", "done", "--resume", "last")
    assert (result.code, result.err.count("\n")) == (2, 1)


@pytest.mark.slow
def test_the_config_of_a_run_repeats_it(kl):
    first = fit_json(kl, *FAST)
    config = Path(first["log_dir"]) / "config.yaml"
    again = fit_json(kl, "--config", config)
    assert again["round_scores"] == first["round_scores"]


@pytest.mark.parametrize("options", [(), ("--round-solver", "eigenpro"), ("--metric", "diagonal")])
def test_kl_plan(kl, options):
    result = kl("plan", *FAST, *options)
    assert result.code == 0, result.err
    assert "a round by eigenpro" in result.out if "eigenpro" in options else "a round by direct" in result.out
    assert "training data, centres and metric" in result.out
    found = json.loads(kl("plan", *FAST, *options, "--json").out)
    assert found["chains"] == 1
    assert found["seconds_total"] > 2 * found["seconds_per_epoch"] > 0
    assert not Path("lightning_logs").exists()


GENERAL = (*FAST, "--solver", "eigenpro4", "--centers", 40, "--epochs", 3)


@pytest.mark.slow
def test_centers_of_their_own_under_a_learnt_metric(kl):
    """The metric is learnt before training on all rows; the figure, predictions and the resumed run know it."""
    found = fit_json(kl, *GENERAL, "--name", "general", "--ridge", 0.1)
    assert (found["ridge"], found["round_ridge"]) == (0, 0.1)  # EigenPro has no ridge
    assert found["solver"] in ("EigenPro 3", "EigenPro 4")
    assert len(found["round_scores"]) <= 3
    assert len(found["feature_importances"]) == 64
    assert found["test_error"] < 0.3
    run = Path(found["log_dir"])
    assert (run / "figures/features.svg").is_file()
    np.savez("x.npz", x=np.random.default_rng(0).uniform(size=(3, 64)).astype("float32"))
    result = kl("predict", run / "checkpoints/last.ckpt", "--input", "x.npz", "--output", "out.csv")
    assert result.code == 0, result.err
    assert len(pd.read_csv("out.csv")) == 3
    more = fit_json(kl, *GENERAL[:-1], 4, "--name", "general", "--ridge", 0.1, "--resume", "last")
    assert more["round_scores"] == found["round_scores"]


def test_a_plan_of_centers_under_a_learnt_metric(kl):
    result = kl("plan", *GENERAL)
    assert result.code == 0, result.err
    assert "3 rounds of 1 fit(s) by direct on 120 rows" in result.out
    found = json.loads(kl("plan", *GENERAL, "--json").out)
    assert found["seconds_total"] > found["seconds_rounds"] > 0


@pytest.mark.slow
def test_a_stream_under_a_learnt_metric(kl):
    rng = np.random.default_rng(0)
    Path("big/train").mkdir(parents=True)
    for part in ("train/0", "train/1", "test"):
        x = rng.normal(size=(300, 6)).astype("float32")
        np.savez(f"big/{part}.npz", x=x, y=np.sin(2 * x[:, :1]))
    options = ("--data", "stream:big", "--solver", "eigenpro4", "--centers", 100, "--epochs", 3)
    plain, learnt = (fit_json(kl, *options, *more) for more in ((), ("--learn-features", 1)))
    assert learnt["test_mse"] < 0.2 * plain["test_mse"]
    assert learnt["round"] == 1


KERNEL = """
from dataclasses import dataclass
import kl

@dataclass(frozen=True)
class Cauchy(kl.RadialKernel):
    def _profile(self, sq_dist):
        return sq_dist.div_(self.bandwidth**2).add_(1).reciprocal_()
"""


@pytest.mark.parametrize("command", ["fit", "plan"])
@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (("--learn-features", 0), ("learn_features must be",)),
        (("--learn-features", 2, "--solver", "pcg"), ("--round-solver", "pcg")),
        (("--learn-features", 2, "--epochs", 3), ("epochs", "--round-epochs")),
        (("--learn-features", 2, "--metric", "half"), ("metric must be", "full, diagonal")),
        (("--learn-features", 2, "--metric-power", 0), ("metric_power must be", "above 0")),
        (("--solver", "eigenpro4", "--learn-features", 2, "--metric-power", -1), ("metric_power must be",)),
        (("--metric", "diagonal"), ("metric", "--solver rfm")),
        (("--learn-features", 2, "--by", "cv"), ("by must be", "kfold")),
        (("--learn-features", 2, "--centers", 20), ("centers is for", "eigenpro3")),
        (("--solver", "eigenpro4", "--metric", "diagonal"), ("metric", "--learn-features")),
        (("--solver", "eigenpro4", "--ridge", 0.1), ("ridge is for the rounds of --learn-features",)),
        (("--solver", "eigenpro4", "--learn-features", 0), ("learn_features must be",)),
        (("--solver", "eigenpro4", "--learn-features", 2, "--by", "cv"), ("by must be", "kfold")),
        (("--learn-features", 2, "--round-solver", "lu"), ("round_solver must be", "direct")),
        (("--learn-features", 2, "--round-epochs", 0), ("round_epochs must be",)),
        (("--learn-features", 2, "--precision", "medium"), ("precision must be", "unrounded")),
        (("--learn-features", 2, "--kernel", "mine:Cauchy", "--bandwidth", 2), ("Cauchy", "_slope")),
        (("--learn-features", 2, "--batch-size", 20), ("batch_size is for",)),
        (("--learn-features", 2, "--memory", "1KB"), ("raise --memory",)),
        (("--learn-features", 2, "--round-solver", "eigenpro", "--by", "loo"), ("by must be", "holdout")),
    ],
    ids=lambda each: " ".join(map(str, each)),
)
def test_wrong_input_is_one_line(kl, command, options, texts):
    Path("mine.py").write_text(KERNEL)
    result = kl(command, *DIGITS, *options)
    assert result.code in (1, 2)
    errors = [line for line in result.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, result.err
    assert all(text in errors[0] for text in texts), errors[0]
    assert "Traceback" not in result.err
    assert not Path("lightning_logs").exists()
