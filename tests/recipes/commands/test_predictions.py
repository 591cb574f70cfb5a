"""What `kl predict` reads and writes: formats, names, rows far away, and scores that are none."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training import fit

import kl as kernel_learning
from datamodules import ArrayDataModule, ImageFolderDataModule
from kl import load_machine
from recipes.commands.predictions import Predictions, write_csv, write_json

CLASSES = ("apple", "=HYPERLINK(1)", "-pear", "-1")
COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0))


def paint(folder, count=6):
    """Noisy one-coloured images of each class."""
    rng = np.random.default_rng(0)
    for name, color in zip(CLASSES, COLORS, strict=True):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.clip(np.array(color) + rng.integers(-40, 40, (4, 4, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def trained(path, kernel, data, epochs=3):
    machine = kernel_learning.KernelMachine(kernel, batch_size=8)
    fit(machine, data, epochs).save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def fruits(tmp_path_factory):
    """A machine that knows the classes above by their colours."""
    folder = tmp_path_factory.mktemp("fruits")
    paint(folder / "train")
    return trained(folder / "a.ckpt", kernel_learning.Laplacian(5.0), ImageFolderDataModule(folder), epochs=5)


X = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def plane_checkpoint(tmp_path_factory):
    data = ArrayDataModule.from_arrays(X, np.sign(X[:, 0]).astype(int))
    return trained(tmp_path_factory.mktemp("plane") / "a.ckpt", kernel_learning.Laplacian(2.0), data)


@pytest.fixture
def plane(plane_checkpoint, kl):
    """A machine of the sign of the first of three features; in.npy has six rows."""
    np.save("in.npy", X[:6])
    return plane_checkpoint


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [("nope", "unknown kernel 'nope'"), ("no_such_module_:K", "there is no module 'no_such_module_'")],
)
def test_an_unknown_kernel_is_no_fault_of_the_file(kl, plane, kernel, message):
    result = kl("predict", plane, "--input", "in.npy", "--output", "out.csv", "--kernel", kernel)
    assert result.code == 2
    assert message in result.err
    assert str(plane) not in result.err


def test_classes_have_the_names_of_the_training_data(kl, fruits):
    Path("new").mkdir()
    for i, color in enumerate(COLORS):
        Image.new("RGB", (4, 4), color).save(f"new/{i}.png")
    assert kl("predict", fruits, "--input", "new", "--output", "out.json").code == 0
    rows = json.loads(Path("out.json").read_text())
    assert [row["class"] for row in rows] == list(CLASSES)
    assert [row["row"] for row in rows] == [f"new/{i}.png" for i in range(4)]
    for row in rows:
        scores = {name: row[f"score_{name}"] for name in CLASSES}
        assert max(scores, key=scores.get) == row["class"]
    assert kl("predict", fruits, "--input", "new", "--output", "out.csv").code == 0
    found = table(Path("out.csv").read_text())
    assert [row["class"] for row in found] == ["apple", "'=HYPERLINK(1)", "'-pear", "-1"]
    assert {f"score_{name}" for name in CLASSES} <= set(found[0])


def test_names_of_files_are_no_formulas(kl, fruits):
    for name in ("=1+1.png", "@x.png", "\tx.png", "plain.png"):
        Image.new("RGB", (4, 4), COLORS[0]).save(name)
        kl("predict", fruits, "--input", name, "--output", "out.csv")
        expected = name if name == "plain.png" else "'" + name
        assert [row["row"] for row in table(Path("out.csv").read_text())] == [expected]


def test_a_file_name_that_is_no_text(kl, fruits):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        Image.new("RGB", (4, 4), COLORS[0]).save(name)
    except OSError:
        pytest.skip("this file system has only names of Unicode")
    for output in ("out.csv", "out.json", "out.npz"):
        assert kl("predict", fruits, "--input", name, "--output", output).code == 0
    assert b"\r\ncaf\xe9.png,apple," in Path("out.csv").read_bytes()
    assert json.loads(Path("out.json").read_text())[0]["row"] == name


def test_which_cells_are_escaped():
    names = ["=1", "+x", "-x", "@x", "\tx", "\rx", "\nx", "\uff1dx", "+", "--1", "-1+2", "-1x", "=-1"]
    numbers = ["-1", "+2.5", "-.5e-3", "-7."]
    plain = ["x=1", " =1", "'=1", "", "1-1"]
    every = names + numbers + plain
    scores = torch.tensor([[-1.0, 2.0]]).repeat(len(every), 1)
    found = Predictions(every, scores, torch.zeros(len(every), dtype=torch.bool), ["=a", "b"])
    file = io.BytesIO()
    write_csv(file, found)
    header, *rows = csv.reader(io.StringIO(file.getvalue().decode(), newline=""))
    assert header == ["row", "class", "margin", "far", "score_=a", "score_b"]
    assert [row[0] for row in rows] == ["'" + name for name in names] + numbers + plain
    assert {tuple(row[1:]) for row in rows} == {("b", "3.0", "false", "-1.0", "2.0")}
    file = io.BytesIO()
    write_json(file, found)
    assert [row["row"] for row in json.loads(file.getvalue())] == every


def test_formats(kl, plane):
    x = np.load("in.npy")
    scores = load_machine(plane)(torch.from_numpy(x)).numpy()
    ordered = np.sort(scores, axis=1)
    expected = {
        "row": [str(i) for i in range(6)],
        "class": ["-1" if row[0] < 0 else "1" for row in x.tolist()],
        "margin": (ordered[:, 1] - ordered[:, 0]).tolist(),
        "far": [False] * 6,
        "score_-1": scores[:, 0].tolist(),
        "score_1": scores[:, 1].tolist(),
    }
    outputs = {}
    for output in ("a.csv", "a.JSON", "a.npz", "-"):
        result = kl("predict", plane, "--input", "in.npy", "--output", output)
        assert result.code == 0, result.err
        outputs[output] = result.out
    assert outputs["a.csv"] == "6 rows written to a.csv\n"
    assert not Path("-").exists()
    assert outputs["-"].replace("\r\n", "\n") == Path("a.csv").read_text()
    assert list(table(outputs["-"])[0]) == list(expected)
    read = [
        {**row, "far": json.loads(row["far"]), **{k: float(row[k]) for k in row if k in ("margin", *list(row)[4:])}}
        for row in table(outputs["-"])
    ]
    for rows in (read, json.loads(Path("a.JSON").read_text())):
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        assert list(columns) == list(expected)
        for name, values in expected.items():
            exact = name in ("row", "class", "far")
            assert columns[name] == (values if exact else pytest.approx(values, abs=1e-6))
    with np.load("a.npz") as file:  # without pickled objects
        assert sorted(file.files) == ["class", "class_names", "far", "margin", "row", "scores"]
        assert file["class_names"].tolist() == ["-1", "1"]
        assert np.allclose(file["scores"], scores, atol=1e-6)
        for name in ("row", "class", "far"):
            assert file[name].tolist() == expected[name]


def test_regression_in_every_format(kl):
    x = np.linspace(0, 1, 40, dtype=np.float32)[:, None]
    np.savez("line.npz", x=x)
    data = ArrayDataModule.from_arrays(x, np.sin(6 * x))
    checkpoint = trained("a.ckpt", kernel_learning.Gaussian(0.2), data)
    for output in ("a.csv", "a.json", "a.npz"):
        assert kl("predict", checkpoint, "--input", "line.npz", "--output", output).code == 0
    rows = json.loads(Path("a.json").read_text())
    assert list(rows[0]) == list(table(Path("a.csv").read_text())[0]) == ["row", "far", "output_0"]
    with np.load("a.npz") as file:
        assert sorted(file.files) == ["far", "output_names", "row", "scores"]
        assert file["scores"][:, 0].tolist() == [row["output_0"] for row in rows]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("gone/deep/o.csv", "output's folder 'gone/deep' does not exist: make it, or give another --output"),
        ("in.npy/o.csv", "output's folder 'in.npy' is no folder"),
        ("o.txt", "output must be a .csv, .json or .npz file, or - for standard output; got 'o.txt'"),
        ("o", "output must be a .csv, .json or .npz file"),
        (".csv", "output must be a .csv, .json or .npz file"),
        ("folder.csv", "output must be the path of a file to write; 'folder.csv' is something else"),
        ("link.csv", "'link.csv' is something else"),
    ],
)
def test_output_errors_come_before_any_work(kl, plane, output, message):
    Path("folder.csv").mkdir()
    Path("link.csv").symlink_to("elsewhere.csv")
    before = sorted(Path().rglob("*"))
    result = kl("predict", "gone.ckpt", "--input", "in.npy", "--output", output)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_one_thing_on_standard_output(kl, plane):
    result = kl("predict", plane, "--input", "in.npy", "--output", "-", "--json")
    assert result.code == 2
    assert "output - writes the rows to standard output, where json writes, too" in result.err
    assert not result.out
    found = json.loads(kl("predict", plane, "--input", "in.npy", "--output", "o.csv", "--json").out)
    assert (found["rows"], found["far"], found["output"]) == (6, 0, "o.csv")


def test_arrays_and_tensors_are_read(kl, plane):
    x = torch.from_numpy(np.load("in.npy"))
    expected = kl("predict", plane, "--input", "in.npy", "--output", "-").out
    torch.save(x, "one.pt")
    torch.save({"y": torch.zeros(6), "x": x}, "dict.pt")
    torch.save({"x_test": x.double()}, "test.pt")
    np.savez("in.npz", x_test=x.numpy())
    np.save("in.NPY.npy", np.asfortranarray(x.numpy()))
    for source in ("one.pt", "dict.pt", "test.pt", "in.npz", "in.NPY.npy"):
        result = kl("predict", plane, "--input", source, "--output", "-")
        assert result.code == 0, result.err
        assert result.out == expected


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("list.pt", "the tensor in list.pt must be a tensor; got a list"),
        ("other.pt", "other.pt must hold x or x_test, or one tensor; it holds: z"),
        ("text.pt", "x in text.pt must be a tensor; got a str"),
        ("huge.pt", "the tensor in huge.pt does not hold all values of its shape (1000000000000, 3)"),
        ("evil.pt", "the file is damaged or something else"),
        ("noise.pt", "the file is damaged or something else"),
        ("objects.npy", "objects.npy holds Python objects, which are not loaded"),
        ("huge.npy", "huge.npy is not a .npy file or is damaged: write it again with numpy.save"),
        ("noise.npy", "noise.npy is not a .npy file or is damaged"),
        ("zip.npy", "zip.npy must be a single array, as numpy.save writes; it is a .npz file: name it so"),
        ("gone.npy", "there is no gone.npy"),
        ("folder.npy", "folder.npy must be a .npy file; there is no such file"),
        ("wide.npy", "must have 3 features, as in training; got 7"),
        ("nan.npy", "row 2 "),
        ("words.npy", "must hold uint8 images or floats; got <U1"),
    ],
)
def test_what_is_no_array_is_refused(kl, plane, name, message):
    x = np.load("in.npy")
    torch.save([1, 2], "list.pt")
    torch.save({"z": torch.zeros(3)}, "other.pt")
    torch.save({"x": "words"}, "text.pt")
    torch.save(torch.zeros(1, 3).expand(10**12, 3), "huge.pt")
    torch.save(Evil(), "evil.pt")
    np.save("objects.npy", np.array([Evil(), {}], dtype=object), allow_pickle=True)
    content = Path("in.npy").read_bytes()
    Path("huge.npy").write_bytes(content.replace(b"(6, 3), }" + b" " * 12, b"(6000000000000, 3), }"))
    assert Path("huge.npy").read_bytes() != content
    for noise in ("noise.pt", "noise.npy"):
        Path(noise).write_bytes(b"no array at all")
    np.savez("zip", x=x)
    Path("zip.npz").rename("zip.npy")
    Path("folder.npy").mkdir()
    np.save("wide.npy", np.zeros((2, 7)))
    np.save("words.npy", np.array([["a", "b", "c"]]))
    x[2] = np.nan
    np.save("nan.npy", x)
    result = kl("predict", plane, "--input", name, "--output", "o.csv")
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not Path("o.csv").exists()
    assert not Path("executed").exists()


def test_rows_far_from_every_centre_are_marked(kl, plane, caplog):
    x = np.load("in.npy")
    x[[1, 4]] *= 1000
    np.save("far.npy", x)
    result = kl("predict", plane, "--input", "far.npy", "--output", "o.json")
    assert result.code == 0
    assert [row["far"] for row in json.loads(Path("o.json").read_text())] == [i in (1, 4) for i in range(6)]
    assert "2 of 6 rows: far from every centre, and what is predicted there means nothing" in caplog.text
    assert json.loads(kl("predict", plane, "--input", "far.npy", "--output", "o.csv", "--json").out)["far"] == 2
    caplog.clear()
    kl("predict", plane, "--input", "in.npy", "--output", "o.csv")
    assert "far" not in caplog.text


@pytest.mark.parametrize("distance", [20.0, 45.0])
def test_a_row_is_far_where_the_kernel_values_are_too_small(kl, plane, distance):
    """At 20 of bandwidth 2 they are about 120 exp(-10), at 45 below 120 exp(-19), less than a millionth."""
    rows = np.zeros((2, 3), dtype=np.float32)
    rows[1, 1] = distance
    np.save("row.npy", rows)
    machine = load_machine(plane)
    centers = machine.centers.double().numpy() + machine.origin.double().numpy()
    sums = np.exp(-np.linalg.norm(rows[:, None].astype(float) - centers, axis=2) / 2).sum(axis=1)
    assert np.allclose(machine.kernel_sums(torch.from_numpy(rows)), sums, rtol=1e-3)
    kl("predict", plane, "--input", "row.npy", "--output", "o.json")
    far = [row["far"] for row in json.loads(Path("o.json").read_text())]
    assert far == (sums <= 1e-6).tolist() == [False, distance == 45.0]


def test_rows_without_scores_are_an_error(kl):
    x = X[:60].copy()
    data = ArrayDataModule.from_arrays(x, (x[:, 0] > 0).astype(int))
    checkpoint = trained("a.ckpt", kernel_learning.Polynomial(degree=3), data, epochs=1)
    x[[7, 9]] = 1e38
    np.save("in.npy", x)
    result = kl("predict", checkpoint, "--input", "in.npy", "--output", "o.csv")
    assert result.code == 2
    assert (
        "input in.npy: the scores of row 7 (2 of 60 rows) are too large for float32: its features reach 1e+38, the "
        in (result.err)
    )
    assert not Path("o.csv").exists()
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["alpha"].fill_(1e300)
    torch.save(content, "large.ckpt")
    np.save("in.npy", x[:5])
    result = kl("predict", "large.ckpt", "--input", "in.npy", "--output", "-")
    assert result.code == 2
    assert "the scores of row 0 (5 of 5 rows) are too large for float32" in result.err
    assert "the weights 1e+300" in result.err
    assert not result.out
    content["state_dict"]["alpha"].fill_(float("nan"))
    torch.save(content, "nan.ckpt")
    result = kl("predict", "nan.ckpt", "--input", "in.npy", "--output", "o.csv")
    assert result.code == 2
    assert "its 'alpha' must be finite; it holds NaN or infinity" in result.err
    assert not Path("o.csv").exists()
