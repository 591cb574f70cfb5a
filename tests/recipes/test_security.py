"""A file from elsewhere runs no code: checkpoints, caches, arrays and options files that try to."""

import copy
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from training import MACHINES, fit, quiet_trainer, regression
from user_kernels import Cauchy

import kl
from datamodules import DigitsDataModule
from kl import CheckpointError, InputError, KernelMachine, Laplacian
from kl.exact.cache import load_solution
from kl.loading import load_function
from recipes.cli import main

EVIL = """
import pathlib
pathlib.Path(__file__).with_name("it_ran").touch()
from dataclasses import dataclass
import kl
from datamodules import DigitsDataModule

@dataclass(frozen=True)
class K(kl.Gaussian):
    pass

class D(DigitsDataModule):
    pass
"""
NAME = "kl_evil_module"
FOREIGN = {"kernel": f"{NAME}:K", "bandwidth": 2.0}
OURS = {"kernel": "gaussian", "bandwidth": 2.0}
KERNELS = {
    "plain": FOREIGN,
    "in a sum": {"kernel": "sum", "parts": [OURS, FOREIGN]},
    "in a product of a multiple": {
        "kernel": "product",
        "parts": [{"kernel": "scaled", "part": FOREIGN, "scale": 2.0}, OURS],
    },
    "as a parameter": {"kernel": "gaussian", "bandwidth": FOREIGN},
    "of kl, by its module": {"kernel": "kl.kernels.radial:Gaussian", "bandwidth": 2.0},
    "of a submodule": {"kernel": f"{NAME}.part:K"},
    "a function": {"kernel": "os:system", "command": "touch it_ran"},
}


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """What the checkpoints of a run of each machine hold."""
    found, folder = {}, tmp_path_factory.mktemp("good")
    for name, machine in MACHINES.items():
        fit(machine(), regression(), 1).save_checkpoint(folder / f"{name}.ckpt")
        found[name] = torch.load(folder / f"{name}.ckpt", weights_only=True)
    return found


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A folder with a module that leaves a mark when it runs; the test fails where the mark is there at its end."""
    (tmp_path / f"{NAME}.py").write_text(EVIL)
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "__init__.py").write_text(EVIL)
    (tmp_path / NAME / "part.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    assert not list(tmp_path.rglob("it_ran"))


def write(folder, content):
    torch.save(content, folder / "evil.ckpt")
    return folder / "evil.ckpt"


def refused(content, folder, match, machine="KernelMachine"):
    """By each way into a checkpoint: with no machine at hand, into one, and where a run goes on."""
    path = write(folder, content)
    with pytest.raises(CheckpointError, match=match) as caught:
        kl.load_machine(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    for cls in (KernelMachine, kl.GeneralKernelMachine, kl.ConjugateGradientMachine):
        with pytest.raises(CheckpointError):
            cls.load_from_checkpoint(path)
    data = regression()
    data.setup()
    with pytest.raises(CheckpointError):
        quiet_trainer().test(MACHINES[machine](), datamodule=data, ckpt_path=path, verbose=False)
    with pytest.raises(CheckpointError):
        fit(MACHINES[machine](), regression(), 2, ckpt_path=path)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("machine", MACHINES)
def test_a_checkpoint_names_no_kernel_but_kls(contents, evil, name, machine):
    match = "kernel"
    for where in ({"hyper_parameters"}, {"kernel_machine"}, {"hyper_parameters", "kernel_machine"}):
        content = copy.deepcopy(contents[machine])
        for part in where:
            content[part]["kernel"] = KERNELS[name]
        path = write(evil, content)
        with pytest.raises(CheckpointError, match=match):
            kl.load_machine(path)
        if "kernel_machine" in where:
            refused(content, evil, match, machine)
            with pytest.raises(CheckpointError, match=match):
                load_function(path)


@pytest.mark.parametrize(
    "kind",
    ["build_kernel", "load_machine", "ReluNetwork", "EigenPro", "__loader__", f"{NAME}:D", "", ["KernelMachine"], None],
)
def test_a_checkpoint_is_of_a_kind_in_the_table(contents, evil, kind):
    content = copy.deepcopy(contents["KernelMachine"])
    content["kernel_machine"]["kind"] = kind
    match = "must hold one of .*KernelMachine, |must have kind of type str"
    refused(content, evil, match)
    with pytest.raises(CheckpointError, match=match):
        load_function(evil / "evil.ckpt")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"_instantiator": f"{NAME}.K"}, "must be among kernel, batch_size, .*got '_instantiator'"),
        ({"_class_path": f"{NAME}.K"}, "must be among kernel, .*got '_class_path'"),
        ({"batch_size": [3]}, r"must have batch_size of type int \| str; got \[3\]"),
        ({"batch_size": "many"}, "batch_size must be auto or an integer"),
        ({"seed": "0"}, "must have seed of type int; got '0'"),
        ({"seed": True}, "must have seed of type int; got True"),
        ({"memory": -5}, "memory"),
        ({"precision": None}, "must have precision of type str; got None"),
        ({"step_size": float("nan")}, r"must have step_size of type float \| str; got nan"),
        ({"kernel": f"{NAME}:K"}, "must have kernel of type dict"),
    ],
)
def test_hyper_parameters_are_arguments_of_the_right_types(contents, evil, values, match):
    content = copy.deepcopy(contents["KernelMachine"])
    content["hyper_parameters"].update(values)
    with pytest.raises(CheckpointError, match=match):
        kl.load_machine(write(evil, content))
    with pytest.raises(CheckpointError, match=match):
        KernelMachine.load_from_checkpoint(evil / "evil.ckpt")


@pytest.mark.parametrize("where", ["hyper_parameters", "kernel_machine"])
def test_the_command_line_runs_no_code_of_a_checkpoint(contents, evil, where, monkeypatch, capsys):
    content = copy.deepcopy(contents["KernelMachine"])
    content[where]["kernel"] = FOREIGN
    path = write(evil, content)
    np.savez("in.npz", x=np.zeros((2, 4), np.float32))
    np.savez(
        "train.npz", **{f"{a}_{b}": np.eye(4)[:, : None if a == "x" else 1] for a in "xy" for b in ("train", "test")}
    )
    commands = [["export", str(path), "--output", "out.csv"]]
    if where == "kernel_machine":  # predictions read nothing else
        commands.append(["predict", str(path), "--input", "in.npz", "--output", "out.csv"])
        commands.append(["fit", "--data", "npz:train.npz", "--no-exact", "--resume", str(path)])
    for command in commands:
        monkeypatch.setattr("sys.argv", ["kl", *command])
        with pytest.raises(SystemExit) as stop:
            main()
        err = capsys.readouterr().err.splitlines()[-1]
        assert stop.value.code == 2
        assert err.startswith(f"error: {path}: ")
    assert not Path("out.csv").exists()


def test_a_data_module_is_of_the_class_that_is_asked_for(contents, evil):
    path = evil / "digits.ckpt"
    fit(KernelMachine(Laplacian(2.0)), DigitsDataModule(train_size=50, test_size=20), 1).save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    assert DigitsDataModule.load_from_checkpoint(path).train_size == 50
    key = "datamodule_hyper_parameters"
    for values, match in [
        ({"_instantiator": f"{NAME}.D"}, "has the option _instantiator, which DigitsDataModule has not"),
        ({"_class_path": f"{NAME}.D"}, "has the option _class_path"),
        ({"train_size": f"{NAME}:D"}, "train_size must be a whole number"),
        ({"label_noise": {}}, "label_noise"),
    ]:
        content[key] = {"train_size": 50, **values}
        with pytest.raises(InputError, match=match):
            DigitsDataModule.load_from_checkpoint(write(evil, content))
    for values in (None, [3], "D"):
        content[key] = values
        with pytest.raises(CheckpointError, match="its data module must be a dict"):
            DigitsDataModule.load_from_checkpoint(write(evil, content))


class Mark:
    """Leaves a mark where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("it_ran"),)


def test_pickled_code_is_not_run(contents, evil):
    """In a checkpoint, a kept solution and an array."""
    content = {**contents["KernelMachine"], "more": Mark()}
    path = write(evil, content)
    for read in (kl.load_machine, KernelMachine.load_from_checkpoint, DigitsDataModule.load_from_checkpoint):
        with pytest.raises(CheckpointError, match="damaged or none"):
            read(path)
    with pytest.raises(InputError, match="weights_only must be True"):
        KernelMachine.load_from_checkpoint(path, weights_only=False)
    with pytest.raises(pickle.UnpicklingError):  # a Trainer without AtomicCheckpointIO
        fit(MACHINES["KernelMachine"](), regression(), 2, ckpt_path=path)
    x = torch.zeros(3, 2)
    assert load_solution(path, "key", Laplacian(1.0), x, x) is None
    with zipfile.ZipFile("objects.npz", "w") as file:
        array = np.empty(1, dtype=object)
        array[0] = Mark()
        with file.open("x_train.npy", "w") as member:
            np.lib.format.write_array(member, array, allow_pickle=True)
    from datamodules import ArrayDataModule

    with pytest.raises(InputError):
        ArrayDataModule(path="objects.npz").setup()


@pytest.mark.parametrize("option", ["kernel", "data"])
def test_an_options_file_names_no_code(evil, option, monkeypatch, capsys):
    name = f"{NAME}:{'K' if option == 'kernel' else 'D'}"
    Path("options.yaml").write_text(yaml.safe_dump({option: name, "no_exact": True, "train_size": 50}))
    for command in ("fit", "plan", "interpolate"):
        if command == "interpolate":
            Path("options.yaml").write_text(yaml.safe_dump({option: name, "train_size": 50}))
        monkeypatch.setattr("sys.argv", ["kl", command, "--config", "options.yaml"])
        with pytest.raises(SystemExit) as stop:
            main()
        err = capsys.readouterr().err
        assert stop.value.code == 2
        assert f"options.yaml names {name}, whose code would run" in err
        assert f"add --{option} {name} to the command" in err


@pytest.mark.parametrize("given", [Cauchy, Cauchy(3.0), "user_kernels:Cauchy", [Cauchy], Cauchy(3.0) * Laplacian(1.0)])
def test_a_users_kernel_is_loaded_where_they_name_it(tmp_path, given):
    kernel = given if isinstance(given, kl.Kernel) else Cauchy(3.0)
    model = KernelMachine(kernel)
    fit(model, regression(), 1).save_checkpoint(tmp_path / "a.ckpt")
    x = torch.randn(3, 4)
    assert torch.equal(kl.load_machine(tmp_path / "a.ckpt", kernel=given)(x), model(x))
    for other, match in [
        (Laplacian, "kernel must be what the file names, .*user_kernels:Cauchy; got laplacian"),
        ("user_kernels:ManhattanLaplacian", "got user_kernels:ManhattanLaplacian"),
        (3, "kernel must be a Kernel, a class of kernels or its name; got 3"),
        ("no_such_module_:K", "there is no module 'no_such_module_'"),
    ]:
        if other is Laplacian and kernel != Cauchy(3.0):
            continue  # it is in the product
        with pytest.raises(InputError, match=match) as refused:
            kl.load_machine(tmp_path / "a.ckpt", kernel=other)
        of_the_file = match.startswith(("kernel must be what the file", "got user"))
        assert isinstance(refused.value, CheckpointError) == of_the_file
        assert str(refused.value).startswith(str(tmp_path)) == of_the_file


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (Laplacian(3.0), r"trained with kernel Laplacian\(bandwidth=2.0\); got Laplacian\(bandwidth=3.0\): load it wi"),
        (kl.Gaussian(2.0), "must be what the file names, laplacian; got gaussian: give that, or leave it out"),
        ("gaussian", "must be what the file names, laplacian; got gaussian"),
        (2 * Laplacian(2.0), "must be what the file names, laplacian; got scaled"),
    ],
)
def test_another_kernel_is_not_ignored(contents, evil, other, match):
    path = write(evil, contents["KernelMachine"])
    with pytest.raises(CheckpointError, match=match):
        KernelMachine.load_from_checkpoint(path, kernel=other)
    for same in (Laplacian(2.0), Laplacian(), "laplacian", Laplacian):
        assert KernelMachine.load_from_checkpoint(path, kernel=same).kernel == Laplacian(2.0)
    with pytest.raises(CheckpointError, match=r"trained with kernel Laplacian\(bandwidth=2.0\); got Gaussian"):
        quiet_trainer().test(KernelMachine("gaussian"), datamodule=regression(), ckpt_path=path, verbose=False)


def test_other_options_take_precedence_and_unknown_ones_are_named(contents, evil):
    path = write(evil, contents["KernelMachine"])
    assert KernelMachine.load_from_checkpoint(path, memory="2GB").hparams["memory"] == "2GB"
    with pytest.raises(CheckpointError, match=r"must be among kernel, .*got 'strict'"):
        KernelMachine.load_from_checkpoint(path, strict=False)


SCRIPT = """
import logging, sys
from dataclasses import dataclass
import pytorch_lightning as pl
import kl
from datamodules import DigitsDataModule

@dataclass(frozen=True)
class Mine(kl.Gaussian):
    pass

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
machine = kl.KernelMachine(Mine(2.0))
trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                     enable_progress_bar=False, enable_model_summary=False)
trainer.fit(machine, datamodule=DigitsDataModule(train_size=50, test_size=20))
for _ in range(2):
    trainer.save_checkpoint("script.ckpt")
assert kl.load_machine("script.ckpt", kernel=Mine).kernel == Mine(2.0)
"""


@pytest.mark.slow
def test_a_kernel_of_a_script_is_kept_with_a_warning(evil, caplog):
    Path("script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    remedy = "into a file such as mine.py and take it from there; or load with load_from_checkpoint(path, kernel=Mine)"
    assert (
        done.stderr.count(f"the kernel as __main__:Mine, a name that no other program finds: put the class {remedy}")
        == 1
    )
    with pytest.raises(CheckpointError, match=r"kernel=mine:Mine, where mine\.py holds that class"):
        kl.load_machine("script.ckpt")
    Path(f"{NAME}_2.py").write_text(SCRIPT[: SCRIPT.index("logging.getL")])
    loaded = kl.load_machine("script.ckpt", kernel=f"{NAME}_2:Mine")  # moved to a file since
    assert loaded.kernel.bandwidth == 2.0
    caplog.clear()
    fit(KernelMachine(Cauchy(2.0)), regression(), 1).save_checkpoint("module.ckpt")
    assert "no other program" not in caplog.text
