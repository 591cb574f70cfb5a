"""`kl fit`: what it prints, what it writes, and how it goes on."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sklearn.datasets import load_digits

from recipes.options.groups import TrainerOptions
from recipes.run.folders import find_checkpoint

FAST = ("--data", "digits", "--train-size", 300, "--test-size", 100, "--epochs", 2)

FIELDS = {
    *("data", "kernel", "n", "d", "c", "epochs", "train_mse", "train_error", "test_mse", "test_error", "rkhs_norm"),
    *("exact_train_mse", "exact_test_mse", "exact_test_error", "exact_rkhs_norm", "distance_to_exact", "batch_size"),
    *("critical_batch_size", "step_size", "top_q", "subsample", "seconds_total", "seconds_per_epoch"),
    *("peak_memory_bytes", "log_dir", "checkpoint"),
}


def fit_json(kl, *arguments):
    result = kl("fit", *arguments, "--json")
    assert result.code == 0, result.err
    assert result.out.count("\n") == 1  # one line, nothing else
    return json.loads(result.out)


def test_json_has_the_agreed_fields(kl):
    found = fit_json(kl, *FAST)
    assert set(found) >= FIELDS
    assert (found["data"], found["n"], found["d"], found["c"], found["epochs"]) == ("digits", 300, 64, 10, 2)
    assert len(found["seconds_per_epoch"]) == 2
    assert found["train_error"] == 0
    assert found["exact_train_mse"] < 1e-20
    assert 0 < found["distance_to_exact"] < found["exact_rkhs_norm"]
    assert Path(found["checkpoint"]).is_file()
    assert Path(found["checkpoint"]).is_absolute()
    assert Path(found["checkpoint"]).is_relative_to(found["log_dir"])
    assert Path(found["log_dir"]).is_absolute()


def test_numbers_agree_with_kl_interpolate(kl):
    found = fit_json(kl, *FAST, "--bandwidth", 3)
    exact = json.loads(kl("interpolate", *FAST[:6], "--bandwidth", 3, "--json").out)
    for ours, theirs in (("exact_test_error", "test_error"), ("exact_rkhs_norm", "rkhs_norm")):
        assert found[ours] == pytest.approx(exact[theirs], rel=1e-9)


def test_table_names_checkpoint_and_tensorboard(kl):
    result = kl("fit", *FAST)
    assert result.code == 0, result.err
    for text in (
        "EigenPro, 2 epochs",
        "exact limit",
        "RKHS norm",
        "train error",
        "checkpoint:",
        "tensorboard --logdir",
    ):
        assert text in result.out


def test_table_names_figure_and_report(kl):
    result = kl("fit", *FAST, "--name", "a b")
    assert result.code == 0, result.err
    folder = "lightning_logs/a b/version_0"
    assert f"\nfigure:      {folder}/figures/convergence.png\n" in result.out
    assert Path(folder, "figures", "convergence.png").is_file()
    assert re.search(rf"\nreport:      (\S*/)?kl report '{folder}'\n", result.out)
    for lines in (kl("fit", *FAST, "--fast-dev-run").out, kl("fit", *FAST, "--print-config").out):
        assert "figure:" not in lines
        assert "report:" not in lines


def test_the_record_has_the_results_and_where_they_come_from(kl):
    found = fit_json(kl, *FAST, "--label-noise", 0.1)
    record = json.loads(Path(found["log_dir"], "results.json").read_text())
    assert record["results"] == found
    assert found["convergence_figure"] == str(Path(found["log_dir"], "figures", "convergence.png"))
    assert record["finished"] is True
    assert record["rows"] == "test"
    assert record["command"] == f"kl fit {' '.join(map(str, FAST))} --label-noise 0.1 --json"
    assert record["machine"]["torch"] == torch.__version__
    spectrum, counts = record["spectrum"], record["confusion"]["counts"]
    assert (spectrum["s"], spectrum["top_q"]) == (found["subsample"], found["top_q"])
    assert sum(count for *_, count in counts) == 100
    wrong = sum(count for true, predicted, count in counts if true != predicted)
    assert wrong / 100 == pytest.approx(found["test_error"])
    assert len(record["worst_errors"]) == min(wrong, 16)
    assert all(error["true"] != error["predicted"] for error in record["worst_errors"])


def test_a_run_that_has_begun_has_its_record(kl, monkeypatch):
    """Where it was computed and its spectrum are known once it trains; its results are not."""
    from callbacks import RKHSNorm

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(RKHSNorm, "on_train_epoch_end", fail)
    assert kl("fit", *FAST, "--name", "begun").code == 130
    record = json.loads(Path("lightning_logs/begun/version_0/results.json").read_text())
    assert (record["finished"], record["results"], record["confusion"]) == (False, None, None)
    assert record["command"].startswith("kl fit")
    assert record["spectrum"]["s"] == 300


def test_run_folder(kl, tmp_path):
    folder = Path(fit_json(kl, *FAST, "--name", "mine")["log_dir"])
    assert folder == Path("lightning_logs/mine/version_0").resolve()
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"config.yaml", "last.ckpt", "convergence.png"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)


@pytest.mark.slow
def test_config_of_a_run_repeats_it(kl):
    first = fit_json(kl, *FAST, "--bandwidth", 3, "--top-q", 5)
    again = fit_json(kl, "--config", Path(first["log_dir"], "config.yaml"))
    for name in ("train_mse", "rkhs_norm", "top_q", "bandwidth"):
        assert first[name] == again[name]


def test_print_config_reads_back(kl, tmp_path):
    printed = kl("fit", *FAST, "--label-noise", 0.1, "--print-config")
    assert printed.code == 0
    assert yaml.safe_load(printed.out)["label_noise"] == 0.1
    Path("options.yaml").write_text(printed.out)
    assert kl("fit", "--config", "options.yaml", "--print-config").out == printed.out
    other = kl("fit", "--config", "options.yaml", "--epochs", 7, "--print-config").out
    assert yaml.safe_load(other)["epochs"] == 7  # the command line takes precedence


def test_config_errors(kl):
    Path("unknown.yaml").write_text("bandwith: 3\n")
    Path("list.yaml").write_text("- 3\n")
    Path("broken.yaml").write_text("a: 'x\n")
    for name, message in {
        "unknown.yaml": "unknown option 'bandwith'",
        "list.yaml": "must hold a mapping",
        "broken.yaml": "is not YAML",
        "missing.yaml": "cannot be read",
    }.items():
        result = kl("fit", "--config", name)
        assert result.code == 2
        assert message in result.err
        assert result.err.count("\n") == 1


def test_resume_last_equals_uninterrupted(kl):
    whole = fit_json(kl, *FAST[:-1], 4, "--name", "whole")
    fit_json(kl, *FAST, "--name", "parts")
    parts = fit_json(kl, *FAST[:-1], 4, "--name", "parts", "--resume", "last")
    assert parts["log_dir"] == str(Path("lightning_logs/parts/version_0").resolve())  # the run goes on in its folder
    for name in ("train_mse", "rkhs_norm", "test_mse", "distance_to_exact"):
        assert parts[name] == whole[name]
    weights = [torch.load(found["checkpoint"], weights_only=True)["state_dict"]["alpha"] for found in (whole, parts)]
    assert torch.equal(*weights)


@pytest.mark.slow
def test_a_resumed_run_keeps_the_options_that_it_runs_with(kl):
    first = fit_json(kl, *FAST, "--batch-size", 48, "--step-size", 30, "--subsample", 5000)
    config = Path(first["log_dir"], "config.yaml")
    more = fit_json(kl, *FAST[:-1], 3, "--batch-size", 7, "--step-size", 1, "--top-q", 3, "--resume", "last")
    kept = yaml.safe_load(config.read_text())
    assert (kept["batch_size"], kept["step_size"], kept["epochs"]) == ("48", "30.0", 3)
    assert kept["top_q"] == str(more["top_q"]) == str(first["top_q"])
    assert kept["subsample"] == "auto"  # as asked for
    assert more["batch_size"] == 48


@pytest.mark.slow
def test_resume_last_is_the_newest_by_time(kl):
    older = fit_json(kl, *FAST, "--name", "mine")
    newer = fit_json(kl, *FAST[:-1], 3, "--name", "mine")
    assert [Path(run["log_dir"]).name for run in (older, newer)] == ["version_0", "version_1"]
    os.utime(older["checkpoint"])  # version_0 went on after version_1 had ended
    os.utime(newer["checkpoint"], (1e9, 1e9))
    more = fit_json(kl, *FAST[:-1], 5, "--name", "mine", "--resume", "last")
    assert more["log_dir"] == older["log_dir"]
    assert len(more["seconds_per_epoch"]) == 3  # from the second epoch of version_0, not the third of version_1


@pytest.mark.parametrize("newest", ["version_0", "version_9", "version_10"])
def test_resume_last_is_the_newest_by_time_of_many_versions(tmp_path, newest):
    for number in range(12):
        path = tmp_path / "mine" / f"version_{number}" / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1e9, 1e9 + (100 if path.parts[-3] == newest else number)))
    (tmp_path / "mine" / "version_12").mkdir()  # has no checkpoint yet
    found = find_checkpoint(TrainerOptions(resume="last", log_dir=str(tmp_path)), "mine")
    assert found == tmp_path / "mine" / newest / "checkpoints" / "last.ckpt"


@pytest.mark.slow
def test_resume_from_a_path(kl):
    first = fit_json(kl, *FAST)
    more = fit_json(kl, *FAST[:-1], 3, "--resume", first["checkpoint"])
    assert more["epochs"] == 3
    assert len(more["seconds_per_epoch"]) == 1


def test_resume_errors(kl):
    first = fit_json(kl, *FAST)
    for arguments, message in (
        ((*FAST, "--resume", "last", "--name", "other"), "resume last found no checkpoint"),
        ((*FAST, "--resume", "gone.ckpt"), "there is no file gone.ckpt"),
        ((*FAST, "--resume", "last"), "epochs must be more than the 2"),
        ((*FAST[:-1], 4, "--label-noise", 0.5, "--resume", "last"), "belongs to other training data"),
        ((*FAST[:-1], 4, "--bandwidth", 1, "--resume", "last"), "was trained with kernel"),
        ((*FAST[:-1], 4, "--precision", "medium", "--resume", "last"), "trained with precision high; got medium"),
        ((*FAST, "--resume", "last", "--fast-dev-run"), "exclude each other"),
    ):
        result = kl("fit", *arguments)
        assert result.code == 2
        assert message in result.err
    assert Path(first["checkpoint"]).is_file()


def test_damaged_checkpoint(kl):
    path = Path(fit_json(kl, *FAST)["checkpoint"])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = kl("fit", *FAST[:-1], 3, "--resume", "last")
    assert result.code == 2
    assert "damaged or none" in result.err


def test_label_noise_reports_both_test_errors(kl):
    found = fit_json(kl, *FAST, "--label-noise", 0.3)
    assert found["test_error_noisy"] > found["test_error"]
    assert found["exact_test_error_noisy"] > found["exact_test_error"]
    assert found["train_error"] < 0.3  # towards the noisy labels, which it fits


def test_plain_kernel_sgd_and_forced_parameters(kl):
    found = fit_json(kl, *FAST, "--top-q", 0, "--batch-size", 50, "--subsample", 100)
    assert (found["top_q"], found["batch_size"], found["subsample"]) == (0, 50, 100)


def test_sizes_above_n_are_clipped_with_a_message(kl, caplog):
    found = fit_json(kl, *FAST, "--top-q", 5000, "--batch-size", 5000, "--subsample", 5000)
    assert (found["batch_size"], found["subsample"]) == (300, 300)
    for name in ("top_q", "batch_size", "subsample"):
        assert f"{name} 5000 is more than" in caplog.text


def test_a_far_too_large_step_recovers(kl, caplog):
    found = fit_json(kl, *FAST, "--step-size", 1e5)
    assert found["step_size"] < 1e5
    assert found["train_mse"] < 0.1
    assert "training diverged at step size" in caplog.text


def test_conjugate_gradients(kl):
    found = fit_json(kl, *FAST, "--solver", "pcg", "--epochs", 12, "--name", "cg")
    assert found["solver"] == "conjugate gradients"
    assert found["batch_size"] == found["n"] == 300
    assert found["preconditioner_rank"] == 32
    assert found["step_size"] is found["top_q"] is None
    assert found["distance_to_exact"] < 0.01 * found["exact_rkhs_norm"]
    more = fit_json(kl, *FAST, "--solver", "pcg", "--epochs", 14, "--name", "cg", "--resume", "last")
    assert more["epochs"] == 14
    shown = kl("fit", *FAST, "--solver", "pcg", "--no-exact").out
    assert "conjugate gradients, 2 epochs" in shown
    assert "preconditioner of rank 32, relative residual" in shown
    data = load_digits().data[:7] / 16
    np.savez("some.npz", x=data.astype(np.float32))
    assert kl("predict", found["checkpoint"], "--input", "some.npz", "--output", "some.csv").code == 0


@pytest.mark.slow
def test_medium_precision(kl):
    arguments = ("--data", "synthetic1", "--train-size", 300, "--test-size", 100, "--epochs", 3)
    high, medium = (fit_json(kl, *arguments, "--precision", precision) for precision in ("high", "medium"))
    assert medium["train_mse"] != high["train_mse"]
    assert abs(medium["rkhs_norm"] - high["rkhs_norm"]) < 0.02 * high["rkhs_norm"]
    assert medium["test_error"] <= high["test_error"] + 0.02
    refused = kl("interpolate", *arguments[:4], "--precision", "medium")
    assert refused.code == 2
    assert "precision must be high, since the exact solve ends in float64; got 'medium'" in refused.err


def test_stop_when_interpolated(kl):
    found = fit_json(kl, *FAST[:-1], 50, "--stop-when-interpolated")
    assert found["epochs"] == found["interpolated_epoch"] < 50
    assert found["train_error"] == 0


def test_the_exact_limit_can_be_left_out(kl):
    assert fit_json(kl, *FAST, "--no-exact")["exact_rkhs_norm"] is None


@pytest.mark.parametrize("kernel", ["gaussian", "exponential-power", "matern32", "inverse-multiquadric", "relu-ntk"])
def test_kernels(kl, kernel):
    found = fit_json(kl, *FAST, "--kernel", kernel)
    assert found["kernel"] == kernel
    assert found["train_mse"] < 0.05


def test_kernel_of_a_users_own(kl):
    Path("mine.py").write_text(
        "from dataclasses import dataclass\nimport kl\n\n@dataclass(frozen=True)\nclass Cauchy(kl.RadialKernel):\n"
        "    def _profile(self, sq_dist):\n        return sq_dist.div_(self.bandwidth**2).add_(1).reciprocal_()\n"
    )
    found = fit_json(kl, *FAST, "--kernel", "mine:Cauchy", "--bandwidth", 2)
    assert (found["kernel"], found["bandwidth"]) == ("mine:Cauchy", 2)
    assert found["test_error"] < 0.2


@pytest.mark.parametrize("data", ["digits", "synthetic1", "synthetic2", "mnist", "fashion-mnist"])
def test_fast_dev_run_writes_nothing(kl, data, request):
    sizes = ("--train-size", 200, "--test-size", 50)
    if "mnist" in data:
        sizes = (*sizes, "--data-dir", request.getfixturevalue("data_dir"))
    found = fit_json(kl, "--data", data, *sizes, "--fast-dev-run")
    assert found["epochs"] == 1
    assert found["checkpoint"] is None
    assert not Path("lightning_logs").exists()


@pytest.mark.slow
def test_module_and_command_are_the_same(tmp_path):
    texts = [
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
        for command in (
            [sys.executable, "-m", "kl", "--version"],
            [sys.executable, "-m", "recipes", "--version"],
            [Path(sys.executable).with_name("kl"), "--version"],
        )
    ]
    assert len({re.sub("memory:.*", "", text) for text in texts}) == 1
    assert texts[0].startswith("kl 0.")


def test_help_needs_no_torch(tmp_path):
    code = (
        "import sys\nsys.argv = ['kl', 'fit', '--help']\nfrom recipes.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'torch', 'pytorch_lightning', 'numpy'} & set(sys.modules), 'heavy import'"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    for panel in ("Data", "Kernel", "Solver", "Run", "Output"):
        assert f"─ {panel} ─" in shown.stdout


@pytest.mark.slow
def test_both_commands_report_the_same_exact_limit_of_an_ill_conditioned_kernel(kl):
    arguments = ("--data", "digits", "--train-size", 300, "--kernel", "gaussian", "--bandwidth", 30)
    exact = json.loads(kl("interpolate", *arguments, "--json").out)
    found = fit_json(kl, *arguments, "--epochs", 1)
    assert found["exact_test_mse"] == pytest.approx(exact["test_mse"], rel=1e-6)
    assert found["exact_test_error"] == exact["test_error"]


def test_a_refused_resume_leaves_the_run_as_it_was(kl):
    folder = Path(fit_json(kl, *FAST)["log_dir"])
    before = sorted(folder.rglob("*"))
    assert kl("fit", *FAST[:-1], 4, "--label-noise", 0.5, "--resume", "last").code == 2
    assert sorted(folder.rglob("*")) == before


def test_runs_that_start_together_have_folders_of_their_own(tmp_path):
    from recipes.run.folders import new_version

    assert [new_version(tmp_path).name for _ in range(3)] == ["version_0", "version_1", "version_2"]


@pytest.mark.slow
def test_termination_is_a_failure(tmp_path):
    command = [sys.executable, "-m", "recipes", "fit", "--data", "digits", "--epochs", "100000", "--no-exact"]
    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    checkpoint = Path(tmp_path, "lightning_logs/digits-laplacian/version_0/checkpoints/last.ckpt")
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child.terminate()
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert out == b""
    assert b"interrupted" in err


def test_a_kernel_of_two_parameters(kl):
    fit = ("interpolate", "--data", "digits", "--train-size", 100, "--test-size", 50, "--kernel", "lpq-laplacian")
    result = kl(*fit, "--p", 1.5, "--q", 0.8, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["test_error"] < 0.4
    parameters = found["kernel_parameters"]
    assert (parameters["p"], parameters["q"]) == (1.5, 0.8)
    refused = kl(*fit, "--q", 1.2)
    assert refused.code == 2
    assert "q must be a finite number above 0 and at most p=1; got 1.2" in refused.err
