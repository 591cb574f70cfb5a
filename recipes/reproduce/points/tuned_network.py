"""A network that is tuned: learning rate and epochs are chosen on training rows that are held out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from kl.errors import InputError
from recipes.reproduce.points.sample import Sample
from recipes.reproduce.points.training import train
from recipes.reproduce.sweep.point import Context, Point, Result

if TYPE_CHECKING:
    import pytorch_lightning as pl

    import kl

SECONDS_PER_ROW = 4e-4  # of an epoch on images of 28x28 pixels, its training error included


@dataclass(frozen=True, kw_only=True)
class TunedNetwork(Point):
    """A ReLU network whose learning rate and number of epochs are chosen as one would in practice.

    The learning rate falls along a cosine to 0 at the last epoch. For each of `learning_rates` a network is trained for
    all epochs on the training rows without the share `held_out`, whose labels are as noisy as all others. The learning
    rate and the epoch with the least error on the held-out rows are chosen (`callbacks.BestEpoch`). With that learning
    rate a network is then trained on all rows, for all epochs; its error at the chosen epoch is what tuning gives. With
    a share `held_out` of 0 and a single learning rate nothing is chosen, and the last epoch counts.

    The result is that of `points.training.train` for the network on all rows, and

    - `tried`, one for each learning rate: learning_rate, held_out_errors (by epoch, against noisy labels if there is
      noise), best_epoch and best_error;
    - learning_rate and chosen_epoch; chosen_error, its test error against clean labels;
    - tuning_seconds, of the training steps of all networks but the last; weights, the number of weights; and threads.
    """

    kind: ClassVar[str] = "tuned-network"

    sample: Sample
    architecture: str = "cnn-bn"
    """See `kl.ReluNetwork`."""
    widths: tuple[int, ...]
    """Units of the hidden layers, or channels of the convolutions."""
    learning_rates: tuple[float, ...]
    epochs: int
    noise: float = 0.0
    """Fraction of the labels to replace."""
    augment: str | None = None
    """See `datamodules.augment`."""
    held_out: float = 0.1
    batch_size: int = 128
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        if not self.held_out and len(self.learning_rates) != 1:
            raise InputError(
                f"without held-out rows nothing can be chosen among learning_rates {self.learning_rates}: give one of "
                "them, or held_out above 0"
            )

    def run(self, context: Context) -> Result:
        """Choose on held-out rows, train on all rows, and test after each epoch."""
        import torch

        tried = [self._try(context, rate) for rate in self.learning_rates] if self.held_out else []
        rate, epoch = self.learning_rates[0], self.epochs
        if tried:
            best = min(tried, key=lambda each: each["merit"])
            rate, epoch = best["learning_rate"], best["best_epoch"]
        last = self._train(context, rate, 0.0)
        return {
            **last,
            "tried": [{name: each[name] for name in each if name not in ("merit", "seconds")} for each in tried],
            "learning_rate": rate,
            "chosen_epoch": epoch,
            "chosen_error": last["curves"]["val/error"][epoch - 1],
            "tuning_seconds": sum(each["seconds"] for each in tried),
            "threads": torch.get_num_threads(),
        }

    def _try(self, context: Context, learning_rate: float) -> Result:
        """Train without the held-out rows, and find the best epoch on them."""
        import callbacks

        chooser = callbacks.BestEpoch()
        result = self._train(context, learning_rate, self.held_out, chooser)
        best = chooser.best
        assert best is not None  # every epoch is validated
        noisy = "_noisy" if "val/error_noisy" in best else ""
        merit = [best[f"val/error{noisy}"], best[f"val/mse{noisy}"]]
        return {
            "learning_rate": learning_rate,
            "held_out_errors": result["curves"][f"val/error{noisy}"],
            "best_epoch": best["epoch"],
            "best_error": merit[0],
            "merit": [value if math.isfinite(value) else math.inf for value in merit],
            "seconds": sum(result["seconds_per_epoch"]),
        }

    def _train(self, context: Context, learning_rate: float, held_out: float, *observers: pl.Callback) -> Result:
        """Train a network on the rows that are not held out, with val/* after each epoch."""
        data = self.sample.datamodule(context, self.noise, self.augment, held_out)
        data.batch_size = self.batch_size
        network = self._network(learning_rate, measures_training=not held_out)
        result = train(context, network, data, self.epochs, 1, observers)
        return {**result, "weights": sum(each.numel() for each in network.parameters())}

    def _network(self, learning_rate: float, measures_training: bool) -> kl.ReluNetwork:
        import kl

        return kl.ReluNetwork(
            self.architecture,
            widths=self.widths,
            learning_rate=learning_rate,
            schedule="cosine",
            weight_decay=self.weight_decay,
            measures_training=measures_training,
            seed=self.sample.seed,
        )

    def describe(self) -> str:
        """The draw, the network, the noise, and what is tried."""
        noise = f", label noise {self.noise:.0%}" if self.noise else ""
        augment = f", {self.augment}" if self.augment else ""
        rates = ", ".join(f"{rate:g}" for rate in self.learning_rates)
        widths = "-".join(map(str, self.widths))
        tuned = "tuned " if self.held_out else ""
        return (
            f"{tuned}{self.architecture} {widths}, {self.sample}{noise}{augment}, {self.epochs} epochs at learning "
            f"rate {rates}"
        )

    @property
    def seconds(self) -> float:
        """The epochs of all networks, whose seconds are proportional to the rows."""
        networks = len(self.learning_rates) + 1 if self.held_out else 1
        return networks * (0.5 + self.epochs * (0.01 + SECONDS_PER_ROW * self.sample.rows))
