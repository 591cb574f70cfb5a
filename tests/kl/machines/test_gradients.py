"""Gradients through a machine: with respect to its inputs, for every kernel, and in a network."""

import pytest
import torch
from every_kernel import KERNELS
from torch import nn
from training import fit, regression
from user_kernels import ManhattanLaplacian

import kl
from datamodules import ArrayDataModule
from kl import (
    ConjugateGradientMachine,
    Gaussian,
    GeneralKernelMachine,
    InputError,
    KernelMachine,
    KLError,
    Laplacian,
    Polynomial,
    ReluNNGP,
    ReluNTK,
)
from kl.distributed.ranks import Ranks
from kl.products.differentiable import differentiable_matmul
from kl.rows.rows import Rows

MORE = [Polynomial(3, 1.0, 0.2), Polynomial(1, 0.0), ReluNTK(1, 0.5), ReluNNGP(4), ManhattanLaplacian(3.0)]


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("d", [3, 20])  # few features are summed directly
@pytest.mark.parametrize("kernel", [*KERNELS, *MORE], ids=str)
def test_gradients_are_those_of_differences(kernel, d):
    x, z, v = normal(4, d).requires_grad_(), Rows.of(normal(5, d, seed=1)), normal(5, 2, seed=2)
    assert torch.autograd.gradcheck(lambda x: differentiable_matmul(kernel, x, z, v), (x,))
    torch.testing.assert_close(differentiable_matmul(kernel, x, z, v), kernel(x.detach(), z.data) @ v)


@pytest.mark.parametrize("d", [3, 20])
@pytest.mark.parametrize("kernel", [each for each in KERNELS if each.shift_invariant], ids=str)
def test_a_centre_adds_nothing_to_the_gradient_at_itself(kernel, d):
    z, v = normal(5, d), normal(5, 2, seed=2)
    x = z[2:3].clone().requires_grad_()
    at_itself = torch.autograd.grad(differentiable_matmul(kernel, x, Rows.of(z), v).sum(), x)[0]
    rest = torch.tensor([0, 1, 3, 4])
    others = torch.autograd.grad(differentiable_matmul(kernel, x, Rows.of(z[rest]), v[rest]).sum(), x)[0]
    torch.testing.assert_close(at_itself, others, atol=1e-7, rtol=1e-5)


def test_a_gradient_that_does_not_exist_is_an_error():
    z = normal(5, 3)
    x = torch.cat([z[1:3], torch.zeros(1, 3).double()]).requires_grad_()
    values = differentiable_matmul(ReluNTK(3), x, Rows.of(z), normal(5, 1))
    with pytest.raises(KLError, match=r"the gradient of ReluNTK.* at row 2 of x is not finite: the row is 0, equals"):
        values.sum().backward()


@pytest.fixture(scope="module", params=[KernelMachine, GeneralKernelMachine, ConjugateGradientMachine])
def fitted(request):
    data = regression(n=60, d=20, c=2)
    data.setup()
    data.train_set = kl.RowDataset(100 + data.train_set.x.double(), data.train_set.y.double())
    machine = request.param(Laplacian(5.0), *([30] if request.param is GeneralKernelMachine else []))
    fit(machine, data, 3, limit_val_batches=0)
    return machine


def test_machines_are_differentiable(fitted):
    assert fitted.origin.any()
    x = (100 + normal(3, 20, seed=4)).requires_grad_()
    assert torch.autograd.gradcheck(fitted, (x,))
    with torch.no_grad():
        fast = fitted(x)
    assert not fast.requires_grad
    assert not fitted(x.detach()).requires_grad
    torch.testing.assert_close(fitted(x).detach(), fast, atol=1e-6, rtol=1e-6)
    assert fitted.alpha.grad is None


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_the_function_is_the_same_with_and_without_gradients(precision):
    data = regression(n=80, d=20)
    machine = KernelMachine("gaussian", precision=precision)
    fit(machine, data, 3)
    x = data.test_set.x
    with torch.no_grad():
        fast = machine(x)
    torch.testing.assert_close(machine(x.clone().requires_grad_()).detach(), fast, atol=1e-5, rtol=1e-5)


def test_8_bit_features_have_gradients():
    pixels = torch.randint(0, 256, (60, 64), generator=torch.Generator().manual_seed(0)) / 255
    y = normal(60, 1, dtype=torch.float32)
    machine = KernelMachine(Gaussian(2.0))
    fit(machine, ArrayDataModule.from_arrays(pixels, y, pixels[:5], y[:5]), 2)
    x = pixels[:5].clone().requires_grad_()
    values = machine(x)
    with torch.no_grad():
        torch.testing.assert_close(values, machine(x), atol=1e-5, rtol=1e-5)
    values.sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_network_trains_through_a_kernel_head(fitted):
    torch.manual_seed(0)
    x, y = normal(40, 6, seed=1), normal(40, 2, seed=2)
    network = nn.Sequential(nn.Linear(6, 20).double(), fitted)
    with torch.no_grad():
        network[0].bias += 100
    before = fitted.alpha.detach().clone()
    optimizer = torch.optim.Adam(network[0].parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (network(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert torch.equal(fitted.alpha, before)


def test_a_shared_machine_has_no_gradients():
    machine = KernelMachine("laplacian")
    fit(machine, regression(), 1)
    machine.ranks = Ranks(0, 2)
    with pytest.raises(InputError, match="gradients need all centres in one process, and 2 ranks share"):
        machine(torch.ones(2, 4, requires_grad=True))
    with pytest.raises(InputError, match="an exported machine has all centres, and 2 ranks share"):
        machine.export_module()
