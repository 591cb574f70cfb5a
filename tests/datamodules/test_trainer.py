"""A data module under Lightning's Trainer: batches, prediction, checkpoints, and the order after a resume."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from training import quiet_trainer

from datamodules import DigitsDataModule


class Probe(pl.LightningModule):
    """Records what a Trainer hands it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.automatic_optimization = False
        self.epochs: dict[int, list[torch.Tensor]] = {}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch, batch_idx):
        x, _, index = batch
        assert x.shape == (len(index), 64)
        self.epochs.setdefault(self.current_epoch, []).append(index)
        self.optimizers().step()

    def validation_step(self, batch, batch_idx):
        assert batch[0].shape[1] == 64

    def predict_step(self, batch, batch_idx):
        return batch.sum(dim=1)


# Lightning 2.6 with torch 2.15: its own use of torch's pytree.
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
def test_under_a_trainer_a_resumed_run_has_the_same_order(tmp_path):
    def fit(epochs, ckpt_path=None):
        trainer = quiet_trainer(epochs, default_root_dir=tmp_path)
        probe = Probe()
        data = DigitsDataModule(train_size=50, test_size=20, batch_size=20)
        trainer.fit(probe, datamodule=data, ckpt_path=ckpt_path)
        return trainer, probe, data

    trainer, whole, data = fit(3)
    predicted = torch.cat(trainer.predict(whole, datamodule=data))
    assert torch.equal(predicted, data.test_set.x.sum(dim=1))
    orders = [torch.cat(whole.epochs[epoch]) for epoch in range(3)]
    assert not torch.equal(orders[0], orders[1])
    trainer, first, _ = fit(1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    _, rest, _ = fit(3, ckpt_path=tmp_path / "one.ckpt")
    assert set(rest.epochs) == {1, 2}
    for epoch in (1, 2):
        assert torch.equal(torch.cat(rest.epochs[epoch]), orders[epoch])
    loaded = DigitsDataModule.load_from_checkpoint(tmp_path / "one.ckpt", weights_only=True)
    assert loaded.train_size == 50
    assert first.epochs.keys() == {0}


def test_row_numbers_that_are_there_are_not_moved():
    data, cpu, numbers = DigitsDataModule(), torch.device("cpu"), (torch.arange(3),)
    assert data.transfer_batch_to_device(numbers, cpu, 0) is numbers
    elsewhere = data.transfer_batch_to_device(numbers, torch.device("meta"), 0)
    assert [each.device.type for each in elsewhere] == ["meta"]
    rows = data.transfer_batch_to_device([torch.ones(3, 2), torch.ones(3, 1), numbers[0]], cpu, 0)
    assert [tuple(each.shape) for each in rows] == [(3, 2), (3, 1), (3,)]
