"""A user's own module in a folder that has packages of its own, called like kl's or like others."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kl
from datamodules import build_datamodule
from kl.system.user_modules import import_user_class, import_user_module

THEIRS = "raise RuntimeError('the package of the folder was imported')\n"
KERNEL = """
from dataclasses import dataclass
import kl
import helper

@dataclass(frozen=True)
class K(kl.RadialKernel):
    def _profile(self, sq_dist):
        return sq_dist.mul_(-helper.HALF / self.bandwidth**2).exp_()
"""
DATA = """
from datamodules import DigitsDataModule

class D(DigitsDataModule):
    name = "of mine"
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A Lightning project with folders as there usually are."""
    for name in ("callbacks", "datamodules", "recipes", "kl", "torchmetrics"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(THEIRS)
    (tmp_path / "mine.py").write_text(KERNEL + DATA)
    (tmp_path / "helper.py").write_text("HALF = 0.5\n")
    package = tmp_path / "models"
    package.mkdir()
    (package / "__init__.py").write_text("from models.kernels import K\n")
    (package / "kernels.py").write_text(KERNEL.replace("import helper", "import helper\nfrom . import data"))
    (package / "data.py").write_text(DATA)
    (tmp_path / "plain").mkdir()  # no __init__.py
    (tmp_path / "plain" / "kernels.py").write_text(KERNEL)
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "models", "plain", "helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)  # those of another test
    path, modules = list(sys.path), set(sys.modules)
    monkeypatch.setattr(sys, "path", [entry for entry in path if entry])
    yield tmp_path
    for name in set(sys.modules) - modules:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)) or name == "plain":
            del sys.modules[name]


@pytest.mark.slow
def test_the_commands_find_mine_in_a_folder_with_packages_called_like_ours(project):
    """In a process of its own, where none of kl's packages has been imported."""
    command = [Path(sys.executable).with_name("kl"), "fit", "--kernel", "mine:K", "--bandwidth", 3, "--data", "mine:D"]
    options = ["--train-size", 60, "--test-size", 20, "--epochs", 1, "--name", "a", "--accelerator", "cpu"]
    done = subprocess.run(list(map(str, [*command, *options])), capture_output=True, text=True, cwd=project)
    assert done.returncode == 0, done.stderr
    assert "of mine  n=60 d=64 c=10  K(bandwidth=3" in done.stdout
    np.savez("in.npz", x=np.random.default_rng(0).random((2, 64)).astype(np.float32))
    where = "lightning_logs/a/version_0/checkpoints/last.ckpt"
    command = [Path(sys.executable).with_name("kl"), "predict", where, "--kernel", "mine:K"]
    done = subprocess.run(
        [*map(str, command), "--input", "in.npz", "--output", "out.csv"], capture_output=True, text=True, cwd=project
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("spec", ["mine:K", "models:K", "models.kernels:K", "plain.kernels:K"])
def test_modules_and_packages_of_the_folder(project, spec):
    kernel = kl.build_kernel(spec, bandwidth=3)
    assert type(kernel).__name__ == "K"
    assert sys.modules[type(kernel).__module__].__file__.startswith(str(project))
    assert type(kl.build_kernel(spec, bandwidth=2)) is type(kernel)  # not run again
    assert sys.path[-1] == str(project)
    assert sys.path.count(str(project)) == 1


def test_a_data_module_of_a_package(project):
    assert build_datamodule("models.data:D").name == "of mine"


def test_kls_own_packages_are_found_by_their_names(project):
    assert kl.build_kernel("kl.kernels.radial:Gaussian", bandwidth=2) == kl.Gaussian(2.0)
    with pytest.raises(kl.InputError, match=r"there is no module 'callbacks.mine' .*rename the folder callbacks here"):
        kl.build_kernel("callbacks.mine:K")
    (project / "uses.py").write_text("from callbacks import MyCallback\n")
    with pytest.raises(kl.InputError, match=r"ImportError: cannot import name 'MyCallback' .*rename the folder callb"):
        kl.build_kernel("uses:K")


def test_a_file_with_the_name_of_another_module_is_not_mixed_up_with_it(project):
    for name in ("types", "wave"):
        (project / f"{name}.py").write_text(KERNEL)
        with pytest.raises(kl.InputError, match=rf"kernel '{name}:K': .*{name}.py has the name of another module"):
            kl.build_kernel(f"{name}:K")
    assert sys.modules["types"].FunctionType


def test_a_module_that_fails_leaves_nothing_half_made(project):
    (project / "broken.py").write_text("ONE = 1\nraise RuntimeError('half way')\n")
    for _ in range(2):
        with pytest.raises(kl.InputError, match=r"asked: importing it failed with RuntimeError: half way"):
            import_user_module("asked", "broken")
    assert "broken" not in sys.modules


def test_a_name_in_a_module_may_be_dotted(project):
    (project / "nested.py").write_text("class Outer:\n    class Inner:\n        pass\n")
    module, found = import_user_class("asked", "nested:Outer.Inner")
    assert (module.__name__, found.__qualname__) == ("nested", "Outer.Inner")
    for missing in ("Inner", "Outer.Other", "Other.Inner"):
        assert import_user_class("asked", f"nested:{missing}") == (module, None)
    for spec in ("nested", "nested:", ":Outer"):
        with pytest.raises(kl.InputError, match=r"asked must have the form package.module:Class"):
            import_user_class("asked", spec)
