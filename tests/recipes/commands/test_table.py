"""`kl fit`, `kl plan`, `kl interpolate` and `kl predict` on tables."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

HOUSES = ("--data", "csv:houses.csv", "--target", "price")


@pytest.fixture
def houses(kl):
    """A table of 150 rows in houses.csv, whose price is known but for noise of 0.5."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"area": rng.normal(100, 20, 150), "town": rng.choice(["Ulm", "=Bonn"], 150)})
    frame["price"] = 3 * frame.area + 20 * (frame.town == "Ulm") + rng.normal(0, 0.5, 150) + 500
    frame["quick"] = np.where(frame.price > 810, "yes", "no")
    frame.to_csv("houses.csv", index=False)
    return frame


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def refused(result, *fragments):
    assert (result.code, result.out) == (2, ""), result
    last = result.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in result.err
    for fragment in fragments:
        assert fragment in last, last


def test_a_regression_from_table_to_prices(kl, houses, caplog):
    options = (*HOUSES, "--drop", "quick", "--epochs", 20, "--json")
    result = kl("fit", *options, "--test-share", 0.3)
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert "105 training rows, 2 columns as 3 features; target: price" in caplog.text
    assert (found["n"], found["d"], found["c"]) == (105, 3, 1)
    assert 0 < found["test_mse"] < 0.05 * houses.price.var()
    assert found["exact_test_mse"] == pytest.approx(found["test_mse"], rel=0.5)
    exact = json.loads(
        kl("interpolate", *HOUSES, "--drop", "quick", "--test-share", 0.3, "--save", "e.ckpt", "--json").out
    )
    for name in ("train_mse", "test_mse", "rkhs_norm"):
        assert exact[name] == pytest.approx(found[f"exact_{name}"], rel=1e-6)
    # Columns in another order, the target and a new column among them; a new town.
    new = houses.assign(new=1).sample(frac=1, axis=1, random_state=0)
    new.loc[0, "town"] = "Rom"
    new.to_csv("new.csv", index=False)
    kl("export", found["checkpoint"], "--output", "small.ckpt")
    outputs = []
    for model in (found["checkpoint"], "e.ckpt", "small.ckpt"):
        result = kl("predict", model, "--input", "new.csv", "--output", "out.csv")
        assert result.code == 0, result.err
        assert "the target, column price, is not used to predict" in caplog.text
        assert "ignored, because the training table has no such column: new\n" in caplog.text
        assert "values that no training row has had, which count as no category: town (1)" in caplog.text
        outputs.append(np.array([float(row["output_price"]) for row in rows_of("out.csv")]))
    for output in outputs:
        assert len(output) == 150
        assert np.mean((output - houses.price)[1:] ** 2) < found["test_mse"]  # most rows are training rows
    assert np.array_equal(outputs[0], outputs[2])


def test_outputs_have_the_names_of_the_targets(kl, houses):
    houses.assign(far=houses.price / 7).to_csv("houses.csv", index=False)
    options = ("--data", "csv:houses.csv", "--target", "price,far", "--drop", "quick")
    checkpoint = json.loads(kl("fit", *options, "--epochs", 1, "--no-exact", "--json").out)["checkpoint"]
    result = kl("predict", checkpoint, "--input", "houses.csv", "--output", "out.csv", "--json")
    assert json.loads(result.out)["columns"] == ["row", "far", "output_price", "output_far"]
    prices, others = (
        np.array([float(row[f"output_{name}"]) for row in rows_of("out.csv")]) for name in ("price", "far")
    )
    assert prices.mean() == pytest.approx(7 * others.mean(), rel=0.05)
    kl("predict", checkpoint, "--input", "houses.csv", "--output", "out.npz")
    with np.load("out.npz") as file:
        assert file["output_names"].tolist() == ["price", "far"]


def test_classes_of_a_table(kl, houses):
    houses[:100].to_csv("houses.csv", sep=";", index=False)
    houses[100:].to_csv("test.csv", sep="\t", index=False)
    options = ("--data", "csv:houses.csv", "--target", "quick", "--test-data", "test.csv", "--drop", "price")
    assert kl("plan", *options).code == 0
    result = kl("fit", *options, "--epochs", 5, "--validation", 0.2, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert (found["n"], found["validation_rows"]) == (80, 20)
    result = kl("predict", found["checkpoint"], "--input", "test.csv", "--output", "out.csv", "--delimiter", "tab")
    assert result.code == 0, result.err
    rows = rows_of("out.csv")
    assert list(rows[0]) == [
        "row",
        "class",
        "margin",
        "far",
        "score_no",
        "score_yes",
        "probability_no",
        "probability_yes",
    ]
    wrong = np.mean([row["class"] != quick for row, quick in zip(rows, houses.quick[100:], strict=True)])
    assert wrong == pytest.approx(found["test_error"], abs=1e-9)
    assert wrong < 0.2


def test_tables_that_do_not_fit_the_model_are_refused(kl, houses):
    assert kl("interpolate", *HOUSES, "--drop", "quick", "--save", "e.ckpt").code == 0
    Path("lacks.csv").write_text("area,twon\n1,Ulm\n")
    Path("type.csv").write_text("area,town\n1,Ulm\nlarge,Ulm\n")
    Path("header.csv").write_text("area,town\n")
    np.savez("x.npz", x=np.zeros((2, 3)))
    for name, *fragments in (
        ("lacks.csv", "lacks.csv must have the columns of the training table; it lacks town (is it 'twon'?)"),
        ("type.csv", "column area of type.csv must hold numbers, as in training; row 2 (counted from 1) holds 'large'"),
        ("header.csv", "header.csv must hold rows"),
        ("gone.csv", "gone.csv must be a CSV or Parquet file; there is no such file: give its path as seen from /"),
        ("x.npz", "input must be a .csv, .tsv, .txt, .parquet, .pq file with the columns of the training table"),
    ):
        refused(kl("predict", "e.ckpt", "--input", name, "--output", "out.csv"), *fragments)
    assert not Path("out.csv").exists()
    assert kl("interpolate", "--data", "digits", "--train-size", 50, "--save", "d.ckpt").code == 0
    refused(
        kl("predict", "d.ckpt", "--input", "type.csv", "--output", "-"),
        "the model was not trained on a table, and type.csv is one",
    )
    refused(
        kl("predict", "d.ckpt", "--input", "x.npz", "--output", "-", "--delimiter", ";"),
        "delimiter is of a CSV file, and the model was not trained on a table",
    )


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--data", "csv:houses.csv"], ["target must name the column to learn", "give --target COLUMN"]),
        (["--data", "csv:houses.csv", "--target", "Price"], ["did you mean 'price'?"]),
        (
            ["--data", "digits", "--target", "price"],
            ["target is of a table; got --target with --data digits: give --data csv"],
        ),
        (["--data", "houses.csv"], ["did you mean 'csv:houses.csv'?"]),
        ([*HOUSES, "--grayscale"], ["grayscale is not an option of --data csv:houses.csv"]),
        ([*HOUSES, "--label-noise", 0.1], ["label_noise replaces class labels, and houses is a regression set"]),
        ([*HOUSES, "--test-data", "gone.csv"], ["gone.csv must be a CSV or Parquet file; there is no such file"]),
        (["--data", "csv:"], ["lacks what follows the colon"]),
    ],
)
def test_wrong_options_of_a_table(kl, houses, arguments, fragments):
    for command in ("fit", "plan", "interpolate"):
        refused(kl(command, *arguments), *fragments)


def test_a_changed_file_is_not_resumed_from(kl, houses):
    options = ("fit", *HOUSES, "--drop", "quick", "--no-exact")
    assert kl(*options, "--epochs", 2).code == 0
    assert kl(*options, "--epochs", 3, "--resume", "last").code == 0
    houses.loc[:20, "area"] += 1
    houses.to_csv("houses.csv", index=False)
    refused(kl(*options, "--epochs", 4, "--resume", "last"), "the checkpoint belongs to other training data")


def test_a_config_may_name_a_table_and_its_columns(kl, houses):
    Path("o.yaml").write_text("data: csv:houses.csv\ntarget: price\ndrop: quick\ntest_share: 0.1\nepochs: 1\n")
    result = kl("fit", "--config", "o.yaml", "--no-exact", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["n"] == 135


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info["table"]["columns"][0].update(scale="1"),
        lambda info: info["table"]["columns"].pop(),
        lambda info: info.update(table=[]),
        lambda info: info.update(target_scale=[0.0]),
        lambda info: info.update(target_scale=[1.0, 2.0]),
        lambda info: info.update(target_offset=["x"]),
    ],
)
def test_a_model_whose_table_was_changed_is_refused(kl, houses, change):
    assert kl("interpolate", *HOUSES, "--drop", "quick", "--save", "e.ckpt").code == 0
    saved = torch.load("e.ckpt", weights_only=True)
    change(saved["kernel_machine"]["data_info"])
    torch.save(saved, "e.ckpt")
    refused(kl("predict", "e.ckpt", "--input", "houses.csv", "--output", "-"), "e.ckpt: ")


def test_a_model_from_before_tables_predicts(kl):
    assert kl("interpolate", "--data", "digits", "--train-size", 50, "--save", "d.ckpt").code == 0
    saved = torch.load("d.ckpt", weights_only=True)
    for name in ("table", "target_offset", "target_scale"):
        del saved["kernel_machine"]["data_info"][name]
    torch.save(saved, "old.ckpt")
    np.savez("x.npz", x=np.ones((2, 64), dtype=np.float32))
    results = [kl("predict", name, "--input", "x.npz", "--output", "-") for name in ("d.ckpt", "old.ckpt")]
    assert results[0].code == 0
    assert results[0].out == results[1].out


@pytest.mark.parametrize("target", ["price", "price,tax"])
def test_kl_tune_reports_squared_errors_in_the_targets_unit(kl, houses, target):
    """As `kl interpolate` does with the same kernel, bandwidth and ridge."""
    houses.assign(tax=houses.price / 7 + houses.area).to_csv("houses.csv", index=False)
    data = ("--data", "csv:houses.csv", "--target", target, "--drop", "quick" + (",tax" if target == "price" else ""))
    result = kl("tune", *data, "--kernels", "gaussian", "--bandwidths", "1,4", "--ridges", "1e-3,0.1", "--name", "t")
    assert result.code == 0, result.err
    found = json.loads(Path("lightning_logs/tune/t/results.json").read_text())
    exact = json.loads(kl("interpolate", "--config", "lightning_logs/tune/t/config.yaml", "--json").out)
    best = found["best"]
    assert best["mse"] == pytest.approx(exact["loo_mse"], rel=1e-6)
    assert 0 < best["standard_error"] < best["mse"]
    assert found["test_mse"] == pytest.approx(exact["test_mse"], rel=1e-6)
    assert f"mse {found['test_mse']:.3e}" in result.out
    assert f"{best['mse']:.3e}" in result.out
    assert [each["score"] for each in found["points"]].index(best["score"]) == found["points"].index(best)
    if target == "price":
        assert best["score"] == pytest.approx(best["mse"])
