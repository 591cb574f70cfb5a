"""The headers of .npz files: what cannot be read, or not within the memory, is refused before it is read."""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import kl
from datamodules import ArrayDataModule
from datamodules.samples import read_first, read_npz

FLOATS = np.arange(12, dtype=np.float32).reshape(4, 3)
CHILD = """
import json, sys
from datamodules.samples import read_npz
import kl
from kl.system.memory import peak_memory
before = peak_memory()
try:
    read_npz(sys.argv[1], ("x_train",), memory="50MB")
except kl.MemoryBudgetError as error:
    print(json.dumps({"error": str(error), "taken": peak_memory() - before}))
"""


def npy(header, body=b""):
    """A .npy file with this header."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + body


def header(shape, descr="<f4"):
    return {"descr": descr, "fortran_order": False, "shape": shape}


def write(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("rows", [10**9, 10**12, 5])
def test_a_header_that_claims_other_rows_than_are_there(tmp_path, rows):
    path = write(tmp_path / "a.npz", x_train=npy(header((rows, 3)), FLOATS.tobytes()))
    with pytest.raises(
        kl.InputError, match=rf"x_train in .*a.npz is damaged: its header says \({rows}, 3\) float32, .*"
    ):
        read_npz(path, ("x_train",))
    with pytest.raises(kl.InputError, match=r"and 48 B are there: write it again with numpy.savez"):
        read_first(path, ("x_train",))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"text that is none", npy(header((4, 3)))[:40]])
def test_a_member_that_is_no_array(tmp_path, content):
    path = write(tmp_path / "a.npz", x_train=content)
    with pytest.raises(kl.InputError, match=r"x_train in .*a.npz is damaged, empty, or no array of numbers"):
        read_npz(path, ("x_train",))


def test_python_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.array([{}, 1], dtype=object))
    with pytest.raises(kl.InputError, match=r"x_train in .*a.npz holds Python objects, which are not loaded"):
        read_npz(tmp_path / "a.npz", ("x_train",))


def test_negative_shapes_are_refused(tmp_path):
    path = write(tmp_path / "a.npz", x_train=npy(header((-4, -3)), FLOATS.tobytes()))
    with pytest.raises(kl.InputError, match=r"x_train in .* is damaged: its header says"):
        read_npz(path, ("x_train",))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_stands_there_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for rows in (FLOATS, FLOATS + 1):
            archive.writestr("x_train.npy", npy(header((4, 3)), rows.tobytes()))
    with pytest.raises(kl.InputError, match=r"a.npz must hold x_train once; it stands there 2 times"):
        read_npz(tmp_path / "a.npz", ("x_train",))


def test_sound_arrays_are_read(tmp_path):
    arrays = {"f": FLOATS, "b": FLOATS.astype("u1"), "d": np.asfortranarray(FLOATS.astype("f8")), "e": FLOATS[:0]}
    np.savez_compressed(tmp_path / "a.npz", number=np.float32(3), **arrays)
    found = read_npz(tmp_path / "a.npz", tuple(arrays), ("number", "none"))
    assert found["number"] == 3
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.slow
def test_what_does_not_fit_is_refused_before_it_is_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x_train=np.zeros((200, 1000, 1000), dtype=np.uint8))
    assert (tmp_path / "a.npz").stat().st_size < 10**6
    arguments = [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path / "a.npz")]
    child = subprocess.run(arguments, capture_output=True, text=True, check=True)
    found = json.loads(child.stdout)
    assert "x_train (200, 1000, 1000) uint8, which take 1 GB in memory, more than the budget of 50 MB" in found["error"]
    assert found["taken"] < 20 * 10**6


def test_the_budget_counts_the_float32_copy(tmp_path):
    arrays = {"x_train": np.zeros((10, 100)), "y_train": np.zeros(10, dtype=np.float32)}
    np.savez(tmp_path / "a.npz", **arrays)
    need = 10 * 100 * (8 + 4) + 10 * 4
    assert read_npz(tmp_path / "a.npz", tuple(arrays), memory=need)
    with pytest.raises(kl.MemoryBudgetError, match="raise --memory, or store fewer rows"):
        read_npz(tmp_path / "a.npz", tuple(arrays), memory=need - 1)
    data = ArrayDataModule(tmp_path / "a.npz")
    data.memory = need - 1
    with pytest.raises(kl.MemoryBudgetError, match="12 KB in memory"):
        data.setup()
