"""A user's own arrays: what is read, how it is turned into features and targets, and what is refused."""

import numpy as np
import pytest
import torch

from datamodules import ArrayDataModule, build_datamodule
from datamodules.samples import features_of, read_npz
from kl.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 4, 5), dtype=np.uint8)
LABELS = np.arange(12) % 3
FLOATS = RNG.standard_normal((12, 7))


def good(**changes):
    return {"x_train": FLOATS, "y_train": LABELS, "x_test": FLOATS[:5], "y_test": LABELS[:5], **changes}


def set_up(**changes):
    data = ArrayDataModule.from_arrays(**good(**changes))
    data.setup()
    return data


def test_a_file_is_read_in_its_order(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:5], y_test=LABELS[:5], other=np.ones(1))
    data = build_datamodule(f"npz:{path}", seed=5)
    data.setup()
    assert data.name == "mine"
    assert data.image_shape == (1, 4, 5)
    assert torch.equal((data.train_set.x * 255).round(), torch.from_numpy(IMAGES).reshape(12, 20).float())
    assert torch.equal(data.clean_labels, torch.from_numpy(LABELS))
    assert data.class_names == ["0", "1", "2"]
    assert data.hparams.path == str(path)
    smaller = build_datamodule(f"npz:{path}", train_size=4, test_size=2)
    smaller.setup()
    assert (len(smaller.train_set), len(smaller.test_set)) == (4, 2)


def test_floats_are_left_alone_and_flattened():
    data = set_up(x_train=FLOATS.reshape(12, 7, 1) * 300, x_test=FLOATS[:5])
    assert torch.equal(data.train_set.x, torch.from_numpy(FLOATS * 300).float())
    assert data.image_shape is None


def test_channels_last_images_become_channels_first():
    first = RNG.integers(0, 256, (12, 3, 6, 5), dtype=np.uint8)
    last = np.ascontiguousarray(first.transpose(0, 2, 3, 1))
    b = ArrayDataModule.from_arrays(**good(x_train=last, x_test=last, y_test=LABELS))
    a = ArrayDataModule.from_arrays(**good(x_train=first, x_test=first, y_test=LABELS))
    a.setup()
    b.setup()
    assert a.image_shape == b.image_shape == (3, 6, 5)
    assert torch.equal(a.train_set.x, b.train_set.x)
    assert torch.equal(features_of("x", last, b.encoding), a.train_set.x)


@pytest.mark.parametrize("kinds", [("uint8", "float32"), ("float64", "uint8"), ("float64", "float32")])
def test_channels_last_images_become_channels_first_whatever_their_dtypes(kinds):
    first = RNG.integers(0, 256, (12, 3, 6, 5), dtype=np.uint8)
    train, test = (first if kind == "uint8" else (first / 255).astype(kind) for kind in kinds)
    last = [np.ascontiguousarray(x.transpose(0, 2, 3, 1)) for x in (train, test)]
    data = set_up(x_train=last[0], x_test=last[1], y_test=LABELS)
    features = torch.from_numpy(first.reshape(12, -1) / 255).float()
    assert torch.allclose(data.train_set.x, features)
    assert torch.allclose(data.test_set.x, features)
    assert torch.allclose(data.encoding.encode(torch.from_numpy(last[1])), features)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64, bool])
def test_any_integers_are_classes_named_by_their_values(dtype):
    values = np.array([0, 1] * 6) if dtype is bool else np.array([3, 90, 7] * 4)
    data = set_up(y_train=values.astype(dtype), y_test=values[:5].astype(dtype))
    assert data.class_names == (["0", "1"] if dtype is bool else ["3", "7", "90"])
    names = [int(data.class_names[label]) for label in data.clean_labels]
    assert names == values.tolist()


def test_a_class_of_the_test_set_alone_counts():
    data = set_up(y_test=np.array([0, 1, 2, 9, 9]))
    assert data.num_outputs == 4
    assert data.train_set.y.shape == (12, 4)


def test_a_column_of_labels_is_accepted():
    assert set_up(y_train=LABELS[:, None], y_test=LABELS[:5, None]).num_outputs == 3


@pytest.mark.parametrize("columns", [None, 1, 4])
def test_floats_are_regression_targets_also_one_hot_ones(columns):
    y = FLOATS[:, 0] if columns is None else np.eye(4)[LABELS][:, :columns]
    data = set_up(y_train=y, y_test=y[:5])
    assert data.task == "regression"
    assert data.train_set.y.shape == (12, columns or 1)
    assert torch.equal(data.train_set.y, torch.from_numpy(y).float().reshape(12, -1))


def test_tensors_and_lists_are_accepted_and_not_modified():
    x = torch.rand(4, 2, requires_grad=True)
    before = x.detach().clone()
    data = ArrayDataModule.from_arrays(x, torch.tensor([0, 1, 0, 1]), [[1.0, 2.0]], [1])
    data.setup()
    assert torch.equal(x, before)
    half = ArrayDataModule.from_arrays(before.bfloat16(), [0, 1, 0, 1], before, [0, 1, 0, 1])
    half.setup()
    assert half.train_set.x.dtype == torch.float32


def test_arrays_in_memory_are_no_hyperparameters():
    data = ArrayDataModule.from_arrays(**good())
    assert data.hparams.path is None
    with pytest.raises(InputError, match=r"made from arrays in memory.*from_arrays"):
        ArrayDataModule(**data.hparams).setup()


def test_label_noise_on_regression_is_refused():
    data = ArrayDataModule.from_arrays(**good(y_train=FLOATS[:, 0], y_test=FLOATS[:5, 0]), label_noise=0.1)
    with pytest.raises(InputError, match=r"label_noise replaces class labels.*got 0.1"):
        data.setup()


def with_nan():
    bad = FLOATS.copy()
    bad[3, 2] = np.nan
    return bad


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": with_nan()}, "x_train must be finite; row 3 holds NaN"),
        (
            {"x_test": FLOATS[:5] * np.array(1e300)},
            r"x_test holds -1.00962e\+300 in column 0, and float32 ends at 3.4e\+38",
        ),
        ({"y_train": with_nan()[:, 2], "y_test": FLOATS[:5, 0]}, "y_train must be finite; row 3"),
        (
            {"x_train": FLOATS[:7]},
            "x_train and y_train must have one row per sample; got 7 rows and 12 targets",
        ),
        ({"y_test": LABELS[:4]}, "x_test and y_test must have one row per sample; got 5 rows and 4 targets"),
        ({"x_test": FLOATS[:5, :6]}, "x_train and x_test must have equally many features; got 7 and 6"),
        ({"x_train": FLOATS[:0], "y_train": LABELS[:0]}, r"x_train must have at least one row.*\(0, 7\)"),
        (
            {"y_test": LABELS[:0]},
            r"y_test must have shape \(n,\) or \(n, c\) with at least one row; got \(0,\)",
        ),
        (
            {"x_train": np.arange(12.0)},
            r"x_train must have at least one row and one column; got shape \(12,\)",
        ),
        ({"x_train": FLOATS.astype(int)}, "x_train must hold uint8 images or floats; got int64: convert it"),
        ({"x_train": FLOATS.astype(complex)}, "x_train must hold uint8 images or floats; got complex128"),
        ({"y_train": np.array(["a"] * 12)}, r"y_train must hold integers \(classes\) or floats.*got <U1"),
        ({"y_train": LABELS.astype(float)}, "must both be integers.*got float64 and int64"),
        (
            {"y_train": np.eye(3, dtype=int)[LABELS]},
            r"y_train holds integers.*got \(12, 3\): for one-hot rows",
        ),
        (
            {"y_train": FLOATS, "y_test": FLOATS[:5, :2]},
            "y_train and y_test must have equally many columns; got 7",
        ),
        ({"y_train": [[1, 2], [3]] * 6}, "y_train must be numbers of one shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        set_up(**changes)
    assert "\n" not in str(caught.value)


def test_integers_that_look_like_regression_are_refused():
    n = 500
    x, y = RNG.standard_normal((n, 2)), np.arange(n)
    with pytest.raises(
        InputError, match="holds integers, 500 different ones in 500 rows, which may be classes or numbers"
    ):
        ArrayDataModule.from_arrays(x, y, x, y).setup()


def test_files_that_cannot_be_read_are_refused(tmp_path):
    path = tmp_path / "a.npz"

    def refused(match):
        with pytest.raises(InputError, match=match) as caught:
            ArrayDataModule(path).setup()
        assert "\n" not in str(caught.value)

    refused("a.npz must be a .npz file; there is no such file")
    path.mkdir()
    refused("there is no such file")
    path.rmdir()
    for content in (b"", b"hello", b"PK\x03\x04 and nothing"):
        path.write_bytes(content)
        refused("is not a .npz file or is damaged")
    with path.open("wb") as file:
        np.save(file, FLOATS)
    refused("it is a single .npy array")
    np.savez(path, x_train=FLOATS, x_test=FLOATS, y_test=LABELS)
    refused(r"x_train, y_train \(and may hold x_test, y_test\); y_train not found among: x_train, x_test, y_test")
    np.savez(path, x_train=FLOATS, y_train=LABELS, x_test=FLOATS)
    refused("y_test is missing beside x_test: give both, or neither for no test set")
    np.savez(path, x_train=FLOATS, y_train=LABELS, y_test=LABELS)
    refused("x_test is missing beside y_test: give both")
    np.savez(path, **good(y_train=np.array([{"a": 1}] * 12)))
    refused("y_train in .* holds Python objects")
    np.savez(path, **good())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused("is not a .npz file or is damaged")
    broken = bytearray(whole)
    broken[200:210] = bytes(10)  # in the numbers of x_train: the zip's checksum notices
    path.write_bytes(broken)
    refused("x_train in .* is damaged")


def test_read_npz_reads_the_named_arrays_alone(tmp_path):
    np.savez(tmp_path / "a.npz", x=FLOATS, secret=np.array([object()]))
    assert read_npz(tmp_path / "a.npz", ("x",))["x"].shape == FLOATS.shape


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_samples_of_the_same_size_and_other_axes_are_refused(dtype):
    images = IMAGES.astype(dtype)
    with pytest.raises(InputError, match=r"x_test must have .* of x_train, \(4, 5\); got \(5, 4\)"):
        set_up(x_train=images, x_test=images[:5].transpose(0, 2, 1))
    for same in (images, images[:, None], images[..., None], images.reshape(12, 20)):
        data = set_up(x_train=images, x_test=same, y_test=LABELS)
        assert torch.equal(data.test_set.x, data.train_set.x)


def test_one_hot_rows_beside_labels_of_other_classes_are_refused():
    one_hot = np.eye(3)[LABELS]
    with pytest.raises(InputError, match="classes 0 to 2, and the other labels from 0 to 3: store both alike"):
        set_up_classes(one_hot, LABELS[:5] + 1)
    assert set_up_classes(one_hot, LABELS[:5]).class_names == ["0", "1", "2"]


def set_up_classes(y_train, y_test):
    data = ArrayDataModule.from_arrays(**good(y_train=y_train, y_test=y_test), task="classification")
    data.setup()
    return data
