"""A quiet Trainer and small data sets for the tests that train."""

import torch

import kl
from datamodules import ArrayDataModule
from kl import Laplacian
from kl.eigenpro.memory import training_memory
from recipes.run import quiet


def quiet_trainer(max_epochs=3, **options):
    """A user's Trainer, whose defaults are Lightning's, but for what it writes and shows."""
    usual = {"devices": "auto", "num_sanity_val_steps": None, "use_distributed_sampler": True}
    return quiet.quiet_trainer(max_epochs, **{"accelerator": "cpu", **usual, **options})


def fit(machine, data, max_epochs=3, ckpt_path=None, **options):
    trainer = quiet_trainer(max_epochs, **options)
    trainer.fit(machine, datamodule=data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return trainer


def edited(saved, tmp_path, edit):
    """A copy of a checkpoint, with what `edit` has changed in it."""
    checkpoint = torch.load(saved, weights_only=True)
    edit(checkpoint)
    torch.save(checkpoint, tmp_path / "edited.ckpt")
    return tmp_path / "edited.ckpt"


def regression(n=60, d=4, c=1, seed=0, test=20, scale=1.0, y=None, **options):
    """Normal rows; targets are a smooth function of them, or `y`."""
    generator, c = torch.Generator().manual_seed(seed), c if y is None else y.shape[1]
    x = torch.randn(n + test, d, generator=generator)
    targets = torch.sin(x @ torch.randn(d, c, generator=generator))
    y = targets[:n] if y is None else y
    return ArrayDataModule.from_arrays(scale * x[:n], y, scale * x[n:], targets[n:], **options)


def memory_for(n, d, c, s, kept_rows=0, columns=False, integers=0):
    """The budget in bytes with which a run keeps just so many rows of K(X, X), and K(X, X_S) or not."""
    plan = training_memory(n, d, c, s, budget=10**15, integers=integers)
    least = sum(size for name, size in plan.items.items() if "kept" not in name)
    return least + kept_rows * n * 4 + (n * s * 4 if columns else 0)


MACHINES = {
    "KernelMachine": lambda: kl.KernelMachine(Laplacian(2.0), batch_size=20),
    "GeneralKernelMachine": lambda: kl.GeneralKernelMachine(Laplacian(2.0), 10, batch_size=20),
    "ConjugateGradientMachine": lambda: kl.ConjugateGradientMachine(Laplacian(2.0)),
}
