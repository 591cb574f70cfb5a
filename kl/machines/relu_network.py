"""ReLU networks, trained as usual, for comparison with kernel machines on the same data, metrics and callbacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kl.checks import check_count, check_not_negative, check_one_of, check_positive
from kl.errors import CheckpointError, InputError
from kl.machines.checkpoints import errors_name, faults_in, require_epoch_end, require_tensors, require_values
from kl.machines.data_facts import facts_of
from kl.machines.described import require_description
from kl.machines.evaluated import EvaluatedModule
from kl.machines.relu_layers import ARCHITECTURES, initialise
from kl.metrics import error, mse
from kl.rows.dense import require_dense

CHUNK = 256  # rows of a forward pass in evaluation: more leave a CPU's cache, and take twice as long
SCHEDULES = ("constant", "cosine")


class ReluNetwork(EvaluatedModule):
    """A network of ReLUs for classification, trained by SGD with momentum on the cross-entropy of its softmax.

    Practice trains networks on the cross-entropy, and kernel machines on the squared loss. For comparison, mse is the
    mean squared error of the class probabilities softmax(f(x)) against the one-hot targets, in training and in
    validation; error is the classification error, as for kernel machines. The layers are made at fit start for the
    shapes of the Trainer's datamodule, which must offer `train_set`, a `kl.RowDataset`, and for "cnn" and "cnn-bn" also
    `image_shape`. Outside of training the network is in evaluation mode: batch norm then takes its running means and
    variances, so that a prediction does not depend on the other rows.

    Args:
        architecture: "mlp", fully connected; "cnn", convolutions of 3x3 pixels, each followed by 2x2 max pooling, and
            one linear layer; "cnn-bn", the same with batch norm after each pooling (`kl.machines.relu_layers`).
        widths: units of the hidden layers, or channels of the convolutions; by default (512, 512), (32, 64) and
            (24, 48, 96).
        learning_rate: eta, of SGD; its momentum is 0.9.
        schedule: "constant", or "cosine": step t = 0, 1, ... of T has eta (1 + cos(pi t / T)) / 2, where T is the
            number of steps in the Trainer's epochs.
        weight_decay: lambda >= 0; lambda w is added to the gradient of every parameter w.
        measures_training: whether train/* are computed after each epoch, which costs a forward pass over all rows.
        seed: of the initial weights, which are He's: normal of variance 2 / fan-in, biases 0. The global random state
            is neither used nor changed.

    Attributes:
        data_info: the description of the training data (`kl.machines.described.describe_data`).
        train_metrics: train/loss (mean cross-entropy), train/mse and train/error of the last epoch; empty without
            `measures_training`.
        eval_metrics: val/* or test/* of the last pass over validation or test data.

    Raises:
        InputError: an argument is out of its range, or (at fit start) the data is not what the network can take, or
            the Trainer has no number of epochs or steps by which "cosine" could go.

    Source: Zhang et al. 2017, Understanding deep learning requires rethinking generalization, arXiv:1611.03530 (SGD
    with momentum 0.9); He et al. 2015, Delving deep into rectifiers, arXiv:1502.01852 (initial weights); Loshchilov and
    Hutter 2017, SGDR, arXiv:1608.03983, equation 5 (cosine, here without restarts).

    Example:
        >>> import kl
        >>> network = kl.ReluNetwork("mlp", widths=(64,), learning_rate=0.1)
        >>> network.is_fitted, network.hparams["widths"]
        (False, [64])
        >>> kl.ReluNetwork("transformer")
        Traceback (most recent call last):
        kl.errors.InputError: architecture must be one of mlp, cnn, cnn-bn; got 'transformer'
    """

    method = "SGD with momentum"

    def __init__(
        self,
        architecture: str = "mlp",
        *,
        widths: Sequence[int] | None = None,
        learning_rate: float = 0.05,
        schedule: str = "constant",
        weight_decay: float = 0.0,
        measures_training: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_one_of("architecture", architecture, ARCHITECTURES)
        check_one_of("schedule", schedule, SCHEDULES)
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise InputError(f"seed must be a whole number from 0 to 2^63 - 1; got {seed!r}")
        if widths is None:
            widths = ARCHITECTURES[architecture][1]
        elif isinstance(widths, str) or not isinstance(widths, Sequence) or not widths:
            raise InputError(f"widths must be a sequence of at least one whole number, as (512, 512); got {widths!r}")
        self.save_hyperparameters(
            {
                "architecture": architecture,
                "widths": [check_count("each of widths", width) for width in widths],
                "learning_rate": check_positive("learning_rate", learning_rate),
                "schedule": schedule,
                "weight_decay": check_not_negative("weight_decay", weight_decay),
                "measures_training": bool(measures_training),
                "seed": seed,
            }
        )

    def forward(
        self,
        x: Tensor,  # shape: (m, d)
    ) -> Tensor:
        """f(x), the scores before the softmax, shape (m, c).

        Raises:
            InputError: the network has not been fitted, or x has another number of features.
        """
        if not self.is_fitted:
            raise InputError("this network holds no weights: fit it, or load a checkpoint, before predicting")
        require_dense("x", x)
        if x.ndim != 2 or x.shape[1] != self.data_info["num_features"]:
            d = self.data_info["num_features"]
            raise InputError(f"x must have shape (rows, {d}), as the training data had; got {tuple(x.shape)}")
        return self.layers(x) if self.training else torch.cat([self.layers(part) for part in x.split(CHUNK)])

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Class probabilities, shape (m, c), for a batch x or (x, ...)."""
        return self.outputs(batch if isinstance(batch, Tensor) else batch[0])

    @property
    def is_fitted(self) -> bool:
        """Whether the layers have been made."""
        return "layers" in self._modules

    # Training

    def setup(self, stage: str) -> None:
        """Make the layers for the shapes of the data; layers that fit the data are kept."""
        if stage != "fit":
            return
        facts = facts_of(self.trainer)
        if facts.train_set is None:
            raise InputError(
                "ReluNetwork needs a datamodule whose train_set is a kl.RowDataset; use one of datamodules, or "
                "ArrayDataModule.from_arrays for arrays of your own"
            )
        if self.trainer.world_size > 1:
            raise InputError(f"ReluNetwork trains on one device; got {self.trainer.world_size}: use Trainer(devices=1)")
        info = facts.description(facts.train_set.x, facts.train_set.y)
        if info["task"] != "classification":
            raise InputError(
                f"ReluNetwork needs classes, for its cross-entropy; {info['name']} is a {info['task']} set: use a "
                "kernel machine, or integer labels"
            )
        if not self.is_fitted:
            self._make_layers(info)
        elif _shapes(info) != _shapes(self.data_info):
            raise CheckpointError(
                f"the weights belong to other data: they are for {_shapes(self.data_info)}, the data has "
                f"{_shapes(info)}; use the data of the first run"
            )
        self.data_info = info

    def _make_layers(self, info: dict[str, Any]) -> None:
        build, _ = ARCHITECTURES[self.hparams["architecture"]]
        with torch.device("meta"):  # the layers' own initial weights would be drawn from the global random state
            layers = build(info, self.hparams["widths"])
        self.layers = initialise(layers.to_empty(device="cpu"), self.hparams["seed"])
        self.eval()  # until a fit starts

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum. Its steps vanish with the gradient, unlike Adam's, so that fitted labels stay fitted."""
        return torch.optim.SGD(
            self.parameters(),
            lr=self.hparams["learning_rate"],
            momentum=0.9,
            weight_decay=self.hparams["weight_decay"],
        )

    def on_fit_start(self) -> None:
        """Put the layers in training mode, and count the steps by which the learning rate falls.

        Raises:
            InputError: the schedule is "cosine", and the Trainer trains without end.
        """
        self.train()
        if self.hparams["schedule"] == "constant":
            return
        self._steps = self.trainer.estimated_stepping_batches
        if not 0 < self._steps < math.inf:
            raise InputError(
                'schedule "cosine" needs the number of steps; got a Trainer without max_epochs and max_steps: give one'
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate of the step.

        It is computed from the number of the step alone. A resumed run therefore needs no state of a schedule, and
        takes the rates of its own number of epochs.
        """
        if self.hparams["schedule"] == "constant":
            return
        done = self.trainer.global_step / self._steps
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.hparams["learning_rate"] * (1 + math.cos(math.pi * done)) / 2

    def on_fit_end(self) -> None:
        """Put the layers in evaluation mode, in which predictions of a row do not depend on other rows."""
        self.eval()

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """The mean cross-entropy of a batch (x, y, index).

        Raises:
            InputError: the layers have batch norm, and the batch has one row, which has no variance.
        """
        x, y, _ = batch
        if len(x) == 1 and self.hparams["architecture"] == "cnn-bn":
            raise InputError(
                "batch norm needs batches of 2 or more rows, the last one of an epoch too; got 1 row: use another "
                "batch_size, or other training rows"
            )
        return cross_entropy(self(x), y)

    @torch.no_grad()
    def _measure_training(self) -> dict[str, float]:
        if not self.hparams["measures_training"]:
            return {}
        rows = facts_of(self.trainer).train_set
        assert rows is not None  # setup() has seen to it
        self.eval()
        scores = torch.cat([self(x.to(self.device)).cpu() for x in rows.x.split(16 * CHUNK)])
        self.train()
        return {
            "train/loss": float(cross_entropy(scores.double(), rows.y.double())),
            "train/mse": mse(scores.softmax(dim=1), rows.y),
            "train/error": error(scores, rows.y),
        }

    def outputs(
        self,
        x: Tensor,  # shape: (m, d)
    ) -> Tensor:
        """Class probabilities softmax(f(x)), shape (m, c)."""
        return self(x).softmax(dim=1)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the description of the data, from which a load makes the layers."""
        checkpoint["relu_network"] = {"data_info": self.data_info}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the layers of the checkpoint, or compare the existing layers with the checkpoint.

        Raises:
            CheckpointError: the checkpoint is not of such a network, or belongs to other data.
        """
        with errors_name(self._trainer.ckpt_path if self._trainer else None):
            self._take_checkpoint(checkpoint)

    def _take_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        extra = checkpoint.get("relu_network")
        if extra is None:
            raise CheckpointError("the checkpoint holds no ReLU network; give one that a ReluNetwork's Trainer wrote")
        require_values("relu_network", extra, {"data_info": dict})
        require_description(extra["data_info"])
        require_tensors(checkpoint["state_dict"], {})
        for name, value in checkpoint["state_dict"].items():
            if name.endswith("running_var") and bool((value < 0).any()):
                raise CheckpointError(f"its {name} must be at least 0, as variances are; got {float(value.min()):g}")
        if self._trainer is not None and self._trainer.state.fn == "fit":
            require_epoch_end(checkpoint)
        if not self.is_fitted:
            self.data_info = extra["data_info"]
            with faults_in("layers"):
                self._make_layers(self.data_info)
        saved = {name: (value.shape, value.dtype) for name, value in checkpoint["state_dict"].items()}
        if saved != {name: (value.shape, value.dtype) for name, value in self.state_dict().items()}:
            raise CheckpointError(
                f"the checkpoint is for {_shapes(extra['data_info'])} or other widths, this network for "
                f"{_shapes(self.data_info)} and widths {self.hparams['widths']}: resume with the data and the options "
                "of the first run"
            )


def _shapes(info: dict[str, Any]) -> str:
    image = f" (images {info['image_shape']})" if info["image_shape"] else ""
    return f"d={info['num_features']}{image}, c={info['num_outputs']}"
