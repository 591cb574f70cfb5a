"""Folders in MNIST's format: any size of image, packed or dotted files, and what is said where some are missing."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import MNISTDataModule
from datamodules.catalog import check
from datamodules.idx import read_idx
from kl.errors import DataNotFoundError, InputError

NAMES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder, side=(20, 20), n=40, rename=lambda name: name):
    """A set of n training and n / 2 test images in folder/MNIST/raw; its arrays by the files' usual names."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for part, rows in (("train", n), ("t10k", n // 2)):
        labels = (np.arange(rows) % 10).astype(np.uint8)
        images = rng.integers(0, 64, (rows, *side), dtype=np.uint8)
        images[:, 0, 0] += 19 * labels
        arrays |= {f"{part}-images-idx3-ubyte": images, f"{part}-labels-idx1-ubyte": labels}
    for name, array in arrays.items():
        file = raw / rename(name)
        file.write_bytes(gzip.compress(idx(array)) if file.suffix == ".gz" else idx(array))
    return arrays


def load(folder, **options):
    data = MNISTDataModule(data_dir=folder, download=False, **options)
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize("side", [(20, 20), (16, 12)])
def test_the_shape_of_images_is_that_of_the_file(tmp_path, side):
    arrays = write(tmp_path, side)
    data = load(tmp_path)
    assert data.image_shape == (1, *side)
    assert data.train_set.x.shape == (40, side[0] * side[1])
    assert data.test_set.x.shape == (20, side[0] * side[1])
    found = (data.train_set.x * 255).round().to(torch.uint8).reshape(40, *side)
    assert np.array_equal(found, arrays["train-images-idx3-ubyte"])
    assert np.array_equal(data.clean_labels, arrays["train-labels-idx1-ubyte"])


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"{name}.gz",
        lambda name: name.replace("-idx", ".idx"),
        lambda name: name.replace("-idx", ".idx") + ".gz",
        lambda name: f"{name}.gz" if "images" in name else name,
    ],
)
def test_packed_and_dotted_files_are_read(tmp_path, rename):
    write(tmp_path / "plain")
    write(tmp_path / "other", rename=rename)
    plain, other = load(tmp_path / "plain"), load(tmp_path / "other")
    assert torch.equal(plain.train_set.x, other.train_set.x)
    assert torch.equal(plain.test_set.x, other.test_set.x)
    assert torch.equal(plain.train_set.y, other.train_set.y)
    sums = [
        [item.found for item in check("mnist", str(tmp_path / name)) if "MD5" in item.what]
        for name in ("plain", "other")
    ]
    assert len(sums[0]) == 4
    assert sums[0] == sums[1]


@pytest.mark.slow
def test_small_images_are_trained_augmented_and_predicted(kl, tmp_path):
    write(tmp_path, n=120)
    common = ("--data", "mnist", "--data-dir", tmp_path, "--bandwidth", 5, "--epochs", 2, "--no-exact", "--json")
    augmented = ("--solver", "eigenpro4", "--centers", 40, "--augment", "shift:2")
    for options in ((), augmented):
        result = kl("fit", *common, *options)
        assert result.code == 0, result.err
        found = json.loads(result.out)
        assert found["d"] == 400
    np.savez("x.npz", x=np.zeros((3, 20, 20), dtype=np.uint8))
    result = kl("predict", found["checkpoint"], "--input", "x.npz", "--output", "out.csv")
    assert result.code == 0, result.err


def test_what_was_found_instead_is_named(tmp_path):
    write(tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    (raw / "t10k-labels-idx1-ubyte").rename(raw / "labels.bin")
    match = (
        r"mnist was not found at .*MNIST/raw and was not downloaded \(download is off\); t10k-labels-idx1-ubyte not "
        r"found among labels\.bin, t10k-images-idx3-ubyte, train-images-idx3-ubyte, train-labels-idx1-ubyte: point"
    )
    with pytest.raises(DataNotFoundError, match=match):
        load(tmp_path)
    for i in range(9):
        (raw / f"a{i}").write_text("")
    with pytest.raises(DataNotFoundError, match=r"not found among a0, .*, a7 and 5 more: point"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        (NAMES[0], b"", "the train files in .*MNIST/raw are damaged .unpack requires a buffer of 4 bytes"),
        (NAMES[0], idx(np.zeros((2, 20), np.uint8)), "it must be an IDX file of unsigned bytes of 3 dimensions"),
        (NAMES[1], b"\0\0\x0d\1\0\0\0\1\0\0\0\0", "unsigned bytes of 1 dimensions"),
        (NAMES[1], idx(np.zeros(39, np.uint8)), r"\(40 images and 39 labels\): delete them and run `kl data download"),
        (NAMES[1], idx(np.full(40, 10, np.uint8)), "a label is 10, and the classes are 0 to 9"),
        (NAMES[3], idx(np.zeros(20, np.uint8))[:-1], "the t10k files .*declares 20 values, and it holds 19"),
        (NAMES[3], idx(np.zeros(20, np.uint8)) + b"a", "declares 20 values, and it holds more"),
        (NAMES[2], b"\0\0\x08\3" + b"\xff" * 12 + b"few", "declares 4294967295 x .* values, and it holds 3"),
        (NAMES[2], idx(np.zeros((20, 10, 40), np.uint8)), "must have one shape; got 20 x 20 for training and 10 x 40"),
    ],
)
def test_files_that_are_not_what_they_claim(tmp_path, name, content, match):
    write(tmp_path)
    (tmp_path / "MNIST" / "raw" / name).write_bytes(content)
    with pytest.raises(InputError, match=match) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_packed_files_are_named(tmp_path):
    write(tmp_path, rename=lambda name: f"{name}.gz")
    file = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for content in (whole[:200], b"none", whole[:-6] + bytes(6)):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"the t10k files in .*raw are damaged \(.+\): delete them and run"):
            load(tmp_path)
        with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte\.gz is damaged"):
            check("mnist", str(tmp_path))


def test_an_idx_file_is_its_array(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = Path(tmp_path, "a")
    path.write_bytes(idx(array))
    assert np.array_equal(read_idx(path, 3), array)
