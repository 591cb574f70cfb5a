"""The validation part of the training rows: how many, which, of which classes, with which labels; and no test set."""

import logging

import numpy as np
import pytest
import torch
from pictures import fill
from training import quiet_trainer

import kl
from callbacks import ConfusionMatrix, ConvergenceFigure, ExactInterpolation, WorstErrors
from datamodules import (
    ArrayDataModule,
    DigitsDataModule,
    ImageFolderDataModule,
    IterableDataModule,
    KernelDataModule,
    RawData,
    StreamDataModule,
)
from datamodules.holdout import hold_out
from datamodules.synthetic import write_synthetic
from kl.errors import CheckpointError, InputError


def set_up(make, **options):
    data = make(**options)
    data.setup()
    return data


@pytest.mark.parametrize(("n", "share", "count"), [(100, 0.1, 10), (5, 0.5, 3), (50, 0.29, 15), (1437, 0.2, 287)])
def test_the_count_is_the_share_rounded_half_up(n, share, count):
    kept, held = hold_out(n, share, seed=0)
    assert (len(kept), len(held)) == (n - count, count)


@pytest.mark.parametrize("labels", [None, torch.arange(1000) % 7])
def test_every_row_is_in_one_part_by_the_seed_alone(labels):
    kept, held = hold_out(1000, 0.3, 5, labels)
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(1000))
    assert torch.equal(kept, kept.sort().values)
    assert torch.equal(held, held.sort().values)
    np.random.seed(1)
    torch.manual_seed(1)
    assert torch.equal(held, hold_out(1000, 0.3, 5, labels)[1])
    other = hold_out(1000, 0.3, 6, labels)[1]
    assert len(set(held.tolist()) & set(other.tolist())) < 0.5 * 300  # 90 by chance


def test_classes_keep_their_proportions_to_a_row():
    rng = np.random.default_rng(0)
    for sizes in ([600, 300, 90, 10], [7] * 40, [1, 1, 998]):
        labels = torch.from_numpy(rng.permutation(np.repeat(np.arange(len(sizes)), sizes)))
        for seed in range(5):
            kept, held = hold_out(len(labels), 0.1, seed, labels)
            for label, size in enumerate(sizes):
                assert abs(int((labels[held] == label).sum()) - 0.1 * size) < 1
                assert (labels[kept] == label).any()  # no class is held out whole


def test_every_row_of_every_class_is_as_likely_held_out():
    labels = torch.arange(40) % 20
    counts = torch.zeros(40)
    for seed in range(2000):
        counts[hold_out(40, 0.25, seed, labels)[1]] += 1
    assert (counts / 2000 - 0.25).abs().max() < 5 * (0.25 * 0.75 / 2000) ** 0.5


@pytest.mark.parametrize(("share", "n", "which"), [(0.001, 100, "none"), (0.99, 10, "all")])
def test_an_empty_part_is_refused(share, n, which):
    with pytest.raises(InputError, match=f"validation={share} of {n} training rows holds out {which} of them: give"):
        hold_out(n, share, 0)


@pytest.mark.parametrize("share", [1, 1.5, -0.1, float("nan"), "0.1", True, None])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(InputError, match=r"validation must be a fraction of the training rows in \[0, 1\); got"):
        DigitsDataModule(validation=share)


def test_a_data_module_holds_rows_out_of_its_training_set():
    whole, data = set_up(DigitsDataModule, train_size=500), set_up(DigitsDataModule, train_size=500, validation=0.2)
    assert whole.validation_set is None
    assert whole.val_set is whole.test_set
    assert data.val_set is data.validation_set
    assert (len(data.train_set), len(data.validation_set), data.num_rows) == (400, 100, 400)
    assert len(data.noise_mask) == len(data.clean_labels) == 400
    assert torch.equal(data.test_set.x, whole.test_set.x)
    parts = torch.cat([data.train_set.x, data.validation_set.x])  # train_size rows are drawn first
    assert {tuple(row) for row in parts.tolist()} == {tuple(row) for row in whole.train_set.x.tolist()}
    expected = 0.2 * whole.train_set.y.sum(0)
    assert ((data.validation_set.y.sum(0) - expected).abs() < 1).all()
    again, other = (set_up(DigitsDataModule, train_size=500, validation=0.2, seed=seed) for seed in (0, 1))
    assert torch.equal(again.validation_set.x, data.validation_set.x)
    assert not torch.equal(other.validation_set.x, data.validation_set.x)
    x, y, index = (torch.cat(part) for part in zip(*data.val_dataloader(), strict=True))
    assert torch.equal(x, data.validation_set.x)
    assert torch.equal(y, data.validation_set.y)
    assert torch.equal(index, torch.arange(100))


def test_regression_is_split_without_classes():
    x = np.arange(50.0)[:, None]
    data = set_up(ArrayDataModule.from_arrays, x_train=x, y_train=3 * x, validation=0.3)
    assert (len(data.train_set), len(data.validation_set)) == (35, 15)
    assert torch.equal(data.validation_set.y, 3 * data.validation_set.x)
    assert data.validation_set.y_noisy is None


def test_held_out_labels_are_clean_and_noisy_and_the_rows_are_those_without_noise():
    clean, whole, data = (
        set_up(DigitsDataModule, **options)
        for options in ({"validation": 0.2}, {"label_noise": 0.3}, {"label_noise": 0.3, "validation": 0.2})
    )
    assert torch.equal(data.validation_set.x, clean.validation_set.x)
    assert torch.equal(data.validation_set.y, clean.validation_set.y)
    assert clean.validation_set.y_noisy is None
    changed = (data.validation_set.y_noisy != data.validation_set.y).any(1).float().mean()
    assert 0.2 < changed < 0.34  # 0.27 is expected: one in ten draws the true label
    # Noise is drawn on the whole training set, then the part is held out: each row has the label it had.
    noisy = {tuple(x): y for x, y in zip(whole.train_set.x.tolist(), whole.train_set.y.tolist(), strict=True)}
    for part, labels in ((data.train_set, data.train_set.y), (data.validation_set, data.validation_set.y_noisy)):
        assert [noisy[tuple(x)] for x in part.x.tolist()] == labels.tolist()
    assert torch.equal(
        data.train_set.y.argmax(1)[~data.noise_mask],
        data.clean_labels[~data.noise_mask],
    )


def test_a_checkpoint_knows_its_validation_part():
    data = set_up(DigitsDataModule, validation=0.2)
    state = data.state_dict()
    assert state["validation"] == 0.2
    set_up(DigitsDataModule, validation=0.2).load_state_dict(state)
    for options, which in (
        ({}, "its share is 0.2, ours 0"),
        ({"validation": 0.1}, "its share is 0.2, ours 0.1"),
        ({"validation": 0.2, "seed": 1}, "other rows"),
        ({"validation": 0.2, "label_noise": 0.1}, "other rows"),
    ):
        with pytest.raises(CheckpointError, match=rf"another validation part \({which}\): resume with the same"):
            set_up(DigitsDataModule, **options).load_state_dict(state)


def test_a_stream_holds_nothing_out(tmp_path):
    with pytest.raises(
        InputError, match="validation holds out rows of a training set in memory, and this one is a str"
    ):
        StreamDataModule(tmp_path, validation=0.1)
    with pytest.raises(InputError, match="validation holds out rows"):
        IterableDataModule([], (torch.zeros(2, 1), torch.zeros(2, 1)), validation=0.1)


# No test set


def two_moons(n=80):
    angle = 6.28 * torch.rand(n, generator=torch.Generator().manual_seed(0))
    label = torch.arange(n) % 2
    return torch.stack([angle.cos(), angle.sin()], dim=1) * (1 + label[:, None]), label


class Rings(KernelDataModule):
    """Without a test set."""

    name = "rings"

    def load(self):
        return RawData(*two_moons(), class_names=["inner", "outer"])


def in_memory(tmp_path, **options):
    return ArrayDataModule.from_arrays(*two_moons(), **options)


def npz_file(tmp_path, **options):
    x, y = two_moons()
    np.savez(tmp_path / "a.npz", x_train=x.numpy(), y_train=y.numpy())
    return ArrayDataModule(tmp_path / "a.npz", **options)


def regression(tmp_path, **options):
    x, y = two_moons()
    return ArrayDataModule.from_arrays(x, y.double(), **options)


def folder(tmp_path, **options):
    fill(tmp_path / "images" / "train", each=12)
    return ImageFolderDataModule(tmp_path / "images", image_size=8, **options)


WITHOUT = {
    "own": lambda tmp_path, **options: Rings(**options),
    "arrays": in_memory,
    "npz": npz_file,
    "regression": regression,
    "folder": folder,
}


@pytest.mark.parametrize("validation", [0.0, 0.25])
@pytest.mark.parametrize("name", WITHOUT)
def test_a_test_set_is_optional(name, validation, tmp_path, caplog):
    data = WITHOUT[name](tmp_path, validation=validation)
    with caplog.at_level(logging.INFO, logger="datamodules.base"):
        data.setup()
    assert "has no test set, which is optional" in caplog.text
    assert data.test_set is None
    exact, figure = ExactInterpolation(), ConvergenceFigure()
    trainer = quiet_trainer(
        2, default_root_dir=tmp_path, callbacks=[exact, figure, ConfusionMatrix(), WorstErrors()], logger=False
    )
    machine = kl.KernelMachine(kl.Laplacian(2.0))
    trainer.fit(machine, datamodule=data)
    assert machine.train_metrics["train/mse"] < 0.3
    assert exact.results["exact_test_mse"] is None
    assert exact.results["exact_rkhs_norm"] > 0
    assert ("val/mse" in trainer.callback_metrics) == (validation > 0) == ("val/mse" in figure.history)
    assert (exact.results["exact_val_mse"] is not None) == (validation > 0)
    for use in (trainer.test, trainer.predict):
        with pytest.raises(InputError, match="has no test set: give its data one"):
            use(machine, datamodule=data)


def test_a_stream_without_a_test_set(tmp_path):
    write_synthetic(tmp_path / "big", kind=1, rows=300, test_rows=10, shard_rows=100)
    (tmp_path / "big" / "test.npz").unlink()
    x, y = (torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    for data in (
        StreamDataModule(tmp_path / "big"),
        IterableDataModule([(x, y)], (x, y)),
        IterableDataModule([(x, torch.eye(2)[torch.arange(200) % 2])], (x, torch.eye(2)[torch.arange(200) % 2])),
    ):
        machine = kl.GeneralKernelMachine("laplacian", 20, batch_size=50)
        trainer = quiet_trainer(1)
        trainer.fit(machine, datamodule=data)
        assert data.test_set is None
        assert machine.train_metrics["train/mse_running"] > 0
        assert not [tag for tag in trainer.callback_metrics if tag.startswith("val/")]


def test_a_size_of_no_test_set_is_refused():
    with pytest.raises(InputError, match="test_size is of a test set, and rings has none; got 5"):
        Rings(test_size=5).setup()


def test_training_arrays_are_not_optional():
    with pytest.raises(InputError, match="y_train must be an array; got None: only the test set is optional"):
        ArrayDataModule.from_arrays(np.zeros((3, 2)), None).setup()


@pytest.mark.parametrize("part", ["x", "y"])
def test_half_a_test_set_is_refused(part):
    x, y = two_moons()
    with pytest.raises(InputError, match=f"{'yx'['xy'.index(part)]}_test is missing beside {part}_test: give both"):
        RawData(x, y, **{f"{part}_test": x if part == "x" else y})
