"""kl.data and kl.callbacks are the packages beside kl, and another package that has the name of one is refused."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import callbacks
import datamodules
import kl
import kl.callbacks
import kl.data
from kl.errors import PackageClashError
from kl.system.packages import HOME, own_package, require_own

ROOT = Path(__file__).resolve().parents[3]


def run(*command, path="", cwd=None):
    """Python in a process of its own, with `path` before this environment's."""
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={"PATH": "", "PYTHONPATH": f"{path}:{ROOT}", "HOME": str(cwd)},
    )


@pytest.mark.parametrize(("alias", "package"), [(kl.data, datamodules), (kl.callbacks, callbacks)])
def test_the_names_are_the_same_objects(alias, package):
    assert alias.__all__ == package.__all__
    assert set(package.__all__) <= set(dir(alias))
    for name in package.__all__:
        assert getattr(alias, name) is getattr(package, name)


@pytest.mark.slow
def test_every_way_of_importing(tmp_path):
    done = run(
        "-c",
        "import kl\n"
        "assert kl.callbacks.ExactInterpolation.__module__ == 'callbacks.exact_interpolation'\n"
        "from kl import data\n"
        "from kl.data import MNISTDataModule\n"
        "import kl.data\n"
        "import datamodules\n"
        "assert data is kl.data and MNISTDataModule is data.MNISTDataModule is datamodules.MNISTDataModule\n"
        "from kl.callbacks import *\n"
        "assert RKHSNorm is kl.callbacks.RKHSNorm",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_pickles_name_the_package_and_are_read_without_the_alias():
    text = pickle.dumps(kl.data.RawData)
    assert b"datamodules.raw" in text
    assert pickle.loads(text) is datamodules.RawData


def test_modules_of_the_packages_are_not_imported_twice():
    with pytest.raises(ModuleNotFoundError, match=r"'kl\.data' is not a package"):
        __import__("kl.data.table")
    for missing in ("table", "nothing", "__wrapped__"):
        with pytest.raises(AttributeError, match=f"module 'kl.data' has no attribute '{missing}'"):
            getattr(kl.data, missing)


@pytest.fixture(params=["package", "file", "folder"])
def foreign(request, tmp_path):
    """A function that puts another package of some name into tmp_path: as a package, a file, or a mere folder."""

    def put(name):
        place = tmp_path / (f"{name}.py" if request.param == "file" else name)
        if request.param == "file":
            place.write_text("raise RuntimeError('was run')\n")
        else:
            place.mkdir()
        if request.param == "package":
            place /= "__init__.py"
            place.write_text("raise RuntimeError('was run')\n")
        return place

    return put


IMPORTS = {"callbacks": "from kl.callbacks import RKHSNorm", "datamodules": "import kl; kl.data.RawData"}


@pytest.mark.parametrize("name", IMPORTS)
def test_another_package_of_the_name_is_refused_at_import(name, foreign, tmp_path):
    place = foreign(name)
    done = run("-c", IMPORTS[name], path=tmp_path, cwd=tmp_path)
    if place.is_dir():  # a regular package anywhere on the path goes before a folder
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"kl.errors.PackageClashError: the package {name} must be kl's own, in {ROOT / name}; got another of that "
        f"name, {place}: rename or uninstall that one, or take its folder from Python's path (PYTHONPATH, or the "
        "folder of the script)"
    )


@pytest.mark.parametrize("name", ["callbacks", "datamodules", "recipes"])
def test_the_command_reports_it_on_one_line(name, foreign, tmp_path):
    place = foreign(name)
    done = run("-m", "kl", "--help", path=tmp_path, cwd=tmp_path)
    if place.is_dir():
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: the package {name} must be kl's own, in {ROOT / name}; got another of that name, ")
    assert str(place) in line


def test_a_folder_that_hides_an_editable_install_is_named(tmp_path, monkeypatch):
    """Editable installs may come after sys.path, where a mere folder of the name is found first."""
    (tmp_path / "callbacks").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [each for each in sys.meta_path if "editable" not in str(each)])
    monkeypatch.delitem(sys.modules, "callbacks")
    with pytest.raises(PackageClashError, match=f"got another of that name, {tmp_path / 'callbacks'}: rename"):
        require_own("callbacks")


def test_one_that_is_imported_already_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "callbacks", type(sys)("callbacks"))
    with pytest.raises(PackageClashError, match=r"got none there: install kl again"):
        require_own("callbacks")
    sys.modules["callbacks"].__file__ = str(tmp_path / "callbacks.py")
    with pytest.raises(ImportError, match="got another of that name"):
        own_package("callbacks")


def test_files_that_were_overwritten_are_noticed(monkeypatch):
    other = type(sys)("callbacks")
    other.__file__ = str(HOME / "callbacks" / "__init__.py")
    monkeypatch.setitem(sys.modules, "callbacks", other)
    with pytest.raises(PackageClashError, match="which has overwritten it: uninstall that one and install kl again"):
        own_package("callbacks")


def test_a_package_that_is_missing_is_named(monkeypatch):
    with pytest.raises(PackageClashError, match=r"the package no_such must be beside kl, in .*; got none there"):
        require_own("no_such")
