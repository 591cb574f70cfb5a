"""`kl fit` on several ranks, as a user starts it: the ways to launch it, and what happens when a rank is lost."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from processes import free_port

from kl.machines.checkpoints import read_checkpoint

HERE = Path(__file__).resolve().parents[2]  # helpers of the tests
FIT = [sys.executable, "-m", "recipes", "fit", "--accelerator", "cpu"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
MARK = "KL_TEST_RUN"  # environment variable of a command and all that it starts
ENDED = 90  # seconds after which a run that should have ended has failed to


REMEDY = "all ranks stop; where an epoch was finished, --resume last goes on from there"


def start(command, folder, **environment):
    """A process group of its own, as a shell starts one; standard error in a file, which survivors can still write."""
    mark = str(uuid.uuid4())
    path = f"{HERE}{os.pathsep}{HERE.parent}"
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", MARK: mark, **environment}
    with Path(folder, f"err-{len(list(Path(folder).glob('err-*')))}").open("wb") as err:
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=err,
            start_new_session=True,
        )
    process.mark = mark
    return process


def end(process):
    """Exit code and standard output; all of its processes are gone a little later."""
    try:
        out = process.communicate(timeout=ENDED)[0].decode()
        deadline = time.monotonic() + 15
        while alive(process) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not alive(process), "processes are left"
    finally:
        for pid in alive(process):
            os.kill(pid, signal.SIGKILL)
    return process.returncode, out


def alive(process):
    """The processes that are left of a command and what it has started, ranks being of sessions of their own."""
    mark = f"{MARK}={process.mark}"
    found = subprocess.run(["ps", "axeww", "-o", "pid=,stat=,command="], capture_output=True, text=True, check=True)
    rows = (line.split(maxsplit=2) for line in found.stdout.splitlines() if mark in line.split())
    return [int(pid) for pid, state, _ in rows if "Z" not in state]


def said(folder):
    """Standard error without the epochs' lines."""
    text = "".join(path.read_text() for path in sorted(Path(folder).glob("err-*")))
    assert "Warning" not in text, text
    return [line for line in text.splitlines() if line.startswith(("error", "interrupted", "Traceback"))]


# Launching


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The results on one device."""
    folder = tmp_path_factory.mktemp("alone")
    code, out = end(start([*FIT, "--epochs", 2, "--json"], folder))
    assert code == 0, said(folder)
    return json.loads(out)


def assert_same(out, alone, ranks):
    assert len(out.splitlines()) == 1  # one rank speaks
    found = json.loads(out)
    assert found["ranks"] == ranks
    for name in ("train_mse", "train_error", "test_mse", "test_error", "rkhs_norm", "step_size", "exact_test_mse"):
        assert found[name] == pytest.approx(alone[name], rel=1e-4), name  # sums in another order
    assert found["epochs"] == alone["epochs"]


def test_the_command_starts_the_other_ranks(kl, tmp_path):
    alone = json.loads(kl(*FIT[3:], "--epochs", 2, "--json", "--log-dir", "alone").out)  # in this process
    code, out = end(start([*FIT, "--epochs", 2, "--json", "--devices", 2], tmp_path))
    assert code == 0, said(tmp_path)
    assert_same(out, alone, 2)
    # Only the first rank writes: one folder, and in it what a run on one device has.
    [run] = Path(tmp_path, "lightning_logs/digits-laplacian").iterdir()
    assert run.name == "version_0"
    assert len(list(run.glob("events*"))) == 1
    assert {path.name for path in run.glob("*.yaml")} == {"config.yaml", "hparams.yaml"}
    assert Path(run, "figures/convergence.png").exists()
    assert "devices: '2'" in Path(run, "config.yaml").read_text()
    # One device goes on from there, and predicts.
    result = kl(*FIT[3:], "--epochs", 3, "--json", "--resume", "last")
    assert result.code == 0, result.err
    assert (json.loads(result.out)["ranks"], json.loads(result.out)["epochs"]) == (1, 3)


PATCHES = ("--features", "patches:32", "--patch-size", 3, "--train-size", 300, "--epochs", 2)


AUGMENTED = ("--solver", "eigenpro4", "--centers", 100, "--augment", "shift:1,flip")


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), AUGMENTED], ids=["plain", "augmented"])
def test_image_patches_on_two_ranks(kl, tmp_path, monkeypatch, caplog, more):
    """Features that the ranks keep, and that a run on one device reads."""
    cache = tmp_path / "cache"
    code, out = end(start([*FIT, *PATCHES, *more, "--json", "--devices", 2], tmp_path, XDG_CACHE_HOME=cache))
    assert code == 0, said(tmp_path)
    names = sorted(path.name.split("-")[0] for path in Path(cache, "kl/patches").iterdir())
    assert names == ["dictionary", "features", "features"]  # of the training set and the test set
    alone = json.loads(kl(*FIT[3:], *PATCHES, *more, "--json").out)  # in this process, with another cache
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    caplog.clear()
    reading = kl(*FIT[3:], *PATCHES, *more, "--json")
    assert caplog.text.count("patch features of 300 images are read from") == 1
    found = json.loads(out)
    assert (found["ranks"], found["d"]) == (2, 128)
    for other in (alone, json.loads(reading.out)):
        for name in ("train_error", "test_mse", "test_error", "rkhs_norm", "step_size"):
            assert found[name] == pytest.approx(other[name], rel=1e-5), name


@pytest.mark.slow
def test_fast_dev_run_on_two_ranks_writes_nothing(tmp_path):
    """By the script that pip installs."""
    script = Path(sys.executable).with_name("kl")
    code, out = end(start([script, *FIT[3:], "--fast-dev-run", "--json", "--devices", 2], tmp_path))
    assert (code, json.loads(out)["ranks"]) == (0, 2)
    assert not Path(tmp_path, "lightning_logs").exists()


def two_nodes(command, folder, environment=lambda node: {}):
    """One process for each of two machines, both here; what the first printed."""
    nodes = [start(command(node), folder, **environment(node)) for node in (0, 1)]
    (first, out), (second, nothing) = map(end, nodes)
    assert (first, second, nothing) == (0, 0, ""), said(folder)
    return out


@pytest.mark.slow
def test_torchrun_on_two_nodes(alone, tmp_path):
    port = free_port()

    def command(node):
        rendezvous = ["--nnodes", 2, "--nproc-per-node", 1, "--node-rank", node, "--master-addr", "127.0.0.1"]
        fit = ["-m", "recipes", *FIT[3:], "--epochs", 2, "--json", "--devices", 1, "--num-nodes", 2]
        return [*TORCHRUN, *rendezvous, "--master-port", port, *fit]

    assert_same(two_nodes(command, tmp_path), alone, 2)


@pytest.mark.slow
def test_two_nodes_started_by_hand(alone, tmp_path):
    port = free_port()

    def environment(node):
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(node)}

    command = [*FIT, "--epochs", 2, "--json", "--devices", 2, "--num-nodes", 2]
    assert_same(two_nodes(lambda node: command, tmp_path, environment), alone, 4)


@pytest.mark.slow
def test_slurm_on_two_nodes(alone, tmp_path):
    """With the environment of srun: there is no SLURM here."""

    def environment(node):
        slurm = {"NTASKS": 2, "NTASKS_PER_NODE": 1, "NNODES": 2, "PROCID": node, "LOCALID": 0, "NODEID": node}
        slurm |= {"JOB_ID": 7, "JOB_NAME": "kl", "NODELIST": "127.0.0.1"}
        return {"MASTER_PORT": str(port), **{f"SLURM_{name}": str(value) for name, value in slurm.items()}}

    port = free_port()
    command = [*FIT, "--epochs", 2, "--json", "--devices", 1, "--num-nodes", 2]
    assert_same(two_nodes(lambda node: command, tmp_path, environment), alone, 2)


@pytest.mark.slow
def test_other_processes_than_asked_for(tmp_path):
    command = [*TORCHRUN, "--nproc-per-node", 2, "--master-port", free_port(), "-m", "recipes", *FIT[3:]]
    code, out = end(start(command, tmp_path))
    [error] = [line for line in said(tmp_path) if "devices" in line]
    assert "the 2 processes that torchrun has started; got 1 and 1" in error
    assert code != 0
    assert out == ""


# Mistakes and losses


@pytest.mark.slow
def test_wrong_input_is_reported_once(tmp_path):
    code, out = end(start([*FIT, "--data", "user_data:Wrong", "--devices", 2], tmp_path))
    assert (code, out, said(tmp_path)) == (2, "", ["error: data must be there"])
    assert not Path(tmp_path, "lightning_logs").exists()


@pytest.mark.slow
def test_wrong_input_on_one_rank_names_it(tmp_path):
    code, _ = end(start([*FIT, "--data", "user_data:Missing", "--devices", 2], tmp_path))
    assert (code, said(tmp_path)) == (2, ["error: data must be there (on rank 1 of 2)"])


@pytest.mark.slow
def test_a_mistake_on_one_rank_ends_all(tmp_path):
    code, _ = end(start([*FIT, "--data", "user_data:Broken", "--devices", 2], tmp_path))
    traceback, error = said(tmp_path)
    assert (code, traceback) == (1, "Traceback (most recent call last):")
    assert error == f"error: rank 1 of 2 failed: ZeroDivisionError: a mistake: {REMEDY}"
    assert not Path(tmp_path, "lightning_logs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Hanging", "HangingStep"])
def test_a_rank_that_does_not_come_to_a_collective(tmp_path, name):
    code, _ = end(start([*FIT, "--data", f"user_data:{name}", "--devices", 2], tmp_path))
    [error] = said(tmp_path)
    assert code == 1
    assert "rank 0 of 2 got no answer from another, which hangs or was lost" in error


@pytest.mark.slow
def test_an_exact_limit_may_take_longer_than_a_collective(alone, tmp_path):
    code, out = end(start([*FIT, "--data", "user_data:SlowLimit", "--epochs", 2, "--json", "--devices", 2], tmp_path))
    assert code == 0, said(tmp_path)
    assert_same(out, alone, 2)


def children(process):
    """The ranks that a command has started, in their order."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    return sorted(map(int, found))


@pytest.mark.slow
def test_a_rank_killed_before_training_leaves_no_folder(tmp_path):
    process = start([*FIT, "--epochs", 100_000, "--no-exact", "--devices", 2], tmp_path)
    while len(ranks := children(process)) < 2:
        time.sleep(0.05)
    os.kill(ranks[1], signal.SIGKILL)
    assert (end(process)[0], said(tmp_path)) == (1, [f"error: rank 1 of 2 was killed by SIGKILL: {REMEDY}"])
    assert not Path(tmp_path, "lightning_logs").exists()


COMMAND = None


def lose(folder, number, rank, ranks=2):
    """Send a signal to the command, or to a rank of it, after the first epoch."""
    fit = [*FIT, "--data", "user_data:Impatient", "--epochs", 100_000, "--no-exact", "--name", "run"]
    command = [*fit, "--devices", ranks]
    process = start(command, folder)
    checkpoint = Path(folder, "lightning_logs/run/version_0/checkpoints/last.ckpt")
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    started = children(process)
    assert len(started) == ranks
    os.kill(process.pid if rank is COMMAND else started[rank], number)
    code, _ = end(process)
    assert read_checkpoint(checkpoint)["epoch"] >= 0
    text = "".join(path.read_text() for path in Path(folder).glob("err-*"))
    assert not any(word in text for word in ("closing signal", "exitcode")), text  # torch's own reports
    return code, said(folder)


@pytest.mark.slow
def test_a_killed_rank_ends_all(tmp_path):
    code, errors = lose(tmp_path, signal.SIGKILL, 1, ranks=3)
    assert (code, errors) == (1, [f"error: rank 1 of 3 was killed by SIGKILL: {REMEDY}"])
    # Its last checkpoint is good to go on from.
    epochs = 2 + read_checkpoint(Path(tmp_path, "lightning_logs/run/version_0/checkpoints/last.ckpt"))["epoch"]
    more = [*FIT, "--epochs", epochs, "--no-exact", "--name", "run", "--resume", "last", "--json"]
    code, out = end(start(more, tmp_path))
    assert (code, json.loads(out)["epochs"]) == (0, epochs)


@pytest.mark.slow
def test_the_others_end_with_the_first(tmp_path):
    code, errors = lose(tmp_path, signal.SIGKILL, 0)
    assert (code, errors) == (1, [f"error: rank 0 of 2 was killed by SIGKILL: {REMEDY}"])


def test_all_ranks_end_with_the_command(tmp_path):
    code, errors = lose(tmp_path, signal.SIGKILL, COMMAND)
    assert (code, errors) == (-signal.SIGKILL, [f"error: the command that started the ranks was killed: {REMEDY}"])


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_stopped_rank_ends_all(tmp_path, rank):
    """Found by the timeout of a collective; the stopped one answers no SIGTERM."""
    code, [error] = lose(tmp_path, signal.SIGSTOP, rank)
    assert code == 1
    assert f"rank {1 - rank} of 2 got no answer from another, which hangs or was lost: {REMEDY}" in error


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_sighup_stop_all_ranks(tmp_path, number):
    code, [message] = lose(tmp_path, number, COMMAND)
    assert code == 130
    assert "kept; go on with the same command and --resume last" in message


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_another_machine_is_waited_for(tmp_path, number):
    process = start([*FIT, "--epochs", 2, "--devices", 2, "--num-nodes", 2], tmp_path)
    deadline = time.monotonic() + 60
    while "waiting for 4 processes on 2 machines" not in Path(tmp_path, "err-0").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    os.kill(process.pid, number)
    assert (end(process)[0], said(tmp_path)) == (130, ["error: interrupted"])
    assert not Path(tmp_path, "lightning_logs").exists()


@pytest.mark.slow
def test_what_a_script_does_after_training_is_waited_for(tmp_path):
    script = Path(tmp_path, "script.py")
    script.write_text(
        "import time\nimport kl\nfrom datamodules import DigitsDataModule\nfrom training import quiet_trainer\n"
        "def fit():\n"
        "    trainer = quiet_trainer(1, devices=2, strategy='kernel_parallel')\n"
        "    trainer.fit(kl.KernelMachine(), datamodule=DigitsDataModule())\n    return trainer\n"
        "fit()\nif fit().global_rank == 1:\n    time.sleep(8)\n    print('done')\n"
    )
    assert end(start([sys.executable, script], tmp_path)) == (0, "done\n")


@pytest.mark.slow
@pytest.mark.parametrize("who", [COMMAND, 0, 1])
def test_sigterm_stops_all_ranks(tmp_path, who):
    code, [message] = lose(tmp_path, signal.SIGTERM, who)
    assert code == 130
    assert "kept; go on with the same command" in message
