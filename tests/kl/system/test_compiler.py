"""Compiling our own sources: the functions work, and every failure is one line."""

import contextlib
import shutil

import pytest

from kl.system.compiler import COMPILERS, NotCompiledError, compiled

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="there is no C++ compiler")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "twice.cpp"
    path.write_text('extern "C" int twice(int a) { return 2 * a; }')
    return path


@needs_compiler
def test_its_functions_are_called(source, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    assert compiled(source).twice(21) == 42


def test_nothing_is_left_on_disk(source, monkeypatch, tmp_path):
    kept = tmp_path / "tmp"
    kept.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(kept))
    with contextlib.suppress(NotCompiledError):
        compiled(source)
    assert not list(kept.iterdir())


def test_without_a_compiler(source, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NotCompiledError, match="there is no compiler no-such-compiler"):
        compiled(source)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotCompiledError, match=r"there is no compiler c\+\+, g\+\+, clang\+\+"):
        compiled(source)


@needs_compiler
def test_a_source_with_an_error(source, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    source.write_text("#error this processor is not known\n")
    with pytest.raises(NotCompiledError, match=r"fails: .*this processor is not known") as raised:
        compiled(source)
    assert "\n" not in str(raised.value)


def compiler(folder, script):
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_compiler_that_fails_or_writes_nonsense(source, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", compiler(tmp_path, "exit 3"))
    with pytest.raises(NotCompiledError, match="fails: exit code 3"):
        compiled(source)
    monkeypatch.setenv("CXX", compiler(tmp_path, 'while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"'))
    with pytest.raises(NotCompiledError, match=r"twice\.cpp cannot be compiled or loaded: .*twice\.so"):
        compiled(source)


def test_a_compiler_that_hangs(source, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", compiler(tmp_path, "exec sleep 60"))
    monkeypatch.setattr("kl.system.compiler.PATIENCE", 0.2)
    with pytest.raises(NotCompiledError, match="timed out"):
        compiled(source)
