"""Folders of images: what the parts are called, what is skipped, each real file once, the split, and predict."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import ImageFolderDataModule
from datamodules.listing import class_folders, image_files
from kl.errors import InputError


def fill(folder, count, start=0):
    """`count` images of 4 x 4 pixels, no two alike: the image i is of level i."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + count):
        Image.new("L", (4, 4), i).save(folder / f"{i:03}.png")
    return start + count


def make(folder, *parts, each=3):
    start = 0
    for part in parts:
        for name in ("cat", "dog"):
            start = fill(folder / part / name, each, start)
    return folder


def load(folder, **options):
    data = ImageFolderDataModule(folder, image_size=4, grayscale=True, **options)
    data.setup()
    return data


def levels(rows):
    return [] if rows is None else (rows.x[:, 0] * 255).round().int().tolist()


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("Train", "Test"), ("TRAINING", "testing"), ("training", "TEST"), ("train", "Testing")],
)
def test_parts_have_their_usual_names_in_any_case(tmp_path, train, test, caplog):
    data = load(make(tmp_path, train, test))
    assert data.class_names == ["cat", "dog"]
    assert levels(data.train_set) == [0, 1, 2, 3, 4, 5]
    assert levels(data.test_set) == [6, 7, 8, 9, 10, 11]
    assert data.test_set.y.argmax(1).tolist() == [0, 0, 0, 1, 1, 1]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_validation_folder_is_no_class(tmp_path, caplog):
    data = load(make(tmp_path, "train", "test", "val"))
    assert data.class_names == ["cat", "dog"]
    assert levels(data.train_set) + levels(data.test_set) == list(range(12))
    assert "val/ beside train/ and test/ is left out" in caplog.text


@pytest.mark.parametrize("name", ["val", "Valid", "validation", "DEV"])
def test_a_validation_folder_is_the_test_set_where_there_is_no_other(tmp_path, name, caplog):
    data = load(make(tmp_path, "train", name))
    assert levels(data.test_set) == [6, 7, 8, 9, 10, 11]
    assert f"{name}/ is the test set, since there is no test/" in caplog.text


def test_a_training_folder_alone_has_no_test_set(tmp_path, caplog):
    make(tmp_path, "Train")
    fill(tmp_path / "more", 1)
    data = load(tmp_path)
    assert data.test_set is None
    assert len(data.train_set) == 6
    assert "more/ beside Train/ is left out" in caplog.text


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        (("train", "Training", "test"), "has (train|Training)/ and (train|Training)/, which both name the train set"),
        (("train", "test", "Testing"), "which both name the test set: keep one, or put the class folders of both"),
        (("Test",), "has Test/ but no train/: add it, or keep only class folders in it"),
    ],
)
def test_parts_that_are_not_clear(tmp_path, parts, match):
    with pytest.raises(InputError, match=match):
        load(make(tmp_path, *parts))


def test_images_without_classes_are_no_classes(tmp_path):
    fill(tmp_path / "train", 3)
    fill(tmp_path / "test", 3, 3)
    with pytest.raises(InputError, match=r"train must hold <class>/\* images; it has no class folder: sort its im"):
        load(tmp_path)


@pytest.mark.parametrize("place", [".", "train", "train/cat"])
@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir"])
def test_hidden_folders_and_files_are_skipped(tmp_path, place, hidden):
    make(tmp_path, "train", "test")
    fill(tmp_path / place / hidden, 2, 50)
    fill(tmp_path / place / hidden / "deeper", 2, 60)
    Image.new("L", (4, 4), 99).save(tmp_path / "train" / "cat" / "._000.png")
    data = load(tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert levels(data.train_set) == [0, 1, 2, 3, 4, 5]


def test_links_round_in_circles_give_each_file_once(tmp_path, caplog):
    """12 files, which were 492 rows shared by training and test."""
    start = fill(tmp_path / "cat", 6)
    fill(tmp_path / "dog", 6, start)
    (tmp_path / "cat" / "again").symlink_to(tmp_path)
    (tmp_path / "cat" / "self").symlink_to(tmp_path / "cat")
    (tmp_path / "cat" / "twice.png").symlink_to(tmp_path / "cat" / "000.png")
    (tmp_path / "all").symlink_to(tmp_path)
    (tmp_path / "nothing").symlink_to(tmp_path / "nothing")
    data = load(tmp_path)
    assert sorted(levels(data.train_set) + levels(data.test_set)) == list(range(12))
    assert len(data.test_set) == 2
    assert "cat/again is a link to" in caplog.text
    assert "which holds it: it is not followed" in caplog.text
    assert "test images that equal" not in caplog.text


def test_a_link_to_another_folder_is_followed_once(tmp_path):
    fill(tmp_path / "elsewhere" / "deep", 4)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "deep" / "up").symlink_to(tmp_path / "elsewhere")
    fill(tmp_path / "data" / "dog", 3, 4)
    assert [place.name for place in class_folders(tmp_path / "data")] == ["cat", "dog"]
    found = image_files(tmp_path / "data" / "cat", tmp_path / "data")
    assert [str(path) for path in found.values()] == [f"{tmp_path}/data/cat/deep/{i:03}.png" for i in range(4)]


def test_one_file_in_two_classes_is_refused(tmp_path):
    make(tmp_path, "train")
    (tmp_path / "train" / "dog" / "x.png").symlink_to(tmp_path / "train" / "cat" / "001.png")
    with pytest.raises(InputError, match=r"dog/x\.png and .*cat/001\.png are links to one file, .*in two classes: rem"):
        load(tmp_path)


def test_a_link_to_the_whole_disk_is_not_walked(tmp_path, monkeypatch, caplog):
    make(tmp_path, "train")
    (tmp_path / "train" / "everything").symlink_to("/")
    (tmp_path / "train" / "cat" / "everything").symlink_to("/")
    scanned = []
    monkeypatch.setattr(os, "scandir", lambda path, scan=os.scandir: scanned.append(str(path)) or scan(path))
    data = load(tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert {os.path.relpath(path, tmp_path) for path in scanned} == {".", "train", "train/cat", "train/dog"}
    assert "everything is a link to /, which holds it: it is not followed" in caplog.text


def test_folders_below_folders_have_an_end(tmp_path):
    make(tmp_path, "train")
    deep = tmp_path / "train" / "cat" / "/".join("abcdefghijklmnopq")
    fill(deep, 1, 90)
    with pytest.raises(InputError, match=r"q lies more than 16 folders below .*cat: give a folder nearer to it"):
        load(tmp_path)


def test_a_pipe_named_as_an_image_does_not_hang(tmp_path, monkeypatch):
    make(tmp_path, "train")
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened, and waiting for ever"))
    os.mkfifo(tmp_path / "train" / "cat" / "pipe.png")
    with pytest.raises(InputError, match=r"cat/pipe\.png must be a file; it is a folder, pipe, socket or device"):
        load(tmp_path)


def test_test_images_that_equal_training_images_are_counted(tmp_path, caplog):
    make(tmp_path, "train", "test")
    Image.new("L", (4, 4), 1).save(tmp_path / "test" / "dog" / "one.bmp")
    Image.new("RGB", (8, 8), (4, 4, 4)).save(tmp_path / "test" / "dog" / "four.png")
    data = load(tmp_path)
    assert len(data.test_set) == 8
    assert (
        "test images that equal a training image in every pixel: 2 of 8; they make the test error too low"
        in caplog.text
    )


@pytest.mark.parametrize(("of_class", "held_out"), [(3, 1), (5, 1), (7, 1), (8, 2), (11, 2), (12, 2), (13, 3), (17, 3)])
def test_the_split_holds_out_a_fifth_of_every_class_to_the_nearest(tmp_path, of_class, held_out):
    start = fill(tmp_path / "cat", of_class)
    fill(tmp_path / "dog", 2, start)  # 0.4 of an image: none
    data = load(tmp_path)
    assert data.test_set.y.sum(0).tolist() == [held_out, 0]
    assert data.train_set.y.sum(0).tolist() == [of_class - held_out, 2]
    assert levels(data.train_set) == sorted(levels(data.train_set))
    assert sorted(levels(data.train_set) + levels(data.test_set)) == list(range(start + 2))


def test_options_of_images_are_checked(tmp_path):
    for value in (0, -1, 2.5, True, "many"):
        with pytest.raises(InputError, match="max_pixels must be a whole number of at least 1; got"):
            load(tmp_path, max_pixels=value)
    with pytest.raises(InputError, match="must be white or black; got 'grey'"):
        load(tmp_path, background="grey")
    make(tmp_path, "train")
    with pytest.raises(InputError, match=r"000\.png has 4 x 4 = 16 pixels, more than the limit of 15"):
        load(tmp_path, max_pixels=15)


def shapes(folder, kind, mode):
    """Two shapes, as each kind of file has them: `mode` says how black ink on white, or on nothing, is stored."""
    for name in ("bar", "ring"):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            ink = np.zeros((12, 12), dtype=bool)
            row, column = 1 + i // 4, 1 + i % 4
            if name == "bar":
                ink[row : row + 6, column : column + 2] = True
            else:
                ink[row : row + 6, column : column + 6] = True
                ink[row + 2 : row + 4, column + 2 : column + 4] = False
            if mode == "alpha":
                pixels = np.stack([np.zeros_like(ink), ink], -1).astype(np.uint8) * 255
            elif mode == "deep":
                pixels = np.where(ink, 0, 65535).astype(np.uint16)
            elif mode == "float":
                pixels = np.where(ink, 0, 1).astype(np.float32)
            else:
                pixels = np.where(ink, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.{kind}")
    return folder


def test_every_kind_of_file_of_the_same_pictures_is_the_same_data(tmp_path):
    plain = load(shapes(tmp_path / "plain", "png", "plain"))
    for kind, mode in (("png", "alpha"), ("png", "deep"), ("tif", "deep"), ("tiff", "float")):
        other = load(shapes(tmp_path / f"{kind} {mode}", kind, mode))
        assert torch.equal(other.train_set.x, plain.train_set.x)
        assert torch.equal(other.test_set.x, plain.test_set.x)


def test_predict_reads_images_as_training_did(kl, tmp_path):
    """The background and the size are those of the checkpoint; deep and transparent files give the same scores."""
    folder = shapes(tmp_path / "shapes", "png", "alpha")
    common = ("--image-size", 12, "--grayscale", "--bandwidth", 5, "--epochs", 3, "--no-exact", "--json")
    for background in ("white", "black"):
        fit = kl("fit", "--data", f"folder:{folder}", "--background", background, *common)
        assert fit.code == 0, fit.err
        checkpoint = json.loads(fit.out)["checkpoint"]
        inputs = shapes(tmp_path / background, "png", "alpha")
        os.mkdir(inputs / ".ipynb_checkpoints")
        Image.new("L", (4, 4)).save(inputs / ".ipynb_checkpoints" / "a.png")
        (inputs / "again").symlink_to(inputs)
        assert kl("predict", checkpoint, "--input", inputs, "--output", f"{background}.csv").code == 0
        rows = Path(f"{background}.csv").read_text().splitlines()[1:]
        assert len(rows) == 16
        # Over black every picture is black, and nothing tells one from another.
        assert len({row.split(",", 1)[1] for row in rows}) == (1 if background == "black" else 16)
    deep = shapes(tmp_path / "deep", "png", "deep")
    fit = kl("fit", "--data", f"folder:{folder}", *common)
    for source in (folder, deep):
        result = kl("predict", json.loads(fit.out)["checkpoint"], "--input", source, "--output", f"{source.name}.csv")
        assert result.code == 0, result.err
    scores = [[row.split(",", 1)[1] for row in Path(f"{n}.csv").read_text().splitlines()] for n in ("shapes", "deep")]
    assert scores[0] == scores[1]


def test_predict_refuses_what_training_would(kl, tmp_path):
    folder = shapes(tmp_path / "shapes", "png", "plain")
    fit = kl("fit", "--data", f"folder:{folder}", "--image-size", 12, "--epochs", 1, "--no-exact", "--json")
    checkpoint = json.loads(fit.out)["checkpoint"]
    os.mkfifo("pipe.png")
    Image.fromarray(np.full((12, 12), 70000, dtype=np.int32)).save("wide.tif")
    for source, match, *options in (
        ("pipe.png", "pipe.png must be a file"),
        ("wide.tif", "wide.tif has pixels of mode 'I'"),
        (folder / "bar" / "0.png", "more than the limit of 100", "--max-pixels", 100),
        (folder / "bar" / "0.png", "max_pixels must be a whole number", "--max-pixels", 0),
    ):
        result = kl("predict", checkpoint, "--input", source, "--output", "out.csv", *options)
        assert result.code == 2
        assert match in result.err
        assert result.err.count("\n") == 1
        assert not Path("out.csv").exists()
