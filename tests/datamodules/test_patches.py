"""Data modules whose features are those of image patches."""

import numpy as np
import pytest
import torch

import kl
from datamodules import ArrayDataModule, DigitsDataModule
from kl.errors import CheckpointError, InputError
from kl.features.patches import patches_in
from kl.machines.evaluated import describe_data, require_description

OPTIONS = {"count": 12, "size": 3, "seed": 1}


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
