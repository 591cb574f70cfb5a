"""Image folders, and CIFAR-10 from pickles or from the zip of JPEG files; all on small made-up images."""

import io
import logging
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from pictures import RNG, fill, picture
from PIL import Image
from torchvision.datasets import CIFAR10

from datamodules import CIFAR10DataModule, ImageFolderDataModule, build_datamodule
from datamodules.cifar import read_jpeg_zip
from datamodules.images import decode_image, luma
from kl.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kl"


def test_luma_is_what_pillow_computes():
    pixels = RNG.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in pixels])
    found = luma(torch.from_numpy(pixels).permute(0, 3, 1, 2), chunk=2)
    assert found.shape == (3, 1, 16, 16)
    assert np.array_equal(found[:, 0].numpy(), expected)


def test_decoding_is_channels_first_and_resizes():
    image = picture((8, 6))
    file = io.BytesIO()
    image.save(file, "PNG")
    assert np.array_equal(decode_image(file, "a"), np.asarray(image).transpose(2, 0, 1))
    assert decode_image(file, "a", grayscale=True, size=(4, 5)).shape == (1, 4, 5)


def test_a_folder_with_train_and_test(tmp_path):
    fill(tmp_path / "pets" / "train", each=3)
    fill(tmp_path / "pets" / "test", classes=("dog",), each=2)
    data = build_datamodule(f"folder:{tmp_path}/pets", image_size=(6, 8))
    data.setup()
    assert data.name == "pets"
    assert data.class_names == ["cat", "dog"]
    assert data.image_shape == (3, 6, 8)
    assert data.train_set.x.shape == (6, 144)
    assert data.clean_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test_set.y.argmax(1).tolist() == [1, 1]
    first = np.asarray(Image.open(tmp_path / "pets" / "train" / "cat" / "0.png")).transpose(2, 0, 1)
    assert np.array_equal((data.train_set.x[0] * 255).round().numpy(), first.reshape(-1))
    assert data.hparams.image_size == [6, 8]
    assert data.hparams.path == f"{tmp_path}/pets"


def test_a_folder_of_classes_is_split_80_20_by_the_seed(tmp_path):
    fill(tmp_path, each=10)
    (tmp_path / "cat" / "notes.txt").write_text("skipped")

    def split(seed):
        data = ImageFolderDataModule(tmp_path, image_size=4, grayscale=True, seed=seed)
        data.setup()
        assert data.image_shape == (1, 4, 4)
        assert data.train_set.y.sum(0).tolist() == [8, 8]
        assert data.test_set.y.sum(0).tolist() == [2, 2]
        return data

    first = split(0)
    assert torch.equal(first.train_set.x, split(0).train_set.x)
    assert not torch.equal(first.test_set.x, split(1).test_set.x)
    rows = {tuple(row.tolist()) for row in torch.cat([first.train_set.x, first.test_set.x])}
    assert len(rows) == 20


def test_folders_that_cannot_be_read_are_refused(tmp_path):
    def refused(folder, match, **options):
        with pytest.raises(InputError, match=match) as caught:
            ImageFolderDataModule(folder, **options).setup()
        assert "\n" not in str(caught.value)

    refused(tmp_path / "none", "must be a folder of class folders")
    refused(tmp_path, r"must hold <class>/\* images; it has no class folder")
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    refused(tmp_path / "empty", "class cat has no image: add some or remove it")
    fill(tmp_path / "half" / "train")
    fill(tmp_path / "half" / "test", classes=("cow",))
    refused(tmp_path / "half", "test has class 'cow', which .*train has not")
    fill(tmp_path / "other half" / "test")
    refused(tmp_path / "other half", "has test/ but no train/: add it")
    refused(fill(tmp_path / "few", each=2), "is too small to split")
    refused(fill(tmp_path / "one", classes=("cat",)), "all 4 rows are of class 'cat'")
    bad = fill(tmp_path / "bad") / "dog" / "3.png"
    bad.write_bytes(bad.read_bytes()[:40])
    refused(tmp_path / "bad", r"bad/dog/3.png cannot be read as an image")
    bad.write_text("no image at all")
    refused(tmp_path / "bad", r"bad/dog/3.png cannot be read as an image")
    for size in (0, (3,), "32", (4, 0), 2.5):
        refused(tmp_path, "image_size must be one whole number of pixels or two", image_size=size)


def write_zip(path, each=4, size=(32, 32), classes=("cat", "airplane"), test_classes=None):
    pixels = {}
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("train", "test"):
            for name in (test_classes or classes) if part == "test" else classes:
                for i in range(each):
                    file = io.BytesIO()
                    picture(size).save(file, "JPEG")
                    archive.writestr(f"cifar10-jpeg/{part}/{name}/{i:04}.jpg", file.getvalue())
                    pixels[part, name, i] = np.asarray(Image.open(file)).transpose(2, 0, 1)
    return pixels


def test_the_jpeg_stand_in_is_read_cached_and_named(tmp_path, cache, caplog):
    path = tmp_path / "cifar10-jpeg.zip"
    pixels = write_zip(path)
    data = CIFAR10DataModule(data_dir=tmp_path)
    data.prepare_data()
    (kept,) = cache.iterdir()
    with caplog.at_level(logging.WARNING, "datamodules"):
        data.setup()
    assert [record.message.count("lossy JPEG stand-in") for record in caplog.records] == [1]
    assert data.source == "cifar10-jpeg"
    assert data.name == "cifar10"
    assert data.image_shape == (3, 32, 32)
    assert data.class_names == ["airplane", "cat"]
    assert data.clean_labels.tolist() == [0] * 4 + [1] * 4
    assert np.array_equal((data.train_set.x[5] * 255).round().reshape(3, 32, 32), pixels["train", "cat", 1])
    assert np.array_equal((data.test_set.x[0] * 255).round().reshape(3, 32, 32), pixels["test", "airplane", 0])

    kept.write_bytes(kept.read_bytes()[:1000])  # a damaged cache is made again
    again = CIFAR10DataModule(data_dir=tmp_path)
    again.setup()
    assert torch.equal(again.train_set.x, data.train_set.x)
    assert [file.name for file in cache.iterdir()] == [kept.name]

    gray = CIFAR10DataModule(data_dir=tmp_path, grayscale=True)
    gray.setup()
    assert gray.image_shape == (1, 32, 32)
    assert gray.num_features == 1024
    expected = np.asarray(Image.fromarray(pixels["train", "cat", 1].transpose(1, 2, 0)).convert("L"))
    assert np.array_equal((gray.train_set.x[5] * 255).round().reshape(32, 32), expected)

    write_zip(path)  # other images: the cache is not taken for them
    os.utime(path, ns=(1, 1))
    assert not np.array_equal(read_jpeg_zip(path)["x_train"][5], pixels["train", "cat", 1])


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    write_zip(tmp_path / "cifar10-jpeg.zip", each=1)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert read_jpeg_zip(tmp_path / "cifar10-jpeg.zip")["x_train"].shape == (2, 3, 32, 32)


def test_zips_that_cannot_be_read_are_refused(tmp_path, cache):
    path = tmp_path / "cifar10-jpeg.zip"

    def refused(match):
        with pytest.raises(InputError, match=match):
            CIFAR10DataModule(data_dir=tmp_path).prepare_data()
        assert not cache.exists()

    path.write_bytes(b"no zip")
    refused("cifar10-jpeg.zip is damaged")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.txt", "x")
    refused(r"must hold train/<class>/\* images; it holds none")
    write_zip(path, test_classes=("cow",))
    refused("test images of class 'cow'")
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("train", "test"):
            archive.writestr(f"{part}/cat/1.jpg", "x")
    refused(r"cifar10-jpeg.zip:train/cat/1.jpg cannot be read as an image")


def write_pickles(folder, monkeypatch):
    """CIFAR-10's files with three images each; torchvision's checksums are set aside."""
    folder.mkdir()
    content = {}
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:
        rows = RNG.integers(0, 256, (3, 3072), dtype=np.uint8)
        content[name] = {"data": rows, "labels": [0, 1, 2]}
    content["batches.meta"] = {"label_names": ["a", "b", "c"]}
    for name, value in content.items():
        (folder / name).write_bytes(pickle.dumps(value))
    monkeypatch.setattr(CIFAR10, "train_list", [[name, None] for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, None] for name, _ in CIFAR10.test_list])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": None})
    return content


def test_pickles_are_preferred_to_the_stand_in(tmp_path, monkeypatch):
    write_zip(tmp_path / "cifar10-jpeg.zip", each=1)
    content = write_pickles(tmp_path / "cifar-10-batches-py", monkeypatch)
    data = CIFAR10DataModule(data_dir=tmp_path)
    data.prepare_data()
    data.setup()
    assert data.source == "cifar10"
    assert data.class_names == ["a", "b", "c"]
    assert data.train_set.x.shape == (15, 3072)
    # The pickles' rows are channels first already.
    assert np.array_equal((data.train_set.x[3] * 255).round(), content["data_batch_2"]["data"][0])


def test_damaged_pickles_are_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        write_pickles(tmp_path / "cifar-10-batches-py", patch)
    with pytest.raises(InputError, match=r"cifar-10-batches-py are damaged .wrong checksum.: delete the folder"):
        CIFAR10DataModule(data_dir=tmp_path).setup()


def test_pickles_are_downloaded_and_unpacked(tmp_path, monkeypatch):
    import hashlib

    write_pickles(tmp_path / "cifar-10-batches-py", monkeypatch)
    archive = tmp_path / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(CIFAR10, "url", archive.as_uri())
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    data = CIFAR10DataModule(data_dir=tmp_path / "new")
    data.prepare_data()
    data.setup()
    assert len(data.train_set) == 15
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cifar-10-batches-py"]


@pytest.mark.slow  # decodes 60000 JPEG files
def test_the_real_stand_in(data_dir):
    if not os.path.exists(os.path.join(data_dir, "cifar10-jpeg.zip")):
        pytest.skip(f"no cifar10-jpeg.zip in {data_dir}")
    data = CIFAR10DataModule(data_dir=data_dir, grayscale=True, train_size=5000)
    data.prepare_data()
    data.setup()
    assert data.train_set.x.shape == (5000, 1024)
    assert len(data.test_set) == 10000
    assert data.train_set.x.mean() == pytest.approx(0.48, abs=0.01)
