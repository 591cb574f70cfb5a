"""Tables as data modules: kinds of targets, splits, files, chunks, and what is refused."""

import gzip
import logging
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import kl
from datamodules import ArrayDataModule, TableDataModule, build_datamodule, csv_files, table_sources
from kl.errors import CheckpointError, InputError, MemoryBudgetError


def houses(n=120, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "area": rng.normal(100, 20, n).round(3),
            "rooms": rng.integers(1, 6, n),
            "town": rng.choice(["Ulm", "Bonn", "Köln"], n),
            "garden": rng.random(n) < 0.5,
            "built": (pd.Timestamp("2000-01-01") + pd.to_timedelta(rng.integers(0, 9000, n), "D")).strftime("%Y-%m-%d"),
        }
    )
    frame["price"] = 3000 * frame.area + 20_000 * (frame.town == "Ulm") + rng.normal(0, 100, n)
    frame["sold"] = np.where(frame.price > frame.price.median(), "yes", "no")
    frame.loc[3, "area"] = np.nan
    frame.loc[5, "town"] = None
    return frame


@pytest.fixture
def file(tmp_path):
    houses().to_csv(tmp_path / "houses.csv", index=False)
    return tmp_path / "houses.csv"


def written(tmp_path, text, name="t.csv"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / name


def set_up(path, target="y", **options):
    data = TableDataModule(path, target, **options)
    data.setup()
    return data


def test_a_file_and_a_dataframe_give_the_same(file):
    ours = set_up(file, "sold", drop="price")
    frame = houses()
    theirs = TableDataModule.from_dataframe(frame, "sold", drop=["price"])
    theirs.setup()
    assert pd.testing.assert_frame_equal(frame, houses()) is None
    assert torch.equal(ours.train_set.x, theirs.train_set.x)
    assert torch.equal(ours.test_set.x, theirs.test_set.x)
    assert ours.table == theirs.table
    assert (ours.task, ours.class_names, ours.num_outputs) == ("classification", ["no", "yes"], 2)
    assert [column.kind for column in ours.table.columns] == ["numeric", "numeric", "category", "boolean", "date"]
    assert ours.name == "houses"


def test_the_encoding_is_of_the_training_rows_alone(file):
    data, frame = set_up(file, "price", drop="sold"), houses()
    x = torch.cat([data.train_set.x, data.test_set.x])
    assert (len(data.train_set), len(data.test_set)) == (96, 24)
    assert torch.equal(x[x[:, 0].sort().indices], (every := data.table.encode(frame))[every[:, 0].sort().indices])
    assert data.train_set.x[:, 0].mean().abs() < 1e-6
    assert (data.train_set.x[:, 0].std(correction=0) - 1).abs() < 1e-6
    assert data.test_set.x[:, 0].mean().abs() > 1e-3  # the test rows had no say


@pytest.mark.parametrize("cells", [500, 100_000])
def test_chunks_give_what_the_whole_gives(file, cells, monkeypatch):
    whole = set_up(file, "price")
    monkeypatch.setattr(table_sources, "CELLS", cells)
    monkeypatch.setattr(table_sources, "rows_of_a_chunk", lambda columns: 7)
    monkeypatch.setattr(csv_files, "rows_of_a_chunk", lambda columns: 7)
    parts = set_up(file, "price")
    torch.testing.assert_close(parts.train_set.x, whole.train_set.x, atol=1e-6, rtol=0)
    assert torch.equal(parts.train_set.y, whole.train_set.y)
    torch.testing.assert_close(parts.test_set.x, whole.test_set.x, atol=1e-6, rtol=0)


def test_the_split_is_stratified_by_the_seed(file):
    frame = houses(200)
    frame["y"] = np.where(np.arange(200) % 10 == 0, "rare", "usual")
    parts = []
    for seed in (0, 0, 1):
        data = TableDataModule.from_dataframe(frame, "y", seed=seed, test_share=0.1)
        data.setup()
        assert data.test_set.y.sum(0).tolist() == [2, 18]
        parts.append(data.test_set.x)
    assert torch.equal(parts[0], parts[1])
    assert not torch.equal(parts[0], parts[2])
    none = TableDataModule.from_dataframe(frame, "y", test_share=0)
    none.setup()
    assert none.test_set is None
    assert len(none.train_set) == 200


def test_a_test_file_with_columns_in_another_order(file, tmp_path, caplog):
    houses(30, seed=1)[["sold", "price", "built", "garden", "town", "rooms", "area"]].to_csv(tmp_path / "t.csv")
    with caplog.at_level(logging.INFO):
        data = set_up(file, "price", test_path=tmp_path / "t.csv")
    assert (len(data.train_set), len(data.test_set)) == (120, 30)
    assert torch.equal(data.test_set.x, data.table.encode(houses(30, seed=1)))
    assert "t.csv: the first column has no name: taken as numbers of the rows, and left out" in caplog.text
    assert "is not used to predict" not in caplog.text


def test_what_was_found_is_shown(file, caplog):
    with caplog.at_level(logging.INFO):
        set_up(file, "price")
    for line in (
        "target price: taken as numbers (regression)",
        "96 training rows, 6 columns as 12 features; target: price",
        "column  kind      values",
        "town    category",
        "built   date      20",
        "garden  boolean",
    ):
        assert line in caplog.text


@pytest.mark.parametrize(
    ("values", "options", "task", "names"),
    [
        (["b", "a", "c"], {}, "classification", ["a", "b", "c"]),
        (["True", "False"], {}, "classification", ["false", "true"]),
        ([10, 9, 2], {}, "classification", ["2", "9", "10"]),
        ([0.5, 1.5, 2.5], {}, "regression", []),
        (list(range(30)), {}, "regression", []),
        ([10, 9, 2], {"task": "regression"}, "regression", []),
        ([10, 9, 2], {"numeric": "y"}, "regression", []),
        (["true", "false"], {"numeric": "y"}, "regression", []),
        ([10, 9, 2], {"numeric": "y", "task": "classification"}, "classification", ["2", "9", "10"]),
        ([1.0, 0.0], {"task": "classification"}, "classification", ["0", "1"]),
        (["01", "1"], {"categorical": "y"}, "classification", ["01", "1"]),
        (["2020-01-01", "2020-01-02"], {"categorical": "y"}, "classification", ["2020-01-01", "2020-01-02"]),
    ],
)
def test_kinds_of_targets(tmp_path, values, options, task, names):
    lines = "".join(f"{i},{values[i % len(values)]}\n" for i in range(90))
    data = set_up(written(tmp_path, "a,y\n" + lines), **options)
    assert (data.task, data.class_names) == (task, names)
    assert data.task == "classification" or data.test_set.y.isfinite().all()


def test_a_target_that_must_be_numeric_names_the_value_that_is_not(tmp_path):
    path = written(tmp_path, "a,y\n" + "".join(f"{i},{'?' if i == 5 else 'ok' if i == 7 else i}\n" for i in range(30)))
    with pytest.raises(InputError, match=r"column y must hold numbers, because numeric= names it; row 8 .* holds 'ok'"):
        set_up(path, numeric="y")


@pytest.mark.parametrize(
    ("values", "options", "names"),
    [
        (pd.Series(["3", "10", "2"] * 20), {}, ["2", "3", "10"]),
        (pd.Series(pd.Categorical([3, 10, 2] * 20)), {}, ["2", "3", "10"]),
        (pd.Series([3, 10, 2] * 20, dtype="UInt8"), {}, ["2", "3", "10"]),
        (pd.Series([3, 10, 2] * 20, dtype=np.uint64), {}, ["2", "3", "10"]),
        (pd.Series([3.5, 10, 2] * 20), {"categorical": "y"}, ["10", "2", "3.5"]),
    ],
)
def test_labels_of_other_dtypes_keep_their_names(values, options, names):
    frame = pd.DataFrame({"a": range(60), "y": values})
    data = TableDataModule.from_dataframe(frame, "y", test=frame, **options)
    data.setup()
    assert data.class_names == names
    assert [names[k] for k in data.test_set.y[:3].argmax(1)] == [f"{value:g}" for value in map(float, values[:3])]


@pytest.mark.parametrize("kind", ["decimal", "object", "category", "str"])
def test_numbers_of_other_dtypes_keep_their_values(kind):
    values = np.random.default_rng(0).normal(size=60).round(3)
    column = [Decimal(str(value)) for value in values] if kind == "decimal" else pd.Series(values).astype(kind)
    data = TableDataModule.from_dataframe(pd.DataFrame({"a": range(60), "y": column}), "y", test_share=0)
    data.setup()
    found = data.train_set.y.double()[:, 0] * data.target_scale[0] + data.target_offset[0]
    np.testing.assert_allclose(found, values, atol=1e-6)


def test_numbers_for_names_of_columns():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)))
    for target, used in ((0, ["1", "2"]), ([0, 2], ["1"])):
        data = TableDataModule.from_dataframe(frame, target)
        data.setup()
        assert data.table.feature_names == used


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_targets_whose_squares_are_no_numbers_are_refused(scale):
    frame = pd.DataFrame({"a": range(60), "y": scale * np.random.default_rng(0).normal(size=60)})
    with pytest.raises(InputError, match=r"target y must hold numbers whose squares float64 can hold; it goes from -"):
        TableDataModule.from_dataframe(frame, "y").setup()


def test_several_targets_and_their_scales(file):
    data, frame = set_up(file, "price, rooms", drop="sold", test_share=0), houses()
    y = torch.from_numpy(frame[["price", "rooms"]].to_numpy(np.float64))
    assert data.num_outputs == 2
    found = data.train_set.y.double() * torch.tensor(data.target_scale) + torch.tensor(data.target_offset)
    torch.testing.assert_close(found, y, atol=1e-2, rtol=1e-6)
    assert data.train_set.y.mean(0).abs().max() < 1e-6
    assert (data.train_set.y.std(0, correction=0) - 1).abs().max() < 1e-6


def test_a_target_far_from_0_keeps_its_digits(tmp_path):
    y = 1e9 + np.arange(50) / 8
    data = set_up(written(tmp_path, "a,y\n" + "".join(f"{i},{v:.6f}\n" for i, v in enumerate(y))), test_share=0)
    found = data.train_set.y.double()[:, 0] * data.target_scale[0] + data.target_offset[0]
    np.testing.assert_allclose(found, y, rtol=0, atol=1e-5)


def test_zip_codes_stay_texts_where_asked(tmp_path):
    text = "zip,y\n" + "".join(f"{['01', '1', '2'][i % 3]},{'uv'[i % 2]}\n" for i in range(30))
    assert [c.kind for c in set_up(written(tmp_path, text)).table.columns] == ["numeric"]
    (column,) = set_up(written(tmp_path, text), categorical="zip").table.columns
    assert sorted(column.categories) == ["01", "1", "2"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found(tmp_path, delimiter):
    text = "\ufeffa,b,y\r\n" + "".join(f'{i},"x, {i % 3}; |",{i * 1.5}\r\n' for i in range(30))
    if delimiter != ",":
        text = "".join(c if c != "," else delimiter for c in text.replace(", ", "\0")).replace("\0", ", ")
    data = set_up(written(tmp_path, text))
    assert [column.name for column in data.table.columns] == ["a", "b"]
    assert data.table.columns[1].categories == ("x, 0; |", "x, 1; |", "x, 2; |")


def test_an_unusual_delimiter_is_named(tmp_path):
    text = "a:y\n" + "".join(f"{i}:{i * 1.5}\n" for i in range(30))
    with pytest.raises(InputError, match=r"one was found, 'a:y', since no comma, .* name the delimiter by --delimiter"):
        set_up(written(tmp_path, text))
    assert len(set_up(written(tmp_path, text), delimiter=":").train_set) == 24


ROWS = "".join(f"{i},{'pq'[i % 2]},{'uv'[i // 2 % 2]}\n" for i in range(40))
BAD = {
    "unknown target": (
        "a,b,Label\n" + ROWS,
        {},
        r"target must name a column .* has: a, b, Label; got 'lable' \(did you",
    ),
    "no target": ("a,b,y\n" + ROWS, {"target": None}, r"target must name the column to learn; .* has: a, b, y: give"),
    "one class": ("a,y\n1,u\n2,u\n", {}, "must have at least two values; all 2 rows hold 'u': give another --target"),
    "one number": ("a,y\n1,2.5\n2,2.5\n", {}, "must have at least two values; all 2 rows hold '2.5'"),
    "missing target": ("a,y\n1,\n2,\n", {}, "it has one in no row: give another --target"),
    "NaN target": (
        "a,y\n1,2.5\n2,\n3,NA\n4,1.5\n",
        {},
        r"in all rows but 2 of 4, the first of them row 2 .* remove such",
    ),
    "mixed target": (
        "a,y\n1,2.5\n2,old\n4,1.5\n",
        {},
        r"column y must hold values of one kind; row 2 .* categorical=y",
    ),
    "dates": ("a,y\n1,2020-01-01\n2,2020-01-02\n", {}, "it holds dates: give days as numbers"),
    "names": ("a,y\n" + "".join(f"{i},n{i}\n" for i in range(30)), {}, "it holds 30 different texts in 30 rows"),
    "text task": ("a,b,y\n" + ROWS, {"task": "regression"}, "must hold numbers for --task regression; it holds texts"),
    "two texts": (
        "a,b,y\n" + ROWS,
        {"target": "a,y"},
        "may name several columns of numbers for regression; y holds texts",
    ),
    "doubled": ("a,a,y\n1,2,3\n", {}, "must name each column once; 'a' is there 2 times: rename one of them"),
    "no name": ("a,,y\n1,2,3\n", {}, "must have a name for each column; column 2 of 3 has none: name it"),
    "mixed": (
        "a,y\n1,u\nold,v\n3,u\n",
        {},
        r"column a must hold values of one kind; row 2 .* 'old', .* categorical=a",
    ),
    "numeric": ("a,b,y\n" + ROWS, {"numeric": "b"}, "column b must hold numbers, because numeric= names it; row 1"),
    "both": ("a,b,y\n" + ROWS, {"numeric": "b", "categorical": "b"}, "must be named by categorical or by numeric, not"),
    "target dropped": ("a,b,y\n" + ROWS, {"drop": "y"}, "must be named by target or by drop, not by both"),
    "all dropped": ("a,b,y\n" + ROWS, {"drop": "a,b"}, "must have a column to learn from beside the target"),
    "million": (",".join(f"c{i}" for i in range(10**6)) + "\n", {}, "must have at most 10000 columns"),
    "20000": (
        ",".join(f"c{i}" for i in range(20_000)) + "\n1\n",
        {},
        "must have at most 10000 columns .* at least 20000",
    ),
    "empty": ("", {}, "must hold a table; it is empty"),
    "blank": ("\n \n", {}, "must hold a table; it is empty"),
    "header only": ("a,y\n", {}, "must hold rows; it has a first line of names alone"),
    "long line": ("a,b,y\n1,2,3\n1,2,3,4\n", {}, "cannot be read as a table: Expected 3 fields in line 3, saw 4"),
    "long lines": (
        "a,b,y\n" + "1,2,3,4\n" * 5,
        {"delimiter": ","},
        "its lines have more fields than the 3 of the first",
    ),
    "quote": ('a,b,y\n1,"2,3\n1,2,3\n', {}, "cannot be read as a table: EOF inside string"),
    "binary": (bytes(range(256)), {}, "must be a text file of comma-separated values; it is binary"),
    "gzip": (gzip.compress(b"a,y\n1,2\n"), {}, "it is binary: unpack or convert it"),
    "latin1": (
        "a,y\nä,1\n".encode("latin-1"),
        {},
        "must be in UTF-8; it holds the byte 0xe4, which is not: convert it",
    ),
    "latin1 late": (
        b"a,y\n" + b"1,2\n" * 400_000 + b"\xe4,3\n",
        {},
        "must be in UTF-8; it holds the byte",
    ),
    "infinite": ("a,y\n1,2\n1e400,3\n", {}, r"column a must hold finite numbers; row 2 \(counted from 1\) holds inf"),
    "comma": ("a;y\n1,5;2\n2,5;3\n", {}, "must hold numbers with a decimal point; row 1"),
    "delimiter": ("a,y\n1,2\n", {"delimiter": "::"}, "delimiter must be one character, or tab; got '::'"),
    "share": ("a,b,y\n" + ROWS, {"test_share": 1.5}, r"test_share must be a fraction .* got 1.5"),
    "small share": ("a,b,y\n" + ROWS, {"test_share": 0.001}, "test_share=0.001 of 40 training rows holds out none"),
    "share and file": ("a,b,y\n" + ROWS, {"test_share": 0.5, "test_path": "t.csv"}, "leave one out"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables_are_refused_on_one_line(tmp_path, name):
    text, options, message = BAD[name]
    target = "lable" if name == "unknown target" else "y"
    with pytest.raises(InputError, match=message) as error:
        set_up(written(tmp_path, text), **{"target": target, **options})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_a_column_without_values_is_dropped_with_a_line(tmp_path, caplog):
    text = "a,none,y\n" + "".join(f"{i},,{i * 1.5}\n" for i in range(30))
    data = set_up(written(tmp_path, text))
    assert data.table.feature_names == ["a"]
    assert "left out, because no row has a value there: none" in caplog.text


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("a,c,y\n1,p,u\n", "must have the columns of the training table; it lacks b"),
        ("a,b\n1,p\n", "must have the target column y; it has: a, b"),
        ("a,b,y\nold,p,u\n", "column a of .*test.csv must hold numbers, as in training; row 1"),
        ("a,b,y\n1,p,\n", "must have a value in every row; it has one in no row"),
        ("a,b,y\n1,p,3\n", "must hold texts, as in the training file; it holds numbers"),
        ("a,b,y\n", "test.csv must hold rows"),
    ],
)
def test_bad_test_files_are_refused(tmp_path, test, message):
    train = written(tmp_path, "a,b,y\n" + ROWS)
    with pytest.raises(InputError, match=message):
        set_up(train, test_path=written(tmp_path, test, "test.csv"))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("gone.csv", "there is no such file: give its path as seen from /"),
        ("/gone.csv", "there is no such file: correct its path"),
        (".", "it is a folder: give a file in it"),
    ],
)
def test_no_file(tmp_path, monkeypatch, path, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"must be a CSV or Parquet file; {said}"):
        set_up(path)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="needs pyarrow, which is not installed: pip install pyarrow, or write a CSV"):
        build_datamodule(f"parquet:{written(tmp_path, b'PAR1', 't.parquet')}", target="y").setup()


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    houses().to_parquet(tmp_path / "houses.parquet")
    houses().to_csv(tmp_path / "houses.csv", index=False)
    ours, theirs = (set_up(tmp_path / f"houses.{kind}", "price") for kind in ("parquet", "csv"))
    assert torch.equal(ours.train_set.x, theirs.train_set.x)
    with pytest.raises(InputError, match="is not a Parquet file or is damaged"):
        set_up(written(tmp_path, b"PAR1", "bad.parquet"))


def test_memory_is_asked_for_before_it_is_taken(file):
    data = TableDataModule(file, "price")
    data.memory = "1KB"
    with pytest.raises(MemoryBudgetError, match=r"houses has 120 rows of 12 features, which take .* raise --memory"):
        data.setup()


def test_a_file_that_changes_between_fit_and_resume(file):
    options = {"target": "price", "drop": "sold"}
    state = set_up(file, **options).state_dict()
    set_up(file, **options).load_state_dict(state)
    with pytest.raises(
        CheckpointError, match=r"trained on other rows or columns than .*houses.csv gives now: the file has"
    ):
        set_up(file, **options, seed=1).load_state_dict(state)
    for column in ("area", "price"):
        frame = houses()
        frame.loc[7, column] = 1.0
        frame.to_csv(file, index=False)
        with pytest.raises(CheckpointError, match="other rows or columns"):
            set_up(file, **options).load_state_dict(state)


def test_a_dataframe_is_one_and_not_kept_in_checkpoints():
    with pytest.raises(InputError, match="dataframe must be a pandas DataFrame; got a list"):
        TableDataModule.from_dataframe([[1, 2]], "y").setup()
    with pytest.raises(InputError, match=r"which checkpoints do not keep: make it again with TableDataModule.from_dat"):
        TableDataModule(None, "y").setup()
    with pytest.raises(InputError, match="test_share draws test rows, and test is given"):
        TableDataModule.from_dataframe(houses(), "price", test=houses(), test_share=0.5)


def test_a_machine_reports_and_predicts_in_the_targets_unit(tmp_path):
    """Beside a run on the same features with targets in their own unit, whose errors are taken by NumPy."""
    from training import fit

    data = TableDataModule.from_dataframe(houses(), "price", drop="sold")
    machine = kl.KernelMachine(kl.Laplacian(3.0))
    trainer = fit(machine, data, max_epochs=30)
    scores = machine(data.test_set.x).double().detach()
    y = data.test_set.y.double() * data.target_scale[0] + data.target_offset[0]
    found = machine.in_target_units(scores)
    assert found.dtype == torch.float64
    expected = float(((scores * data.target_scale[0] + data.target_offset[0]) - y).square().mean())
    assert float(trainer.callback_metrics["val/mse"]) == pytest.approx(expected, rel=1e-4)
    assert float(trainer.callback_metrics["train/mse"]) < 1e-3 * expected
    predicted = torch.cat(trainer.predict(machine, datamodule=data))
    torch.testing.assert_close(predicted, found)
    # The weights are those of the standardised targets.
    plain = ArrayDataModule.from_arrays(data.train_set.x, data.train_set.y, data.test_set.x, data.test_set.y)
    other = kl.KernelMachine(kl.Laplacian(3.0))
    fit(other, plain, max_epochs=30)
    assert other.rkhs_norm == pytest.approx(machine.rkhs_norm, rel=1e-5)
    assert other.in_target_units(scores) is scores


def test_german(data_dir):
    data = set_up(Path(data_dir, "tables", "german.csv"), "class")
    assert (len(data.train_set), len(data.test_set), data.num_features) == (800, 200, 61)
    assert data.test_set.y.sum(0).tolist() == [140, 60]
    found = kl.interpolate(kl.Laplacian(5.0), data.train_set.x, data.train_set.y, ridge=1.0)
    wrong = (found.predict(data.test_set.x).argmax(1) != data.test_set.y.argmax(1)).double().mean()
    assert wrong < 0.28  # 0.3 is the share of the smaller class
