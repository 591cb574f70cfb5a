"""Files that appear whole or not at all, and paths in a home folder."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kl.errors import InputError
from kl.system.files import FOREIGN, HOST, _owned, cache_folder, expand_home, hold, remove_leftovers, written_whole


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "file"
    with written_whole(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_failure_leaves_the_old_file_and_no_trace(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match="bytes-like"), written_whole(path) as file:
        file.writelines([b"new", "not bytes"])  # fails after the first
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_file_in_the_way_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"), written_whole(tmp_path / "file" / "more"):
        pass


def dead_pid():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_what_a_killed_process_left_is_removed_by_the_next_file(tmp_path):
    """Another process may have got its number, as this one here."""
    for pid in (dead_pid(), os.getppid()):
        (tmp_path / f".last.ckpt.{pid}@{HOST}.partial").write_bytes(b"half")
    with written_whole(tmp_path / "other") as file:
        file.write(b"new")
    assert os.listdir(tmp_path) == ["other"]


def test_what_a_living_process_writes_stays(tmp_path):
    path = tmp_path / f".last.ckpt.{dead_pid()}@{HOST}.partial"  # as of another's number: the lock counts
    with _owned(path) as file:
        file.write(b"half")
        remove_leftovers(tmp_path)
        assert path.exists()
    remove_leftovers(tmp_path)
    assert not path.exists()


def test_files_of_other_hosts_are_removed_a_day_later(tmp_path):
    """Whose locks may not be seen here."""
    path = tmp_path / f".last.ckpt.{dead_pid()}@{'0' * 8}.partial"
    path.write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert path.exists()
    then = time.time() - FOREIGN - 60
    os.utime(path, (then, then))
    remove_leftovers(tmp_path)
    assert not path.exists()


def test_files_without_a_host_go_by_their_process(tmp_path):
    for pid in (dead_pid(), os.getpid()):
        (tmp_path / f".last.ckpt.{pid}.partial").touch()
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == [f".last.ckpt.{os.getpid()}.partial"]


def test_other_files_are_nobodys_leftovers(tmp_path):
    names = {".notes.partial", "a.partial", f"last.ckpt.{dead_pid()}@{HOST}.partial", f".x.{dead_pid()}@{HOST}"}
    for name in names:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert set(os.listdir(tmp_path)) == names


def test_a_folder_is_held_by_one(tmp_path):
    held = hold(tmp_path)
    assert held is not None
    assert hold(tmp_path) is None
    os.close(held)
    again = hold(tmp_path)
    assert again is not None
    os.close(again)
    assert hold(tmp_path / "gone") is None


def test_no_folder_for_the_cache(monkeypatch):
    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(InputError, match="HOME is not set and the user is unknown: set XDG_CACHE_HOME to a folder"):
        cache_folder()


@pytest.fixture
def homeless(monkeypatch):
    """A user whom the system does not know, as in a container, without HOME."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_home_folder_its_paths_are_refused(homeless, monkeypatch):
    match = "lies in a home folder, and there is none: set the environment variable HOME, or give the whole path"
    for path in ("~", "~/data", "~no-such-user/data"):
        with pytest.raises(InputError, match=f"^{path} {match}"):
            expand_home(path)
    assert expand_home("data/~") == "data/~"
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_home("~/data") == "/home/me/data"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("interpolate", "--data", "digits", "--train-size", 50), "HOME is not set and the user is unknown"),
        (("fit", "--data", "digits", "--train-size", 50, "--epochs", 1), "HOME is not set and the user is unknown"),
        (("fit", "--data", "digits", "--data-dir", "~/data"), "~/data lies in a home folder, and there is none"),
        (("data", "synthetic", "--rows", 10, "--output", "~/set"), "~/set lies in a home folder, and there is none"),
    ],
)
def test_without_a_home_folder_commands_say_so_in_one_line(kl, homeless, arguments, match):
    result = kl(*arguments)
    assert result.code == 2
    assert match in result.err
    assert "Traceback" not in result.err
    assert result.err.startswith("error: ")
    assert not Path("~").exists()
