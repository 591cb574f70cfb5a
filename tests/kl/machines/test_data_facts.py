"""What a data module need not say, and what is taken for it."""

import doctest

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset
from training import quiet_trainer

import kl
import kl.machines.data_facts
from callbacks import BestEpoch, ExactInterpolation, TensorBoardLayout
from callbacks.common import val_name
from datamodules import DigitsDataModule
from kl.machines.data_facts import DataFacts, facts_of
from kl.machines.described import describe_data


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Least(pl.LightningDataModule):
    """What a machine needs, and a test set as a plain torch dataset, evaluated by a loader."""

    def __init__(self):
        super().__init__()
        self.train_set, self.batch_size = kl.RowDataset(draw(30, 3), torch.eye(3)[torch.arange(30) % 3]), 1
        self.test_set = TensorDataset(draw(9, 3, seed=1), torch.eye(3)[torch.arange(9) % 3])

    def train_dataloader(self):
        rows = list(torch.arange(len(self.train_set)).split(self.batch_size))
        return DataLoader(self.train_set, batch_size=None, sampler=rows)

    def val_dataloader(self):
        return DataLoader(self.test_set, batch_size=4)

    test_dataloader = val_dataloader


def test_a_module_with_rows_and_loaders_alone(tmp_path):
    data, exact = Least(), ExactInterpolation(cache_dir=tmp_path)
    trainer = quiet_trainer(5, callbacks=[exact, BestEpoch(), TensorBoardLayout()])
    machine = kl.KernelMachine(kl.Laplacian(1.0))
    trainer.fit(machine, datamodule=data)
    trainer.test(machine, datamodule=data, verbose=False)
    assert set(machine.eval_metrics) == {"test/mse", "test/error"}
    assert exact.results["exact_train_error"] == 0
    assert exact.results["exact_test_error"] is None  # its rows are no kl.RowDataset
    assert machine.is_classifier
    assert val_name(trainer) == "test"
    facts = facts_of(trainer)
    assert facts == DataFacts(train_set=data.train_set, name="Least")
    assert facts.description(data.train_set.x, data.train_set.y) == describe_data(data)
    assert machine.data_info == {**describe_data(data), "temperature": machine.data_info["temperature"]}


def test_what_a_module_says_is_taken():
    data = DigitsDataModule(train_size=60, test_size=20, label_noise=0.1, noise_kind="flip", validation=0.2)
    data.setup()
    facts = DataFacts.of(data)
    assert facts.train_set is data.train_set
    assert facts.val_set is data.validation_set
    assert facts.test_set is data.test_set
    assert (facts.name, facts.task, facts.num_rows) == ("digits", "classification", 48)
    assert (facts.validation, facts.label_noise, facts.noise_kind) == (0.2, 0.1, "flip")
    assert facts.description(data.train_set.x, data.train_set.y)["image_shape"] == [1, 8, 8]
    assert not facts.streamed
    assert facts.as_trained is None
    augmented = DigitsDataModule(train_size=60, augment="shift:1")
    augmented.setup()
    some = torch.arange(5)
    assert torch.equal(DataFacts.of(augmented).as_trained(some, 3, None), augmented.as_trained(some, 3))


@pytest.mark.parametrize("nothing", [None, DigitsDataModule(), TensorDataset(draw(3, 2))])
def test_of_what_says_nothing_there_are_defaults(nothing):
    facts = DataFacts.of(nothing)
    assert facts.train_set is facts.val_set is facts.test_set is facts.num_rows is None
    assert facts.class_names == facts.image_shape == ()


def test_the_test_set_is_validated_on_where_a_module_tells_no_difference():
    data = Least()
    data.test_set = kl.RowDataset(draw(9, 3), draw(9, 3), draw(9, 3))
    assert DataFacts.of(data).val_set is data.test_set
    data.val_set = None
    assert DataFacts.of(data).val_set is None


def test_the_example_runs():
    failed, tried = doctest.testmod(kl.machines.data_facts)
    assert (failed, tried > 3) == (0, True)
