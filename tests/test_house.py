"""What a project has beside its code: licence, version, citation, changes, types, linters; and that they agree."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import kl

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = ("kl", "datamodules", "callbacks", "recipes")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_written_once_and_repeated_rightly():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "kl.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", kl.__version__)
    assert yaml.safe_load(read("CITATION.cff"))["version"] == kl.__version__
    assert re.search(r"^## \[(.+?)\] - (unreleased|\d{4}-\d\d-\d\d)$", read("CHANGELOG.md"), re.MULTILINE)[1] == (
        kl.__version__
    )


def test_the_licence_is_the_same_everywhere():
    project = PROJECT["project"]
    assert read("LICENSE").startswith("MIT License\n")
    assert project["license"] == yaml.safe_load(read("CITATION.cff"))["license"] == "MIT"
    assert project["license-files"] == ["LICENSE"]
    (author,) = project["authors"]
    assert author["name"] in read("LICENSE")
    assert "urls" not in project  # the project has no public address


def test_the_citation_has_what_its_format_requires():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    for source in citation["references"]:
        (identifier,) = source["identifiers"]
        number = identifier["value"].removeprefix("arXiv:")
        assert f"arXiv:{number}" in re.sub(r"\s+", " ", read("kl/__init__.py")), source["title"]
        assert str(source["year"]) in kl.__doc__


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_say_that_they_are_typed(package):
    assert (ROOT / package / "py.typed").is_file()
    assert PROJECT["tool"]["setuptools"]["package-data"]["*"] == ["py.typed"]


def test_linters_before_a_commit_are_those_of_make_lint():
    (local,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert local["repo"] == "local"  # nothing is fetched
    hooks = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in local["hooks"]}
    lint = read("Makefile").split("\nlint:")[1].split("\n\n")[0]
    assert hooks == set(re.findall(r"\$\(BIN\)/([\w-]+)", lint))


@pytest.mark.slow
def test_a_program_of_a_user_is_checked_strictly(tmp_path):
    """The names of kl, kl.data and kl.callbacks have types, for users who ask mypy to be strict, too."""
    (tmp_path / "program.py").write_text(
        "import kl\n"
        "from kl import KernelMachine\n"
        "from kl.callbacks import RKHSNorm\n"
        "from kl.data import DigitsDataModule\n"
        "reveal_type(KernelMachine(kl.Laplacian(1.0)))\n"
        "reveal_type(RKHSNorm())\n"
        "reveal_type(DigitsDataModule())\n"
        "reveal_type(kl.data.RawData)\n"
        "kl.nothing\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "--config-file=", "--no-pretty"]
    command += ["--cache-dir", ROOT / ".mypy_cache", "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"MYPYPATH": str(ROOT)})
    found = [line for line in done.stdout.splitlines() if line.startswith("program.py")]
    seen = [re.search(r'"(?:def .*-> )?([\w.]+)"$', line)[1] for line in found if "Revealed" in line]
    assert seen == [
        "kl.eigenpro.machine.KernelMachine",
        "callbacks.rkhs_norm.RKHSNorm",
        "datamodules.digits.DigitsDataModule",
        "datamodules.raw.RawData",
    ]
    assert [line for line in found if "error" in line] == [
        'program.py:9: error: Module has no attribute "nothing"  [attr-defined]'
    ]
