"""Random shifts and flips of training images."""

import json

import numpy as np
import pytest
import torch
from training import fit

from datamodules import DigitsDataModule, StreamDataModule, SyntheticDataModule
from datamodules.augment import Augmentation
from kl import GeneralKernelMachine, InputError, KernelMachine


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(m=500, shape=(2, 6, 5)):
    return torch.rand(m, int(np.prod(shape)), generator=generator(1)), shape


def test_each_image_is_one_of_its_shifts():
    x, shape = draw()
    moved = Augmentation(shift=1)(x, shape, generator()).reshape(-1, *shape)
    images = x.reshape(-1, *shape)
    seen = set()
    for before, after in zip(images.numpy(), moved.numpy(), strict=True):
        matches = []
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                expected = np.zeros_like(before)
                source = before[:, max(0, -down) : 6 - max(0, down), max(0, -right) : 5 - max(0, right)]
                expected[:, max(0, down) : 6 + min(0, down), max(0, right) : 5 + min(0, right)] = source
                matches += [(down, right)] * np.array_equal(expected, after)
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) == 9


def test_half_of_the_images_are_mirrored():
    x, shape = draw()
    flipped = Augmentation(flip=True)(x, shape, generator()).reshape(-1, *shape)
    images = x.reshape(-1, *shape)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert bool((mirrored ^ kept).all())
    assert 200 < int(mirrored.sum()) < 300


def test_values_stay_and_the_rows_too():
    x, shape = draw()
    before = x.clone()
    changed = Augmentation(shift=2, flip=True)(x, shape, generator())
    assert torch.equal(x, before)
    assert set(changed.flatten().tolist()) <= set(x.flatten().tolist()) | {0.0}


def batches(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return torch.cat([x for x, _, _ in loader])


def test_batches_are_a_function_of_seed_and_epoch():
    def made(seed=0, epoch=0):
        data = DigitsDataModule(train_size=100, batch_size=30, seed=seed, augment="shift:1,flip")
        data.setup()
        return batches(data, epoch)

    assert torch.equal(made(), made())
    assert not torch.equal(made(), made(epoch=1))
    plain = DigitsDataModule(train_size=100, batch_size=30)
    plain.setup()
    assert not torch.equal(made(), batches(plain))


def test_an_image_is_changed_otherwise_in_another_epoch():
    """Row by row: batches of one row, so that the order of an epoch does not tell."""

    def rows(epoch):
        data = DigitsDataModule(train_size=100, batch_size=1, augment="shift:1")
        data.setup()
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        found = {int(index): x for x, _, index in loader}
        return torch.cat([found[i] for i in range(100)])

    first = rows(0)
    assert torch.equal(first, rows(0))
    for epoch in (1, 2):
        alike = int((first == rows(epoch)).all(dim=1).sum())
        assert alike < 35  # one of nine shifts: 11 of 100 are expected, and 35 lie seven deviations above


def test_it_helps_where_test_images_are_shifted():
    errors = []
    for augment in (None, "shift:1"):
        data = DigitsDataModule(augment=augment)
        data.setup()
        shifted = Augmentation(shift=1)(data.test_set.x, data.image_shape, generator(5))
        machine = GeneralKernelMachine("laplacian", 500)
        fit(machine, data, 20)
        with torch.no_grad():
            wrong = machine(shifted).argmax(dim=1) != data.test_set.y.argmax(dim=1)
        errors.append(float(wrong.double().mean()))
    assert errors[1] < 0.7 * errors[0]


def test_a_stream_is_augmented(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (90, 8, 8), dtype=np.uint8)
    y = np.arange(90) % 3
    (tmp_path / "train").mkdir()
    np.savez(tmp_path / "train" / "a.npz", x=x, y=y)
    np.savez(tmp_path / "test.npz", x=x[:9], y=y[:9])
    plain, changed = (
        StreamDataModule(tmp_path, batch_size=30, sample_size=50, augment=augment) for augment in (None, "shift,flip")
    )
    for data in (plain, changed):
        data.setup()
    a, b = (torch.cat([x for x, _ in data.train_dataloader()]) for data in (plain, changed))
    assert not torch.equal(a, b)
    assert torch.allclose((255 * b).round() / 255, b)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("shift", Augmentation(2)), ("flip", Augmentation(0, True)), (" shift:3 , flip", Augmentation(3, True))],
)
def test_parse(text, expected):
    assert Augmentation.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "turn", "shift:0", "shift:x", "shift:-1", "flip:2", "shift;flip", "flip,flip", "shift,shift:3"]
)
def test_mistakes(text):
    with pytest.raises(InputError, match="augment must be shift, shift:PIXELS, flip"):
        DigitsDataModule(augment=text)


def test_rows_that_are_no_images():
    with pytest.raises(InputError, match="augment changes images, and the rows of synthetic1 are none"):
        SyntheticDataModule(augment="flip").setup()


def test_images_smaller_than_the_shift():
    with pytest.raises(InputError, match="shift by fewer pixels than the images of digits have on a side, 8; got 8"):
        DigitsDataModule(augment="shift:8").setup()


def test_the_spectrum_is_that_of_augmented_rows():
    plain, changed = (DigitsDataModule(augment=augment) for augment in (None, "shift:2"))
    for data in (plain, changed):
        data.setup()
    x = plain.train_set.x
    assert plain.as_trained() is x
    assert torch.equal(changed.as_trained(), changed.as_trained())
    assert not torch.equal(changed.as_trained(), x)
    some, chosen = torch.tensor([5, 1, 7]), torch.tensor([2, 0])
    assert torch.equal(changed.as_trained(some, 1, chosen), changed.as_trained(some, 1)[chosen])
    tops = []
    for data in (plain, changed):
        machine = GeneralKernelMachine("laplacian", 100)
        machine.take(data)
        tops.append(machine.plan.lambda_1)
    assert tops[0] > 1.1 * tops[1]  # shifted images are less alike


def test_centres_are_augmented_images_as_many_as_one_likes():
    data = DigitsDataModule(train_size=100, augment="shift:1")
    machine = GeneralKernelMachine("laplacian", 250)
    fit(machine, data, 2)
    images = data.train_set.x.reshape(-1, 8, 8)
    padded = torch.nn.functional.pad(images, [1] * 4)
    shifted = [padded[:, i : i + 8, j : j + 8].reshape(-1, 64) for i in range(3) for j in range(3)]
    assert machine.centers.shape == (250, 64)
    assert (torch.cdist(machine.centers, torch.cat(shifted)).amin(dim=1) < 1e-6).all()
    assert len(machine.centers.unique(dim=0)) > 150
    assert machine.decay == 0.5  # there is always another image
    plain = GeneralKernelMachine("laplacian", 250)
    fit(plain, DigitsDataModule(train_size=100), 1)
    assert len(plain.centers) == 100


def test_machines_whose_centres_are_the_rows_refuse():
    with pytest.raises(InputError, match=r"KernelMachine has its centres there: use GeneralKernelMachine \(solver="):
        fit(KernelMachine("laplacian"), DigitsDataModule(augment="shift"), 1)


def test_from_the_command_line(kl):
    options = ("fit", "--data", "digits", "--train-size", 200, "--epochs", 2, "--augment", "shift:1")
    result = kl(*options, "--solver", "eigenpro4", "--centers", 50, "--json")
    assert result.code == 0, result.err
    assert "augmented, others in every epoch" in json.loads(result.out)["exact_skipped"]
    assert kl("plan", *options[1:], "--solver", "eigenpro4", "--centers", 50).code == 0
    result = kl(*options)
    assert result.code == 2
    assert "give --augment flip, or kl fit --solver eigenpro4" in result.err
