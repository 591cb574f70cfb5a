"""Which library is taken, and that one from another version is not."""

import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from kl import compiled
from kl.compiled import LIBRARIES, best, load, usable_libraries


@pytest.fixture(autouse=True)
def fresh():
    caches = (compiled.processor_flags, load, best)
    for each in caches:
        each.cache_clear()
    yield
    for each in caches:
        each.cache_clear()


@pytest.mark.parametrize(
    ("flags", "capability", "expected"),
    [
        ("sse2", None, []),
        ("sse2 avx2 fma", None, ["_avx2"]),
        ("sse2 avx2 fma avx_vnni", None, ["_avxvnni", "_avx2"]),
        ("avx2 fma avx512f avx512bw avx512dq avx512vl", None, ["_avx512", "_avx2"]),
        ("avx2 fma avx512f avx512bw avx512dq avx512vl avx512_vnni", None, ["_avx512vnni", "_avx512", "_avx2"]),
        ("avx2 fma avx512f avx512bw avx512dq avx512vl avx512_vnni", "avx2", ["_avx2"]),
        ("avx2 fma avx512f avx512bw avx512dq avx512vl avx512_vnni", "default", []),
    ],
)
def test_the_processor_decides(monkeypatch, flags, capability, expected):
    monkeypatch.setattr(compiled, "processor_flags", lambda: frozenset(flags.split()))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    if capability:
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", capability)
    assert usable_libraries() == expected
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert usable_libraries() == ["_baseline"]


def test_what_was_not_compiled_is_left_out(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert [load(name) for name in LIBRARIES] == [None] * len(LIBRARIES)
    assert best() is None


def test_a_library_of_another_version_is_not_used(monkeypatch, caplog):
    name = next((name for name in usable_libraries() if load(name) is not None), None)
    if name is None:
        pytest.skip("kl was installed without compiled code for this processor, or ATEN_CPU_CAPABILITY forbids it")
    load.cache_clear()
    monkeypatch.setattr(compiled, "VERSION", 999)
    assert load(name) is None
    assert "is of another version of kl: install kl again" in caplog.messages[-1]


def test_a_library_without_a_function_is_not_used(monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: SimpleNamespace(origin="library.so"))
    monkeypatch.setattr("ctypes.CDLL", lambda path: SimpleNamespace(version=lambda: compiled.VERSION))
    assert load("_avx2") is None
    assert "no attribute 'patch_sums'" in caplog.messages[-1]


def test_a_processor_that_nobody_describes(monkeypatch):
    def unreadable(*_):
        raise PermissionError("/proc/cpuinfo")

    monkeypatch.setattr("pathlib.Path.read_text", unreadable)
    assert compiled.processor_flags() == frozenset()


def test_a_file_that_is_no_library_is_not_used(monkeypatch, caplog, tmp_path):
    path = tmp_path / "library.so"
    path.write_text("nonsense")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: type("Spec", (), {"origin": str(path)}))
    assert load("_avx2") is None
    assert "cannot be used, and torch computes more slowly in its place" in caplog.messages[-1]


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("name", usable_libraries())
def test_with_a_compiler_the_libraries_are_there_and_of_these_sources(name):
    """A source that does not compile is left out without an error, so that kl installs everywhere."""
    library = Path(importlib.util.find_spec(f"kl.compiled.{name}").origin)
    sources = [each for each in Path(compiled.__file__).parent.iterdir() if each.suffix in (".cpp", ".h")]
    newest = max(each.stat().st_mtime for each in sources)
    assert library.stat().st_mtime >= newest, "run make again, and look at what the compiler says"
    assert load(name) is not None
