"""What every data module promises: shapes, whole-tensor batches, order, sizes, hyper-parameters."""

import io

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from datamodules import (
    ArrayDataModule,
    DigitsDataModule,
    FashionMNISTDataModule,
    KernelDataModule,
    MNISTDataModule,
    RawData,
    SyntheticDataModule,
)
from datamodules.digits import stratified_split
from datamodules.sampling import draw_subset
from kl.errors import InputError
from kl.rows.batches import BatchIndexSampler, derive_seed
from kl.rows.rows import RowDataset


def arrays(**options):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (30, 4, 5), dtype=np.uint8), np.arange(30) % 3
    return ArrayDataModule.from_arrays(x, y, x[:9], y[:9], **options)


def regression(**options):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 6))
    return ArrayDataModule.from_arrays(x, x @ rng.standard_normal((6, 2)), x[:9], np.ones((9, 2)), **options)


MODULES = {
    "digits": (DigitsDataModule, (1437, 360, 64, 10)),
    "synthetic1": (lambda **options: SyntheticDataModule(1, **options), (2000, 2000, 50, 2)),
    "synthetic2": (lambda **options: SyntheticDataModule(2, **options), (2000, 2000, 50, 2)),
    "arrays": (arrays, (30, 9, 20, 3)),
    "regression": (regression, (30, 9, 6, 2)),
}


@pytest.mark.parametrize("name", MODULES)
class TestEveryModule:
    def test_sets_and_attributes(self, name):
        make, (n, n_test, d, c) = MODULES[name]
        data = make()
        data.prepare_data()
        data.setup("fit")
        assert (len(data.train_set), len(data.test_set), data.num_features, data.num_outputs) == (
            n,
            n_test,
            d,
            c,
        )
        for part in (data.train_set, data.test_set):
            assert isinstance(part, RowDataset)
            assert part.x.dtype == part.y.dtype == torch.float32
            assert part.x.shape[1:] == (d,)
            assert part.y.shape == (len(part), c)
        assert data.noise_mask.shape == (n,)
        assert data.test_set.y_noisy is None
        if name == "regression":
            assert (data.task, data.class_names, data.clean_labels) == ("regression", [], None)
        else:
            assert data.task == "classification"
            assert len(data.class_names) == c
            assert data.clean_labels.dtype == torch.long
            assert torch.equal(data.train_set.y, nn.functional.one_hot(data.clean_labels, c).float())
        if name not in ("synthetic1", "synthetic2", "regression"):
            assert data.train_set.x.min() >= 0
            assert data.train_set.x.max() <= 1
        assert data.name == data.source == ("arrays" if name == "regression" else name)

    def test_setup_runs_once(self, name):
        data = MODULES[name][0]()
        data.setup("fit")
        first = data.train_set
        data.setup("validate")
        data.setup()
        assert data.train_set is first

    def test_batches_are_whole_tensors_that_cover_every_row_once(self, name):
        data = MODULES[name][0](batch_size=7, train_size=25)
        data.setup()
        batches = list(data.train_dataloader())
        assert len(batches) == len(data.train_dataloader()) == 4
        assert [len(index) for _, _, index in batches] == [7, 7, 7, 4]
        for x, y, index in batches:
            assert torch.equal(x, data.train_set.x[index])
            assert torch.equal(y, data.train_set.y[index])
        order = torch.cat([index for _, _, index in batches])
        assert torch.equal(order.sort().values, torch.arange(25))
        assert not torch.equal(order, torch.arange(25))
        for loader in (data.val_dataloader(), data.test_dataloader()):
            x, y, index = (torch.cat(parts) for parts in zip(*loader, strict=True))
            assert torch.equal(index, torch.arange(len(data.test_set)))
            assert torch.equal(x, data.test_set.x)
            assert torch.equal(y, data.test_set.y)
        assert torch.equal(torch.cat(list(data.predict_dataloader())), data.test_set.x)

    def test_hyperparameters_load_with_weights_only(self, name):
        data = MODULES[name][0](seed=3, train_size=np.int64(20))
        file = io.BytesIO()
        torch.save(dict(data.hparams), file)
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        assert loaded["seed"] == 3
        assert loaded["train_size"] == 20


def test_digits_are_the_same_1437_and_360_for_every_seed():
    first, second = DigitsDataModule(), DigitsDataModule(seed=7)
    first.setup()
    second.setup()
    assert torch.equal(first.train_set.x, second.train_set.x)
    assert first.image_shape == (1, 8, 8)
    assert torch.equal(first.train_set.x * 16, (first.train_set.x * 16).round())
    shares = first.test_set.y.sum(0)
    assert shares.min() >= 34  # stratified
    assert shares.max() <= 38


def test_digits_are_those_of_scikit_learn():
    pixels, labels = load_digits(return_X_y=True)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    raw = DigitsDataModule().load()
    for x, y, rows in ((raw.x_train, raw.y_train, train), (raw.x_test, raw.y_test, test)):
        assert np.array_equal(x.numpy() * 16, pixels[rows])
        assert np.array_equal(y, labels[rows])


@pytest.mark.parametrize(("n", "n_train"), [(60, 37), (61, 40), (200, 150), (203, 101)])
def test_stratified_splits_are_those_of_scikit_learn(n, n_train):
    labels = np.arange(n) % 7 % 4  # classes of two sizes, whose remainders tie
    expected = train_test_split(np.arange(n), train_size=n_train, stratify=labels, random_state=0)
    assert all(map(np.array_equal, stratified_split(labels, n_train), expected))


def test_the_batch_size_is_read_when_the_loader_is_built():
    data = DigitsDataModule(batch_size=None)
    data.setup()
    assert len(next(iter(data.train_dataloader()))[0]) == 256
    data.batch_size = 1000
    assert [len(x) for x, _, _ in data.train_dataloader()] == [1000, 437]


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = BatchIndexSampler(100, 30, seed)
        sampler.set_epoch(epoch)
        return torch.cat(list(sampler))

    torch.manual_seed(0)
    first = order(0, 2)
    torch.manual_seed(1)
    assert torch.equal(first, order(0, 2))
    assert not torch.equal(first, order(0, 3))
    assert not torch.equal(order(0, 1), order(1, 0))
    sampler = BatchIndexSampler(100, 30, 0)
    sampler.set_epoch(1)
    assert not torch.equal(torch.cat(list(sampler)), first)
    sampler.set_epoch(2)  # as after a resume: what was drawn before does not matter
    assert torch.equal(torch.cat(list(sampler)), first)
    assert len(sampler) == 4


def test_derived_seeds_differ():
    seeds = {derive_seed(s, p, e) for s in range(5) for p in ("a", "b") for e in range(5)}
    assert len(seeds) == 50


def test_subsets_are_drawn_without_replacement_nested_and_in_order():
    small, large = draw_subset(50, 10, 3), draw_subset(50, 20, 3)
    assert torch.equal(small, small.unique())
    assert set(small.tolist()) < set(large.tolist())
    assert not torch.equal(small, draw_subset(50, 10, 4))
    assert draw_subset(50, None, 3) is None
    assert draw_subset(50, 50, 3) is None


def test_a_subset_keeps_all_classes_of_the_set():
    data = DigitsDataModule(train_size=5, test_size=3)
    data.setup()
    assert data.train_set.y.shape == (5, 10)
    assert data.test_set.y.shape == (3, 10)


@pytest.mark.parametrize("argument", ["train_size", "test_size", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "10", True])
def test_sizes_must_be_positive_whole_numbers(argument, value):
    with pytest.raises(InputError, match=f"{argument} must be a whole number of at least 1.*got {value!r}"):
        DigitsDataModule(**{argument: value})


@pytest.mark.parametrize(("argument", "most"), [("train_size", 1437), ("test_size", 360)])
def test_sizes_must_not_exceed_the_set(argument, most):
    data = DigitsDataModule(**{argument: most + 1})
    with pytest.raises(InputError, match=f"{argument} must be from 1 to {most}.*digits.*got {most + 1}: give"):
        data.setup()
    DigitsDataModule(**{argument: most}).setup()


@pytest.mark.parametrize("argument", ["seed", "noise_seed"])
@pytest.mark.parametrize("value", [-1, 1.5, None])
def test_seeds_must_be_whole_numbers(argument, value):
    with pytest.raises(InputError, match=f"{argument} must be a whole number from 0"):
        DigitsDataModule(**{argument: value})


def test_a_single_class_is_refused():
    with pytest.raises(InputError, match=r"at least two classes; all 1 rows are of class '\d': raise train_size"):
        DigitsDataModule(train_size=1).setup()
    x = np.zeros((4, 2))
    with pytest.raises(InputError, match="all 4 rows are of class '3': give samples of at least two classes"):
        ArrayDataModule.from_arrays(x, [3, 3, 3, 3], x, [3, 3, 3, 4]).setup()


def test_synthetic_sets_are_the_papers():
    for kind, distance, error in ((1, 10.0, 2.87e-7), (2, 2.0, 0.1587)):
        data = SyntheticDataModule(kind, train_size=20000)
        data.setup()
        x, labels = data.train_set.x, data.clean_labels
        assert data.bayes_error == pytest.approx(error, rel=1e-2)
        assert labels.float().mean() == pytest.approx(0.5, abs=0.02)
        for label, mean in ((1, 0.0), (0, distance)):
            first = x[labels == label, 0]
            assert first.mean() == pytest.approx(mean, abs=0.05)
            assert first.std() == pytest.approx(1, abs=0.03)
        rest = x[:, 1:]
        assert rest.abs().max() <= 1
        assert rest.mean() == pytest.approx(0, abs=0.01)
        assert rest.var() == pytest.approx(1 / 3, abs=0.01)


def test_synthetic_sets_are_nested_and_train_differs_from_test():
    small, large = SyntheticDataModule(1, train_size=10), SyntheticDataModule(1, train_size=30)
    small.setup()
    large.setup()
    assert torch.equal(small.train_set.x, large.train_set.x[:10])
    assert torch.equal(small.clean_labels, large.clean_labels[:10])
    assert not torch.equal(large.train_set.x, large.test_set.x[:30])


@pytest.mark.parametrize("kind", [0, 3, "1", True])
def test_an_unknown_synthetic_kind_is_refused(kind):
    with pytest.raises(InputError, match="kind must be 1 or 2"):
        SyntheticDataModule(kind)


def test_a_module_without_load_says_so():
    with pytest.raises(InputError, match="KernelDataModule must define load"):
        KernelDataModule().setup()


def test_raw_data_must_agree():
    x, y = torch.zeros(3, 2), torch.zeros(3)
    with pytest.raises(InputError, match="x_train and y_train must have one row per sample; got 3 rows and 2"):
        RawData(x, y[:2], x, y)
    with pytest.raises(InputError, match="x_train and x_test must have equally many features; got 2 and 1"):
        RawData(x, y, x[:, :1], y)
    with pytest.raises(InputError, match="x_test must have at least one row"):
        RawData(x, y, x[:0], y[:0])


@pytest.mark.parametrize(("make", "pixel_mean"), [(MNISTDataModule, 0.1307), (FashionMNISTDataModule, 0.2860)])
def test_real_mnist_sets(make, pixel_mean, data_dir):
    data = make(data_dir=data_dir, train_size=2000, download=False)
    data.prepare_data()
    data.setup()
    assert data.train_set.x.shape == (2000, 784)
    assert len(data.test_set) == 10000
    assert data.train_set.x.mean() == pytest.approx(pixel_mean, abs=0.01)
    codes = data.train_set.x * 255
    assert torch.equal(codes.round() / 255, data.train_set.x)
    assert data.image_shape == (1, 28, 28)
    assert len(data.class_names) == 10
