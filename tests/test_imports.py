"""Importing kl loads nothing else, and what needs no Lightning does not load it."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import callbacks
import datamodules
import kl
from kl.loading import KINDS
from kl.machines.state import StatefulExpansion

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("pytorch_lightning", "torchmetrics", "torchvision", "tensorboard", "matplotlib", "sklearn", "scipy", "pandas")
SOLVE = """
import torch
x, y = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)), torch.eye(2).repeat(10, 1)
solution = kl.interpolate(kl.Laplacian(1.0), x, y)
kl.rkhs_norm(solution.kernel, x, solution.alpha)
run = kl.EigenProRun(kl.Laplacian(1.0), x, y)
kl.tune(x, y, kernels=["laplacian"])
"""


def loaded_by(code):
    """The top-level modules that a new process has loaded once it has run the code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "code", ["import kl.errors", "import callbacks", "import datamodules", "import kl.data, kl.callbacks"]
)
def test_an_import_alone_loads_nothing(code):
    assert not loaded_by(code) & {"torch", "numpy", *HEAVY}


@pytest.mark.slow
@pytest.mark.parametrize(
    "first", ["import pytorch_lightning, kl", pytest.param("import kl; kl.KernelMachine", marks=pytest.mark.slow)]
)
def test_a_trainer_knows_the_strategy(first):
    """After Lightning, or after a machine, which is where programs name it."""
    registry = "from pytorch_lightning.strategies import StrategyRegistry"
    loaded_by(f"{first}\n{registry}\nassert 'kernel_parallel' in StrategyRegistry.available_strategies()")


def test_solving_and_tuning_need_torch_alone():
    assert not loaded_by("import kl\n" + SOLVE) & set(HEAVY)


def test_products_on_a_cpu_need_no_triton():
    """Which not every torch comes with; torch's own optimizers import it where it is there."""
    code = "import kl, torch; from kl.products.blocks import kernel_matmul; x = kl.Rows.of(torch.rand(20, 3))"
    assert "triton" not in loaded_by(f"{code}; kernel_matmul(kl.Gaussian(1.0), x, x, torch.rand(20, 2))")


def test_a_prediction_needs_torch_alone(tmp_path):
    x, y = torch.rand(20, 3), torch.eye(2).repeat(10, 1)
    model = kl.KernelModel.from_interpolant(kl.interpolate(kl.Laplacian(1.0), x, y))
    model.save(tmp_path / "model.ckpt")
    np.save(tmp_path / "row.npy", x[:1].numpy())
    command = ["kl", "predict", "model.ckpt", "--input", "row.npy", "--output", "out.csv"]
    run = f"import os, sys; sys.argv = {command}; os.chdir({str(tmp_path)!r})\nfrom recipes.cli import main\n"
    assert not loaded_by(f"{run}try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code") & set(HEAVY)
    assert (tmp_path / "out.csv").is_file()


def names_for_type_checkers(package):
    """The names below `if TYPE_CHECKING:` and the modules that they are imported from."""
    tree = ast.parse(Path(package.__file__).read_text())
    (block,) = [
        node for node in tree.body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    ]
    for node in block.body:
        if isinstance(node, ast.Import):  # kl.data and kl.callbacks, which are modules
            continue
        for alias in node.names:
            names = importlib.import_module(node.module).__all__ if alias.name == "*" else [alias.name]
            yield from ((name, node.module) for name in names)


@pytest.mark.parametrize("package", [kl, callbacks, datamodules, kl.callbacks, kl.data])
def test_type_checkers_see_the_names_that_are_there(package):
    seen = dict(names_for_type_checkers(package))
    assert sorted(seen) == package.__all__
    for name, module in seen.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)


def test_names_and_modules_are_attributes():
    assert {"KernelMachine", "__version__"} <= set(dir(kl))
    assert kl.rkhs is importlib.import_module("kl.rkhs")
    assert "kl" not in dir(kl)
    for missing in ("nothing", "__wrapped__", "rows.rows"):
        with pytest.raises(AttributeError, match=f"module 'kl' has no attribute '{missing}'"):
            getattr(kl, missing)


def test_every_machine_can_be_loaded():
    """The machines are the classes of kl without a subclass in kl."""
    for path in (ROOT / "kl").rglob("machine.py"):
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    importlib.import_module("kl.model")
    left, leaves = [StatefulExpansion], {}
    while left:
        cls = left.pop()
        below = [each for each in cls.__subclasses__() if each.__module__.startswith("kl.")]
        left += below
        if not below:
            leaves[cls.__name__] = cls.__module__
    assert leaves == KINDS
