"""Names after --data, the list of sets, checks of their files, and sets that cannot be downloaded."""

import gzip
import hashlib
import io
import re
import struct
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST

from datamodules import (
    CIFAR10DataModule,
    DigitsDataModule,
    FashionMNISTDataModule,
    KernelDataModule,
    MNISTDataModule,
    RawData,
    SyntheticDataModule,
    build_datamodule,
    catalog,
    download,
    registry,
)
from datamodules.facts import Facts
from kl.errors import DataNotFoundError, InputError


@pytest.mark.parametrize(
    ("spec", "cls"),
    [
        ("digits", DigitsDataModule),
        ("mnist", MNISTDataModule),
        ("fashion-mnist", FashionMNISTDataModule),
        ("cifar10", CIFAR10DataModule),
        ("synthetic1", SyntheticDataModule),
        ("synthetic2", SyntheticDataModule),
    ],
)
def test_names(spec, cls):
    data = build_datamodule(spec, train_size=50, seed=1)
    assert type(data) is cls
    assert data.name == spec
    assert data.train_size == 50


USER_MODULE = """
import torch
from datamodules import KernelDataModule, RawData

class Line(KernelDataModule):
    def __init__(self, slope=2.0, **options):
        super().__init__(**options)
        self.slope = slope

    def load(self):
        x = torch.linspace(0, 1, 10)[:, None]
        return RawData(x, self.slope * x, x, self.slope * x)

NUMBER = 3
"""


def test_a_users_own_class_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "kl_test_lines.py").write_text(USER_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *__import__("sys").path])
    data = build_datamodule("kl_test_lines:Line", slope=3.0, train_size=4)
    assert isinstance(data, KernelDataModule)
    data.setup()
    assert data.name == "Line"
    assert data.task == "regression"
    assert data.train_set.y.shape == (4, 1)
    assert data.hparams.slope == 3.0
    for name, was in (("NUMBER", "it does not"), ("Other", "there is no such name")):
        with pytest.raises(InputError, match=f"derives from datamodules.KernelDataModule; {was}"):
            build_datamodule(f"kl_test_lines:{name}")
    with pytest.raises(InputError, match=r"slop is not an option of --data kl_test_lines:Line; it has: .*slope"):
        build_datamodule("kl_test_lines:Line", slop=1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mnits", r"--data must be one of digits, mnist, .*got 'mnits' \(did you mean 'mnist'\?\)"),
        ("Fashion_MNIST", r"did you mean 'fashion-mnist'\?"),
        ("xyz", r"got 'xyz'$"),
        ("my.npz", r"did you mean 'npz:my.npz'\?"),
        ("npz:", "lacks what follows the colon"),
        ("", "got ''"),
        (
            "no_such_module_:Data",
            "--data no_such_module_:Data: there is no module 'no_such_module_' in the current directory",
        ),
    ],
)
def test_unknown_names(spec, message):
    with pytest.raises(InputError, match=message):
        build_datamodule(spec)


def test_unknown_options():
    with pytest.raises(InputError, match="grayscale is not an option of --data digits; it has: augment, batch_size"):
        build_datamodule("digits", grayscale=True)
    with pytest.raises(InputError, match="kind is not an option of --data synthetic1"):
        build_datamodule("synthetic1", kind=2)


def test_the_list_of_sets(tmp_path):
    found = {entry.name: entry for entry in catalog.data_sets(str(tmp_path))}
    assert {name for name, entry in found.items() if entry.present} == {"digits", "synthetic1", "synthetic2"}
    assert found["cifar10"].num_features == 3072
    (tmp_path / "cifar10-jpeg.zip").touch()
    assert {e.name: e for e in catalog.data_sets(str(tmp_path))}["cifar10"].found_in.endswith("-jpeg.zip")


@pytest.mark.parametrize("name", ["digits", "synthetic1", "synthetic2"])
def test_checks_of_built_in_sets(name):
    checks = catalog.check(name)
    assert len(checks) == 7
    assert all(check.ok for check in checks)
    assert catalog.download(name) == "built in"


class Rings(KernelDataModule):
    """A set of its own file."""

    name = "rings"
    facts = Facts(n_train=6, n_test=2, num_features=2, num_classes=2, origin="this test", class_counts=(3, 3))

    def load(self):
        x, y = torch.eye(8, 2), torch.arange(8) % 2
        return RawData(x[:6], y[:6], x[6:], y[6:], class_names=["inner", "outer"])


def test_a_set_with_facts_and_a_line_in_the_registry_is_listed_and_checked(monkeypatch):
    monkeypatch.setitem(registry.NAMED, Rings.name, (Rings, {}))
    assert build_datamodule("rings").name == "rings"
    (listed,) = [entry for entry in catalog.data_sets() if entry.name == "rings"]
    assert (listed.n_train, listed.n_test, listed.origin, listed.present) == (6, 2, "this test", True)
    checks = catalog.check("rings")
    assert [check.expected for check in checks] == ["6", "2", "2", "2", "[3, 3]", "", "rings"]
    assert all(check.ok for check in checks)
    monkeypatch.setattr(Rings, "facts", replace(Rings.facts, class_counts=(1, 5)))
    assert [check.what for check in catalog.check("rings") if not check.ok] == ["training rows per class"]


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_checks_of_the_real_files(name, data_dir):
    checks = catalog.check(name, data_dir)
    assert len(checks) == 11
    assert [check for check in checks if not check.ok] == []


def test_a_check_of_a_users_file_reports_without_expecting(tmp_path):
    x, y = np.eye(6), np.arange(6) % 2
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    found = {check.what: check.found for check in catalog.check(f"npz:{tmp_path}/a.npz")}
    assert found["training rows"] == "6"
    assert found["training rows per class"] == "[3, 3]"


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder that serves a tiny MNIST, after an address where nobody answers."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "mirror"
    folder.mkdir()
    resources = []
    for part, n in (("train", 20), ("t10k", 10)):
        images, labels = (
            rng.integers(0, 256, (n, 28, 28), dtype=np.uint8),
            (np.arange(n) % 10).astype(np.uint8),
        )
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            packed = gzip.compress(idx(array), mtime=0)
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(packed)
            resources.append((f"{part}-{name}-ubyte.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/", folder.as_uri() + "/"])
    monkeypatch.setattr(MNIST, "resources", resources)
    return folder


def test_a_download_is_checked_unpacked_and_used(mirror, tmp_path):
    target = tmp_path / "data"
    assert catalog.download("mnist", str(target)) == str(target / "MNIST" / "raw")
    assert len(list((target / "MNIST" / "raw").iterdir())) == 4  # no archive and no temporary folder is left
    data = MNISTDataModule(data_dir=target)
    data.prepare_data()
    data.setup()
    assert (len(data.train_set), len(data.test_set)) == (20, 10)
    wrong = [check.what for check in catalog.check("mnist", str(target)) if not check.ok]
    assert len(wrong) == 4 + 2 + 1  # checksums, rows, histogram: it is not the real MNIST


def test_a_download_shows_its_progress_in_a_terminal_alone(mirror, tmp_path, monkeypatch, capsys):
    catalog.download("mnist", str(tmp_path / "silent"))
    assert capsys.readouterr() == ("", "")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    catalog.download("mnist", str(tmp_path / "shown"))
    assert "train-images-idx3-ubyte.gz" in terminal.getvalue()
    assert re.search(r"(\d+)/\1 bytes", terminal.getvalue())  # of a file of labels, whole
    assert capsys.readouterr().out == ""


def test_a_damaged_download_leaves_nothing_and_can_be_tried_again(mirror, tmp_path):
    target = tmp_path / "data"
    bad = mirror / "t10k-labels-idx1-ubyte.gz"
    good = bad.read_bytes()
    bad.write_bytes(good[:-20])
    with pytest.raises(DataNotFoundError, match=r"mnist was not found at .*MNIST/raw .*wrong checksum"):
        MNISTDataModule(data_dir=target).prepare_data()
    names = {path.name for path in (target / "MNIST" / "raw").iterdir()}
    assert names == {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"}
    with pytest.raises(DataNotFoundError, match="was not downloaded"):
        MNISTDataModule(data_dir=target).setup()
    bad.write_bytes(good)
    MNISTDataModule(data_dir=target).prepare_data()
    MNISTDataModule(data_dir=target).setup()


def test_damaged_files_are_named(mirror, tmp_path):
    target = tmp_path / "data"
    MNISTDataModule(data_dir=target).prepare_data()
    file = target / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    for content in (file.read_bytes()[:3000], b"", b"garbage"):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"the t10k files in .*raw are damaged .*delete them and run"):
            MNISTDataModule(data_dir=target).setup()


@pytest.mark.parametrize(
    ("cls", "places"),
    [
        (MNISTDataModule, "MNIST/raw"),
        (FashionMNISTDataModule, "FashionMNIST/raw"),
        (CIFAR10DataModule, "cifar-10-batches-py or .*cifar10-jpeg.zip"),
    ],
)
def test_without_a_network_one_line_says_what_to_do(cls, places, tmp_path, monkeypatch):
    nobody = "http://127.0.0.1:9/"
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [nobody])
    monkeypatch.setattr("torchvision.datasets.FashionMNIST.mirrors", [nobody])
    monkeypatch.setattr("torchvision.datasets.CIFAR10.url", nobody + "c.tar.gz")
    start = time.monotonic()
    pattern = f"{places} and could not be downloaded .127.0.0.1:9: .*--data-dir .* KL_DATA_DIR .* network"
    with pytest.raises(DataNotFoundError, match=pattern) as caught:
        cls(data_dir=tmp_path / "data").prepare_data()
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert not (tmp_path / "data").exists()
    with pytest.raises(DataNotFoundError, match="download is off"):
        cls(data_dir=tmp_path / "data", download=False).prepare_data()


def test_an_address_that_never_answers_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.05)
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: time.sleep(0.5))
    with pytest.raises(download.DownloadError, match=r"example.org: no answer within"):
        download.download(["http://example.org/a"], "", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_written_is_said(mirror, tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DataNotFoundError, match=r"Not a directory|File exists"):
        MNISTDataModule(data_dir=tmp_path / "data").prepare_data()


def test_the_data_folder_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("KL_DATA_DIR", "/somewhere")
    assert MNISTDataModule().data_dir == "/somewhere"
    assert MNISTDataModule(data_dir="there").data_dir == "there"
    monkeypatch.delenv("KL_DATA_DIR")
    assert MNISTDataModule().data_dir == "data"
