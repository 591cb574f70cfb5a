"""`kl reproduce images`: its points against independent computations, its claims, and a run."""

import numpy as np
import pytest
import torch

from datamodules import DigitsDataModule
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.patch_exact import PatchExact, PatchSpec
from recipes.reproduce.points.sample import KernelSpec, Sample, laplacian
from recipes.reproduce.sweep.point import Context

SAMPLE = Sample(data="digits", n=150, seed=2)
SPEC = PatchSpec(count=12, size=3, encoding="soft", whitening=0.1)
GAUSSIAN = KernelSpec(name="gaussian")


def distances(a, b):
    return np.linalg.norm(a[:, None] - b[None], axis=2)


def test_levels_are_those_of_numpy_on_the_features_of_a_data_module():
    """Features from the data module's own option, kernel and solve by numpy alone."""
    point = PatchExact(
        sample=SAMPLE, patches=SPEC, kernel=GAUSSIAN, bandwidth_factor=0.5, ridges=(1e-3, 0.1), noises=(0.0, 0.2)
    )
    found = point.run(Context(accelerator="cpu"))
    options = {"count": 12, "size": 3, "encoding": "soft", "whitening": 0.1, "seed": 2}
    data = {noise: DigitsDataModule(train_size=150, seed=2, label_noise=noise, noise_seed=2) for noise in (0.0, 0.2)}
    features = DigitsDataModule(train_size=150, seed=2, patches=options)
    for each in (*data.values(), features):
        each.setup()
    x, test = features.train_set.x.double().numpy(), features.test_set.x.double().numpy()
    apart = np.sort(distances(x, x)[np.triu_indices(len(x), 1)])
    bandwidth = 0.5 * apart[(len(apart) - 1) // 2]
    assert found["bandwidth"] == pytest.approx(bandwidth)
    k, k_test = (np.exp(-(distances(each, x) ** 2) / (2 * bandwidth**2)) for each in (x, test))
    true = features.test_set.y.numpy()
    assert [(level["ridge"], level["noise"]) for level in found["levels"]] == [
        (ridge, noise) for ridge in point.ridges for noise in point.noises
    ]
    for level in found["levels"]:
        y = data[level["noise"]].train_set.y.double().numpy()
        alpha = np.linalg.solve(k + level["ridge"] * np.eye(len(x)), y)
        scores = k_test @ alpha
        wrong = scores.argmax(axis=1) != true.argmax(axis=1)
        assert level["test_error"] == pytest.approx(wrong.mean(), abs=1.5 / len(true))
        assert level["test_mse"] == pytest.approx(((scores - true) ** 2).mean(), rel=1e-4)
        assert level["train_mse"] == pytest.approx(((k @ alpha - y) ** 2).mean(), rel=1e-4)
        assert level["rkhs_norm"] == pytest.approx(np.sqrt((alpha * (k @ alpha)).sum()), rel=1e-4)
        assert level["relative_residual"] < 1e-6
        if (level["ridge"], level["noise"]) == (1e-3, 0.0):
            rows = wrong.nonzero()[0]
            chosen = rows[[int(i * len(rows) / 15) for i in range(15)]]
            assert [each["row"] for each in found["wrong"]] == chosen.tolist()
            assert [each["true"] for each in found["wrong"]] == [str(true[row].argmax()) for row in chosen]
            assert [each["predicted"] for each in found["wrong"]] == [str(scores[row].argmax()) for row in chosen]
    assert (found["n"], found["d"], found["c"], found["patch_shape"]) == (150, 48, 10, (1, 3, 3))
    shown = torch.tensor(found["dictionary"])
    assert shown.shape == (12, 9)
    assert torch.allclose(shown, features.patches.learnt.patches, atol=5.1e-4)


def test_counts_are_exact_and_pixels_are_a_baseline():
    context = Context(accelerator="cpu")
    counts = PatchExact(sample=SAMPLE, patches=PatchSpec(count=16, size=3), kernel=GAUSSIAN).run(context)
    assert counts["levels"][0]["train_error"] == 0
    assert counts["extraction_seconds"] <= counts["seconds"]
    pixels = PatchExact(sample=SAMPLE, patches=None, kernel=KernelSpec(name="laplacian")).run(context)
    assert (pixels["d"], pixels["dictionary"], pixels["patch_shape"]) == (64, None, None)
    plain = Exact(sample=SAMPLE, kernel=laplacian(pixels["bandwidth"])).run(context)["levels"][0]
    assert {name: pixels["levels"][0][name] for name in plain} == plain
