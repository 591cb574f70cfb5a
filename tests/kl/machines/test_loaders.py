"""Training on a plain DataLoader of (x, y): the same as on the arrays of its dataset; and what is refused."""

import re

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)
from training import fit, quiet_trainer

from datamodules import ArrayDataModule
from kl import ConjugateGradientMachine, GeneralKernelMachine, InputError, KernelMachine, MemoryBudgetError, RowDataset

MACHINES = {
    "eigenpro2": lambda **options: KernelMachine("laplacian", batch_size=20, **options),
    "eigenpro4": lambda **options: GeneralKernelMachine("laplacian", centers=30, batch_size=20, **options),
    "pcg": lambda **options: ConjugateGradientMachine("laplacian", **options),
}
N = 130

# Lightning's advice, where there is nothing to validate on.
pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


@pytest.fixture(params=MACHINES)
def make(request):
    return MACHINES[request.param]


def rows(n=N, seed=0, dtype=torch.float32):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def labels(n=N, seed=1):
    return torch.randint(0, 3, (n,), generator=torch.Generator().manual_seed(seed))


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def loader(x, y, **options):
    return DataLoader(TensorDataset(x, y), **{"batch_size": 7, "shuffle": True, **options})


def fit_loader(machine, train, epochs=3, **options):
    trainer = quiet_trainer(epochs)
    trainer.fit(machine, train, **options)
    return trainer


def assert_equal_runs(machine, other):
    assert torch.equal(machine.alpha, other.alpha)
    assert torch.equal(machine.centers, other.centers)
    assert (machine.train_metrics, machine.rkhs_norm) == (other.train_metrics, other.rkhs_norm)
    assert {**machine.data_info, "name": ""} == {**other.data_info, "name": ""}


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (rows(), labels()),
        (rows(), numbers(N)),
        (rows(), numbers(N, 2)),
        (rows(dtype=torch.float64), numbers(N, 2).double()),
        ((255 * torch.rand(N, 30, generator=torch.Generator().manual_seed(0))).round(), labels()),
    ],
    ids=["labels", "numbers", "columns", "float64", "pixels"],
)
def test_the_run_is_that_on_the_arrays(make, x, y, seed):
    machine, other = make(seed=seed), make(seed=seed)
    fit_loader(machine, loader(x, y, drop_last=True))
    fit(other, ArrayDataModule.from_arrays(x, y, seed=seed))
    assert_equal_runs(machine, other)


def test_the_order_of_the_batches_is_another_in_every_epoch():
    seen = []
    machine = MACHINES["eigenpro2"]()
    machine.on_train_batch_start = lambda batch, index: seen.append(batch[-1])
    fit_loader(machine, loader(rows(), labels()), 2)
    epochs = torch.cat(seen).split(N)
    assert [len(batch) for batch in seen] == 2 * [20, 20, 20, 20, 20, 20, 10]
    assert all(torch.equal(epoch.sort().values, torch.arange(N)) for epoch in epochs)
    assert not torch.equal(*epochs)


@pytest.mark.parametrize("source", ["loader", "datamodule"])
@pytest.mark.parametrize("name", MACHINES)
def test_machines_that_hold_the_rows_get_batches_of_row_numbers(name, source):
    """EigenPro 2 and conjugate gradients read no features of a batch, so nothing copies them."""
    machine, seen = MACHINES[name](), []
    machine.on_train_batch_start = lambda batch, index: seen.append(batch)
    x, y = rows(), labels()
    if source == "loader":
        fit_loader(machine, loader(x, y), 1)
    else:
        fit(machine, ArrayDataModule.from_arrays(x, y), 1)
    assert all(len(batch) == (3 if machine.steps_read_rows else 1) for batch in seen)
    assert torch.equal(torch.cat([batch[-1] for batch in seen]).sort().values, torch.arange(N))
    for batch in seen:
        if machine.steps_read_rows:
            assert torch.equal(batch[0], x[batch[-1]])


def test_batches_without_row_numbers_are_refused():
    """Labels in their place would be taken for row numbers."""

    class Pairs(ArrayDataModule):
        def train_dataloader(self):
            return DataLoader(TensorDataset(rows(), labels()), batch_size=20)

    with pytest.raises(InputError, match=r"must be \(x, y, index\) or \(index,\).*got a batch of 2"):
        fit(MACHINES["eigenpro2"](), Pairs.from_arrays(rows(), labels()), 1)


def test_outside_of_training_batches_hold_the_rows():
    data = ArrayDataModule.from_arrays(rows(), labels())
    fit(MACHINES["eigenpro2"](), data, 1)
    x, _, index = next(iter(data.train_dataloader()))
    assert torch.equal(x, rows()[index])


class Squares(Dataset):
    """What a user may write: NumPy rows and Python numbers."""

    def __init__(self, x, y):
        self.x, self.y = x.numpy(), y.tolist()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


@pytest.mark.parametrize("y", [labels(), numbers(N)], ids=["labels", "numbers"])
def test_any_dataset_of_pairs(y):
    machine, part, other = (MACHINES["eigenpro2"]() for _ in range(3))
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3)).tolist()
    fit_loader(machine, DataLoader(Subset(Squares(rows(), y), order), batch_size=8, num_workers=0))
    fit_loader(part, DataLoader(Subset(TensorDataset(rows(), y), order)))
    fit(other, ArrayDataModule.from_arrays(rows()[order], y[order]))
    assert_equal_runs(machine, other)
    assert_equal_runs(part, other)


def test_the_line_that_says_so(caplog):
    fit_loader(MACHINES["eigenpro2"](), loader(rows(), labels()), 1)
    assert caplog.text.count("130 rows taken once, in the dataset's order; a step takes batches of the machine's") == 1
    assert "the loader's batch size and shuffling are not used" in caplog.text


# Evaluation on loaders


@pytest.mark.parametrize("y", [labels(250), numbers(250), numbers(250, 2)], ids=["labels", "numbers", "columns"])
def test_validation_and_test_by_loaders_are_those_on_the_arrays(make, y):
    x, machine, other = rows(250), make(), make()
    test = DataLoader(TensorDataset(x[N:], y[N:]), batch_size=50)
    trainer = fit_loader(machine, loader(x[:N], y[:N]), val_dataloaders=test)
    other_trainer = fit(other, ArrayDataModule.from_arrays(x[:N], y[:N], x[N:], y[N:]))
    assert_equal_runs(machine, other)
    names = {"val/mse", "val/error"} if not y.is_floating_point() else {"val/mse"}
    assert set(machine.eval_metrics) == names
    assert machine.eval_metrics == pytest.approx(other.eval_metrics, rel=1e-5)
    (got,) = trainer.test(machine, test, verbose=False)
    (wanted,) = other_trainer.test(other, datamodule=other_trainer.datamodule, verbose=False)
    assert got == pytest.approx(wanted, rel=1e-5)


def test_a_label_that_training_did_not_have():
    machine = MACHINES["eigenpro2"]()
    trainer = fit_loader(machine, loader(rows(), labels()), 1)
    with pytest.raises(InputError, match="labels of a loader must be among the 3 classes of the training set; got 3"):
        trainer.test(machine, DataLoader(TensorDataset(rows(5), torch.arange(5))), verbose=False)
    with pytest.raises(InputError, match=r"must have the shape of the outputs, \(5, 3\).* got \(5,\)"):
        trainer.test(machine, DataLoader(TensorDataset(rows(5), numbers(5)), batch_size=5), verbose=False)


def test_labels_are_matched_by_name():
    machine = MACHINES["eigenpro2"]()
    trainer = fit(machine, ArrayDataModule.from_arrays(rows(), 10 * labels() + 5), 20)
    (got,) = trainer.test(machine, DataLoader(TensorDataset(rows(), 10 * labels() + 5), batch_size=40), verbose=False)
    assert got["test/error"] == machine.train_metrics["train/error"] == 0


def test_one_hot_rows_are_classes():
    machine = MACHINES["eigenpro2"]()
    fit_loader(machine, loader(rows(), torch.eye(3)[labels()]), 1)
    assert machine.is_classifier
    assert set(machine.train_metrics) == {"train/mse", "train/error"}


# Several fits


def test_a_loader_after_a_datamodule(make):
    machine, other = make(), make()
    trainer = quiet_trainer(2)
    trainer.fit(make(), datamodule=ArrayDataModule.from_arrays(rows(90, 7), labels(90, 7)))
    trainer.fit_loop.epoch_progress.reset()
    trainer.fit(machine, loader(rows(), labels()))
    fit(other, ArrayDataModule.from_arrays(rows(), labels()), 2)
    assert_equal_runs(machine, other)


def test_a_run_on_a_loader_goes_on_from_its_checkpoint(make, tmp_path):
    machine, other = make(), make()
    fit_loader(make(), loader(rows(), labels()), 2).save_checkpoint(tmp_path / "two.ckpt")
    fit(make(), ArrayDataModule.from_arrays(rows(), labels()), 2).save_checkpoint(tmp_path / "arrays.ckpt")
    fit_loader(machine, loader(rows(), labels()), 4, ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    fit(other, ArrayDataModule.from_arrays(rows(), labels()), 4, tmp_path / "arrays.ckpt")
    assert_equal_runs(machine, other)
    with pytest.raises(InputError, match="belongs to other training data"):
        fit_loader(make(), loader(rows(seed=9), labels()), 4, ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    loaded = type(machine).load_from_checkpoint(tmp_path / "two.ckpt", weights_only=True)
    assert loaded.data_info["class_names"] == ["0", "1", "2"]


# What is refused


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.ones(4), 0)])


X, Y = rows(), labels()
FAR = rows(dtype=torch.float64) + torch.tensor([0.0, 1e6, 0.0, 0.0])
UNLIKE = [(torch.ones(4), 0), (torch.ones(5), 1)]
ORDER = "must give the rows of its dataset, in batches or shuffled; got one with "
PAIRS = "must have a dataset of pairs (x, y); its row 0 is a "
WHOLE = "must be rows of float32 or float64, shape (d,); row 0 is "
CLASSES = "must be class indices 0..c-1, of two classes at least, and each of them there; got "
REFUSED = {
    "list": ([loader(X, Y)], "must be one DataLoader of pairs (x, y); got a list: use ArrayDataModule.from_arrays"),
    "stream": (DataLoader(Stream()), "must have a dataset of known length, whose rows can be taken once; got a Stream"),
    "empty": (DataLoader([], sampler=SequentialSampler([])), "must have at least one row; its dataset is empty"),
    "collate": (loader(X, Y, collate_fn=lambda batch: batch), ORDER + "a collate_fn or batches of its own"),
    "no batches": (loader(X, Y, batch_size=None, shuffle=False), ORDER + "a collate_fn or batches of its own"),
    "subset": (loader(X, Y, shuffle=False, sampler=SubsetRandomSampler([1, 2])), ORDER + "a SubsetRandomSampler"),
    "again": (loader(X, Y, shuffle=False, sampler=RandomSampler(X, replacement=True)), ORDER + "a sampler of other"),
    "few": (loader(X, Y, shuffle=False, sampler=RandomSampler(X, num_samples=9)), ORDER + "a sampler of other rows"),
    "x alone": (DataLoader(X), PAIRS + "Tensor: give DataLoader(TensorDataset(x, y))"),
    "three": (DataLoader(TensorDataset(X, Y, Y)), PAIRS + "tuple of 3"),
    "dict": (DataLoader([{"x": 1}]), PAIRS + "dict"),
    "rows": (DataLoader(RowDataset(X, Y[:, None].float())), PAIRS + "tuple of 3"),
    "text": (DataLoader([("a", 1)]), "rows of train_dataloaders must be tensors or numbers; row 0 holds str and int"),
    "images": (loader(torch.ones(9, 1, 8, 8), Y[:9]), WHOLE + "float32 of shape (1, 8, 8): give x.flatten(1).float()"),
    "bytes": (loader(X.byte(), Y), WHOLE + "uint8 of shape (4,)"),
    "half": (loader(X.half(), Y), WHOLE + "float16 of shape (4,)"),
    "int32": (loader(X, Y.int()), "must be class indices (int64, one a row) or floats, one or a row (c,); row 0 has"),
    "columns": (loader(X, Y[:, None]), "one or a row (c,); row 0 has int64 of shape (1,)"),
    "square": (loader(X, numbers(N, 2, 2)), "one or a row (c,); row 0 has float32 of shape (2, 2)"),
    "unlike": (DataLoader(UNLIKE), "row 0 is float32 of shape (4,), row 1 float32 of shape (5,)"),
    "gap": (loader(X, 2 * Y), CLASSES + "0, 2, 4: give one-hot rows"),
    "negative": (loader(X, Y - 1), CLASSES + "-1, 0, 1"),
    "one class": (loader(X, 0 * Y), CLASSES + "0: give"),
    "many": (loader(X, torch.arange(N) + 1), CLASSES + "1, 2, 3, 4, 5, ...: give"),
    "far": (loader(FAR, Y), "lies so far from 0 in column 1 that float32 loses its digits: subtract a common value"),
    "nan": (loader(X / 0 * 0, Y), "x of train_dataloaders must be finite; row 0 holds NaN"),
    "nan y": (loader(X, numbers(N) / 0), "y of train_dataloaders as float32 must be finite; row 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    given, message = REFUSED[name]
    machine = KernelMachine("laplacian")
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        fit_loader(machine, given, 1)
    assert "\n" not in str(raised.value)
    assert not machine.is_fitted


class Wide(Dataset):
    """A million rows that nobody should make."""

    made = 0

    def __len__(self):
        return 10**6

    def __getitem__(self, i):
        self.made += 1
        return np.zeros(100, dtype=np.float32), 0


def test_rows_beyond_the_budget_are_refused_unread():
    wide = Wide()
    with pytest.raises(MemoryBudgetError, match="the 1000000 rows of train_dataloaders take 408 MB, more than the bud"):
        fit_loader(KernelMachine("laplacian", memory="400MB"), DataLoader(wide), 1)
    assert wide.made == 1


def test_targets_far_from_0_are_a_warning(caplog):
    fit_loader(KernelMachine("laplacian"), loader(X, numbers(N).double() + 1e9), 1)
    assert "y of train_dataloaders lies so far from 0 that float32 loses digits of it" in caplog.text
