"""A recursive feature machine that several ranks train together: what one rank finds, and its checkpoints."""

import pytest
import torch
from processes import on_ranks, shared
from training import quiet_trainer

import kl
from datamodules import ArrayDataModule

pytestmark = pytest.mark.numeric

EIGENPRO = {"round_solver": "eigenpro", "by": "holdout", "round_epochs": 20, "memory": "1GB"}
FORMS = (
    {"by": "kfold", "centered": True},
    {"round_solver": "pcg", "metric": "diagonal", "sample": 7},
    EIGENPRO,
)


def columns(dtype=torch.float64):
    """Two outputs of the first of four columns."""
    x = torch.randn(90, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = torch.cat([torch.sin(2 * x[:, :1]), torch.cos(x[:, :1])], dim=1)
    return ArrayDataModule.from_arrays(x[:70], y[:70], x[70:], y[70:])


def machine(form, rounds=2):
    return kl.RecursiveFeatureMachine(kl.Laplacian(1.0), rounds=rounds, ridge=1e-3, **form)


def trained(folder):
    """Of each form the metric, the weights, predictions, norm and scores, and those of a resumed run."""
    found = []
    for number, form in enumerate(FORMS):
        whole, first, rest = machine(form), machine(form), machine(form)
        quiet_trainer(4, **shared()).fit(whole, datamodule=columns())
        part = quiet_trainer(2, **shared())
        part.fit(first, datamodule=columns())
        part.save_checkpoint(f"{folder}/{number}.ckpt")
        quiet_trainer(4, **shared()).fit(rest, datamodule=columns(), ckpt_path=f"{folder}/{number}.ckpt")
        for each in (whole, rest):
            tensors = each.importances, each.alpha.detach(), each(each.centers.new_ones(3, 4)).detach()
            found.append((*tensors, torch.tensor([each.rkhs_norm, *each.scores, *each.train_metrics.values()])))
    return found


def test_ranks_find_what_one_finds(tmp_path):
    for folder in ("alone", "shared"):
        (tmp_path / folder).mkdir()
    alone = trained(tmp_path / "alone")
    for found in on_ranks(2, trained, tmp_path / "shared"):
        for ours, one in zip(found, alone, strict=True):
            for got, wanted in zip(ours, one, strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    loaded = kl.RecursiveFeatureMachine.load_from_checkpoint(tmp_path / "shared/2.ckpt", weights_only=True)
    assert loaded.alpha.shape == (70, 2)
