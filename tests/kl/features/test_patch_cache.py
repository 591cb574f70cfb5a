"""Dictionaries and features of image patches that are kept on disk."""

import errno
import hashlib
import logging
import threading
import time

import numpy as np
import pytest
import torch

import kl
from kl.errors import InputError
from kl.features import patch_cache
from kl.features.patch_cache import features_folder, fit_once, transform_once

OPTIONS = {"count": 6, "size": 3, "seed": 2}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def draw(n=20, seed=0, dtype=torch.uint8):
    images = torch.randint(256, (n, 2, 8, 7), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return images if dtype == torch.uint8 else (images / 255).to(dtype)


def fitted(**options):
    return kl.Patches(**{**OPTIONS, **options}).fit(draw())


def files(kind=""):
    return sorted(path.name for path in features_folder().glob(f"{kind}*"))


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


class Used(Exception):
    """Something is computed that was to be read."""


@pytest.fixture
def refuse(monkeypatch):
    """A function after whose call nothing is learnt or computed."""

    def fail(*args, **kwargs):
        raise Used

    def refuse():
        for name in ("fit", "transform"):
            monkeypatch.setattr(kl.Patches, name, fail)

    return refuse


@pytest.mark.parametrize("encoding", ["count", "rectified"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_second_call_reads(encoding, dtype, refuse, caplog):
    images, new = draw(dtype=dtype), draw(5, 1, dtype)
    plain = kl.Patches(**OPTIONS, encoding=encoding).fit(images)
    expected = plain.transform(images), plain.transform(new)
    first = fit_once(kl.Patches(**OPTIONS, encoding=encoding), images)
    for given, features in zip((images, new), expected, strict=True):
        same(transform_once(first, given), features)
    assert [name.split("-")[0] for name in files()] == ["dictionary", "features", "features"]
    refuse()
    with caplog.at_level(logging.INFO, "kl.features"):
        again = fit_once(kl.Patches(**OPTIONS, encoding=encoding), images)
        for given, features in zip((images, new), expected, strict=True):
            same(transform_once(again, given), features)
    assert "the dictionary of patches is read from" in caplog.text
    assert "the patch features of 20 images are read from" in caplog.text
    for name, value in vars(plain.learnt).items():
        same(getattr(again.learnt, name), value)
    assert again.image == plain.image


def test_the_memory_makes_no_difference(refuse):
    first = fit_once(kl.Patches(**OPTIONS), draw())
    features = transform_once(first, draw())
    refuse()
    again = fit_once(kl.Patches(**OPTIONS, memory="100MB"), draw())
    assert again.memory == "100MB"
    same(transform_once(again, draw()), features)


@pytest.mark.parametrize(
    "other", [{"count": 5}, {"seed": 3}, {"active": 0.2}, {"pool": 4}, {"mirrored": True}, {"encoding": "count"}]
)
def test_other_options_do_not_read(other):
    first = fit_once(kl.Patches(**OPTIONS), draw())
    transform_once(first, draw())
    found = fit_once(kl.Patches(**{**OPTIONS, **other}), draw())
    same(transform_once(found, draw()), fitted(**other).transform(draw()))
    assert len(files("dictionary")) == len(files("features")) == 2


def test_other_images_do_not_read():
    """One value of one image is another, or only the dtype is."""
    images, found = draw(), fitted()
    transform_once(found, images)
    changed = images.clone()
    changed[-1, -1, -1, -1] += 1
    for count, other in enumerate((changed, images[:-1], images / 255, images.flip(0)), 2):
        same(transform_once(found, other), found.transform(other))
        assert len(files("features")) == count
    fit_once(kl.Patches(**OPTIONS), images)
    fit_once(kl.Patches(**OPTIONS), changed)
    assert len(files("dictionary")) == 2


def test_another_dictionary_of_the_same_options_does_not_read():
    transform_once(fitted(), draw())
    other = kl.Patches(**OPTIONS).fit(draw(seed=3))
    same(transform_once(other, draw()), other.transform(draw()))


def flipped(data, at=-1):
    data = bytearray(data)
    data[at] ^= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flipped, "its checksum is wrong"),
        (lambda data: data[:-5], "cannot be used"),
        (lambda data: b"", "cannot be used"),
        (lambda data: b"no array", "cannot be used"),
        (lambda data: data.replace(b"|u1", b"|i1"), "it holds int8"),
        (lambda data: data.replace(b"(20, 24)", b"(24, 20)"), "of shape"),
        (lambda data: data.replace(b"|u1", b"|O "), "cannot be used"),
    ],
)
def test_damaged_features_are_computed_again(damage, said, caplog):
    patches = fitted()
    expected = transform_once(patches, draw())
    (path,) = features_folder().glob("features-*")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    same(transform_once(patches, draw()), expected)
    assert said in caplog.text
    assert "computing them again" in caplog.text
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "damage", [lambda data: flipped(data, len(data) // 2), lambda data: b"", lambda data: data[: len(data) // 2]]
)
def test_a_damaged_dictionary_is_learnt_again(damage, caplog):
    fit_once(kl.Patches(**OPTIONS), draw())
    (path,) = features_folder().glob("dictionary-*")
    path.write_bytes(damage(path.read_bytes()))
    found = fit_once(kl.Patches(**OPTIONS), draw())
    same(found.transform(draw()), fitted().transform(draw()))
    assert "learning it again" in caplog.text


def test_a_dictionary_of_other_options_is_not_used(caplog):
    fit_once(kl.Patches(**OPTIONS), draw())
    fit_once(kl.Patches(**{**OPTIONS, "active": 0.1}), draw())
    one, other = features_folder().glob("dictionary-*")
    one.write_bytes(other.read_bytes())
    for active in (0.1, 0.3):
        found = fit_once(kl.Patches(**{**OPTIONS, "active": active}), draw())
        same(found.transform(draw()), fitted(active=active).transform(draw()))
    assert "it is of other images or options" in caplog.text


def test_features_of_other_images_are_not_used(caplog):
    """A file that was given the name of another, whose features have the same shape."""
    patches = fitted()
    transform_once(patches, draw(seed=1))
    (other,) = features_folder().glob("features-*")
    expected = transform_once(patches, draw())
    (path,) = set(features_folder().glob("features-*")) - {other}
    checksum = other.stem.rpartition("-")[2]
    other.rename(path.with_name(f"{path.stem.rpartition('-')[0]}-{checksum}.npy"))
    path.unlink()
    same(transform_once(patches, draw()), expected)
    assert "its checksum is wrong" in caplog.text


def test_what_is_read_may_be_written_to():
    patches = fitted()
    expected = transform_once(patches, draw()).clone()
    transform_once(patches, draw()).fill_(7)
    same(transform_once(patches, draw()), expected)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    patches = fit_once(kl.Patches(**OPTIONS), draw())
    same(transform_once(patches, draw()), fitted().transform(draw()))
    assert caplog.text.count("could not be kept in") == 2


def test_a_full_disk(monkeypatch, caplog):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(patch_cache, "written_whole", full)
    patches = fitted()
    same(transform_once(patches, draw()), patches.transform(draw()))
    assert "No space left on device" in caplog.text
    assert files() == []


def test_without_a_home_folder(monkeypatch):
    monkeypatch.setattr(patch_cache, "cache_folder", lambda: (_ for _ in ()).throw(InputError("no folder")))
    assert features_folder() is None
    patches = fit_once(kl.Patches(**OPTIONS), draw())
    same(transform_once(patches, draw()), fitted().transform(draw()))


def test_files_longest_unused_make_way(monkeypatch):
    patches = fitted()
    for seed in range(3):
        transform_once(patches, draw(seed=seed))
        time.sleep(0.02)
    first, second, third = sorted(features_folder().glob("features-*"), key=lambda path: path.stat().st_mtime)
    monkeypatch.setattr(patch_cache, "LIMIT", 3 * first.stat().st_size)
    transform_once(patches, draw(seed=0))  # the first is read, so the second is longest unused
    transform_once(patches, draw(seed=3))
    assert (first.exists(), second.exists(), third.exists()) == (True, False, True)
    assert len(files("features")) == 3


def test_what_is_larger_than_the_cache_is_not_kept(monkeypatch, caplog):
    patches = fitted()
    transform_once(patches, draw())
    kept = files()
    monkeypatch.setattr(patch_cache, "LIMIT", 700)
    with caplog.at_level(logging.INFO, "kl.features"):
        same(transform_once(patches, draw(40)), patches.transform(draw(40)))
    assert "takes 960 B, and" in caplog.text
    assert files() == kept


def test_half_of_the_free_disk_stays_free(monkeypatch):
    patches = fitted()
    monkeypatch.setattr(patch_cache.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 900}))
    transform_once(patches, draw())  # 480 bytes
    assert files("features") == []


def test_who_wants_the_same_waits(monkeypatch):
    """As ranks do that start together: one computes, the other reads."""
    patches, calls, transform = fitted(), [], kl.Patches.transform

    def slow(self, images, progress=None):
        calls.append(images)
        time.sleep(0.3)
        return transform(self, images, progress)

    monkeypatch.setattr(kl.Patches, "transform", slow)
    found = [None, None]

    def work(number):
        found[number] = transform_once(patches, draw())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    same(found[0], found[1])
    assert not list(features_folder().glob(".*"))  # no lock is left


@pytest.mark.parametrize("images", [np.zeros((3, 8, 8)), torch.zeros(3, 64), torch.zeros(0, 2, 8, 7)])
def test_what_is_no_image_is_refused(images):
    with pytest.raises(InputError, match="images must"):
        fit_once(kl.Patches(**OPTIONS), images)
    with pytest.raises(InputError, match="images must"):
        transform_once(fitted(), images)


@pytest.mark.parametrize(
    ("options", "digest"),
    [
        ({"encoding": "count"}, "328c81251221ed5b"),
        ({"encoding": "rectified", "mirrored": True}, "ef5031109f2f3b71"),
        ({"encoding": "soft"}, "86aacf9ea6686be1"),
    ],
)
def test_the_version_says_which_features_are_kept(options, digest):
    """If this fails because features are other ones on purpose, raise VERSION and put the new digests here."""
    found = (
        kl.Patches(**OPTIONS, whitening=0.01, **options).fit(draw()).transform(draw(4))
    )  # few, so that hardly any lies at a tie
    assert hashlib.sha256(found.numpy().tobytes()).hexdigest()[:16] == digest
    assert patch_cache.VERSION == 2
