"""Bad input: one line that names the argument and the remedy, exit code 2, and nothing left behind."""

from pathlib import Path

import numpy as np
import pytest

GOOD = {"x_train": np.random.default_rng(0).random((20, 5)), "y_train": np.arange(20) % 2}
GOOD |= {"x_test": GOOD["x_train"][:5], "y_test": GOOD["y_train"][:5]}


def refused(result, *fragments):
    assert result.code == 2, result.err
    assert result.err.count("\n") == 1, result.err
    assert result.err.startswith("error: ")
    for fragment in fragments:
        assert fragment in result.err
    assert "Traceback" not in result.err
    assert result.out == ""
    assert not Path("lightning_logs").exists() or not any(Path("lightning_logs").iterdir())


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--data", "mnits"], ["--data must be one of", "did you mean 'mnist'"]),
        (["--data", "npz:"], ["lacks what follows the colon"]),
        (["--kernel", "laplace"], ["unknown kernel 'laplace'", "laplacian"]),
        (["--kernel", "nowhere:Kernel"], ["there is no module 'nowhere'"]),
        (["--bandwidth", "0"], ["bandwidth must be", "got 0"]),
        (["--bandwidth", "-1"], ["bandwidth must be", "got -1"]),
        (["--bandwidth", "nan"], ["bandwidth must be", "nan"]),
        (["--bandwidth", "wide"], ["bandwidth must be a number or auto; got 'wide'"]),
        (["--kernel", "relu-ntk", "--bandwidth", "3"], ["has no parameter bandwidth", "depth"]),
        (["--kernel", "relu-ntk", "--depth", "0"], ["depth must be"]),
        (["--label-noise", "1.5"], ["label_noise", "1.5"]),
        (["--label-noise", "-0.1"], ["label_noise", "-0.1"]),
        (["--label-noise", "nan"], ["label_noise", "nan"]),
        (["--noise-kind", "some"], ["noise_kind", "'some'"]),
        (["--train-size", "0"], ["train_size", "got 0"]),
        (["--train-size", "5000"], ["train_size", "1437", "5000"]),
        (["--test-size", "5000"], ["test_size", "360", "5000"]),
        (["--train-size", "many"], ["--train-size", "many"]),
        (["--train-size", "1"], ["at least two classes"]),
        (["--epochs", "0"], ["epochs must be at least 1"]),
        (["--batch-size", "0"], ["batch_size must be auto or an integer of at least 1"]),
        (["--batch-size", "x"], ["batch_size must be a whole number or auto"]),
        (["--step-size", "0"], ["step_size must be"]),
        (["--step-size", "-3"], ["step_size must be"]),
        (["--top-q", "-1"], ["top_q must be auto or an integer of at least 0"]),
        (["--subsample", "0"], ["subsample must be auto or an integer of at least 1"]),
        (["--memory", "lots"], ["memory must be auto", "'lots'"]),
        (["--ridge", "-1"], ["ridge must be"]),
        (["--precision", "low"], ["precision must be high or medium", "'low'"]),
        (["--accelerator", "tpu"], ["accelerator must be auto, cpu or gpu"]),
        (["--accelerator", "cpu", "--devices", "two"], ["devices", "a whole number of at least 1", "'two'"]),
        (["--accelerator", "cpu", "--devices", "0"], ["devices", "at least 1", "'0'"]),
        (["--accelerator", "cpu", "--devices", "0,1"], ["devices", "left out on a CPU", "'0,1'"]),
        (["--accelerator", "cpu", "--devices", "100000"], ["devices must be at most", "4 processes a core", "100000"]),
        (["--num-nodes", "0"], ["num_nodes", "at least 1", "0"]),
        (["--strategy", "ddp"], ["strategy", "auto, kernel_parallel", "'ddp'"]),
        (["--solver", "magic"], ["solver must be one of eigenpro, eigenpro3, eigenpro4, pcg"]),
        (["--solver", "pcg", "--top-q", "3"], ["top_q is for --solver eigenpro, eigenpro3 and eigenpro4"]),
        (["--seed", "-1"], ["error: seed must be a whole number from 0 to 2^63 - 1; got -1"]),
        (["--seed", "9" * 20], ["error: seed must be a whole number from 0 to 2^63 - 1; got 9"]),
        (["--stop-mse", "0"], ["mse must be"]),
        (["--name", " "], ["name must be"]),
        (["--name", ".."], ["name must be"]),
        (["--name", "x" * 300], ["name must be"]),
        (["--memory", "9" * 400], ["memory must be auto"]),
        (["--grayscale"], ["grayscale is not an option of --data digits"]),
        (["--frobnicate"], ["No such option: --frobnicate"]),
        (["--data-dir", "nowhere", "--data", "mnist"], ["mnist", "nowhere", "--data-dir"]),
        (["--data", "npz:gone.npz"], ["gone.npz", "no such file"]),
        (["--data", "folder:gone"], ["gone"]),
    ],
)
def test_wrong_options(kl, arguments, fragments):
    refused(kl("fit", "--epochs", 1, *arguments), *fragments)


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ({"x_train": np.full((20, 5), np.nan)}, ["x_train must be finite", "row 0"]),
        ({"x_train": np.full((20, 5), np.inf)}, ["x_train must be finite"]),
        ({"y_train": np.arange(19) % 2}, ["20", "19"]),
        ({"x_test": np.zeros((5, 4))}, ["4", "5"]),
        ({"y_train": np.zeros(20, dtype=int)}, ["at least two classes"]),
        ({"x_train": None}, ["x_train not found"]),
        ({"x_train": np.array([[None] * 5] * 20)}, ["Python objects"]),
    ],
)
def test_wrong_arrays(kl, change, fragments):
    arrays = {name: array for name, array in (GOOD | change).items() if array is not None}
    np.savez("data.npz", **arrays)
    refused(kl("fit", "--data", "npz:data.npz"), *fragments)


def test_truncated_and_foreign_files(kl):
    np.savez("data.npz", **GOOD)
    Path("cut.npz").write_bytes(Path("data.npz").read_bytes()[:300])
    Path("text.npz").write_text("not an archive")
    refused(kl("fit", "--data", "npz:cut.npz"), "cut.npz", "damaged")
    refused(kl("interpolate", "--data", "npz:text.npz"), "text.npz", "is not a .npz file")


def test_unwritable_log_dir(kl):
    Path("file").write_text("in the way")
    result = kl("fit", "--epochs", 1, "--log-dir", "file/logs")
    refused(result, "log_dir must be a folder that can be written", "--log-dir")


def test_a_name_that_is_a_file(kl):
    Path("logs").mkdir()
    Path("logs/mine").write_text("in the way")
    refused(kl("fit", "--epochs", 1, "--log-dir", "logs", "--name", "mine"), "log_dir must be a folder", "logs/mine")


def test_values_of_the_wrong_type_in_a_config(kl):
    for text, fragments in (
        ("epochs: many\n", ["'--epochs'", "got 'many' from --config"]),
        ("epochs: true\n", ["line 1: epochs must be one number or text; got true"]),
        ("label_noise: [1]\n", ["line 1: label_noise must be one number or text; got a list"]),
        ("grayscale: 3\n", ["grayscale must be true or false; got 3"]),
    ):
        Path("options.yaml").write_text(text)
        refused(kl("fit", "--config", "options.yaml"), *fragments)


def test_a_kernel_that_is_not_finite(kl):
    arguments = ("--data", "digits", "--train-size", 100, "--kernel", "polynomial", "--degree", 300)
    refused(kl("interpolate", *arguments), "is not finite")
    refused(kl("fit", *arguments), "is not finite")


def test_interpolate_beyond_the_budget_fails_with_code_1(kl, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # without solutions that other tests have kept
    result = kl("interpolate", "--memory", "1MB")
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert "raise --memory, or use --train-size" in result.err
    assert result.out == ""


@pytest.mark.parametrize(("variable", "says"), [("LOCAL_RANK", False), ("SLURM_LOCALID", True)])
def test_who_speaks_of_several_processes(kl, monkeypatch, variable, says):
    """Those of torchrun run the same command, so the first does; tasks of SLURM may run others."""
    monkeypatch.setenv(variable, "1")
    result = kl("fit", "--epochs", 0)
    assert (result.code, "epochs must be at least 1" in result.err) == (2, says)
