"""The checks that every machine that trains must pass, whatever its solver."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from kl.exact.interpolate import interpolate
from kl.exact.least_squares import least_squares
from kl.machines.machine import TrainedExpansion
from kl.rkhs import rkhs_distance, rkhs_norm_per_class
from kl.rows.rows import one_hot

Data = tuple[Tensor, Tensor]  # x and y, shapes: (n, d), (n, c)


def check_machine(
    make: Callable[[], TrainedExpansion],
    x: Tensor | None = None,
    y: Tensor | None = None,
    *,
    epochs: int = 4,
    limit_epochs: int = 100,
    distance: float = 0.02,
) -> None:
    """Assert the contract of a machine: what users and callbacks rely on, whatever its solver.

    1. Fit: under a `Trainer` every `batch_rows` rows are one step of the optimizer, the weights stay finite, and the
       training error falls below that of f = 0.
    2. Predict: f(x) is sum_j alpha_j K(x, z_j) in float64, up to the rounding of float32 products.
    3. Norm: `rkhs_norm_per_class` is sqrt(alpha_k^T K(Z, Z) alpha_k), computed from its definition in float64.
    4. Resume: a run that is stopped half-way, and goes on in a new machine, ends with the same weights to the bit.
    5. Load: a machine that is loaded from the checkpoint predicts the same to the bit, without the training data.
    6. Limit: after `limit_epochs` the RKHS distance |f - f*| is at most `distance` |f*|, where f* is the exact limit:
       (K + ridge I)^-1 Y, or least squares over the span of the machine's own centres. If the machine learns its
       kernel, K is the last one.

    Args:
        make: makes an unfitted machine; called several times, it must give equal ones. Its kernel should be well
            conditioned on x, or the limit is far away.
        x: training features, shape (n, d), float32; 90 seeded rows in 3 clusters, d = 6, by default.
        y: targets, shape (n, c), float32; the clusters as one-hot rows by default.
        epochs: of checks 1 to 5, at least 2.
        limit_epochs: of check 6.
        distance: of check 6, a fraction of |f*|.

    Raises:
        AssertionError: naming the property that failed and by how much.

    Example:
        >>> import kl
        >>> check_machine(lambda: kl.KernelMachine(kl.Laplacian(bandwidth=1.0)))
    """
    if x is None or y is None:
        x, y = _clusters()
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        machine = make()
        saver = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        trainer = _fit(machine, (x, y), epochs, saver)
        first, last = (Path(folder, f"epoch={epoch}.ckpt") for epoch in (epochs // 2 - 1, epochs - 1))
        _check_fit(machine, trainer, y)
        _check_prediction(machine, x)
        _check_norm(machine)
        _check_resume(machine, make(), (x, y), epochs, first)
        _check_load(machine, x, last)
        _check_limit(make(), (x, y), limit_epochs, distance)


def _check_fit(machine: TrainedExpansion, trainer: pl.Trainer, y: Tensor) -> None:
    made, m = trainer.global_step, machine.batch_rows
    wanted = -(-len(y) // m) * trainer.current_epoch
    _require(made == wanted, machine, f"made {made} steps; the epochs have {wanted} of batch_rows={m} rows")
    _require(bool(machine.alpha.isfinite().all()), machine, "has weights that are not finite")
    error, zero = machine.train_metrics["train/mse"], float(y.double().square().mean())
    _require(error < zero, machine, f"has a training mse of {error:.3g}, and f = 0 has {zero:.3g}")


def _check_prediction(machine: TrainedExpansion, x: Tensor) -> None:
    centers, alpha = machine.centers.double(), machine.alpha.detach().double()
    kernel_values = machine.kernel(machine.placed(x).double(), centers)
    wanted, got = kernel_values @ alpha, machine(x).double()
    rounding = 1e-4 * float(kernel_values.abs().max()) * float(alpha.abs().sum(dim=0).max())
    off = float((got - wanted).abs().max())
    _require(
        off <= rounding, machine, f"predicts {off:.3g} beside sum_j alpha_j K(x, z_j); {rounding:.3g} may be rounding"
    )


def _check_norm(machine: TrainedExpansion) -> None:
    wanted = rkhs_norm_per_class(machine.kernel, machine.centers, machine.alpha.detach())
    got = machine.rkhs_norm_per_class.cpu()
    off = float((got - wanted).abs().max() / wanted.max())
    _require(off <= 1e-4, machine, f"has an RKHS norm that is {off:.3g} of it off sqrt(alpha^T K alpha)")


def _check_resume(whole: TrainedExpansion, rest: TrainedExpansion, data: Data, epochs: int, checkpoint: Path) -> None:
    _fit(rest, data, epochs, checkpoint=checkpoint)
    same = torch.equal(rest.alpha, whole.alpha)
    off = 0.0 if same else float((rest.alpha - whole.alpha).detach().abs().max())
    _require(same, whole, f"resumed after half of its epochs, ends with weights that are {off:.3g} off")
    _require(rest.train_metrics == whole.train_metrics, whole, "resumed, ends with other training metrics")


def _check_load(machine: TrainedExpansion, x: Tensor, checkpoint: Path) -> None:
    loaded = type(machine).load_from_checkpoint(checkpoint, kernel=machine.kernel).eval()
    _require(torch.equal(loaded(x), machine(x)), machine, "loaded from its checkpoint, predicts other scores")


def _check_limit(machine: TrainedExpansion, data: Data, epochs: int, most: float) -> None:
    _fit(machine, data, epochs)
    x, y = machine.placed(data[0]), data[1]
    if machine.own_centers:
        limit = least_squares(machine.kernel, machine.centers, x, y, machine.ridge)
    else:
        limit = interpolate(machine.kernel, x, y, ridge=machine.ridge)
    found = rkhs_distance(machine.kernel, machine.centers, machine.alpha.detach(), limit.centers, limit.alpha)
    distance = found / limit.rkhs_norm
    _require(
        distance <= most, machine, f"is {distance:.3g} |f*| from the exact limit after {epochs} epochs; at most {most}"
    )


def _fit(
    machine: TrainedExpansion,
    data: Data,
    epochs: int,
    saver: ModelCheckpoint | None = None,
    checkpoint: Path | None = None,
) -> pl.Trainer:
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[saver] if saver else None,
        enable_checkpointing=saver is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(machine, DataLoader(TensorDataset(*data)), ckpt_path=checkpoint)
    return trainer


def _clusters() -> Data:
    """90 rows around 3 points: a problem whose kernel matrix is well conditioned."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    x = torch.randn(3, 6, generator=generator)[labels] + torch.randn(90, 6, generator=generator)
    return x, one_hot(labels, 3)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out Lightning's advice, which does not concern whole-tensor batches."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
            warnings.filterwarnings("ignore", message=".*treespec, LeafSpec")
            yield
    finally:
        logger.setLevel(level)


def _require(holds: bool, machine: TrainedExpansion, failure: str) -> None:
    if not holds:
        raise AssertionError(f"{type(machine).__name__} {failure}")
