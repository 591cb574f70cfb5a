"""EigenPro 3 and 4 under a metric that is learnt on a sample: the same run on placed rows, resuming, files, ranks."""

import logging

import numpy as np
import pytest
import torch
from processes import on_ranks, shared
from training import edited, fit, quiet_trainer

import kl
from datamodules import ArrayDataModule, StreamDataModule
from kl import FeatureOptions, GeneralKernelMachine, Laplacian
from kl.features.chain import MetricOptions
from kl.features.learning import Choice, FeatureLearning
from kl.solve import Problem
from kl.testing import check_machine

pytestmark = pytest.mark.numeric

FEATURES = FeatureOptions(rounds=2, by="loo")


def columns(n=120, d=4, seed=0, shift=0.0, **options):
    """Targets follow the first of d columns."""
    x = torch.randn(n + 40, d, generator=torch.Generator().manual_seed(seed)).double() + shift
    y = torch.sin(2 * x[:, :1])
    return ArrayDataModule.from_arrays(x[:n], y[:n], x[n:], y[n:], **options)


def machine(centers=30, **options):
    given = {"features": FEATURES, "batch_size": 20, "memory": "1GB", **options}
    return GeneralKernelMachine(kl.Laplacian(), centers, **given)


@pytest.mark.parametrize("form", [{}, {"metric": "diagonal"}, {"rounds": 1, "by": "holdout", "rows": 50}], ids=str)
def test_the_contract_of_machines(form):
    features = FeatureOptions(**{"rounds": 2, "by": "loo", **form})
    check_machine(lambda: GeneralKernelMachine(Laplacian(1.0), 20, features=features))


@pytest.mark.parametrize("metric", ["full", "diagonal"])
@pytest.mark.parametrize("period", [1, 3])
def test_it_is_the_run_on_rows_that_are_placed_by_hand(metric, period):
    data = columns()
    data.setup()
    x, y = data.train_set.x, data.train_set.y.double()
    learning = FeatureLearning(
        Problem.of(x, y), kl.Laplacian(), ridge=0.1, choice=Choice(2, "loo"), metric=MetricOptions(metric)
    )
    best = learning.run()
    assert best.metric is not None
    options = {"centers": x[:30], "projection_period": period}
    learnt = machine(**options, features={"rounds": 2, "by": "loo", "metric": metric, "ridge": 0.1})
    fit(learnt, data, 4)
    torch.testing.assert_close(learnt.root, best.metric.root)
    assert (learnt.kernel, learnt.round, list(learnt.scores)) == (best.solution.kernel, best.number, learning.scores)
    torch.testing.assert_close(learnt.importances, best.metric.importances)

    values, vectors = torch.linalg.eigh(best.metric.dense())
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T

    def place(rows):
        return (rows.double() @ root).to(rows)

    plain = GeneralKernelMachine(
        best.solution.kernel, place(x[:30]), projection_period=period, batch_size=20, memory="1GB"
    )
    fit(plain, ArrayDataModule.from_arrays(place(x), y, place(data.test_set.x), data.test_set.y), 4)
    torch.testing.assert_close(learnt.alpha, plain.alpha, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(learnt(data.test_set.x), plain(place(data.test_set.x)), rtol=1e-6, atol=1e-9)
    assert learnt.rkhs_norm == pytest.approx(plain.rkhs_norm, rel=1e-6)
    assert learnt.train_metrics["train/mse"] == pytest.approx(plain.train_metrics["train/mse"], rel=1e-5)


def test_the_metric_of_one_column_makes_the_error_smaller():
    found = []
    for features in (None, FEATURES):
        fit(trained := machine(centers=40, features=features), columns(n=300, d=8), 8)
        found.append(trained.eval_metrics["val/mse"])
    assert found[1] < 0.2 * found[0]
    assert trained.importances[0] > 0.9 * trained.importances.sum()
    assert "round" in trained.describe()
    assert GeneralKernelMachine(centers=5).learns_kernel is False


@pytest.mark.parametrize("centers_from", ["kmeans", "rpcholesky"])
def test_centers_are_chosen_among_placed_rows(centers_from):
    data = columns(shift=1e4)  # far from 0, so that there is an origin
    fit(trained := machine(centers_from=centers_from), data, 3)
    assert trained.centers.abs().max() < 10
    assert trained.eval_metrics["val/mse"] < 0.5
    if centers_from == "rpcholesky":
        placed = trained.placed(data.train_set.x)
        assert torch.cdist(trained.centers, placed).min(dim=1).values.max() < 1e-3  # cdist rounds
    with pytest.raises(kl.InputError, match="limit_centers are of a machine without a metric"):
        trained.limit_centers()


def test_the_sample_and_what_chooses(caplog):
    data = columns(n=200, validation=0.25)
    caplog.set_level(logging.INFO)
    fit(trained := machine(features={"rounds": 1, "rows": 60}), data, 2)
    assert trained.chosen_by == "validation"
    assert "round 1 is the best on 60 rows" in caplog.text
    assert len(trained.scores) == 2


@pytest.mark.parametrize("done", [1, 2])
@pytest.mark.parametrize("given", [False, True])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path, done, given, caplog):
    data = columns()
    data.setup()
    centers = data.train_set.x[5:40] if given else 30
    whole, first, rest = (machine(centers=centers, decay=0) for _ in range(3))
    fit(whole, columns(), 3)
    fit(first, columns(), done).save_checkpoint(tmp_path / "part.ckpt")
    caplog.set_level(logging.INFO)
    caplog.clear()
    fit(rest, columns(), 3, ckpt_path=tmp_path / "part.ckpt")
    assert "is the best on" not in caplog.text  # the metric is not learnt again
    for name, value in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], value), name
    loaded = GeneralKernelMachine.load_from_checkpoint(tmp_path / "part.ckpt", weights_only=True)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).double()
    assert torch.equal(loaded(x), first(x))
    assert (loaded.features, loaded.round, list(loaded.scores)) == (FEATURES, first.round, list(first.scores))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "two.ckpt"
    fit(machine(), columns(), 2).save_checkpoint(path)
    return path


DAMAGES = {
    "root NaN": (lambda c: c["state_dict"]["root"].fill_(float("nan")), "finite"),
    "root of another shape": (lambda c: c["state_dict"].update(root=torch.ones(3).double()), "root of a metric must"),
    "root float32": (lambda c: c["state_dict"].update(root=torch.ones(4)), "must be float64"),
    "no root": (lambda c: c["state_dict"].pop("root"), "without a root"),
    "round a text": (lambda c: c["kernel_machine"].update(round="one"), "round of type"),
    "round not among the scores": (lambda c: c["kernel_machine"].update(round=9), "one of its 3 rounds"),
    "scores NaN": (lambda c: c["kernel_machine"].update(scores=[float("nan")] * 3), "scores"),
    "no scores": (lambda c: c["kernel_machine"].pop("scores"), "has no scores"),
    "another chooser": (lambda c: c["kernel_machine"].update(chosen_by="luck"), "chosen_by must be one of"),
    "options unknown": (lambda c: c["kernel_machine"]["features"].update(luck=1), "features must be"),
    "options out of range": (lambda c: c["kernel_machine"]["features"].update(rounds=-1), "rounds must be"),
    "no options": (lambda c: c["kernel_machine"].update(features=None), "learns none, and this run learns a metric"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_refused(saved, tmp_path, damage):
    edit, message = DAMAGES[damage]
    path = edited(saved, tmp_path, edit)
    with pytest.raises(kl.CheckpointError, match=message) as refused:
        fit(machine(), columns(), 4, ckpt_path=path)
    assert "\n" not in str(refused.value)
    if damage != "no options":
        with pytest.raises(kl.CheckpointError):
            GeneralKernelMachine.load_from_checkpoint(path, weights_only=True)


def test_the_file_that_is_edited_is_whole(saved, tmp_path):
    trainer = fit(machine(), columns(), 4, ckpt_path=edited(saved, tmp_path, lambda checkpoint: None))
    assert trainer.current_epoch == 4


def test_other_runs_do_not_resume(saved):
    with pytest.raises(kl.CheckpointError, match="this run learns none: resume with the same features"):
        fit(machine(features=None), columns(), 4, ckpt_path=saved)
    with pytest.raises(kl.CheckpointError, match="other training data"):
        fit(machine(), columns(seed=1), 4, ckpt_path=saved)
    with pytest.raises(kl.CheckpointError, match="resume with the same kernel"):
        fit(GeneralKernelMachine(Laplacian(9.0), 30, features=FEATURES), columns(), 4, ckpt_path=saved)


def test_a_second_fit_on_other_data_starts_anew():
    trained, fresh = machine(), machine()
    fit(trained, columns(), 2)
    fit(trained, columns(seed=1), 2)
    fit(fresh, columns(seed=1), 2)
    assert torch.equal(trained.alpha, fresh.alpha)
    assert torch.equal(trained.root, fresh.root)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (3, "features must be a kl.FeatureOptions, a dict of .*, or None; got int"),
        ({"rounds": 2, "luck": 1}, "features must be .*; got 'luck'"),
        ({"rounds": 0}, "rounds must be"),
        ({"metric": "half"}, "metric must be"),
        ({"rows": 0}, "rows must be"),
        ({"ridge": -1}, "ridge must be"),
        ({"round_solver": "lu"}, "round_solver must be"),
    ],
)
def test_wrong_options(features, message):
    with pytest.raises(kl.InputError, match=message):
        machine(features=features)


def written(folder, rows=400):
    rng = np.random.default_rng(0)
    (folder / "train").mkdir(parents=True)
    for part in ("train/0", "train/1", "test"):
        x = rng.normal(size=(rows, 6))
        np.savez(folder / f"{part}.npz", x=x, y=np.sin(2 * x[:, :1]))
    return folder


def streamed(folder):
    """A stream, the metric of a sample of it; what a run and the machine of its checkpoint say."""
    trained = machine(centers=100, batch_size=40, features={"rounds": 1, "rows": 300, "by": "holdout"})
    trainer = quiet_trainer(2, **shared())
    trainer.fit(trained, datamodule=StreamDataModule(folder))
    trainer.save_checkpoint(folder / f"{trained.ranks.size}.ckpt")
    return {**trained.train_metrics, **trained.eval_metrics, "norm": trained.rkhs_norm, "scores": max(trained.scores)}


def test_a_stream_on_two_ranks(tmp_path):
    wanted = streamed(written(tmp_path / "big"))
    assert wanted["val/mse"] < 0.1
    for found in on_ranks(2, streamed, tmp_path / "big"):
        assert found == pytest.approx(wanted, rel=1e-4)
    x = torch.randn(5, 6).double()
    one, two = (
        GeneralKernelMachine.load_from_checkpoint(tmp_path / f"big/{size}.ckpt", weights_only=True)(x)
        for size in (1, 2)
    )
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
