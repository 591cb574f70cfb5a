"""Sets of a folder, their splits and features."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from kl.errors import InputError
from recipes.bench.tables.protocol import Protocol
from recipes.bench.tables.sets import choose_sets, count_splits, find_sets, read_split

ALL = Protocol(None, 1000, None, 4, 5.0, 30.0, 1)


def test_sets_and_splits(folder):
    there = find_sets(str(folder))
    assert list(there) == ["wave", "halves"]
    assert [count_splits(path) for path in there.values()] == [3, 5]
    assert choose_sets(there, None, "full") == there
    assert list(choose_sets(there, "halves, halves", "quick")) == ["halves"]
    with pytest.raises(InputError, match=r"got 'yacht', which --scale quick takes: name others by --sets"):
        choose_sets(there, None, "quick")


def test_regression_is_standardised_on_training_rows(folder):
    split = read_split(folder / "uci/wave.npz", 1, ALL)
    with np.load(folder / "uci/wave.npz") as file:
        x, y, test = file["x"], file["y"], file["fold"] == 1
    mean, scale = x[~test].mean(axis=0), x[~test].std(axis=0)
    np.testing.assert_allclose(split.x_test, (x[test] - mean) / scale, atol=1e-6)
    np.testing.assert_allclose(split.y_train * split.scale + split.offset, y[~test])
    np.testing.assert_array_equal(split.y_test, y[test])  # in the target's own unit
    assert not split.is_classes


def test_classes_have_stratified_folds_and_one_hot_features(folder):
    split = read_split(folder / "tables/halves.csv", 0, ALL)
    lines = [line.split(",") for line in (folder / "tables/halves.csv").read_text().splitlines()[1:]]
    labels = np.array([line[2] == "up" for line in lines], dtype=int)
    train, test = next(iter(StratifiedKFold(5, shuffle=True, random_state=0).split(labels, labels)))
    np.testing.assert_array_equal(split.y_test, labels[test])
    assert split.x_train.shape == (len(train), 3)
    np.testing.assert_array_equal(split.x_test[:, 2], [float(lines[i][1] == "Ulm") for i in test])
    assert split.num_classes == 2


def test_row_limits(folder, tiny):
    split = read_split(folder / "tables/halves.csv", 0, tiny)
    assert (len(split.x_train), len(split.x_test)) == (30, 10)


def test_a_table_without_class(folder):
    (folder / "tables/bad.csv").write_text("x0,label\n1,2\n")
    with pytest.raises(InputError, match="must have the last column class; it is 'label'"):
        read_split(folder / "tables/bad.csv", 0, ALL)
