"""Checkpoints that are damaged, changed, of something else or of another version: one line that names the file."""

import copy
import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from training import MACHINES, fit, quiet_trainer, regression

from callbacks import AtomicCheckpointIO, History
from datamodules import DigitsDataModule
from kl import CheckpointError, KernelMachine, ReluNetwork, load_machine
from kl.machines.checkpoints import read_checkpoint

FIT = ["fit", "--train-size", 40, "--test-size", 10, "--no-exact", "--name", "run", "--kernel", "gaussian"]
FIT += ["--batch-size", 20, "--accelerator", "cpu"]
REMOVED = object()


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """What the checkpoints of a run of each machine hold, and the values that they predict."""
    found, folder = {}, tmp_path_factory.mktemp("good")
    for name, machine in MACHINES.items():
        fit(model := machine(), regression(), 1).save_checkpoint(folder / "a.ckpt")
        found[name] = torch.load(folder / "a.ckpt", weights_only=True), model
    return found


def places(content, path=()):
    """The path to every value of a nested dict or list."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(content, path, change):
    """A copy in which the value at a path is removed, or is what `change` makes of it."""
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    new = change(inner[path[-1]])
    if new is REMOVED:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return content


CHANGES = {
    "removed": lambda value: REMOVED,
    "None": lambda value: None if value is not None else 1,
    "a text": lambda value: "evil" if not isinstance(value, str) else 3,
    "a list": lambda value: [[1, "x"]] if not isinstance(value, list) else {"x": 1},
    "minus one": lambda value: -1,
    "a tensor": lambda value: torch.zeros(3),
}
TENSORS = {
    "shorter": lambda value: value[:-1],
    "empty": lambda value: value[:0],
    "flat": lambda value: value.reshape(-1, 1, 1),
    "wider": lambda value: torch.cat([value, value], dim=-1),
    "of half": lambda value: value.half(),
    "of int": lambda value: value.int(),
    "of complex": lambda value: value.to(torch.complex64),
    "of double or single": lambda value: value.float() if value.dtype == torch.float64 else value.double(),
    "NaN": lambda value: torch.full_like(value, torch.nan) if value.is_floating_point() else -value - 1,
    "infinite": lambda value: torch.full_like(value, torch.inf) if value.is_floating_point() else value * 0,
    "sparse": lambda value: value.to_sparse(),
    "one value repeated": lambda value: value.new_zeros(1).expand(10**7),
    "without storage": lambda value: value.to("meta"),
    "removed": lambda value: REMOVED,
    "a number": lambda value: 1.0,
}


def refused_or_the_same(content, path, model, where):
    """Whether a load refuses it; otherwise it must not have needed what was changed."""
    torch.save(content, path)
    try:
        loaded = load_machine(path)
    except CheckpointError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert said.startswith((f"{path}: ", f"checkpoint {path} ", f"{path} ")), where
        assert "\n" not in said, where
        return True
    x = torch.randn(5, model.centers.shape[1], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded(x).float(), model(x), msg=str(where))
    return False


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", MACHINES)
def test_every_value_of_a_checkpoint(contents, name, change, tmp_path):
    content, model = contents[name]
    refusals = set()
    for path in places(content):
        if path[0] in ("kernel_machine", "hyper_parameters", "state_dict"):
            found = changed(content, path, CHANGES[change])
            if refused_or_the_same(found, tmp_path / "a.ckpt", model, path):
                refusals.add(path)
    needed = {("kernel_machine", each) for each in content["kernel_machine"]} - {("kernel_machine", "data_key")}
    needed |= {("state_dict", each) for each in content["state_dict"]}
    if change in ("removed", "a tensor"):
        assert needed <= refusals
    assert {("kernel_machine",), ("hyper_parameters",), ("state_dict",)} <= refusals


@pytest.mark.parametrize("change", TENSORS)
@pytest.mark.parametrize("name", MACHINES)
def test_every_tensor_of_a_checkpoint(contents, name, change, tmp_path):
    content, model = contents[name]
    for key in content["state_dict"]:
        found = changed(content, ("state_dict", key), TENSORS[change])
        where = (key, change)
        refused = refused_or_the_same(found, tmp_path / "a.ckpt", model, where)
        either = change == "of double or single" and key in model._kept_in_checkpoints
        assert refused or either, where


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"task": "ranking"}, "must be of a task with features and outputs; got 'ranking'"),
        ({"image_shape": [1, 2, 3]}, r"must have the image_shape of 4 features; got \[1, 2, 3\]"),
        ({"image_shape": [-2, -2, 1]}, "must have the image_shape"),
        ({"class_names": ["a", "b"]}, "must have a class name for each of 1 outputs; got 2"),
        ({"num_outputs": 0}, "must be of a task with features and outputs"),
        ({"num_features": 5}, r"says d=5, c=1, and its weights are for d=4, c=1"),
    ],
)
def test_a_description_that_does_not_fit(contents, tmp_path, values, match):
    content = copy.deepcopy(contents["KernelMachine"][0])
    content["kernel_machine"]["data_info"].update(values)
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=match):
        load_machine(tmp_path / "a.ckpt")


def test_a_plan_out_of_its_range(contents, tmp_path):
    for field in contents["KernelMachine"][0]["kernel_machine"]["plan"]:
        content = changed(contents["KernelMachine"][0], ("kernel_machine", "plan", field), lambda value: -value - 1)
        torch.save(content, tmp_path / "a.ckpt")
        with pytest.raises(CheckpointError, match=f"its plan must have {field} above 0; got -"):
            load_machine(tmp_path / "a.ckpt")


@pytest.fixture
def bad_files(contents, tmp_path):
    """Files that are no checkpoints, by what is wrong with them, and a part of what is said."""
    good = tmp_path / "good.ckpt"
    torch.save(contents["KernelMachine"][0], good)
    whole = good.read_bytes()
    files = {
        name: tmp_path / f"{name}.ckpt" for name in ("text", "empty", "cut", "tail", "flip", "zip", "list", "fifo")
    }
    files["text"].write_text("hello\n" * 100)
    files["empty"].write_bytes(b"")
    files["cut"].write_bytes(whole[: len(whole) // 2])
    files["tail"].write_bytes(whole[len(whole) // 2 :])
    middle = whole.index(bytes(contents["KernelMachine"][0]["state_dict"]["centers"].numpy().tobytes()[:64]))
    files["flip"].write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with zipfile.ZipFile(files["zip"], "w") as file:
        file.writestr("a.txt", "hello")
    torch.save([1, 2], files["list"])
    os.mkfifo(files["fifo"])
    files["folder"], files["gone"] = tmp_path, tmp_path / "gone.ckpt"
    files["inside a file"] = good / "a.ckpt"
    files["too long"], files["odd"] = Path("a" * 5000), Path("a\0b")
    return files


KINDS = ("text", "empty", "cut", "tail", "flip", "zip", "list", "fifo", "folder", "gone", "inside a file", "too long")


@pytest.mark.parametrize("what", [*KINDS, "odd"])
def test_files_that_are_no_checkpoints(bad_files, what):
    for read in (load_machine, KernelMachine.load_from_checkpoint, DigitsDataModule.load_from_checkpoint):
        with pytest.raises(CheckpointError, match=r"damaged or none|cannot be read") as caught:
            read(bad_files[what])
        assert str(bad_files[what])[:20] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", KINDS)
def test_the_command_line_says_so_in_one_line(kl, bad_files, what):
    predict = kl("predict", bad_files[what], "--input", "in.npz", "--output", "out.csv")
    resumed = kl(*FIT, "--resume", bad_files[what])
    for result in (predict, resumed):
        assert result.code == 2
        assert result.err.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in result.err
    assert predict.err.count("\n") == 1
    assert not Path("lightning_logs").exists()


def test_other_things_that_torch_writes(tmp_path):
    for value in ({"weights": 1}, {"state_dict": [1]}, {"state_dict": {}}, {"state_dict": {}, "kernel_machine": 3}):
        torch.save(value, tmp_path / "a.ckpt")
        with pytest.raises(CheckpointError, match=r"a.ckpt(:| is) .*(kernel machine|Lightning run|must be a dict)"):
            load_machine(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="must be the path of a file; got a int"):
        load_machine(3)


AFTER_STEPS = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on ModelCheckpoint


@AFTER_STEPS
@pytest.mark.parametrize("name", [*MACHINES, "ReluNetwork"])
def test_a_run_goes_on_from_the_end_of_an_epoch_alone(tmp_path, name):
    data, machine = regression, MACHINES.get(name)
    if machine is None:
        data = lambda: DigitsDataModule(train_size=60, test_size=20, batch_size=20)  # noqa: E731
        machine = ReluNetwork
    for kind, options in (("step", {"every_n_train_steps": 1}), ("epoch", {"save_on_train_epoch_end": True})):
        saver = ModelCheckpoint(tmp_path / kind, "{step}", save_top_k=-1, auto_insert_metric_name=False, **options)
        fit(machine(), data(), 3, callbacks=[saver], enable_checkpointing=True)
    fit(whole := machine(), data(), 3)
    steps, epochs = sorted(tmp_path.glob("step/*")), sorted(tmp_path.glob("epoch/*"))
    assert len(epochs) == 3
    assert len(steps) == (3 if name == "ConjugateGradientMachine" else 9)  # the first and the last of an epoch, too
    for path in steps:
        with pytest.raises(CheckpointError, match=rf"{path.name}: .*was written inside an epoch, .*resume from one"):
            fit(machine(), data(), 3, ckpt_path=path)
    for path in epochs[:-1]:
        fit(rest := machine(), data(), 3, ckpt_path=path)
        for key, value in dict(whole.named_parameters(), **dict(whole.named_buffers())).items():
            assert torch.equal(rest.state_dict().get(key, value), value), key


@AFTER_STEPS
def test_a_checkpoint_inside_an_epoch_predicts_all_the_same(tmp_path):
    saver = ModelCheckpoint(tmp_path, "one", every_n_train_steps=1, save_top_k=1)
    fit(model := MACHINES["KernelMachine"](), regression(), 1, callbacks=[saver], enable_checkpointing=True)
    loader = regression()
    loader.setup()
    assert load_machine(tmp_path / "one.ckpt").num_centers == 60
    quiet_trainer().test(model, datamodule=loader, ckpt_path=tmp_path / "one.ckpt", verbose=False)


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    """A function that makes a run of one epoch, the first time it is called, and returns its folder."""
    folder = tmp_path_factory.mktemp("run") / "lightning_logs"

    def made(kl):
        if not folder.exists():
            assert kl(*FIT, "--epochs", 1, "--log-dir", folder).code == 0
        return folder

    return made


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (("pytorch-lightning_version",), "1.9.5", "written by Lightning '1.9.5', before 2.0 or none"),
        (("pytorch-lightning_version",), REMOVED, "its top level has no pytorch-lightning_version"),
        (("epoch",), "x", "its top level must have epoch of type int; got 'x'"),
        (("epoch",), -1, "its epoch and global_step must be at least 0"),
        (("global_step",), REMOVED, "its top level has no global_step"),
        (("loops",), REMOVED, "must be a dict; got None"),
        (("loops", "fit_loop"), REMOVED, "its loops has no fit_loop"),
        (("loops", "fit_loop", "epoch_loop.batch_progress", "current"), 3, "must have current of type dict; got 3"),
        (("loops", "fit_loop", "epoch_progress", "current"), {}, "its loops: epoch_progress: current must hold ready"),
        (("loops", "fit_loop", "epoch_progress", "current", "ready"), -1, "current: ready must be like .*got -1"),
        (("optimizer_states",), REMOVED, "its optimizer_states must be a list of 1; got None"),
        (("optimizer_states", 0, "param_groups", 0, "lr"), 0.0, "must have an lr above 0; got 0.0"),
        (("optimizer_states", 0, "param_groups", 0, "lr"), float("nan"), "lr must be like .*got nan"),
        (("lr_schedulers",), REMOVED, "Lightning cannot go on from it .KeyError"),
        (("callbacks",), [], "Lightning cannot go on from it|must"),
        (("callbacks", "ConvergenceFigure", "history"), {"a": [[1]]}, "its history must be of pairs of an epoch and a"),
        (("callbacks", "ConvergenceFigure"), {"x": 1}, "its history has no history"),
        (("DigitsDataModule",), {}, "its data module has no encoding"),
        (("hyper_parameters", "precision"), REMOVED, "its hyper_parameters has no precision"),
        (("state_dict", "alpha"), REMOVED, "it has no alpha"),
    ],
)
def test_resume_from_a_changed_checkpoint(kl, one_epoch, path, value, match):
    shutil.copytree(one_epoch(kl), "lightning_logs")
    file = "lightning_logs/run/version_0/checkpoints/last.ckpt"
    torch.save(changed(read_checkpoint(file), path, lambda _: value), file)
    result = kl(*FIT, "--epochs", 2, "--resume", file)
    last = result.err.splitlines()[-1]
    assert result.code == 2, result.err
    assert last.startswith(f"error: {file}: ")
    assert re.search(match, last), last
    assert "Traceback" not in result.err


@pytest.mark.slow
def test_resume_from_every_change(tmp_path):
    """An error that names the file, or the very run that goes on without the change."""
    good, bad = tmp_path / "good.ckpt", tmp_path / "bad.ckpt"
    machine = MACHINES["KernelMachine"]
    fit(machine(), regression(), 1, callbacks=[History()]).save_checkpoint(good)
    content = torch.load(good, weights_only=True)
    fit(whole := machine(), regression(), 2)
    for path in places(content):
        if path[0] in ("lr_schedulers", "callbacks"):
            continue  # Lightning's own, above
        for change in ("removed", "a text", "a list"):
            torch.save(changed(content, path, CHANGES[change]), bad)
            try:
                fit(
                    rest := machine(),
                    regression(),
                    2,
                    ckpt_path=bad,
                    plugins=[AtomicCheckpointIO()],
                    callbacks=[History()],
                )
            except CheckpointError:
                continue
            assert torch.equal(rest.alpha, whole.alpha), (path, change)
