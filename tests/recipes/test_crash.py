"""What is left after a kill, an interrupt, or a full disk: the checkpoint before, whole."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from training import fit, regression

import kl
from callbacks import AtomicCheckpointIO, Interrupts, KeepOptions
from datamodules import DigitsDataModule
from kl import CheckpointError, KLError
from kl.machines.checkpoints import read_checkpoint
from kl.system.files import HOST, hold

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def test_kill_during_a_save_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"a": torch.zeros(3)}}, path)
    # The child writes a large checkpoint again and again until it is killed in the middle.
    code = (
        "import sys, torch\nfrom callbacks import AtomicCheckpointIO\n"
        "print('ready', flush=True)\n"
        "large = {'state_dict': {'a': torch.ones(5_000_000)}}\n"
        "while True:\n    AtomicCheckpointIO().save_checkpoint(large, sys.argv[1])\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".last.ckpt.*.partial")) and time.monotonic() < deadline:
        time.sleep(0.001)
    child.kill()
    child.wait()
    child.stdout.close()
    loaded = read_checkpoint(path)["state_dict"]["a"]
    assert torch.equal(loaded, torch.zeros(3)) or torch.equal(loaded, torch.ones(5_000_000))
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, path)
    assert os.listdir(tmp_path) == ["last.ckpt"]  # and nothing of the killed one


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    """A limit on the size of files stands in for the full disk."""
    path = tmp_path / "last.ckpt"
    code = (
        "import resource, signal, sys, torch\nfrom callbacks import AtomicCheckpointIO\nfrom kl import KLError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "AtomicCheckpointIO().save_checkpoint({'state_dict': {'a': torch.zeros(3)}}, sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n    AtomicCheckpointIO().save_checkpoint({'state_dict': {'a': torch.ones(10**6)}}, sys.argv[1])\n"
        "except KLError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "could not be written" in done.stdout, done.stderr
    assert "free some space" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]  # nothing half-written
    assert torch.equal(read_checkpoint(path)["state_dict"]["a"], torch.zeros(3))


def test_full_disk_from_the_command_line(kl, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    result = kl("fit", "--train-size", 100, "--epochs", 1, "--no-exact")
    assert result.code == 1
    assert "No space left on device" in result.err
    assert "--log-dir" in result.err


def test_results_that_cannot_be_kept_are_printed(kl, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    from callbacks import KeepRecord

    monkeypatch.setattr(KeepRecord, "finish", full)
    result = kl("fit", "--train-size", 100, "--epochs", 1, "--no-exact", "--json")
    assert result.code == 1
    assert "could not be written (No space left on device): free some space" in result.err
    assert json.loads(result.out)["epochs"] == 1


def test_errors_of_writing_and_reading(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(KLError, match="could not be written"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, tmp_path / "file" / "last.ckpt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(tmp_path / "gone.ckpt")
    with pytest.raises(CheckpointError, match="damaged or none"):
        read_checkpoint(tmp_path / "file")


def test_interrupt_keeps_finished_epochs(tmp_path):
    command = [sys.executable, "-m", "recipes", "fit", "--data", "digits", "--epochs", "100000", "--no-exact"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    checkpoint = Path(tmp_path, "lightning_logs/digits-laplacian/version_0/checkpoints/last.ckpt")
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    try:
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 130
    assert b"--resume last" in err
    assert b"Traceback" not in err
    assert read_checkpoint(checkpoint)["epoch"] >= 0


@pytest.fixture
def interrupts():
    """Ctrl-C and SIGTERM as the command line hears them, also where a shell has started the tests with "&"."""
    before = {each: signal.signal(each, signal.default_int_handler) for each in SIGNALS}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupt_waits_until_the_checkpoint_is_written(interrupts, tmp_path, number):
    class Pressed:
        """Ctrl-C while torch writes this."""

        def __reduce__(self):
            signal.raise_signal(number)
            return OrderedDict, ()

    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "epoch": 1}, path)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "epoch": 2, "pressed": Pressed()}, path)
    assert read_checkpoint(path)["epoch"] == 2
    assert os.listdir(tmp_path) == ["last.ckpt"]
    assert signal.getsignal(number) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_set_up_leaves_nothing(interrupts, kl, monkeypatch, number):
    monkeypatch.setattr(DigitsDataModule, "load", lambda _: signal.raise_signal(number))
    result = kl("fit", "--epochs", 2)
    assert (result.code, result.err.splitlines()[-1]) == (130, "interrupted: no epoch was finished")
    assert not Path("lightning_logs").exists()


def test_an_interrupt_while_a_checkpoint_is_written_counts_its_epoch(interrupts, kl, monkeypatch):
    def save(values, file, real=torch.save):
        real(values, file)
        if values["epoch"] == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(torch, "save", save)
    result = kl("fit", "--train-size", 100, "--epochs", 9, "--no-exact", "--name", "run")
    assert (result.code, "interrupted: 3 finished epochs are kept; go on" in result.err) == (130, True)
    assert read_checkpoint("lightning_logs/run/version_0/checkpoints/last.ckpt")["epoch"] == 2


def test_a_new_run_removes_what_killed_ones_have_left(kl):
    parent = Path("lightning_logs/run")
    for name in ("version_0/checkpoints", "version_1/figures", "version_2", "version_3/checkpoints", "version_x"):
        Path(parent, name).mkdir(parents=True)
    (parent / "version_0/checkpoints" / f".last.ckpt.1@{HOST}.partial").write_bytes(b"half")
    (parent / "version_3/checkpoints" / f".last.ckpt.1@{HOST}.partial").write_bytes(b"half")
    (parent / "version_3/events").write_bytes(b"a curve")
    held = hold(parent / "version_2")  # as a run that has not come far
    assert kl("fit", "--train-size", 100, "--epochs", 1, "--no-exact", "--name", "run").code == 0
    os.close(held)
    assert sorted(os.listdir(parent)) == ["version_2", "version_3", "version_4", "version_x"]
    assert sorted(os.listdir(parent / "version_3")) == ["checkpoints", "events"]
    assert not list(parent.rglob("*.partial"))


def test_a_run_holds_its_folder_until_it_ends(kl, monkeypatch):
    found = []
    monkeypatch.setattr(
        KeepOptions, "on_train_start", lambda self, trainer, _: found.append(hold(Path(trainer.log_dir)))
    )
    assert kl("fit", "--train-size", 100, "--epochs", 1, "--no-exact").code == 0
    assert found == [None]


def test_an_interrupt_before_a_run_goes_on_keeps_what_it_had(interrupts, kl, monkeypatch):
    assert kl("fit", "--train-size", 100, "--epochs", 2, "--no-exact").code == 0
    monkeypatch.setattr(DigitsDataModule, "load", lambda _: signal.raise_signal(signal.SIGINT))
    result = kl("fit", "--train-size", 100, "--epochs", 5, "--no-exact", "--resume", "last")
    assert (result.code, "interrupted: 2 finished epochs are kept; go on" in result.err) == (130, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupt_that_was_swallowed_is_raised_at_the_next_step(interrupts, number):
    class Swallow(pl.Callback):
        """Ctrl-C in the middle of a finalizer."""

        steps = 0

        def on_train_batch_end(self, *_):
            self.steps += 1
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(number)

    before, swallow = signal.getsignal(number), Swallow()
    with pytest.raises(SystemExit):
        fit(kl.KernelMachine(), regression(), 100, callbacks=[Interrupts(), swallow])
    assert swallow.steps == 1
    assert signal.getsignal(number) is before
