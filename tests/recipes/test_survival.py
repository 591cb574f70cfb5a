"""Signals at any time, streams that are closed, full or unheard, errors of the machine: one line, the right code."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kl.system.signals import ENDING, INTERRUPTED
from recipes import cli
from recipes.output import streams
from recipes.run import processes

# Ignored where the suite runs in the background or under nohup.
HEARD = "import signal; signal.signal(2, signal.default_int_handler); signal.signal(1, signal.SIG_DFL)\n"


def run(command, **options):
    """`kl` in a process of its own, by a shell."""
    command = f"{sys.executable} -m recipes {command}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300, **options)


def started_with(code, *arguments, **options):
    """`kl` after the code, in a process of its own."""
    code = f"import sys\n{HEARD}{code}\nsys.argv = ['kl', *{arguments!r}]\nfrom recipes.cli import main\nmain()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, **options)


@pytest.mark.slow
def test_a_reader_that_goes_ends_it_quietly():
    done = run("data list | head -0; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (cli.READER_GONE, "")


@pytest.mark.slow
def test_a_full_standard_output():
    done = run("data list --json > /dev/full")
    assert (done.returncode, done.stderr) == (
        1,
        "error: standard output cannot be written (No space left on device)\n",
    )


def test_a_closed_standard_output(tmp_path):
    done = run("data synthetic --rows 10 --test-rows 5 --output big >&-", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "error: standard output is closed: send it to a file, or to /dev/null\n",
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "redirected", [pytest.param(each, marks=pytest.mark.slow) for each in ("2>&-", "2> /dev/full", "2> >(true)")]
)
def test_messages_that_nobody_hears_change_no_exit_code(tmp_path, redirected):
    assert run(f"fit --epochs 0 {redirected}", cwd=tmp_path).returncode == 2
    done = run(f"data list 0<&- {redirected}")
    assert (done.returncode, "data sets" in done.stdout) == (0, True)


@pytest.mark.parametrize("module", ["typer", "recipes.commands.fit", "numpy", "torch", "pytorch_lightning"])
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_signal_while_modules_are_imported(tmp_path, module, number):
    code = (
        "import signal\nclass Pressed:\n    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n            signal.raise_signal({int(number)})\n"
        "sys.meta_path.insert(0, Pressed())"
    )
    done = started_with(code, "fit", "--epochs", "1", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "", "error: interrupted\n")
    assert not list(tmp_path.iterdir())


def test_a_signal_that_an_import_turns_into_an_error():
    code = (
        "import signal\nclass Pressed:\n    def find_spec(self, name, *_):\n        if name == 'typer':\n"
        "            try:\n                signal.raise_signal(2)\n"
        "            except KeyboardInterrupt:\n                raise ImportError('typer is broken')\n"
        "sys.meta_path.insert(0, Pressed())"
    )
    done = started_with(code, "fit")
    assert (done.returncode, done.stderr) == (INTERRUPTED, "error: interrupted\n")


def test_an_ended_terminal_is_an_interrupt():
    code = "import signal\nclass Pressed:\n    def find_spec(self, name, *_):\n        if name == 'typer':\n"
    done = started_with(code + "            signal.raise_signal(1)\nsys.meta_path.insert(0, Pressed())", "fit")
    assert (done.returncode, done.stderr) == (INTERRUPTED, "error: interrupted\n")


def test_signals_that_are_ignored_stay_so():
    code = "signal.signal(1, signal.SIG_IGN)\nimport atexit\natexit.register(lambda: print(signal.getsignal(1).name))"
    done = started_with(code, "--version")
    assert done.stdout.splitlines()[-1] == "SIG_IGN"


def test_signals_end_python_at_once_when_it_has_nothing_left_to_do():
    code = "import atexit\natexit.register(lambda: print([signal.getsignal(n).name for n in (1, 2, 15)]))"
    done = started_with(code, "--version")
    assert done.stdout.splitlines()[-1] == "['SIG_DFL', 'SIG_DFL', 'SIG_DFL']"


def test_one_code_for_interrupts():
    assert cli.INTERRUPTED == INTERRUPTED == 128 + signal.SIGINT
    assert set(ENDING) == {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files: raise the limit of open files, as by: "),
        (OSError(errno.ENOSPC, "No space left", "x.npz"), "x.npz: No space left: free some space, or write elsewhere"),
        (MemoryError("of 3 GB"), "memory is exhausted (of 3 GB): give a smaller --memory, or use fewer rows"),
    ],
)
def test_errors_of_the_machine(kl, monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("datamodules.catalog.data_sets", fail)
    result = kl("data", "list")
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert result.err.startswith(f"error: {message}")


def test_a_fault_of_the_program_is_shown_whole(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr("datamodules.catalog.data_sets", fail)
    monkeypatch.setattr(sys, "argv", ["kl", "data", "list"])
    before = {number: signal.getsignal(number) for number in ENDING}
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["MASTER_PORT", "LOCAL_RANK"])
@pytest.mark.parametrize("text", ["abc", "-1", "1e3"])
def test_environment_variables_of_ranks(kl, monkeypatch, name, text):
    monkeypatch.setenv(name, text)
    result = kl("fit", "--devices", 2, "--accelerator", "cpu")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: the environment variable {name} must be a whole number from 0 to ")
    assert f"got {text!r}: set it right, or unset it" in result.err


def test_few_open_files_are_too_few_for_ranks(tmp_path):
    fit = "fit --train-size 100 --epochs 1 --no-exact --accelerator cpu --devices 2 --num-nodes 2"
    done = run(fit, cwd=tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    assert (done.returncode, done.stderr) == (
        2,
        "error: each of 4 ranks opens up to 160 files and connections, and the limit here is 64: raise it, as by "
        "ulimit -n 160, or use fewer --devices\n",
    )
    assert not list(tmp_path.iterdir())


def test_a_limit_of_open_files_that_may_be_raised_is(monkeypatch):
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, given: limits.append(given))
    processes._require_open_files(2)
    assert limits == [(144, 4096)]


@pytest.mark.slow
def test_a_disk_that_is_full_for_event_files(tmp_path):
    """A limit on the size of files stands in for the full disk."""
    code = (
        "import resource, callbacks\nfrom tensorboard.compat.tensorflow_stub.io import gfile\n"
        "def full(*_):\n    raise OSError(28, 'No space left on device')\ngfile.LocalFileSystem.append = full"
    )
    arguments = ("fit", "--train-size", "100", "--epochs", "2", "--no-exact", "--name", "run")
    done = started_with(code, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "error: files of the run in lightning_logs/run/version_0 could not be written (No space left on device): free "
        "some space or give another --log-dir; the checkpoints that are there are whole"
    )


def test_a_disk_that_is_full_for_a_figure(kl, monkeypatch):
    from PIL.Image import Image

    written = []

    def full(self, file, real=Image.save, **options):
        if "dpi" not in options:  # what TensorBoard encodes in memory
            return real(self, file, **options)
        if not written:  # the first is drawn before training, and a run that has not begun leaves nothing
            written.append(file)
            return real(self, file, **options)
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image, "save", full)
    result = kl("fit", "--train-size", 100, "--epochs", 1, "--no-exact", "--name", "run")
    assert (result.code, result.out) == (1, "")
    assert "error: files of the run in lightning_logs/run/version_0 could not be written (No space left" in result.err
    (figures,) = Path("lightning_logs").rglob("figures")
    assert os.listdir(figures) == ["precond_eigenvalues.png"]


def test_a_name_that_the_locale_cannot_read(kl):
    result = kl("fit", "--name", os.fsdecode(b"\xc3\xa9") if sys.getfilesystemencoding() == "ascii" else "\udcc3\udca9")
    assert result.code == 2
    assert result.err.startswith("error: name must be characters of the locale, whose encoding here is ")
    assert "set PYTHONUTF8=1 or LC_ALL=C.UTF-8, or give an ASCII name" in result.err


def test_characters_that_the_encoding_has_not(tmp_path):
    Path(tmp_path, "out").touch()
    raw = streams._Output(os.open(tmp_path / "out", os.O_WRONLY), "w")
    like = open(os.devnull, encoding="ascii")  # noqa: SIM115
    with like, streams._text(raw, like, "backslashreplace") as text:
        text.write("données")
    assert Path(tmp_path, "out").read_bytes() == b"donn\\xe9es"
