"""A ReLU network trained by SGD with momentum, with the metrics of every epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from recipes.reproduce.points.sample import Sample
from recipes.reproduce.points.training import train
from recipes.reproduce.sweep.point import Context, Point, Result

SECONDS_PER_ROW = {"mlp": 8e-5, "cnn": 3e-4}  # of an epoch on images of 28x28 pixels, its training error included


@dataclass(frozen=True, kw_only=True)
class Network(Point):
    """Training for a number of epochs, or until no training row is misclassified.

    The result is that of `points.training.train`, with train/loss among its curves, fitted_epoch as in `Fit`, and
    `weights`, the number of weights; mse is of class probabilities.
    """

    kind: ClassVar[str] = "network"

    sample: Sample
    architecture: str = "mlp"
    """See `kl.ReluNetwork`."""
    widths: tuple[int, ...]
    """Units of the hidden layers, or channels of the convolutions."""
    noise: float = 0.0
    """Fraction of the labels to replace; 1 replaces all of them."""
    epochs: int = 20
    """The most epochs."""
    until_interpolated: bool = False
    """Stop at zero training classification error."""
    test_every: int = 1
    """Epochs from one evaluation on the test set to the next; 0: only after the last."""
    batch_size: int = 256
    learning_rate: float = 0.05

    def run(self, context: Context) -> Result:
        """Train, and evaluate."""
        import callbacks
        import kl

        data = self.sample.datamodule(context, self.noise)
        data.batch_size = self.batch_size
        network = kl.ReluNetwork(
            self.architecture, widths=self.widths, learning_rate=self.learning_rate, seed=self.sample.seed
        )
        stop = callbacks.StopWhenInterpolated()
        return {
            **train(context, network, data, self.epochs, self.test_every, [stop] * self.until_interpolated),
            "fitted_epoch": stop.stopped_epoch,
            "weights": sum(each.numel() for each in network.parameters()),
        }

    def describe(self) -> str:
        """The draw, the network, the noise."""
        until = " until interpolated" if self.until_interpolated else ""
        noise = f", label noise {self.noise:.0%}" if self.noise else ""
        widths = "-".join(map(str, self.widths))
        return f"{self.architecture} {widths}, {self.sample}{noise}, {self.epochs} epochs{until}"

    @property
    def seconds(self) -> float:
        """The epochs, whose seconds are proportional to the rows."""
        epochs = self.epochs / 4 if self.until_interpolated else self.epochs
        return 0.5 + epochs * (0.01 + SECONDS_PER_ROW[self.architecture] * self.sample.rows)
