"""`kl predict` and `kl data`."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import kl as kernel_learning


@pytest.fixture
def checkpoint(kl):
    result = kl("fit", "--data", "digits", "--train-size", 300, "--epochs", 2, "--no-exact", "--json")
    return json.loads(result.out)["checkpoint"]


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_predict_arrays(kl, checkpoint):
    digits = load_digits()
    np.savez("in.npz", x=(digits.images[:50] / 16).astype(np.float32))
    result = kl("predict", checkpoint, "--input", "in.npz", "--output", "out.csv", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["rows"] == 50
    rows = rows_of("out.csv")
    assert list(rows[0]) == ["row", "class", "margin", "far", *(f"score_{k}" for k in range(10))]
    assert np.mean([int(row["class"]) == label for row, label in zip(rows, digits.target[:50], strict=True)]) > 0.85
    scores = np.array([[float(row[f"score_{k}"]) for k in range(10)] for row in rows])
    ordered = np.sort(scores, axis=1)
    assert np.allclose([float(row["margin"]) for row in rows], ordered[:, -1] - ordered[:, -2], atol=1e-6)
    machine = kernel_learning.load_machine(checkpoint)
    expected = machine(torch.from_numpy(digits.images[:50].reshape(50, 64) / 16).float())
    assert np.allclose(scores, expected, atol=1e-6)


def test_predict_refuses_samples_with_other_axes(kl, checkpoint):
    np.savez("turned.npz", x=np.zeros((3, 4, 16), dtype=np.float32))
    result = kl("predict", checkpoint, "--input", "turned.npz", "--output", "out.csv")
    assert result.code == 2
    assert "samples of the shape of the training images, (1, 8, 8); got (4, 16)" in result.err
    assert not Path("out.csv").exists()


def test_predict_images_and_folders(kl, checkpoint):
    images = load_digits().images
    Path("images/deep").mkdir(parents=True)
    for i, place in enumerate(("images/a.png", "images/deep/b.png")):
        Image.fromarray((images[i] * 255 / 16).round().astype(np.uint8)).save(place)
    Path("images/notes.txt").write_text("not an image")
    assert kl("predict", checkpoint, "--input", "images/a.png", "--output", "one.csv").code == 0
    assert [row["class"] for row in rows_of("one.csv")] == ["0"]
    assert kl("predict", checkpoint, "--input", "images", "--output", "two.csv").code == 0
    assert [(row["row"], row["class"]) for row in rows_of("two.csv")] == [
        ("images/a.png", "0"),
        ("images/deep/b.png", "1"),
    ]


def test_predict_regression(kl):
    x = np.linspace(0, 1, 40, dtype=np.float32)[:, None]
    np.savez("line.npz", x_train=x, y_train=np.sin(6 * x), x_test=x[::3], y_test=np.sin(6 * x[::3]))
    arguments = ("--data", "npz:line.npz", "--kernel", "gaussian", "--bandwidth", 0.2, "--epochs", 30, "--json")
    found = json.loads(kl("fit", *arguments).out)
    assert found["train_error"] is found["test_error"] is found["exact_test_error"] is None
    assert found["test_mse"] < 1e-3
    assert kl("predict", found["checkpoint"], "--input", "line.npz", "--output", "out.csv").code == 0
    rows = rows_of("out.csv")  # x_test, since there is no x
    assert np.allclose([float(row["output_0"]) for row in rows], np.sin(6 * x[::3, 0]), atol=0.1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone.npz", "there is no gone.npz"),
        ("wide.npz", "must have 64 features, as in training; got 7"),
        ("keys.npz", "must hold x or x_test"),
        ("empty", "holds no images"),
        ("broken.png", "cannot be read as an image"),
    ],
)
def test_predict_input_errors(kl, checkpoint, source, message):
    np.savez("wide.npz", x=np.zeros((3, 7)))
    np.savez("keys.npz", z=np.zeros((3, 64)))
    Path("empty").mkdir()
    Path("broken.png").write_bytes(b"\x89PNG\r\n")
    result = kl("predict", checkpoint, "--input", source, "--output", "out.csv")
    assert result.code == 2
    assert message in result.err
    assert not Path("out.csv").exists()


def test_predict_checkpoint_and_output_errors(kl, checkpoint):
    np.savez("in.npz", x=np.zeros((3, 64), dtype=np.float32))
    Path("text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {}}, "other.ckpt")
    torch.save({"alpha": torch.zeros(3)}, "tensors.ckpt")
    content = bytearray(Path(checkpoint).read_bytes())
    content[len(content) // 2] ^= 255
    Path("flipped.ckpt").write_bytes(content)
    for path, output, message in (
        ("gone.ckpt", "out.csv", "cannot be read"),
        ("text.ckpt", "out.csv", "damaged or none"),
        ("other.ckpt", "out.csv", "holds no kernel machine"),
        ("tensors.ckpt", "out.csv", "not a checkpoint of a Lightning run"),
        ("flipped.ckpt", "out.csv", "damaged or none"),
        (checkpoint, ".", "output must be a .csv, .json or .npz file"),
        (checkpoint, "in.npz/out.csv", "output's folder 'in.npz' is no folder"),
    ):
        result = kl("predict", path, "--input", "in.npz", "--output", output)
        assert result.code == 2
        assert message in result.err
        assert result.err.count("\n") == 1


def test_images_need_a_machine_of_images(kl):
    data = ("--data", "synthetic2", "--train-size", 100, "--epochs", 1, "--no-exact")
    found = json.loads(kl("fit", *data, "--json").out)
    Image.new("L", (8, 8)).save("a.png")
    result = kl("predict", found["checkpoint"], "--input", "a.png", "--output", "out.csv")
    assert result.code == 2
    assert "was not trained on images" in result.err


def test_data_list(kl, tmp_path):
    result = kl("data", "list", "--data-dir", tmp_path)
    assert result.code == 0
    for name in ("digits", "mnist", "fashion-mnist", "cifar10", "synthetic1", "synthetic2"):
        assert name in result.out
    assert "kl data download mnist" in result.out
    found = json.loads(kl("data", "list", "--data-dir", tmp_path, "--json").out)["data_sets"]
    assert {item["name"]: item["present"] for item in found}["mnist"] is False


def test_data_check(kl):
    result = kl("data", "check", "digits")
    assert result.code == 0
    assert "training rows per class" in result.out
    assert json.loads(kl("data", "check", "digits", "--json").out)["ok"] is True


def test_data_check_says_what_differs(kl, monkeypatch):
    from datamodules import DigitsDataModule

    monkeypatch.setattr(DigitsDataModule, "facts", replace(DigitsDataModule.facts, n_train=1))
    result = kl("data", "check", "digits")
    assert result.code == 1
    assert "DIFFERS" in result.out


def test_data_errors(kl, tmp_path):
    for arguments in (("check", "mnist"), ("download", "mnits"), ("check", "mnits")):
        result = kl("data", *arguments, "--data-dir", tmp_path)
        assert result.code == 2
        assert result.err.count("\n") == 1


def test_data_download_of_what_is_there(kl):
    assert kl("data", "download", "digits").code == 0
