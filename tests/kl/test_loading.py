"""The function of a checkpoint, without its training: that of the machine to the bit, and nothing of a damaged file."""

import pytest
import torch
from training import MACHINES, edited, fit, regression
from user_kernels import Cauchy

import kl
from kl.errors import CheckpointError
from kl.loading import load_function

X = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))


def learning_machine():
    return kl.RecursiveFeatureMachine(kl.Laplacian(2.0), rounds=1)


@pytest.fixture(scope="module", params=[*MACHINES, "RecursiveFeatureMachine"])
def saved(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "last.ckpt"
    make = MACHINES.get(request.param, learning_machine)
    fit(make(), regression(), 3).save_checkpoint(path)
    return path


def test_it_is_the_machines_to_the_bit(saved):
    machine, function = kl.load_machine(saved), load_function(saved)
    assert torch.equal(function(X), machine(X))
    assert torch.equal(function.kernel_sums(X), machine.kernel_sums(X))
    assert (function.kernel, function.data_info) == (machine.kernel, machine.data_info)


def test_a_models_centres_may_be_bytes(tmp_path):
    centers = torch.randint(0, 256, (5, 4), generator=torch.Generator().manual_seed(0)) / 255
    model = kl.KernelModel.from_interpolant(kl.interpolate(kl.Laplacian(1.0), centers, torch.eye(5)))
    model.save(tmp_path / "model.ckpt")
    assert torch.equal(load_function(tmp_path / "model.ckpt")(X), model(X))


def test_the_parts_of_training_are_not_read(saved, tmp_path):
    def damage(checkpoint):
        checkpoint["optimizer_states"] = checkpoint["loops"] = None
        checkpoint["hyper_parameters"] = {"precision": "high", "batch_size": []}

    assert torch.equal(load_function(edited(saved, tmp_path, damage))(X), kl.load_machine(saved)(X))


@pytest.mark.parametrize(
    ("part", "name", "value", "match"),
    [
        ("state_dict", "alpha", None, "its 'alpha' must be a tensor; got None"),
        ("state_dict", "alpha", torch.zeros(3, 1).double(), "its alpha must have shape"),
        ("state_dict", "centers", torch.full((60, 4), float("nan")), "its 'centers' must be finite"),
        ("state_dict", "origin", torch.zeros(5), "its origin must have shape"),
        ("kernel_machine", "data_info", {}, "its data_info has no name"),
        ("kernel_machine", "kernel", {"kernel": "unheard"}, "its kernel or precision: .*unheard"),
        ("hyper_parameters", "precision", "low", "its kernel or precision: precision must be high or medium"),
        ("hyper_parameters", "precision", None, "must have precision of type str"),
    ],
)
def test_damage_is_refused(saved, tmp_path, part, name, value, match):
    path = edited(saved, tmp_path, lambda checkpoint: checkpoint[part].update({name: value}))
    with pytest.raises(CheckpointError, match=match) as caught:
        load_function(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_kernel_of_the_users_own_must_be_given(tmp_path):
    path = tmp_path / "last.ckpt"
    fit(kl.KernelMachine(Cauchy(2.0)), regression(), 1).save_checkpoint(path)
    with pytest.raises(CheckpointError, match="kernel"):
        load_function(path)
    assert load_function(path, ["user_kernels:Cauchy"]).kernel == Cauchy(2.0)
