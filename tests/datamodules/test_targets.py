"""Labels and numbers: which is taken, and labels found exactly in the dtype that they have."""

import json
import logging

import numpy as np
import pytest
import torch

from datamodules import ArrayDataModule, StreamDataModule
from datamodules.targets import targets
from kl.errors import InputError

X = np.random.default_rng(0).standard_normal((12, 2))


@pytest.mark.parametrize("train", [np.int64, np.uint64])
@pytest.mark.parametrize("test", [np.int64, np.uint64])
def test_labels_beyond_2_to_53_do_not_merge(train, test):
    big = 2**53
    found = targets(np.array([big, big + 1, big + 2], dtype=train), np.array([big + 1, big + 2, 7], dtype=test))
    assert found.class_names == ["7", str(big), str(big + 1), str(big + 2)]
    assert found.train.tolist() == [1, 2, 3]
    assert found.test.tolist() == [2, 3, 0]


def test_labels_beyond_int64_do_not_merge():
    found = targets(np.array([2**63 + 1, 2**63 + 2], dtype=np.uint64), np.array([-1, -(2**63)]))
    assert found.class_names == [str(-(2**63)), "-1", str(2**63 + 1), str(2**63 + 2)]
    assert found.train.tolist() == [2, 3]
    assert found.test.tolist() == [1, 0]


def test_three_large_labels_are_three_outputs():
    y = np.array([2**60, 2**60 + 1, 2**60 + 2] * 4, dtype=np.uint64)
    data = ArrayDataModule.from_arrays(X, y, X, y.astype(np.int64))
    data.setup()
    assert data.num_outputs == 3
    assert torch.equal(data.train_set.y.argmax(dim=1), torch.arange(12) % 3)


def test_shards_of_other_dtypes_have_the_same_labels(tmp_path):
    (tmp_path / "train").mkdir()
    y = np.array([2**60, 2**60 + 1] * 6)
    for i, dtype in enumerate((np.int64, np.uint64)):
        np.savez(tmp_path / "train" / f"{i}.npz", x=X + 100 * i, y=y.astype(dtype))
    data = StreamDataModule(tmp_path, batch_size=24)
    data.setup()
    assert data.class_names == [str(2**60), str(2**60 + 1)]
    ((x, found),) = data.train_dataloader()
    rows = torch.cat([torch.from_numpy(X), torch.from_numpy(X + 100)]).float()
    order = [int((rows == row).all(dim=1).nonzero()) for row in x]
    assert found.argmax(dim=1).tolist() == [i % 2 for i in order]


def test_many_classes_need_the_task(kl):
    n = 300
    x = np.random.default_rng(0).standard_normal((n, 2))
    np.savez("many.npz", x_train=x, y_train=np.arange(n) % 200, x_test=x, y_test=np.arange(n) % 200)
    arguments = ("fit", "--data", "npz:many.npz", "--epochs", 1, "--no-exact", "--json")
    result = kl(*arguments)
    assert result.code == 2
    assert "y_train holds integers, 200 different ones in 300 rows, which may be classes or numbers" in result.err
    assert "--task classification or --task regression" in result.err
    found = json.loads(kl(*arguments, "--task", "classification").out)
    assert (found["c"], found["train_error"] is None) == (200, False)
    found = json.loads(kl(*arguments, "--task", "regression").out)
    assert (found["c"], found["train_error"]) == (1, None)


@pytest.mark.parametrize(
    "y", [np.eye(3)[np.arange(12) % 3], np.eye(3, dtype=int)[np.arange(12) % 3], np.arange(12.0) % 3]
)
def test_floats_and_one_hot_rows_are_classes_where_the_task_says_so(y):
    data = ArrayDataModule.from_arrays(X, y, X[:2], np.array([2, 0]), task="classification")
    data.setup()
    assert data.class_names == ["0", "1", "2"]
    assert torch.equal(data.clean_labels, torch.arange(12) % 3)
    assert data.test_set.y.argmax(dim=1).tolist() == [2, 0]


def test_a_column_that_no_row_is_of_is_a_class():
    assert targets(np.eye(4)[[0, 1]], None, "classification").class_names == ["0", "1", "2", "3"]


def test_integers_are_numbers_where_the_task_says_so():
    found = targets(np.arange(12), np.array([0.5]), "regression")
    assert found.classes is None
    assert torch.equal(found.train, torch.arange(12.0)[:, None])
    assert found.test.tolist() == [[0.5]]


@pytest.mark.parametrize(
    ("y", "level", "message"),
    [
        (np.arange(12) % 3, logging.INFO, "y_train holds integers: taken as labels of 3 classes"),
        (X[:, 0], logging.INFO, "y_train holds floats: taken as numbers (regression)"),
        (
            np.arange(12.0) % 2,
            logging.WARNING,
            "they look like labels of 2 classes: for those give --task classification",
        ),
        (np.eye(3)[np.arange(12) % 3], logging.WARNING, "though they look like one-hot rows"),
        (np.arange(12.0), logging.INFO, "y_train holds floats: taken as numbers (regression)"),
    ],
)
def test_what_was_guessed_is_said(caplog, y, level, message):
    with caplog.at_level(logging.INFO):
        targets(y, None)
    ((_, found, text),) = caplog.record_tuples
    assert found == level
    assert message in text
    caplog.clear()
    if level == logging.INFO:
        targets(y, None, "regression")
        assert not caplog.records


def test_targets_far_from_0_are_a_warning(caplog):
    targets(1.7e9 + X[:, 0], None, "regression")
    assert "y_train lies so far from 0 for its spread that float32 loses digits of it" in caplog.text


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        (X[:, 0], "classification", "y_train must hold whole numbers for --task classification; got"),
        (X, "classification", "y_train must hold one label a row, or one-hot rows; got shape"),
        (np.eye(3, dtype=int), "auto", "for one-hot rows give --task classification, for numbers --task regression"),
        (np.full(3, 1e300), "regression", "y_train as float32 must be finite; row 0"),
        (np.array(["a"]), "classification", "y_train must hold integers"),
    ],
)
def test_targets_that_are_not_of_the_task_are_refused(y, task, message):
    with pytest.raises(InputError, match=message):
        targets(y, None, task)


def test_an_unknown_task_is_refused():
    with pytest.raises(InputError, match="task must be one of auto, classification, regression; got 'ranking'"):
        ArrayDataModule.from_arrays(X, X, task="ranking")
    with pytest.raises(InputError, match="task must be one of"):
        StreamDataModule("data", task="ranking")
