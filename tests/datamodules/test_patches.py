"""Data modules whose features are those of image patches."""

import numpy as np
import pytest
import torch
from processes import on_ranks, shared
from training import fit, quiet_trainer

import kl
import kl.distributed.ranks
import kl.general.centers
from datamodules import ArrayDataModule, DigitsDataModule, IterableDataModule, StreamDataModule
from kl.distributed.ranks import Share
from kl.errors import CheckpointError, InputError
from kl.features.patches import patches_in
from kl.machines.described import describe_data, require_description

OPTIONS = {"count": 12, "size": 3, "seed": 1}
CHANGES = "shift:1,flip"


def digits(**options):
    data = DigitsDataModule(train_size=60, test_size=20, **options)
    data.setup()
    return data


def test_features_are_those_of_patches_learnt_from_the_training_images():
    """The pixels are the same as without patches; the patches are learnt from the rows that are drawn."""
    plain, data = digits(), digits(patches=OPTIONS)
    patches = kl.Patches(**OPTIONS).fit(plain.train_set.x.reshape(-1, 1, 8, 8))
    for found, pixels in ((data.train_set, plain.train_set), (data.test_set, plain.test_set)):
        torch.testing.assert_close(found.x, patches.transform(pixels.x.reshape(-1, 1, 8, 8)).float(), rtol=0, atol=0)
        torch.testing.assert_close(found.y, pixels.y)
    assert (data.num_features, data.image_shape) == (4 * 12, None)


def test_label_noise_and_validation():
    data, plain = (digits(label_noise=0.3, validation=0.2, **more) for more in ({"patches": OPTIONS}, {}))
    torch.testing.assert_close(data.train_set.y, plain.train_set.y)
    assert data.validation_set.x.shape == (len(plain.validation_set), 48)


def test_a_description_holds_the_patches_as_plain_values():
    data = digits(patches=OPTIONS)
    found = patches_in(describe_data(data))
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.transform(images), data.patches.transform(images), rtol=0, atol=0)
    assert describe_data(data)["image_shape"] == []
    assert patches_in(describe_data(digits())) is None


def test_a_checkpoint_keeps_the_options(tmp_path):
    data = digits(patches=OPTIONS)
    path = tmp_path / "data.ckpt"
    torch.save({DigitsDataModule.CHECKPOINT_HYPER_PARAMS_KEY: dict(data.hparams), "state_dict": {}}, path)
    again = DigitsDataModule.load_from_checkpoint(path)
    again.setup()
    torch.testing.assert_close(again.train_set.x, data.train_set.x, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"patches": {"number": 3}}, "patches must be a dict of count, size.*; got 'number'"),
        ({"patches": 64}, "patches must be a dict of options of kl.Patches, or None; got int"),
        ({"patches": {"size": 1}}, "size must be at least 2"),
        ({"patches": {"size": 9}}, "images must be at least as large as a patch"),
    ],
)
def test_wrong_options(options, said):
    with pytest.raises(InputError, match=said):
        digits(**options)


def test_rows_that_are_no_images():
    x = np.random.default_rng(0).normal(size=(8, 5))
    with pytest.raises(InputError, match="patches are of images, and the rows of arrays are none"):
        ArrayDataModule.from_arrays(x, [0, 1] * 4, patches={}).setup()


def test_damaged_patches_of_a_checkpoint():
    info = describe_data(digits(patches=OPTIONS))
    info["patches"]["whitening"]["shape"] = [3, 27]
    with pytest.raises(InputError, match="whitening must be float32 of shape"):
        patches_in(info)
    info["patches"]["whitening"]["base64"] = "no"
    with pytest.raises(CheckpointError, match="its tensor whitening is damaged"):
        patches_in(info)


@pytest.mark.parametrize(
    "change",
    [
        {"patches": torch.zeros(3)},
        {"patches": {"image": [1, 8, 8]}},
        {"patches": {"options": {"count": [1]}, "image": [1, 8, 8]}},
        {"image_shape": [3, 4, 4]},
    ],
)
def test_a_damaged_description(change):
    info = describe_data(digits(patches=OPTIONS))
    require_description(info)
    with pytest.raises(CheckpointError):
        require_description({**info, **change})


# Kept on disk


def test_features_are_read_in_the_next_run(monkeypatch):
    first = digits(patches=OPTIONS, validation=0.2)

    def fail(*args, **kwargs):
        raise AssertionError

    for name in ("fit", "transform"):
        monkeypatch.setattr(kl.Patches, name, fail)
    again = digits(patches=OPTIONS, validation=0.2)
    for name in ("train_set", "validation_set", "test_set"):
        same(getattr(again, name).x, getattr(first, name).x)


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("last", [False, True])
def test_pixels_of_8_bits_have_the_features_of_their_share_of_255(last):
    """Channels may be last, and the test set may be floats."""
    images = np.random.default_rng(0).integers(0, 256, (30, 3, 8, 9), dtype=np.uint8)
    given = images.transpose(0, 2, 3, 1) if last else images
    data = ArrayDataModule.from_arrays(
        given, np.arange(30) % 3, given / np.float32(255), np.arange(30) % 3, patches=OPTIONS
    )
    data.setup()
    floats = torch.from_numpy(images).float().div(255)
    patches = kl.Patches(**OPTIONS).fit(floats)
    for found in (data.train_set, data.test_set):
        same(found.x, patches.transform(floats).float())


# Augmented


def batches(data, epoch):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


@pytest.mark.parametrize("more", [{}, {"validation": 0.2, "label_noise": 0.3}])
def test_batches_are_of_augmented_images(more):
    """Of the same changed images as without patches, which are learnt from images as they are."""
    plain, data = (digits(augment=CHANGES, batch_size=25, **more, **of) for of in ({}, {"patches": OPTIONS}))
    unchanged = digits(patches=OPTIONS, **more)
    for name in ("train_set", "test_set"):
        same(getattr(data, name).x, getattr(unchanged, name).x)
    for epoch in (0, 3):
        for found, expected in zip(batches(data, epoch), batches(plain, epoch), strict=True):
            same(found[0], data.patches.transform_rows(expected[0]))
            same(found[1:], expected[1:])
    assert not torch.equal(batches(data, 0)[0][0], batches(data, 1)[0][0])


def test_centres_and_spectrum_are_of_augmented_images():
    plain, data = digits(augment=CHANGES), digits(augment=CHANGES, patches=OPTIONS)
    some, chosen = torch.tensor([4, 9, 2, 30]), torch.tensor([3, 0])
    for arguments in ((), (some, 1), (some, 1, chosen), (None, 2, chosen)):
        same(data.as_trained(*arguments), data.patches.transform_rows(plain.as_trained(*arguments)))
    machine = kl.GeneralKernelMachine("laplacian", 150)
    fit(machine, digits(augment=CHANGES, patches=OPTIONS), 1)
    rows = torch.cat([data.as_trained(None, draw) for draw in range(3)])
    expected = kl.general.centers.choose_centers(machine.kernel, rows, 150)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    same(machine.centers, expected[order])


def test_only_the_chosen_centres_have_features(monkeypatch):
    data, counted, transform = digits(augment=CHANGES, patches=OPTIONS), [], kl.Patches.transform

    def counting(self, images, progress=None):
        counted.append(len(images))
        return transform(self, images, progress)

    monkeypatch.setattr(kl.Patches, "transform", counting)
    kl.GeneralKernelMachine("laplacian", 20).take(data)
    assert counted == [20, 60]  # the centres, and the rows of which the spectrum is estimated


def test_a_resumed_run_is_as_one_without_a_stop(tmp_path):
    def made():
        return kl.GeneralKernelMachine("laplacian", 30, batch_size=16, decay=0), digits(
            augment=CHANGES, patches=OPTIONS
        )

    whole, part, resumed = made(), made(), made()
    fit(*whole, 4)
    trainer = fit(*part, 2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    fit(*resumed, 4, ckpt_path=tmp_path / "last.ckpt")
    same(resumed[0].alpha, whole[0].alpha)
    assert not torch.equal(part[0].alpha, whole[0].alpha)


def test_a_rank_computes_the_features_of_its_own_rows(monkeypatch):
    """The last batch has fewer rows than there are ranks."""
    data = digits(augment=CHANGES, patches=OPTIONS, batch_size=59)
    whole = batches(data, 0)
    for rank in (0, 1):
        monkeypatch.setattr(DigitsDataModule, "_ranks", kl.distributed.ranks.Ranks(rank, 2))
        for (found, y, index), expected in zip(batches(data, 0), whole, strict=True):
            assert isinstance(found, Share)
            same(found.local_rows, expected[0][rank::2])
            assert found.batch_rows == len(expected[0])
            same((y, index), expected[1:])
            assert data.on_before_batch_transfer((found, y, index), 0)[0] is found


# Streams


IMAGES = np.random.default_rng(1).integers(0, 256, (90, 2, 7, 8), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Ninety images in three pieces, and a test set."""
    (tmp_path / "train").mkdir()
    y = np.arange(90) % 3
    for number, rows in enumerate((slice(0, 40), slice(40, 50), slice(50, 90))):
        np.savez(tmp_path / "train" / f"{number}.npz", x=IMAGES[rows], y=y[rows])
    np.savez(tmp_path / "test.npz", x=IMAGES[:9], y=y[:9])
    return tmp_path


def stream(folder, **options):
    data = StreamDataModule(folder, sample_size=60, batch_size=25, **options)
    data.setup()
    return data


@pytest.mark.parametrize("augment", [None, CHANGES])
def test_pieces_of_a_stream_have_the_features_of_the_whole(folder, augment):
    """Learnt from the sample; the images of batches are those without patches."""
    plain, data = (stream(folder, augment=augment, **of) for of in ({}, {"patches": OPTIONS}))
    patches = kl.Patches(**OPTIONS).fit(plain.train_set.x.reshape(-1, 2, 7, 8))
    for found, pixels in ((data.train_set, plain.train_set), (data.test_set, plain.test_set)):
        same(found.x, patches.transform_rows(pixels.x))
        same(found.y, pixels.y)
    for epoch in (0, 1):
        for (x, y), (pixels, expected) in zip(batches(data, epoch), batches(plain, epoch), strict=True):
            same(x, patches.transform_rows(pixels))
            same(y, expected)
    unchanged = batches(stream(folder, patches=OPTIONS), 0)
    assert torch.equal(batches(data, 0)[0][0], unchanged[0][0]) == (augment is None)
    if augment is None:
        whole = patches.transform(torch.from_numpy(IMAGES)).float()
        rows = torch.cat([x for x, _ in batches(data, 0)])
        assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, whole.tolist()))


@pytest.mark.parametrize("augment", [None, CHANGES])
def test_a_machine_is_trained_on_a_stream(folder, augment, tmp_path):
    """And a resumed run is as one without a stop."""

    def made():
        return kl.GeneralKernelMachine("laplacian", 40, decay=0), stream(folder, augment=augment, patches=OPTIONS)

    whole, part, resumed = made(), made(), made()
    fit(*whole, 4)
    assert whole[0].centers.shape == (40, 48)
    trainer = fit(*part, 2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    fit(*resumed, 4, ckpt_path=tmp_path / "last.ckpt")
    same(resumed[0].alpha, whole[0].alpha)


def on_a_stream(folder):
    """What a run on augmented pieces says."""
    machine = kl.GeneralKernelMachine("laplacian", 40)
    data = StreamDataModule(folder, sample_size=60, augment=CHANGES, patches=OPTIONS)
    quiet_trainer(2, **shared()).fit(machine, datamodule=data)
    return {**machine.eval_metrics, "norm": machine.rkhs_norm}


def test_a_stream_on_two_ranks(folder):
    wanted = on_a_stream(folder)
    for found in on_ranks(2, on_a_stream, folder):
        assert found == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("x", [np.ones((8, 4)), np.arange(32, dtype=np.uint8).reshape(8, 4)])
def test_a_stream_of_no_images(tmp_path, x):
    np.savez(tmp_path / "train1.npz", x=x, y=np.arange(8) % 2)
    with pytest.raises(InputError, match=f"patches are of images, and the rows of {tmp_path.name} are none"):
        stream(tmp_path, patches=OPTIONS)


def of_dataset(**options):
    x, y = torch.from_numpy(IMAGES).flatten(1).float() / 255, torch.eye(3)[torch.arange(90) % 3]
    parts = [(x[:50], y[:50]), (x[50:], y[50:])]
    return IterableDataModule(parts, (x[::2], y[::2]), (x[:9], y[:9]), num_rows=90, batch_size=40, **options)


def test_an_iterable_dataset_of_images():
    data = of_dataset(image_shape=(2, 7, 8), patches=OPTIONS)
    data.setup()
    patches = kl.Patches(**OPTIONS).fit(torch.from_numpy(IMAGES[::2]).float() / 255)
    same(torch.cat([x for x, _ in data.train_dataloader()]), patches.transform(torch.from_numpy(IMAGES)).float())
    machine = kl.GeneralKernelMachine("laplacian", 20)
    fit(machine, of_dataset(image_shape=[2, 7, 8], patches=OPTIONS), 1)
    assert machine.centers.shape == (20, 48)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"patches": {}}, "patches are of images, and the rows of stream are none"),
        ({"image_shape": (2, 7, 9)}, r"image_shape must be \(channels, height, width\) of the 112 pixels of a row"),
        ({"image_shape": (112,)}, r"image_shape must be .*; got \(112,\)"),
        ({"augment": "flip"}, "augment needs images in memory or in pieces on disk; got 'flip'"),
    ],
)
def test_wrong_options_of_an_iterable_dataset(options, said):
    with pytest.raises(InputError, match=said):
        of_dataset(**options).setup()


def test_a_damaged_image_of_a_dataset_is_one_line():
    data = of_dataset(image_shape=(2, 7, 8), patches=OPTIONS)
    x = torch.full((3, 112), 1e20)
    data._dataset = [(x, torch.eye(3))]
    data.setup()
    with pytest.raises(InputError, match="patches: images must hold finite numbers of at most 1e"):
        list(data.train_dataloader())
