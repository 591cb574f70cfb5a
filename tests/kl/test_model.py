"""Fitted functions on their own: of machines and exact solutions, in files and back."""

import copy
import csv
import json
import pickle

import numpy as np
import oracle
import pytest
import torch
from sklearn.datasets import load_digits
from training import fit, quiet_trainer, regression
from user_kernels import Cauchy

import kl as kernel_learning
from datamodules import DigitsDataModule
from kl import Gaussian, KernelMachine, KernelModel, Laplacian, Polynomial
from kl.machines.data_facts import DataFacts
from kl.machines.described import describe_data
from kl.model import levels_of

pytestmark = pytest.mark.numeric


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact_values(x, y, z, ridge=0.0):
    """f(z) of the (ridge) interpolant, in float64 by the oracle."""
    x, z = x.double().numpy(), z.double().numpy()
    alpha = oracle.naive_interpolate(oracle.matrix(oracle.laplacian, x, x, bandwidth=2.0), y, ridge)
    return oracle.matrix(oracle.laplacian, z, x, bandwidth=2.0) @ alpha


@pytest.mark.parametrize("ridge", [0.0, 0.1])
@pytest.mark.parametrize("away", [0.0, 1e4])
def test_an_interpolant_predicts(ridge, away, tmp_path):
    x, y, z = draw(60, 3).double() + away, draw(60, 2, seed=1).double(), draw(20, 3, seed=2).double() + away
    solution = kernel_learning.interpolate(Laplacian(2.0), x, y, ridge=ridge)
    expected = exact_values(x, y, z, ridge)
    np.testing.assert_allclose(solution.predict(z), expected, atol=1e-8)
    model = KernelModel.from_interpolant(solution)
    np.testing.assert_allclose(model(z).numpy(), expected, atol=1e-8)
    model.save(tmp_path / "model.ckpt")
    loaded = kernel_learning.load_machine(tmp_path / "model.ckpt")
    assert torch.equal(loaded(z), model(z))
    with pytest.raises(kernel_learning.InputError, match=r"x must have shape \(rows, 3\); got \(20, 2\)"):
        solution.predict(z[:, :2])
    with pytest.raises(kernel_learning.InputError, match="finite"):
        solution.predict(z * float("nan"))


@pytest.mark.parametrize("shape", [(3,), (3, 3)])
def test_a_metric_goes_with_the_function(shape, tmp_path):
    """f(x) = sum_i alpha_i K(x M^(1/2), x_i M^(1/2)), in every form of the model."""
    x, y, z = draw(60, 3), draw(60, 2, seed=1).double(), draw(20, 3, seed=2)
    root = draw(*shape, seed=3).double()
    root = root.abs() if len(shape) == 1 else root @ root.T
    dense = torch.diag(root) if len(shape) == 1 else root
    placed = (x.double() @ dense).float()
    solution = kernel_learning.interpolate(Laplacian(2.0), placed, y)
    expected = exact_values(placed, y, (z.double() @ dense).float())
    info = DataFacts(name="arrays", task="regression").description(x, y)
    model = KernelModel(Laplacian(2.0)).become(solution.alpha, placed, torch.zeros(3), info, root)
    model.save(tmp_path / "model.ckpt")
    loaded = kernel_learning.load_machine(tmp_path / "model.ckpt")
    fresh = KernelModel(Laplacian(2.0))
    fresh.load_state_dict(model.state_dict())
    for each in (model, loaded, fresh, pickle.loads(pickle.dumps(model)), KernelModel.from_machine(loaded)):
        assert torch.equal(each.root, root)
        np.testing.assert_allclose(each(z), expected, atol=1e-4)
    np.testing.assert_allclose(model.export_module()(z), expected, atol=1e-4)
    step = 1e-3 * draw(20, 3, seed=4)
    moving = z.clone().requires_grad_()
    model(moving).sum().backward()
    change = exact_values(placed, y, ((z + step).double() @ dense).float()) - expected
    assert float((moving.grad * step).sum()) == pytest.approx(change.sum(), rel=0.05, abs=1e-5)
    fresh.load_state_dict(KernelModel.from_interpolant(solution).state_dict())
    assert fresh.root is None


@pytest.mark.parametrize("kernel", [Gaussian(5.0), Gaussian(100.0), Polynomial(degree=4, bias=1.0)])
def test_weights_that_cancel_predict_what_the_solution_does(kernel):
    x, y, z = draw(80, 4), draw(80, 2, seed=1), draw(20, 4, seed=2)
    solution = kernel_learning.interpolate(kernel, x, y)
    model = KernelModel.from_interpolant(solution)
    for rows in (x, z):
        expected = solution.predict(rows)
        assert float((model(rows).double() - expected).norm() / expected.norm()) < 1e-3
        watched = model(rows.clone().requires_grad_())
        assert float((watched.detach().double() - expected).norm() / expected.norm()) < 1e-3


def test_an_exported_machine_whose_weights_cancel_says_so(caplog):
    x, y = draw(80, 4), draw(80, 2, seed=1)
    for bandwidth, said in ((100.0, True), (1.0, False)):
        caplog.clear()
        KernelModel.from_interpolant(kernel_learning.interpolate(Gaussian(bandwidth), x, y)).export_module()
        assert ("too coarse for these weights" in caplog.text) is said


def test_a_least_squares_solution_predicts():
    x, y, centers = draw(60, 3), draw(60, 2, seed=1), draw(9, 3, seed=2)
    solution = kernel_learning.least_squares(Laplacian(2.0), centers, x, y)
    torch.testing.assert_close(solution.predict(x), solution.fitted, atol=1e-9, rtol=0)
    torch.testing.assert_close(KernelModel.from_interpolant(solution)(x).double(), solution.fitted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kernel", "options"),
    [(Laplacian(3.0), {}), (Polynomial(degree=2), {}), (Laplacian(3.0), {"centers": 40})],
    ids=["eigenpro", "polynomial", "eigenpro4"],
)
def test_an_exported_machine_gives_the_same_scores(kernel, options, tmp_path):
    data = DigitsDataModule(train_size=200, test_size=60)
    machine = kernel_learning.GeneralKernelMachine(kernel, **options) if options else KernelMachine(kernel)
    trainer = fit(machine, data, 2)
    model = KernelModel.from_machine(machine)
    model.save(tmp_path / "model.ckpt")
    loaded = kernel_learning.load_machine(tmp_path / "model.ckpt")
    assert isinstance(loaded, KernelModel)
    x = data.test_set.x
    with torch.no_grad():
        assert torch.equal(loaded(x), machine(x))
    assert loaded.data_info == machine.data_info
    assert torch.load(tmp_path / "model.ckpt", weights_only=True)["state_dict"]["centers"].dtype == torch.uint8
    tested = quiet_trainer().test(loaded, datamodule=data, verbose=False)
    assert tested == trainer.test(machine, datamodule=data, verbose=False)
    for again in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert torch.equal(again(x), loaded(x))
    fresh = KernelModel(loaded.kernel)
    fresh.load_state_dict(loaded.state_dict())
    assert torch.equal(fresh(x), loaded(x))


@pytest.mark.parametrize("levels", [1, 16, 255])
def test_8_bit_centres_are_found_to_the_bit(levels):
    k = torch.randint(0, min(levels, 255) + 1, (30, 40), generator=torch.Generator().manual_seed(0)).float()
    k[0, :2] = torch.tensor([1.0, min(levels, 255)])
    assert levels_of(k / levels) == levels
    other = k / levels
    other[3, 4] += 1e-3
    assert levels_of(other) == 0
    assert levels_of(k.double() / levels) == 0
    assert levels_of(-k / levels) == 0


def test_what_cannot_be_exported(tmp_path):
    with pytest.raises(kernel_learning.InputError, match="holds no weights: fit it"):
        KernelModel.from_machine(KernelMachine(Laplacian(1.0)))
    with pytest.raises(kernel_learning.InputError, match="holds no weights: fit it"):
        KernelModel(Laplacian(1.0)).save(tmp_path / "none.ckpt")
    assert not list(tmp_path.iterdir())
    machine = KernelMachine(Laplacian(2.0))
    fit(machine, regression(), 1).save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(
        kernel_learning.CheckpointError, match=r"holds a KernelMachine, not a KernelModel: use kl\.load_"
    ):
        KernelModel.load_from_checkpoint(tmp_path / "last.ckpt")


def test_models_of_kernels_of_ones_own(tmp_path):
    x, y = draw(20, 2), draw(20, 1, seed=1)
    solution = kernel_learning.interpolate(Cauchy(1.0), x, y)
    KernelModel.from_interpolant(solution).save(tmp_path / "own.ckpt")
    with pytest.raises(kernel_learning.CheckpointError, match=r"a file does not get to say what code runs"):
        kernel_learning.load_machine(tmp_path / "own.ckpt")
    loaded = kernel_learning.load_machine(tmp_path / "own.ckpt", Cauchy)
    torch.testing.assert_close(loaded(x), y, atol=1e-4, rtol=0)


def test_a_kernel_that_is_given_must_be_the_files(tmp_path):
    x, y = draw(20, 2), draw(20, 1, seed=1)
    KernelModel.from_interpolant(kernel_learning.interpolate(Laplacian(1.0), x, y)).save(tmp_path / "model.ckpt")
    with pytest.raises(
        kernel_learning.CheckpointError, match=r"trained with kernel Laplacian\(bandwidth=1.0\); got Lap"
    ):
        kernel_learning.load_machine(tmp_path / "model.ckpt", Laplacian(5.0))
    for kernel in (Laplacian(1.0), Laplacian("auto"), Laplacian):
        loaded = kernel_learning.load_machine(tmp_path / "model.ckpt", kernel)
        torch.testing.assert_close(loaded(x), y, atol=1e-4, rtol=0)


CHANGES = {
    "alpha of another length": (lambda state, extra: state.update(alpha=state["alpha"][:-1]), "its alpha must have sh"),
    "NaN": (lambda state, extra: state["alpha"].fill_(float("nan")), "its 'alpha' must be finite"),
    "no centres": (lambda state, extra: state.pop("centers"), "it has no centers"),
    "an unknown tensor": (lambda state, extra: state.update(more=state["alpha"]), "it has the unknown more"),
    "no levels": (lambda state, extra: extra.pop("levels"), "its kernel_machine has no levels"),
    "levels of 0": (lambda state, extra: extra.update(levels=0.0), r"its centers must|dtype|dense tensor"),
    "a root of others": (lambda state, extra: state.update(root=torch.ones(3).double()), "its root of a metric must"),
    "a root that is no number": (lambda state, extra: state.update(root=torch.tensor(2.0)), r"got shape \(\)"),
    "a single root": (lambda state, extra: state.update(root=torch.ones(64)), "its root of a metric must be float64"),
    "levels below 0": (lambda state, extra: extra.update(levels=-1.0), "its levels must be 0, or above 0"),
    "a foreign kernel": (lambda state, extra: extra.update(kernel={"kernel": "os:system"}), "its kernel or precision"),
    "a foreign kind": (lambda state, extra: extra.update(kind="interpolate"), "must hold one of .*KernelMachine"),
    "other features": (lambda state, extra: extra["data_info"].update(num_features=3, image_shape=[]), "its centers m"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_file_is_refused(name, tmp_path):
    data = DigitsDataModule(train_size=40, test_size=20)
    data.prepare_data()
    data.setup()
    solution = kernel_learning.interpolate(Laplacian(3.0), data.train_set.x, data.train_set.y)
    KernelModel.from_interpolant(solution, describe_data(data)).save(tmp_path / "model.ckpt")
    values = torch.load(tmp_path / "model.ckpt", weights_only=True)
    change, message = CHANGES[name]
    change(values["state_dict"], values["kernel_machine"])
    torch.save(values, tmp_path / "model.ckpt")
    with pytest.raises(kernel_learning.CheckpointError, match=message):
        kernel_learning.load_machine(tmp_path / "model.ckpt")


# Commands


def scores(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[f"score_{k}"]) for k in range(10)] for row in rows])


def write_digits():
    np.savez("in.npz", x=(load_digits().images[:50] / 16).astype(np.float32))


@pytest.mark.parametrize("ridge", [0, 0.1])
def test_interpolate_saves_what_predict_reads(kl, ridge):
    write_digits()
    found = kl("interpolate", "--data", "digits", "--bandwidth", 3, "--ridge", ridge, "--save", "exact.ckpt", "--json")
    assert found.code == 0, found.err
    assert json.loads(found.out)["saved"] == "exact.ckpt"
    assert kl("predict", "exact.ckpt", "--input", "in.npz", "--output", "out.csv").code == 0
    data = DigitsDataModule()
    data.prepare_data()
    data.setup()
    solution = kernel_learning.interpolate(Laplacian(3.0), data.train_set.x, data.train_set.y, ridge=ridge)
    x = torch.from_numpy(load_digits().images[:50].reshape(50, 64) / 16).float()
    np.testing.assert_allclose(scores("out.csv"), solution.predict(x), atol=1e-5)


def test_export(kl):
    write_digits()
    fitted = json.loads(kl("fit", "--data", "digits", "--train-size", 300, "--epochs", 2, "--no-exact", "--json").out)
    found = kl("export", fitted["checkpoint"], "--output", "model.ckpt", "--json")
    assert found.code == 0, found.err
    result = json.loads(found.out)
    assert (result["p"], result["d"], result["c"]) == (300, 64, 10)
    assert result["bytes"] < 300 * 64 + 8 * 300 * 10 + 8000 < result["bytes_before"] / 2
    for model, out in ((fitted["checkpoint"], "whole.csv"), ("model.ckpt", "small.csv")):
        assert kl("predict", model, "--input", "in.npz", "--output", out).code == 0
    with open("whole.csv") as whole, open("small.csv") as small:
        assert whole.read() == small.read()
    resumed = kl("fit", "--data", "digits", "--train-size", 300, "--resume", "model.ckpt")
    assert resumed.code != 0
    assert resumed.err.count("error:") == 1
    assert "keeps nothing of its training" in resumed.err


@pytest.mark.parametrize("command", [("interpolate", "--data", "digits", "--save"), ("export", "a.ckpt", "--output")])
def test_models_go_into_files_of_folders_that_exist(kl, command, tmp_path):
    (tmp_path / "folder").mkdir()
    option = command[-1][2:]
    found = kl(*command, tmp_path / "none" / "model.ckpt")
    assert found.code == 2
    assert f"{option}'s folder" in found.err
    assert "does not exist: make it" in found.err
    found = kl(*command, tmp_path / "folder")
    assert found.code == 2
    assert f"{option} must be the path of a file to write" in found.err
