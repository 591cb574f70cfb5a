"""The recursive feature machine under Lightning: the contract, checkpoints, and the choice of the round."""

import pytest
import torch
from training import edited, fit, regression

import kl
from datamodules import ArrayDataModule
from kl import Laplacian, RecursiveFeatureMachine
from kl.features.learning import Choice, FeatureLearning
from kl.solve import Problem
from kl.testing import check_machine

pytestmark = pytest.mark.numeric

EIGENPRO = {"round_solver": "eigenpro", "by": "holdout", "round_epochs": 200}


@pytest.mark.parametrize(
    "options",
    [{}, {"metric": "diagonal"}, {"by": "holdout"}, {"by": "loo"}, {"round_solver": "pcg"}, EIGENPRO],
    ids=str,
)
def test_the_contract_of_machines(options):
    check_machine(lambda: RecursiveFeatureMachine(Laplacian(1.0), rounds=2, **options))


def columns(n=60, d=4, seed=0, **options):
    """Targets follow the first of d columns."""
    x = torch.randn(n + 20, d, generator=torch.Generator().manual_seed(seed))
    y = torch.sin(2 * x[:, :1])
    return ArrayDataModule.from_arrays(x[:n], y[:n], x[n:], y[n:], **options)


def machine(**options):
    return RecursiveFeatureMachine(**{"kernel": Laplacian(1.0), "rounds": 2, "by": "loo", **options})


def test_it_equals_the_rounds_without_lightning():
    data = columns()
    trained = machine(rounds=3, by="kfold")
    trainer = fit(trained, data, 10)
    x, y = data.train_set.x, data.train_set.y.double()
    problem = Problem.of(x, y, torch.ones(len(x), dtype=torch.float64))
    learning = FeatureLearning(problem, Laplacian(1.0), ridge=0.0, choice=Choice(3, "kfold"))
    best = learning.run()
    assert (trained.round, trained.scores) == (best.number, learning.scores)
    torch.testing.assert_close(trained.root, best.metric.root)
    assert trainer.current_epoch == len(learning.scores) + 1
    estimator = kl.RFMRegressor(Laplacian(1.0), rounds=3, by="kfold", ridge=0.0).fit(x.numpy(), y[:, 0].numpy())
    torch.testing.assert_close(
        trained.importances / trained.importances.sum(),
        torch.from_numpy(estimator.feature_importances_),
        atol=0.05,
        rtol=0,  # the estimator standardises its targets
    )


def test_the_column_that_counts_is_found():
    fit(trained := machine(), columns(), 4)
    assert trained.round > 0
    assert trained.importances[0] > 0.9 * trained.importances.sum()
    assert trained.describe().startswith(f"round {trained.round} of at most 2 rounds of a full metric")


def test_before_training_there_are_no_importances():
    with pytest.raises(kl.InputError, match="holds no weights"):
        _ = machine().importances
    fit(plain := machine(), columns(), 1)
    assert plain.round == 0
    assert plain.importances.tolist() == [1.0] * 4


def test_a_validation_part_chooses_the_round():
    data = columns(n=80, validation=0.25)
    fit(trained := machine(by="auto", rounds=3), data, 10)
    assert trained.learning.by == "validation"
    assert trained.describe().endswith("chosen by validation")
    assert len(trained.centers) == 60  # the validation rows choose, and are no centres
    held = data.val_set
    for score, epochs in zip(trained.scores, range(1, 10), strict=False):
        fit(upto := machine(by="auto", rounds=3), data, epochs)
        with torch.no_grad():
            assert float((upto(held.x) - held.y).square().mean()) == pytest.approx(score, rel=1e-3)
    assert trained.round == min(range(len(trained.scores)), key=trained.scores.__getitem__)


def test_noisy_labels_of_the_validation_part_choose():
    x = torch.randn(80, 3, generator=torch.Generator().manual_seed(0))
    labels = (x[:, 0] > 0).long()
    noisy = ArrayDataModule.from_arrays(x, labels, validation=0.25, label_noise=0.3)
    fit(trained := machine(by="auto"), noisy, 4)
    held, y = noisy.val_set, trained._held_out[1]
    assert torch.equal(y, held.y_noisy.double())
    assert not torch.equal(y, held.y.double())


@pytest.mark.parametrize("done", [1, 2, 3])
@pytest.mark.parametrize("by", ["loo", "holdout", "kfold"])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path, by, done):
    whole, first, rest = (machine(by=by) for _ in range(3))
    fit(whole, columns(), 4)
    fit(first, columns(), done).save_checkpoint(tmp_path / "part.ckpt")
    fit(rest, columns(), 4, ckpt_path=tmp_path / "part.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], value), name
    assert (rest.round, rest.scores, rest.kernel) == (whole.round, whole.scores, whole.kernel)
    loaded = RecursiveFeatureMachine.load_from_checkpoint(tmp_path / "part.ckpt", weights_only=True)
    assert loaded.round == first.round
    assert torch.equal(loaded.importances, first.importances)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded(x), first(x))


def test_a_bandwidth_of_its_own_in_each_round_is_resumed(tmp_path):
    whole, first, rest = (RecursiveFeatureMachine(rounds=2, by="loo") for _ in range(3))
    fit(whole, columns(), 4)
    fit(first, columns(), 2).save_checkpoint(tmp_path / "part.ckpt")
    fit(rest, columns(), 4, ckpt_path=tmp_path / "part.ckpt")
    assert torch.equal(rest.alpha, whole.alpha)
    assert rest.kernel == whole.kernel
    plain = RecursiveFeatureMachine(rounds=2, by="loo")
    fit(plain, columns(), 1)
    assert plain.kernel != whole.kernel


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "two.ckpt"
    fit(machine(), columns(), 2).save_checkpoint(path)
    return path


def first_chain(checkpoint):
    return checkpoint["feature_learning"]["chains"][0]


DAMAGES = {
    "no feature_learning": (lambda c: c.pop("feature_learning"), "feature learning must be a dict"),
    "feature_learning is a list": (lambda c: c.update(feature_learning=[]), "feature learning must be a dict"),
    "no chains": (lambda c: c["feature_learning"].pop("chains"), "has no chains"),
    "other chains": (lambda c: c["feature_learning"]["chains"].append({}), "of 1 chains; got 2: "),
    "a best round to come": (
        lambda c: c["feature_learning"]["best"].update(number=7),
        "best round must be one of its 2 rounds; got 7",
    ),
    "a best round without a metric": (
        lambda c: c["feature_learning"]["best"].update(metric=None),
        "must have a metric",
    ),
    "more scores than rounds": (lambda c: c["feature_learning"]["scores"].append(0.1), "3 scores .*got 2 rounds"),
    "scores NaN": (
        lambda c: c["feature_learning"].update(scores=[0.1, float("nan")]),
        r"scores of type list\[float\]; got \[0.1, nan\]",
    ),
    "scores texts": (lambda c: c["feature_learning"].update(scores=["a", "b"]), "scores of type"),
    "alpha of another shape": (lambda c: first_chain(c).update(alpha=torch.zeros(3, 1).double()), "alpha must be"),
    "alpha NaN": (lambda c: first_chain(c)["alpha"].fill_(float("nan")), "alpha must be finite"),
    "alpha float32": (lambda c: first_chain(c).update(alpha=first_chain(c)["alpha"].float()), "float64"),
    "no alpha": (lambda c: first_chain(c).pop("alpha"), "has no alpha"),
    "another kernel": (lambda c: first_chain(c)["kernel"].update(kernel="gaussian"), "resume with the same kernel"),
    "no kernel at all": (lambda c: first_chain(c).update(kernel={"kernel": "none"}), "kernel"),
    "the metric a list": (lambda c: first_chain(c).update(metric=[1]), "metric"),
    "the best metric a list": (lambda c: c["feature_learning"]["best"].update(metric=[1]), "best round|metric"),
    "root NaN": (lambda c: c["state_dict"]["root"].fill_(float("nan")), "finite"),
    "root of another shape": (
        lambda c: c["state_dict"].update(root=torch.ones(3).double()),
        "root of a metric must be",
    ),
    "no root": (lambda c: c["state_dict"].pop("root"), "without a root"),
    "round a text": (lambda c: c["kernel_machine"].update(round="one"), "round of type"),
    "machine scores NaN": (lambda c: c["kernel_machine"].update(scores=[float("nan")] * 2), "scores"),
    "round not among the scores": (lambda c: c["kernel_machine"].update(round=9), "one of its 2 rounds"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints_are_refused(saved, tmp_path, damage):
    edit, message = DAMAGES[damage]
    with pytest.raises(kl.CheckpointError, match=message) as refused:
        fit(machine(), columns(), 4, ckpt_path=edited(saved, tmp_path, edit))
    assert "\n" not in str(refused.value)


def test_the_file_that_is_edited_is_whole(saved, tmp_path):
    trainer = fit(machine(), columns(), 4, ckpt_path=edited(saved, tmp_path, lambda checkpoint: None))
    assert trainer.current_epoch == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "diagonal"}, "resume with the same kernel and metric"),
        ({"by": "kfold"}, "resume with the same by"),
        ({"kernel": kl.Gaussian(1.0)}, "resume with the same kernel"),
        ({"kernel": Laplacian(2.0)}, "resume with the same kernel"),
    ],
)
def test_a_run_with_other_options_does_not_resume(saved, options, message):
    with pytest.raises(kl.CheckpointError, match=message):
        fit(machine(**options), columns(), 4, ckpt_path=saved)


@pytest.mark.parametrize("options", [{"seed": 1}, {"n": 50}, {"d": 3}])
def test_a_run_on_other_data_does_not_resume(saved, options):
    with pytest.raises(kl.CheckpointError, match=r"other training data|shape"):
        fit(machine(), columns(**options), 4, ckpt_path=saved)


def test_a_run_on_other_targets_does_not_resume(saved):
    (data := columns()).setup()
    other = ArrayDataModule.from_arrays(data.train_set.x, data.train_set.y.cos())
    with pytest.raises(kl.CheckpointError, match="other training data"):
        fit(machine(), other, 4, ckpt_path=saved)


def test_a_second_fit_on_other_data_starts_anew():
    trained, fresh = machine(), machine()
    fit(trained, columns(), 4)
    fit(trained, columns(seed=1), 4)
    fit(fresh, columns(seed=1), 4)
    assert torch.equal(trained.alpha, fresh.alpha)
    assert (trained.scores, trained.round) == (fresh.scores, fresh.round)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds"),
        ({"metric": "half"}, "metric"),
        ({"by": "cv"}, "by"),
        ({"power": 0}, "power"),
        ({"sample": 0}, "sample"),
        ({"ridge": -1}, "ridge"),
        ({"round_solver": "lu"}, "round_solver"),
        ({"round_epochs": 0}, "round_epochs"),
        ({"precision": "medium"}, "precision"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(kl.InputError, match=f"^{message} must be"):
        machine(**options)


def test_a_budget_that_is_too_small_is_refused():
    with pytest.raises(kl.MemoryBudgetError, match="raise memory="):
        fit(machine(memory=1000), columns(), 4)


def test_several_outputs_and_constant_columns():
    data = regression(n=60, d=3, c=2)
    fit(trained := machine(), data, 4)
    assert trained.alpha.shape == (60, 2)
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 1.0
    fit(trained := machine(), ArrayDataModule.from_arrays(x, x[:, 0].sin(), x[:5], x[:5, 0].sin()), 4)
    assert trained.round > 0
    assert float(trained.importances[1]) == 0.0
