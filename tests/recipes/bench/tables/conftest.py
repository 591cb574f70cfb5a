"""Two small generated tables, in a folder as the command reads it."""

import numpy as np
import pytest

from recipes.bench.tables.protocol import Protocol


@pytest.fixture
def folder(tmp_path):
    """uci/wave.npz: y = 100 + 10 sin(x0), three folds; tables/halves.csv: the class is where x1 + town lies."""
    rng = np.random.default_rng(0)
    (tmp_path / "data/uci").mkdir(parents=True)
    (tmp_path / "data/tables").mkdir()
    x = rng.normal(size=(60, 2)) * [1.0, 5.0]
    y = 100 + 10 * np.sin(x[:, 0]) + 0.1 * rng.normal(size=60)
    np.savez(tmp_path / "data/uci/wave.npz", x=x, y=y, fold=(np.arange(60) % 3).astype(np.int8))
    numbers, towns = rng.normal(size=60), rng.choice(["Ulm", "Bonn"], size=60)
    labels = np.where(numbers + (towns == "Ulm") > 0.5, "up", "down")
    rows = [f"{a},{b},{c}\n" for a, b, c in zip(numbers, towns, labels, strict=True)]
    (tmp_path / "data/tables/halves.csv").write_text("x0,x1,class\n" + "".join(rows))
    return tmp_path / "data"


@pytest.fixture
def tiny():
    """A protocol of four candidates."""
    return Protocol(2, 30, 10, 4, 5.0, 30.0, 1)
