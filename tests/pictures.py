"""Small made-up images for tests."""

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def picture(size=(8, 6)):
    return Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def fill(folder, classes=("cat", "dog"), each=5):
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(each):
            picture().save(folder / name / f"{i}.png")
    return folder
