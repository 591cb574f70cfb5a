"""Small images and patches for tests of patch features."""

import torch

from kl import Patches

ENCODINGS = ["count", "soft", "rectified"]


def pictures(n=12, shape=(3, 8, 10), seed=0, dtype=torch.uint8):
    """Smooth random images, the first with a corner where all pixels are equal."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(n, shape[0], shape[1] + 2, shape[2] + 2, generator=generator)
    images = torch.nn.functional.avg_pool2d(noise, 3, 1)
    images[0, :, :6, :6] = 0.25
    images = (images * 255).to(torch.uint8)
    return images if dtype == torch.uint8 else images.to(dtype) / 255


def small(**options):
    return Patches(**{"count": 7, "size": 4, "encoding": "count", **options})
