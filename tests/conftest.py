"""Fixtures that several test files share."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

# The tests' matrices are small: threads would only wait for each other. `make test-cpus` sets another count.
torch.set_num_threads(int(os.environ.get("KL_TEST_THREADS", "1")))


# The files that take longest come first, so that no worker is left with one at the end (see the Makefile).
LONGEST = ("test_launch.py", "test_fit.py", "test_contributing.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests, those of a file as they are."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def data_dir() -> str:
    """The folder of the real data sets; the test skips where it is missing."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("KL_DATA_DIR") or default)
    if not (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip(f"no real data sets in {folder}: set KL_DATA_DIR")
    return str(folder)


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact solutions, decoded images and patches are kept in the user's cache folder: tests have one of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _levels_of_loggers() -> Iterator[None]:
    """A command that runs in this process sets levels, which a process of its own would take with it."""
    levels = {name: logging.getLogger(name).level for name in list(logging.root.manager.loggerDict)}
    yield
    for name in list(logging.root.manager.loggerDict):
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))


class Result(NamedTuple):
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def kl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run `kl` with the given arguments in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        from recipes.cli import main

        monkeypatch.setattr(sys, "argv", ["kl", *map(str, arguments)])
        monkeypatch.delitem(sys.modules, "mine", raising=False)  # the user's module of another test
        capsys.readouterr()
        heard = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        with warnings.catch_warnings(), pytest.raises(SystemExit) as stop:
            main()
        for number, handler in heard.items():  # a process of its own would end now
            signal.signal(number, handler)
        out, err = capsys.readouterr()
        return Result(int(stop.value.code or 0), out, err)

    return run
