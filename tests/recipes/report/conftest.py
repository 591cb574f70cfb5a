"""Three small runs of `kl fit`, which the tests of this folder share and copy before they change them."""

import logging
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

DIGITS = ("--data", "digits", "--train-size", 200, "--test-size", 100, "--epochs", 3)
ODD = 'b<i>&"$x$'  # a name that HTML, a shell and a formula would read differently
RUNS = {
    "plain": DIGITS,
    ODD: (*DIGITS, "--kernel", "gaussian", "--bandwidth", 3, "--label-noise", 0.1, "--validation", 0.2),
    "line": ("--data", "npz:line.npz", "--no-exact", "--epochs", 2),
}


@pytest.fixture(scope="session")
def run_of(tmp_path_factory):
    """A function that gives the folder of a run by its name, which is trained once."""
    folder = tmp_path_factory.mktemp("runs")

    def run(name) -> Path:
        found = folder / "lightning_logs" / name / "version_0"
        if not found.exists():
            train(folder, name, tmp_path_factory.getbasetemp() / "cache")
        return found

    return run


def train(folder, name, cache):
    from recipes.app import app

    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    np.savez(folder / "line.npz", x_train=x[:40], y_train=x[:40] @ [1, 2], x_test=x[40:], y_test=x[40:] @ [1, 2])
    arguments = ["fit", *map(str, RUNS[name]), "--name", name]
    levels = {each: logging.getLogger(each).level for each in list(logging.root.manager.loggerDict)}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setattr("sys.argv", ["kl", *arguments])
        app(arguments, standalone_mode=False)
    for each in list(logging.root.manager.loggerDict):
        logging.getLogger(each).setLevel(levels.get(each, logging.NOTSET))


@pytest.fixture
def copied(run_of, tmp_path):
    """A function that copies a run into this test's folder."""

    def copy(name="plain", as_name=None) -> Path:
        return shutil.copytree(run_of(name), tmp_path / (as_name or name) / "version_0")

    return copy
