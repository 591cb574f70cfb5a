"""The encoding of tables: against scikit-learn's transformers, over chunks, in checkpoints, and refused cells."""

import copy
import json
import logging
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

from kl.errors import CheckpointError, InputError
from kl.rows.cells import codes_of, days_of, numbers_of, text_of
from kl.rows.column_kinds import ColumnScan
from kl.rows.table import TableEncoding, TableFit
from kl.rows.table_columns import MAX_CATEGORIES
from kl.rows.table_fit import CategoryFit, NumberFit


def mixed(n=200, seed=0):
    """Rows of all kinds, with missing values."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "area": rng.normal(1e6, 10, n),
            "rooms": rng.integers(1, 6, n),
            "town": rng.choice(["Ulm", "Bonn", "Köln"], n),
            "garden": rng.random(n) < 0.5,
            "built": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), "D"),
        }
    )
    frame.loc[rng.random(n) < 0.1, "area"] = np.nan
    frame.loc[rng.random(n) < 0.1, "town"] = None
    return frame


def test_features_are_those_of_scikit_learn():
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    train, test = mixed(), mixed(50, seed=1)
    encoding = TableEncoding.fit(train)
    days = {part: (frame.built - pd.Timestamp(0)) / pd.Timedelta(days=1) for part, frame in (("a", train), ("b", test))}
    counts = train.town.value_counts()
    order = [[*sorted(counts.index, key=lambda name: (-counts[name], name)), "missing"]]
    truths = [sorted(["false", "true"], key=lambda name: (-(train.garden == (name == "true")).sum(), name))]
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["area", "rooms", "built"]),
            ("town", OneHotEncoder(categories=order, sparse_output=False), ["town"]),
            ("garden", OneHotEncoder(categories=truths, sparse_output=False), ["garden"]),
        ]
    )

    def prepared(frame, part):
        garden = frame.garden.map({True: "true", False: "false"})
        return frame.assign(built=days[part], town=frame.town.fillna("missing"), garden=garden)

    columns.fit(prepared(train, "a"))
    for frame, part in ((train, "a"), (test, "b")):
        found = pd.DataFrame(encoding.encode(frame).numpy(), columns=encoding.feature_names)
        expected = columns.transform(prepared(frame, part))
        names = ["area", "rooms", "built", *(f"town={name}" for name in order[0][:-1]), "town:missing"]
        names += [f"garden={name}" for name in truths[0]]
        np.testing.assert_allclose(found[names], expected, atol=2e-6)
        np.testing.assert_allclose(found["area:missing"], np.where(frame.area.isna(), 2**0.5, 0), atol=1e-7)
        assert set(found.columns) == {*names, "area:missing"}


def test_a_category_counts_like_a_number():
    """Two rows that differ in a category, and on average two rows in a standardised column, are at the distance^2 2."""
    frame = mixed(500)
    encoding = TableEncoding.fit(frame)
    x = pd.DataFrame(encoding.encode(frame).double().numpy(), columns=encoding.feature_names)
    for name in ("area", "rooms", "built"):
        assert abs(x[name].mean()) < 1e-6
        assert abs(2 * x[name].var(ddof=0) - 2) < 1e-5
    towns = x[[name for name in x if name.startswith("town")]].to_numpy()
    assert {0.0, 2.0} == set(((towns[:, None] - towns[None]) ** 2).sum(2).ravel())


@pytest.mark.parametrize("size", [1, 7, 64])
def test_chunks_give_the_encoding_of_the_whole(size):
    frame = mixed()
    whole = TableEncoding.fit(frame)
    fit = TableFit({column.name: column.kind for column in whole.columns})
    for start in range(0, len(frame), size):
        fit.add(frame.iloc[start : start + size])
    found = fit.encoding()
    for ours, theirs in zip(found.columns, whole.columns, strict=True):
        assert (ours.name, ours.kind, ours.missing, ours.categories) == (
            theirs.name,
            theirs.kind,
            theirs.missing,
            theirs.categories,
        )
        np.testing.assert_allclose([ours.fill, ours.mean, ours.scale], [theirs.fill, theirs.mean, theirs.scale], 1e-9)
    out, start = torch.zeros(len(frame), whole.num_features), 0
    for start in range(0, len(frame), size):
        whole.write(frame.iloc[start : start + size], out[start : start + size], "it", start, Counter())
    assert torch.equal(out, whole.encode(frame))


def test_large_values_do_not_cancel():
    """Mean and deviation at 1e9 with a spread of 1, over chunks, against NumPy in long double."""
    values = 1e9 + np.random.default_rng(0).normal(size=5000)
    fit = NumberFit("t", "numeric")
    for part in np.array_split(values, 37):
        fit.add(pd.Series(part))
    column = fit.column()
    exact = values.astype(np.longdouble)
    assert abs(column.scale - float(exact.std())) < 1e-8
    assert abs(column.mean - float(exact.mean())) < 1e-5


def test_a_long_column_has_its_median_from_a_sample():
    fit = NumberFit("t", "numeric", sample=100)
    for part in np.array_split(np.arange(10_000.0), 30):
        fit.add(pd.Series(part))
    assert abs(fit.column().fill - 5000) < 100  # values lie up to 64 apart
    assert fit._sampled <= 200


def test_at_most_fifty_categories_and_other():
    names = [f"n{k:02}" for k in range(70) for _ in range(100 - k)]
    encoding = TableEncoding.fit(pd.DataFrame({"a": names}))
    (column,) = encoding.columns
    assert column.categories == tuple(f"n{k:02}" for k in range(MAX_CATEGORIES))
    assert encoding.num_features == MAX_CATEGORIES + 1
    x = encoding.encode(pd.DataFrame({"a": ["n00", "n60", "never"]}))
    assert x.argmax(1).tolist() == [0, MAX_CATEGORIES, MAX_CATEGORIES]


def test_counting_many_texts_takes_bounded_room_and_keeps_the_frequent_ones():
    fit = CategoryFit("id", "category", limit=100)
    for start in range(0, 5000, 50):
        fit.add(pd.Series([f"id{k}" for k in range(start, start + 50)] + ["often"] * 3))
    assert len(fit._counts) <= 100
    assert fit.column().categories[0] == "often"
    assert fit._counts["often"] == 300
    assert fit.looks_like_names


def test_a_category_never_seen_is_zero_and_counted(caplog):
    encoding = TableEncoding.fit(pd.DataFrame({"a": ["p", "q"], "b": [1, 2]}))
    with caplog.at_level(logging.WARNING):
        x = encoding.encode(pd.DataFrame({"a": ["r", "q", "s", None], "b": [1, 1, 1, 1]}), "new.csv")
    assert x[:, :2].tolist() == [[0, 0], [0, 1], [0, 0], [0, 0]]
    assert "new.csv: values that no training row has had, which count as no category: a (2)" in caplog.text


def test_missing_values_where_training_had_none(caplog):
    encoding = TableEncoding.fit(pd.DataFrame({"a": [1.0, 3.0, 9.0], "b": ["p", "q", "q"]}))
    with caplog.at_level(logging.WARNING):
        x = encoding.encode(pd.DataFrame({"a": [np.nan, 3.0], "b": [None, "p"]}), "new.csv")
    assert x[0, 0] == x[1, 0]  # the median
    assert x[0, 1:].tolist() == [0, 0]
    assert encoding.num_features == 3
    said = "missing values, of which training rows have none, become the median, or no category: a (1), b (1)"
    assert f"new.csv: {said}" in caplog.text
    caplog.clear()
    TableEncoding.fit(pd.DataFrame({"a": [1.0, 3.0, None]})).encode(pd.DataFrame({"a": [np.nan]}))
    assert not caplog.text


def test_integers_that_float64_does_not_tell_apart_are_not_called_equal(caplog):
    ids = pd.Series([2**60 + k for k in range(4)])
    with caplog.at_level(logging.INFO):
        encoding = TableEncoding.fit(pd.DataFrame({"id": ids, "same": [2**60] * 4, "a": range(4)}))
    assert encoding.feature_names == ["a"]
    assert "float64 cannot hold their integers, which differ, but only beyond its 16 digits: id; " in caplog.text
    assert "all training rows are equal there: same\n" in caplog.text
    kept = TableEncoding.fit(pd.DataFrame({"id": 2**60 + 1000 * pd.Series(range(4)), "a": range(4)}))
    assert kept.feature_names == ["id", "a"]


def test_a_line_break_in_a_category_stays_out_of_the_table_for_people():
    fit = CategoryFit("town", "category")
    fit.add(pd.Series(["New\nYork", "Ulm\r\n (Danube)", "Constantinople, Galata"]))
    assert fit.values_text() == "Constantinople, G..., New York, Ulm (Danube)"


def test_columns_of_equal_rows_and_dropped_ones_are_left_out(caplog):
    frame = pd.DataFrame(
        {"same": [1, 1], "one": ["p", "p"], "none": [None, None], "a": [1, 2], "y": [1, 2], "d": [3, 4]}
    )
    with caplog.at_level(logging.INFO):
        encoding = TableEncoding.fit(frame, targets=["y"], drop=["d"])
    assert encoding.feature_names == ["a"]
    assert set(encoding.dropped) == {"same", "one", "none", "d"}
    assert "all training rows are equal there: same, one" in caplog.text
    with pytest.raises(
        InputError, match="must have a column to learn from beside the target; there is none that varies"
    ):
        TableEncoding.fit(frame, targets=["y"], drop=["d", "a"])


def test_columns_in_any_order_new_ones_ignored_missing_ones_named(caplog):
    frame = pd.DataFrame({"age": [1, 2], "town": ["p", "q"], "y": [1, 2]})
    encoding = TableEncoding.fit(frame, targets=["y"])
    with caplog.at_level(logging.INFO):
        other = encoding.encode(frame[["y", "town", "age"]].assign(new=1), "in.csv")
    assert torch.equal(other, encoding.encode(frame))
    assert "in.csv: the target, column y, is not used to predict" in caplog.text
    assert "in.csv: ignored, because the training table has no such column: new" in caplog.text
    with pytest.raises(
        InputError, match=r"in.csv must have the columns .* lacks town \(is it 'twon'\?\): add them; the"
    ):
        encoding.encode(frame.rename(columns={"town": "twon"}), "in.csv")
    with pytest.raises(InputError, match=r"in.csv must name each column once; 'town' is there more often: rename one"):
        encoding.encode(pd.concat([frame, frame["town"]], axis=1), "in.csv")


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("area", "large", "numbers, as in training; row 2 .* holds 'large'"),
        ("built", "soon", "ISO dates, as 2024-05-31, as in training; row 2 .* holds 'soon'"),
        ("garden", "maybe", "true or false, as in training; row 2 .* holds 'maybe'"),
        ("town", "7.5", "texts such as '(Ulm|Bonn|Köln)', as in training; row 2 .* holds '7.5'"),
        ("area", float("inf"), "numbers, as in training; row 2 .* holds 'inf'"),
        ("area", 1e300, "numbers that float32 holds, as in training; row 2 .* holds '1e\\+300'"),
    ],
)
def test_a_cell_of_another_kind_is_named(column, value, expected):
    train = mixed()
    encoding, new = TableEncoding.fit(train), train.head(3).astype(object).fillna({"town": "Ulm", "area": 1e6})
    new.loc[1, column] = value
    with pytest.raises(InputError, match=rf"column {column} of in.csv must hold {expected}"):
        encoding.encode(new, "in.csv")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([1, 2, "old", 4], r"row 3 \(counted from 1\) holds 'old', and 3 of 4 rows hold a number: .* categorical=a"),
        (["p", "q", "3"], r"row 3 \(counted from 1\) holds '3', and 2 of 3 rows hold a text"),
        (["2020-01-01", "2020-02-30", "2020-01-03"], "row 2 .* holds '2020-02-30', and 2 of 3 rows hold a date"),
        (["1,5", "2,5"], "must hold numbers with a decimal point; row 1 .* holds '1,5'"),
        ([1.0, float("inf")], "must hold finite numbers; row 2 .* holds inf"),
        (["1", "2", "-inf"], "row 3 .* holds '-inf', and 2 of 3 rows hold a number: correct .* categorical=a"),
    ],
)
def test_a_column_of_several_kinds_names_the_odd_value(cells, message):
    with pytest.raises(InputError, match=f"column a {'.*' if 'must' not in message else ''}{message}"):
        TableEncoding.fit(pd.DataFrame({"a": cells}))


@pytest.mark.parametrize(
    ("cells", "asked", "kind"),
    [
        ([1, 2, 2], None, "numeric"),
        ([1, "x"], "category", "category"),
        ([True, None, False], None, "boolean"),
        (["True", "false"], None, "boolean"),
        (["true", "unknown"], None, "category"),
        ([True, False], "numeric", "numeric"),
        (["2020-01-01", "2020-01-01T10:00:00Z", None], None, "date"),
        ([pd.Timestamp("2020-01-01")], None, "date"),
        ([None, float("nan"), "", "?"], None, None),
        ([10**20, 1], None, "numeric"),
        (["inf", "part"], None, "category"),
        (["9999-12-31", "0001-01-01"], None, "date"),
    ],
)
def test_kinds(cells, asked, kind):
    scan = ColumnScan("a")
    for cell in cells:
        scan.add(pd.Series([cell]))
    assert scan.kind(asked) == kind
    whole = ColumnScan("a")
    whole.add(pd.Series(cells))
    assert whole.kind(asked) == kind
    assert scan.missing == whole.missing == sum(text_of(cell) is None for cell in cells)


def test_numeric_of_texts_is_refused():
    scan = ColumnScan("a")
    scan.add(pd.Series(["1", "x"]))
    with pytest.raises(InputError, match=r"column a must hold numbers, because numeric= names it; row 2 .* holds 'x'"):
        scan.kind("numeric")


def test_cells_of_every_dtype():
    assert codes_of(pd.Series([True, 1, "1", None, 1.0], dtype=object))[0].tolist() == [0, 1, 1, -1, 1]
    assert codes_of(pd.Series(["b", "a", "b", None], dtype="category"))[1] in (["a", "b"], ["b", "a"])
    values, bad = numbers_of(pd.Series([1, None, 3], dtype="Int64"))
    assert not bad.any()
    assert np.array_equal(values, [1, np.nan, 3], equal_nan=True)
    assert numbers_of(pd.Series([pd.Timestamp("2020-01-01")]))[1].all()
    far = ["9999-12-31", "0001-01-01", "2020-05-31 08:00:00.123456789 +0200"]  # pandas counts nanoseconds up to 2262
    assert days_of(pd.Series(far))[0].tolist() == [2932896, -719162, pytest.approx(18413 + 6.00003429 / 24, abs=1e-9)]
    days, bad = days_of(pd.Series(["1970-01-02T00:00:00+12:00", "1970-01-02", "2021", "x", None]))
    assert days[:2].tolist() == [0.5, 1.0]
    assert bad.tolist() == [False, False, True, True, False]


def test_it_is_kept_as_plain_values():
    frame = mixed()
    encoding = TableEncoding.fit(frame, targets=["rooms"], drop=["garden"])
    again = TableEncoding.from_dict(json.loads(json.dumps(encoding.to_dict())))
    assert again == encoding
    assert torch.equal(again.encode(frame), encoding.encode(frame))


PLAIN = TableEncoding.fit(pd.DataFrame({"a": [1.0, 2.0], "b": ["p", "q"], "y": [1, 2]}), targets=["y"]).to_dict()


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: plain.pop("targets"),
        lambda plain: plain.update(columns=[]),
        lambda plain: plain.update(columns="ab"),
        lambda plain: plain.update(targets=["a"]),
        lambda plain: plain.update(dropped=[3]),
        lambda plain: plain["columns"].append(plain["columns"][0]),
        lambda plain: plain["columns"].append(7),
        lambda plain: plain["columns"][0].update(scale=-1.0),
        lambda plain: plain["columns"][0].update(mean=float("nan")),
        lambda plain: plain["columns"][0].update(mean="0"),
        lambda plain: plain["columns"][0].update(kind="code"),
        lambda plain: plain["columns"][0].update(missing=1),
        lambda plain: plain["columns"][0].update(categories=["p"]),
        lambda plain: plain["columns"][0].pop("fill"),
        lambda plain: plain["columns"][1].update(categories=["p", "p"]),
        lambda plain: plain["columns"][1].update(categories=[str(k) for k in range(MAX_CATEGORIES + 1)]),
        lambda plain: plain["columns"][1].update(categories=[]),
        lambda plain: plain["columns"][1].update(kind="boolean"),
        lambda plain: plain["columns"][1].update(name=None),
        lambda plain: plain["columns"][1].update(more=1),
    ],
)
def test_a_changed_table_of_a_checkpoint_is_refused(change):
    plain = copy.deepcopy(PLAIN)
    TableEncoding.from_dict(plain)
    change(plain)
    with pytest.raises(CheckpointError, match="checkpoint's table"):
        TableEncoding.from_dict(plain)


@pytest.mark.parametrize("plain", [None, [], 3, {}])
def test_what_is_no_table_is_refused(plain):
    with pytest.raises(CheckpointError, match="the checkpoint's table must have columns, targets and dropped"):
        TableEncoding.from_dict(plain)
