"""A fitted machine as any torch module: pickles, copies, state_dict, another fit."""

import copy
import io
import pickle

import joblib
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from training import fit, regression
from user_kernels import Cauchy

import kl
from datamodules import ArrayDataModule, DigitsDataModule
from kl import CheckpointError, ConjugateGradientMachine, GeneralKernelMachine, InputError, KernelMachine
from kl.distributed.ranks import Ranks
from kl.machines.state import EXTRA, encode_description

MACHINES = {
    "eigenpro2": lambda kernel="laplacian": KernelMachine(kernel, batch_size=20),
    "eigenpro4": lambda kernel="laplacian": GeneralKernelMachine(kernel, centers=30, batch_size=20),
    "pcg": lambda kernel="laplacian": ConjugateGradientMachine(kernel),
}
N = 150


def data(**options):
    return regression(**{"n": N, "c": 2, **options})


@pytest.fixture(scope="module", params=MACHINES)
def make(request):
    return MACHINES[request.param]


@pytest.fixture(scope="module")
def fitted(make):
    machine = make()
    fit(machine, data(), 3)
    return machine


@pytest.fixture
def x():
    return torch.randn(7, 4, generator=torch.Generator().manual_seed(5))


def scores(machine, x):
    with torch.no_grad():
        return machine(x)


def by_torch_save(machine):
    file = io.BytesIO()
    torch.save(machine, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def by_joblib(machine):
    file = io.BytesIO()
    joblib.dump(machine, file)
    file.seek(0)
    return joblib.load(file)


COPIES = [lambda machine: pickle.loads(pickle.dumps(machine)), by_joblib, by_torch_save, copy.deepcopy]


@pytest.mark.parametrize("copied", COPIES, ids=["pickle", "joblib", "torch.save", "deepcopy"])
def test_a_copy_is_the_same_machine(fitted, x, copied):
    other = copied(fitted)
    assert torch.equal(scores(other, x), scores(fitted, x))
    assert other.alpha.data_ptr() != fitted.alpha.data_ptr()
    assert (other.kernel, other.rkhs_norm, other.hparams) == (fitted.kernel, fitted.rkhs_norm, fitted.hparams)
    assert other.data_info == fitted.data_info


def test_a_copy_goes_on_as_the_first_does(make):
    first = make()
    fit(first, data(), 2)
    other = pickle.loads(pickle.dumps(first))
    for each in (first, other):
        fit(each, data(), 2)
    assert torch.equal(other.alpha, first.alpha)
    assert other.rkhs_norm == first.rkhs_norm


def test_an_unfitted_machine_is_copied_too(make):
    for other in (pickle.loads(pickle.dumps(make())), copy.deepcopy(make())):
        assert not other.is_fitted
        assert other.kernel == make().kernel


def test_a_pickle_holds_no_kernel_values():
    machine = KernelMachine("laplacian", subsample=20)
    kept, values = machine.on_train_epoch_end, []
    machine.on_train_epoch_end = lambda: (kept(), values.append(machine.fitted.matrix.kept.numel()))
    fit(machine, data(n=600), 1)
    assert values == [600**2]
    assert not machine.fitted.matrix.kept.numel()  # training has freed them
    del machine.on_train_epoch_end
    machine.on_train_start()  # which computes them again
    assert machine.fitted.matrix.kept.numel() == 600**2
    # centres, targets, weights and fitted values, and what torch adds to each tensor
    assert len(pickle.dumps(machine)) < 600 * (4 * 4 + 2 * 4 + 8 + 2 * 8 * 2) + 40_000


class CopyInside(pl.Callback):
    """Copies a machine in the middle of its second epoch."""

    def on_train_batch_end(self, trainer, machine, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == trainer.num_training_batches // 2:
            self.state = copy.deepcopy(machine.state_dict())
            self.pickled = pickle.dumps(machine)


def test_a_copy_from_inside_an_epoch_has_the_norm_of_its_weights(make):
    machine, inside, other = make(), CopyInside(), make()
    fit(machine, data(), 2, callbacks=[inside])
    other.load_state_dict(inside.state)
    for each in (other, pickle.loads(inside.pickled)):
        norm = kl.rkhs_norm(each.kernel, each.centers, each.alpha.detach())
        assert each.rkhs_norm == pytest.approx(norm, rel=1e-4)
        if not isinstance(each, ConjugateGradientMachine):
            assert not torch.equal(each.alpha, machine.alpha)


def test_a_machine_of_augmented_images_leaves_the_data_behind():
    machine = GeneralKernelMachine("laplacian", centers=30)
    images = DigitsDataModule(train_size=100, test_size=10, augment="shift:1")
    fit(machine, images, 1)
    text = pickle.dumps(machine)
    assert b"DigitsDataModule" not in text
    assert torch.equal(scores(pickle.loads(text), images.test_set.x), scores(machine, images.test_set.x))


def test_a_part_of_a_shared_machine_is_not_copied():
    machine = KernelMachine("laplacian")
    fit(machine, data(), 1)
    machine.ranks = Ranks(0, 2)
    with pytest.raises(InputError, match=r"centres are shared among 2 ranks.* use trainer\.save_checkpoint"):
        pickle.dumps(machine)


# state_dict


def test_a_state_makes_an_equal_machine_of_a_new_one(make, fitted, x):
    other = make()
    state = fitted.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    other.load_state_dict(state)
    assert torch.equal(scores(other, x), scores(fitted, x))
    assert (other.kernel, other.rkhs_norm, other.data_info) == (fitted.kernel, fitted.rkhs_norm, fitted.data_info)
    for name, value in other.state_dict().items():
        assert torch.equal(value, state[name]), name
        assert value.data_ptr() != state[name].data_ptr(), name
    if not isinstance(other, GeneralKernelMachine):
        assert torch.equal(other.in_data_order(other.centers), fitted.in_data_order(fitted.centers))


def test_a_state_survives_a_file(make, fitted, x, tmp_path):
    torch.save(fitted.state_dict(), tmp_path / "state.pt")
    other = make()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True), assign=True)
    assert torch.equal(scores(other, x), scores(fitted, x))


def test_a_state_replaces_that_of_a_fitted_machine(make, fitted, x):
    for others in (data(seed=1, scale=2.0), data(n=60, d=4, c=3)):
        other = make()
        fit(other, others, 1)
        scores(other, x)  # encodes the centres
        other.load_state_dict(fitted.state_dict())
        assert torch.equal(scores(other, x), scores(fitted, x))
        assert other.kernel == fitted.kernel
        fit(other, data(), 1)
        assert "train/mse" in other.train_metrics


def test_a_state_is_loaded_within_a_network(make, fitted, x):
    network, other = nn.Sequential(nn.Linear(4, 4), fitted), nn.Sequential(nn.Linear(4, 4), make())
    other.load_state_dict(network.state_dict())
    assert torch.equal(scores(other, x), scores(network, x))


def test_an_unfitted_state_is_loaded(make):
    other = make()
    other.load_state_dict(make().state_dict())
    assert not other.is_fitted


def test_training_goes_on_from_a_state(make):
    first, other = make(), make()
    fit(first, data(), 2)
    other.load_state_dict(first.state_dict())
    for each in (first, other):
        fit(each, data(), 2)
    assert torch.equal(other.alpha, first.alpha)


def test_float64_survives_a_state(make):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(40, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    module = data()
    module.setup()
    module.train_set = kl.RowDataset(x, y)
    machine, other = make(), make()
    fit(machine, module, 2, limit_val_batches=0)
    other.load_state_dict(machine.state_dict())
    assert scores(other, x).dtype == torch.float64
    assert torch.equal(scores(other, x), scores(machine, x))


def test_states_that_do_not_fit(make, fitted):
    state = dict(fitted.state_dict())
    wrong = [each for each in MACHINES.values() if type(each()) is not type(fitted)]
    with pytest.raises(CheckpointError, match=rf"the state is of a {type(fitted).__name__}, this is a "):
        wrong[0]().load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"trained with kernel Laplacian.*; got Gaussian\(bandwidth=3.0\)"):
        make(kl.Gaussian(3.0)).load_state_dict(state)
    with pytest.raises(CheckpointError, match="the state has no centers: give all of a fitted machine's"):
        make().load_state_dict({name: value for name, value in state.items() if name != "centers"})
    with pytest.raises(CheckpointError, match="the state has no _extra_state, which names the kernel"):
        make().load_state_dict({name: value for name, value in state.items() if name != EXTRA})
    with pytest.raises(CheckpointError, match="the state has no _extra_state, which names the kernel"):
        make().load_state_dict({**state, EXTRA: encode_description({})})
    for damaged in (torch.tensor([1, 2], dtype=torch.uint8), torch.tensor(1), "kernel"):
        with pytest.raises(CheckpointError, match="the state's _extra_state is damaged"):
            make().load_state_dict({**state, EXTRA: damaged})


# Another fit


def assert_equal_fits(machine, fresh, x):
    assert torch.equal(machine.alpha, fresh.alpha)
    assert torch.equal(machine.centers, fresh.centers)
    assert torch.equal(scores(machine, x), scores(fresh, x))
    assert (machine.kernel, machine.rkhs_norm) == (fresh.kernel, fresh.rkhs_norm)
    assert (machine.train_metrics, machine.data_info) == (fresh.train_metrics, fresh.data_info)


@pytest.mark.parametrize(
    "others",
    [
        lambda: data(n=90),
        lambda: data(seed=3),  # of the same shape
        lambda: data(c=3),
        lambda: data(d=6, scale=10.0),
        lambda: DigitsDataModule(train_size=200, test_size=50),
    ],
    ids=["n", "rows", "c", "d", "classes"],
)
@pytest.mark.parametrize("reloaded", [False, True])
def test_a_fit_to_other_data_equals_that_of_a_fresh_machine(make, fitted, others, reloaded, caplog):
    machine, fresh = copy.deepcopy(fitted), make()
    if reloaded:
        machine = make()
        machine.load_state_dict(fitted.state_dict())
    for each in (machine, fresh):
        module = others()
        fit(each, module, 3)
    assert_equal_fits(machine, fresh, module.test_set.x)
    assert caplog.text.count("the weights belong to other training data than this: training starts anew") == 1


def test_other_targets_are_other_data(make, fitted):
    generator = torch.Generator().manual_seed(9)
    machine, fresh = copy.deepcopy(fitted), make()
    for each in (machine, fresh):
        module = data()
        module.setup()
        module.train_set = kl.RowDataset(module.train_set.x, torch.randn(N, 2, generator=generator.manual_seed(9)))
        fit(each, module, 3)
    assert_equal_fits(machine, fresh, module.test_set.x)


def test_a_fit_to_the_same_data_goes_on(make, caplog):
    machine = make()
    fit(machine, data(), 2)
    first = machine.train_metrics["train/mse"]
    fit(machine, data(), 2)
    assert machine.train_metrics["train/mse"] < first
    assert "training starts anew" not in caplog.text


def test_a_machine_from_a_checkpoint_is_fitted_to_other_data(make, tmp_path):
    machine = make()
    fit(machine, data(), 1).save_checkpoint(tmp_path / "a.ckpt")
    loaded, fresh = type(machine).load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True), make()
    for each in (loaded, fresh):
        module = data(n=80, scale=3.0)
        fit(each, module, 2)
    assert_equal_fits(loaded, fresh, module.test_set.x)


def test_centres_of_ones_own_stay_in_another_fit():
    centers = torch.randn(25, 4, generator=torch.Generator().manual_seed(8))
    machine = GeneralKernelMachine(Cauchy(2.0), centers)
    fit(machine, data(), 1)
    loaded = GeneralKernelMachine(Cauchy(2.0), 25)
    loaded.load_state_dict(machine.state_dict())
    for each in (machine, loaded):
        fit(each, data(n=80), 1)
        assert {tuple(row) for row in each.centers.tolist()} == {tuple(row) for row in centers.tolist()}


def test_no_augmentation_is_left_of_an_earlier_fit():
    machine, fresh = (GeneralKernelMachine("laplacian", centers=30) for _ in range(2))
    fit(machine, DigitsDataModule(train_size=100, test_size=10, augment="shift:1"), 1)
    for each in (machine, fresh):
        x, y = torch.rand(50, 64, generator=torch.Generator().manual_seed(0)), torch.eye(2)[torch.arange(50) % 2]
        fit(each, ArrayDataModule.from_arrays(x, y, x, y), 1)
    assert_equal_fits(machine, fresh, x)
