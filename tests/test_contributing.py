"""The examples of CONTRIBUTING.md run, and its solver and experiment are reached by their names on the command line."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from recipes.options.solvers import SOLVERS, Solver

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = {
    title: re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    for title, section in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
}


SLOW = ("A solver", "A callback", "An experiment")


@pytest.mark.parametrize("title", [title for title in BLOCKS if title not in SLOW])
def test_examples(title):
    exec(compile(BLOCKS[title], title, "exec"), ModuleType("example").__dict__)


@pytest.mark.slow
@pytest.mark.parametrize("title", BLOCKS)
def test_examples_as_programs(title, tmp_path):
    done = subprocess.run([sys.executable, "-c", BLOCKS[title]], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_kind_has_an_example():
    assert list(BLOCKS) == [
        "A kernel",
        "A kernel with a parameter",
        "A solver",
        "A data set",
        "A callback",
        "An experiment",
    ]


def test_paths_exist():
    root = Path(__file__).resolve().parents[1]
    for path in re.findall(r"`((?:kl|datamodules|callbacks|recipes|tests)/[\w/]+(?:\.py)?)/?`", TEXT):
        assert (root / path).exists(), path


def test_the_solver_is_one_line_of_the_table(kl, monkeypatch):
    Path("landweber.py").write_text(BLOCKS["A solver"].rpartition("\n\n\ncheck_machine")[0] + "\n")
    monkeypatch.syspath_prepend(".")
    monkeypatch.setitem(SOLVERS, "landweber", Solver("landweber:Landweber", "gradient descent on all rows"))
    result = kl("fit", "--solver", "landweber", "--data", "digits", "--train-size", 200, "--epochs", 3, "--no-exact")
    assert result.code == 0, result.err
    assert "Landweber iteration" in result.out + result.err
    planned = kl("plan", "--solver", "landweber", "--data", "digits", "--train-size", 200)
    assert planned.code == 0, planned.err
    assert "not predicted for this solver" in planned.out
    assert "K(X, X)" in planned.out
    refused = kl("fit", "--solver", "landweber", "--top-q", 5)
    assert refused.code == 2
    assert "top_q is for --solver eigenpro, eigenpro3 and eigenpro4; got 5 with landweber" in refused.err
