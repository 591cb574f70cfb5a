"""Kernels from names, classes and configurations, and that `check_kernel` finds what it should."""

import json
import sys
from dataclasses import dataclass

import pytest
import torch
import user_kernels
from torch import Tensor
from user_kernels import Cauchy, ManhattanLaplacian

from kl.errors import InputError
from kl.kernels import (
    ExponentialPower,
    Gaussian,
    GramKernel,
    Kernel,
    Laplacian,
    Matern32,
    Polynomial,
    RadialKernel,
    ReluNTK,
    build_kernel,
    kernel_from_config,
    kernel_names,
)
from kl.rows.rows import Rows
from kl.testing import check_kernel


def test_names() -> None:
    assert kernel_names() == [
        "gaussian",
        "laplacian",
        "exponential-power",
        "matern32",
        "matern52",
        "inverse-multiquadric",
        "polynomial",
        "relu-ntk",
        "relu-nngp",
        "lpq-laplacian",
        "dispersal",
        "product-laplacian",
    ]
    for name in kernel_names():
        assert isinstance(build_kernel(name), Kernel)


def test_by_name_with_parameters() -> None:
    assert build_kernel("laplacian", bandwidth=10, depth=None) == Laplacian(10.0)
    assert build_kernel("dispersal", bandwidth=2.0, power=0.5) == ExponentialPower(2.0, 0.5)
    assert build_kernel("gaussian", bandwidth="auto") == Gaussian()


def test_from_a_kernel() -> None:
    kernel = ReluNTK(2, bias=0.5)
    assert build_kernel(kernel) is kernel
    assert build_kernel(kernel, depth=3, bias=None) == ReluNTK(3, bias=0.5)


def test_from_a_configuration() -> None:
    kernel = 2 * (Gaussian() + Laplacian(3.0) * Polynomial(3)) + Matern32(2.0)
    config = kernel.config()
    assert build_kernel(json.loads(json.dumps(config))) == kernel
    assert config["parts"][1] == {"kernel": "matern32", "bandwidth": 2.0}
    assert build_kernel({"kernel": "gaussian", "bandwidth": 2.0}, bandwidth=5.0) == Gaussian(5.0)
    assert build_kernel(kernel.config()).config() == config


def test_a_configuration_names_only_classes_that_it_was_given() -> None:
    kernel = 2 * (Gaussian() + Cauchy(3.0))
    config = kernel.config()
    assert config["part"]["parts"][1] == {"kernel": "user_kernels:Cauchy", "bandwidth": 3.0}
    assert kernel_from_config(config, [Cauchy]) == kernel
    for read in (build_kernel, kernel_from_config):
        with pytest.raises(InputError, match=r"user_kernels:Cauchy is none of kl's, and a file .* kernel=user_ker"):
            read(config)
    script = {"kernel": "__main__:Cauchy", "bandwidth": 2.0}
    assert kernel_from_config(script, [Cauchy]) == Cauchy(2.0)
    with pytest.raises(InputError, match=r"kernel=mine:Cauchy, where mine\.py holds that class"):
        kernel_from_config(script, [ManhattanLaplacian])


def test_a_configuration_that_nests_without_end() -> None:
    config = Gaussian(1.0).config()
    for _ in range(400):
        config = {"kernel": "scaled", "part": config}
    with pytest.raises(InputError, match="nested at most 32 deep"):
        kernel_from_config(config)
    endless = []
    endless.append(endless)
    doubled = Gaussian(1.0).config()
    for _ in range(30):
        doubled = {"kernel": "sum", "parts": [doubled, doubled]}  # 2^30 kernels
    for config in ({"kernel": "sum", "parts": endless}, doubled):
        with pytest.raises(InputError, match="must hold at most 1000 values"):
            kernel_from_config(config)


def test_from_a_class() -> None:
    assert build_kernel("user_kernels:Cauchy", bandwidth=3) == Cauchy(3.0)
    assert build_kernel("kl.kernels.radial:Gaussian").config() == {"kernel": "gaussian", "bandwidth": "auto"}


def test_the_current_directory_is_importable(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kernels_here.py").write_text("from user_kernels import Cauchy\n")
    assert build_kernel("kernels_here:Cauchy", bandwidth=3) == Cauchy(3.0)


def test_a_class_that_inherits_a_name_keeps_its_own_identity() -> None:
    class Wider(Gaussian):
        pass

    assert Wider(2.0).config()["kernel"] != "gaussian"


@pytest.mark.parametrize(
    ("spec", "parameters", "message"),
    [
        (
            "gausian",
            {},
            "unknown kernel 'gausian'. Did you mean gaussian\\? Known: gaussian, .*package.module:Class",
        ),
        ("Relu_NTK", {}, "Did you mean relu-ntk"),
        ("zzz", {}, "unknown kernel 'zzz'. Known: gaussian"),
        ("gaussian", {"depth": 3}, "kernel gaussian has no parameter depth; it accepts bandwidth$"),
        (
            "relu-ntk",
            {"bandwidth": 3.0},
            "relu-ntk has no parameter bandwidth; it accepts depth, bias$",
        ),
        ("gaussian", {"bandwidth": "10"}, "bandwidth must be .* got '10'"),
        ("sum", {}, "kernel sum needs parts"),
        ("user_kernels:ManhattanLaplacian", {}, "kernel user_kernels:ManhattanLaplacian needs width"),
        ("no_such_module:K", {}, "'no_such_module:K': there is no module 'no_such_module' in the current"),
        ("kl.nothing:K", {}, "there is no module 'kl.nothing'"),
        ("user_kernels:Caushy", {}, "user_kernels has no class 'Caushy'; kernels in it: Cauchy, Manhattan"),
        ("user_kernels:NotAKernel", {}, "NotAKernel must be a subclass of kl.Kernel"),
        (
            "user_kernels:Unfinished",
            {},
            "must be a subclass of kl.Kernel that defines its formula",
        ),
        ("user_kernels:torch", {}, "torch must be a subclass"),
        (":Cauchy", {}, "must have the form package.module:Class"),
        ("user_kernels:", {}, "must have the form package.module:Class"),
        ({"kernel": 3}, {}, 'a kernel configuration must name its "kernel"'),
        ({"bandwidth": 2.0}, {}, 'a kernel configuration must name its "kernel"; got only'),
        ({"kernel": "gaussian", "power": 2.0}, {}, "kernel gaussian has no parameter power"),
        ({"kernel": "sum", "parts": [{"kernel": "nope"}]}, {}, "unknown kernel 'nope'"),
        (Gaussian(1.0), {"depth": 2}, "kernel Gaussian has no parameter depth; it accepts bandwidth"),
        (3, {}, "kernel must be a name, a configuration or a Kernel; got 3"),
    ],
)
def test_errors(spec, parameters, message) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_kernel(spec, **parameters)
    assert "\n" not in str(caught.value)


def test_a_module_that_cannot_be_imported(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_kernels.py").write_text("import kl\nraise RuntimeError('first\\nsecond')\n")
    with pytest.raises(InputError, match="importing it failed with RuntimeError: first second"):
        build_kernel("broken_kernels:K")
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(InputError, match=r"importing it failed with ModuleNotFoundError: .*not_installed_any"):
        build_kernel("needs_more:K")


# Kernels that break one clause of the contract each. check_kernel must say which.


@dataclass(frozen=True)
class Asymmetric(GramKernel):
    def _evaluate(self, gram: Tensor, x_sq: Tensor, z_sq: Tensor) -> Tensor:
        return gram.add_(x_sq)


@dataclass(frozen=True)
class Indefinite(RadialKernel):
    bandwidth: float = 1.0

    def _profile(self, sq_dist: Tensor) -> Tensor:
        return sq_dist.neg_().add_(1)


@dataclass(frozen=True)
class WrongDiagonal(RadialKernel):
    bandwidth: float = 3.0

    def _profile(self, sq_dist: Tensor) -> Tensor:
        return sq_dist.mul_(-1 / self.bandwidth**2).exp_()

    def _diag(self, x: Rows) -> Tensor:
        return torch.full_like(x.sq_norm, 2.0)


@dataclass(frozen=True)
class NanAtZero(GramKernel):
    def _evaluate(self, gram: Tensor, x_sq: Tensor, z_sq: Tensor) -> Tensor:
        return gram.div_((x_sq * z_sq).sqrt_())


@dataclass(frozen=True)
class ChangesInputs(ManhattanLaplacian):
    width: float = 10.0

    def _block(self, x: Tensor, z: Tensor) -> Tensor:
        return torch.cdist(x.mul_(0.5), z, p=1).mul_(-0.1).exp_()


@dataclass(frozen=True)
class LosesDtype(GramKernel):
    def _evaluate(self, gram: Tensor, x_sq: Tensor, z_sq: Tensor) -> Tensor:
        return gram.double()


@dataclass(frozen=True)
class DependsOnTheBlock(GramKernel):
    def _evaluate(self, gram: Tensor, x_sq: Tensor, z_sq: Tensor) -> Tensor:
        return gram.div_(gram.shape[1]) if gram.shape[1] not in (1, 24) else gram


@dataclass(frozen=True)
class SharesItsResult(ManhattanLaplacian):
    width: float = 10.0

    def _block(self, x: Tensor, z: Tensor) -> Tensor:
        return torch.ones(1, 1, dtype=x.dtype).expand(len(x), len(z))


@dataclass(frozen=True)
class ForgetsAuto(Gaussian):
    def resolve(self, x: Tensor, seed: int = 0) -> Kernel:
        return self


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (Asymmetric(), r"not symmetric: off by .* allowed .* \(torch.float32\)"),
        (Indefinite(), "not positive semi-definite: smallest eigenvalue -"),
        (WrongDiagonal(), "diag.x. differs from the full diagonal by 1"),
        (NanAtZero(), "not finite on zero"),
        (ChangesInputs(), "inputs were changed"),
        (LosesDtype(), "the matrix must be torch.float32"),
        (DependsOnTheBlock(), "K.x, z. is not K.z, x. transposed|blocks of 7 columns"),
        (SharesItsResult(), "results must be new tensors that may be overwritten"),
        (ForgetsAuto(), 'must leave no "auto"'),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Kernel) else "",
)
def test_check_kernel_finds(kernel: Kernel, message: str) -> None:
    with pytest.raises(AssertionError, match=message) as caught:
        check_kernel(kernel)
    assert str(kernel) in str(caught.value)


def test_check_kernel_finds_what_cannot_be_built_again() -> None:
    @dataclass(frozen=True)
    class Local(Gaussian):
        pass

    with pytest.raises(AssertionError, match=r"<locals>.Local must stand at the top of a module"):
        check_kernel(Local(1.0))


def test_check_kernel_wants_frozen_dataclasses() -> None:
    class Plain(Kernel):
        def _diag(self, x: Rows) -> Tensor:
            return torch.ones_like(x.sq_norm)

    with pytest.raises(AssertionError, match="must be a frozen dataclass"):
        check_kernel(Plain())
    with pytest.raises(InputError, match=r"Plain must be a frozen dataclass: write @dataclass\(frozen=True\)"):
        Plain().config()
    with pytest.raises(TypeError, match="Plain must define _block"):
        Plain()(torch.ones(2, 2))


def test_check_kernel_takes_inputs() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(10, 50, generator=generator)
    check_kernel(user_kernels.Cauchy(), x, torch.rand(6, 50, generator=generator))
