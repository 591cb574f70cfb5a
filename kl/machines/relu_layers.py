"""The layers of ReLU networks: fully connected, convolutional, and convolutional with batch norm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from kl.errors import InputError


def mlp(info: dict[str, Any], widths: Sequence[int]) -> nn.Sequential:
    """d-w_1-...-w_k-c, a ReLU after each layer but the last."""
    sizes = [info["num_features"], *widths]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], info["num_outputs"]))


def cnn(info: dict[str, Any], channels: Sequence[int]) -> nn.Sequential:
    """Convolutions of 3x3 pixels with zero padding, each with ReLU and 2x2 max pooling, then one linear layer.

    Raises:
        InputError: the rows are not images, or the images are too small for that much pooling.
    """
    shape, features = _image_and_features("cnn", info, channels)
    layers: list[nn.Module] = [nn.Unflatten(1, shape)]
    for inputs, outputs in pairwise([shape[0], *channels]):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, info["num_outputs"]))


def cnn_bn(info: dict[str, Any], channels: Sequence[int]) -> nn.Sequential:
    """Blocks of a 3x3 convolution without bias, 2x2 max pooling, batch norm and ReLU, then one linear layer.

    Batch norm stands behind the pooling, where it has a quarter of the pixels to do. A CPU is faster with the channels
    of a pixel side by side in memory, as the weights ask for.

    Raises:
        InputError: the rows are not images, or the images are too small for that much pooling.

    Source: Ioffe and Szegedy 2015, Batch normalization, arXiv:1502.03167; Jordan 2024, 94% on CIFAR-10 in 3.29 seconds
    on a single GPU, arXiv:2404.00498 (the order within a block).
    """
    shape, features = _image_and_features("cnn-bn", info, channels)
    layers: list[nn.Module] = [nn.Unflatten(1, shape)]
    for inputs, outputs in pairwise([shape[0], *channels]):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.MaxPool2d(2)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
    made = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, info["num_outputs"]))
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _image_and_features(name: str, info: dict[str, Any], channels: Sequence[int]) -> tuple[tuple[int, int, int], int]:
    """The shape of the images, and the number of features that one pooling for each convolution leaves."""
    smallest = 2 ** len(channels)
    shape = info["image_shape"]
    if len(shape) != 3 or min(shape[1:]) < smallest:
        got = f"images of {shape[1]}x{shape[2]}" if len(shape) == 3 else "no image_shape"
        raise InputError(
            f"architecture {name} with {len(channels)} convolutions needs images of at least {smallest}x{smallest} "
            f"pixels; {info['name']} has {got}: use mlp, or fewer widths"
        )
    return tuple(shape), channels[-1] * (shape[1] // smallest) * (shape[2] // smallest)


def initialise(layers: nn.Sequential, seed: int) -> nn.Sequential:
    """Set He's initial weights: normal of variance 2 / fan-in, biases 0; batch norm begins with gain 1 and shift 0.

    Args:
        layers: layers with memory of any content.
        seed: of the weights. The global random state is neither used nor changed.

    Source: He et al. 2015, Delving deep into rectifiers, arXiv:1502.01852.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()  # draws nothing
    return layers


ARCHITECTURES: dict[str, tuple[Callable[..., nn.Sequential], tuple[int, ...]]] = {
    "mlp": (mlp, (512, 512)),
    "cnn": (cnn, (32, 64)),
    "cnn-bn": (cnn_bn, (24, 48, 96)),
}
"""The function that makes the layers, and the default widths, by name."""
