"""What is installed: all four packages with their sub-packages, and no dependency without an upper bound."""

import tomllib
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_folder_of_modules_is_packaged():
    packaged = set(find_packages(ROOT, include=PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]))
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("kl", "datamodules", "callbacks", "recipes")
        for path in (ROOT / top).rglob("*.py")
    }
    assert packaged == folders


def test_dependencies_are_bounded():
    project = PROJECT["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    for requirement in [*project["dependencies"], *extras]:
        assert ">=" in requirement, requirement
        assert ",<" in requirement, requirement


def test_malicious_releases_are_excluded():
    lightning = next(line for line in PROJECT["project"]["dependencies"] if line.startswith("pytorch-lightning"))
    assert "!=2.6.2" in lightning
    assert "!=2.6.3" in lightning


def test_the_core_of_the_numeric_tests_is_there():
    from cpus import CORE_FILES

    assert not [name for name in CORE_FILES if not (ROOT / name).is_file()]
