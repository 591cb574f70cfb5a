"""`kl reproduce images`: its points against independent computations, its claims, and a run."""

import json
from dataclasses import fields

import numpy as np
import pytest
import torch

from datamodules import DigitsDataModule
from recipes.reproduce.analysis.patch_claims import MAIN, PIXELS, beside_published, claims
from recipes.reproduce.experiments import images
from recipes.reproduce.page.pictures import decoded, patch_images
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.images import Images
from recipes.reproduce.points.patch_exact import PatchExact, PatchSpec
from recipes.reproduce.points.sample import KernelSpec, Sample, laplacian
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Context
from recipes.reproduce.table import table

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
    shown = torch.tensor(found["dictionary"]).float()
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


def test_images_are_those_of_the_test_set():
    found = Images(sample=SAMPLE, rows=(3, 0)).run(Context())
    data = DigitsDataModule(train_size=150, seed=2)
    data.setup()
    shown = decoded(found["pixels"], found["shape"])
    assert [each.shape for each in shown] == [(1, 8, 8)] * 2
    for each, row in zip(shown, (3, 0), strict=True):
        assert np.allclose(each.ravel(), data.test_set.x[row].numpy(), atol=0.5 / 255)


def test_patches_as_images_are_grey_where_they_are_0():
    black, grey, flat = patch_images([[0.0, -0.4, 0.2, 0.1], [0.0] * 4, [0.3] * 4], (1, 2, 2))
    assert black.ravel().tolist() == pytest.approx([0.5, 0.0, 0.75, 0.625])
    assert grey.ravel().tolist() == [0.5] * 4
    assert flat.ravel().tolist() == [1.0] * 4


@pytest.mark.parametrize("scale", ["tiny", "quick", "full"])
def test_changes_are_of_one_option(scale):
    """Each machine differs from the main one in what its name says, and all are different points."""
    setting = Setting(scale, Context(data_dir="nowhere"))
    found = list(images.runs(setting, "cifar10"))
    assert len({point.key for _, point in found}) == len(found)
    usual = images.main(setting, "cifar10")
    assert usual in [point for change, point in found if change == MAIN]
    expected = {"3 x 3 cells": {"pool", "stride"}, "soft": {"encoding"}, "rectified": {"encoding"}}
    expected |= {"eps 0.1": {"whitening"}, "eps 10": {"whitening"}, "Laplacian": {"kernel"}}
    expected |= {f"{each} the bandwidth": {"bandwidth_factor"} for each in ("half", "twice")}
    seen = {}
    for change, point in found:
        if change not in (MAIN, PIXELS):
            outer = {f.name for f in fields(point) if getattr(point, f.name) != getattr(usual, f.name)}
            inner = {
                f.name for f in fields(usual.patches) if vars(point.patches)[f.name] != vars(usual.patches)[f.name]
            }
            seen[change] = (outer - {"ridges", "patches"}) | inner
    assert seen == expected


def made_up(pixels=0.3, counts=(0.2, 0.15, 0.1), eps=0.25, interpolant=0.2, **same):
    """Errors of three dictionaries, of which that of 512 patches is changed, and of pixels."""
    same = {"set": "CIFAR-10 (JPEG)", "data": "cifar10-jpeg", "n": 10_000, "kernel_title": "Gaussian"} | same
    rows = [(MAIN, count, 0.1, error) for count, error in zip((256, 512, 2048), counts, strict=True)]
    rows += [("eps 10", 512, 0.1, eps), ("ridge 0", 512, 0.0, interpolant), (PIXELS, None, 0.1, pixels)]
    names = ("change", "count", "ridge", "test_error")
    return table({**same, **dict(zip(names, row, strict=True))} for row in rows)


def test_claims():
    def verdicts(frame):
        return [claim.holds for claim in claims(frame)]

    good = made_up()
    assert verdicts(good) == [True] * 4
    seen = [claim.seen for claim in claims(good)]
    assert seen[0] == "256 patches 20.00%, 2048 patches 10.00%; pixels at best 30.00%, Gaussian, ridge 0.1"
    assert seen[1] == "256 patches 20.00%, 512 patches 15.00%, 2048 patches 10.00%"
    assert seen[2:] == ["512 patches: eps 0.01 15.00%, eps 10 25.00%", "512 patches: ridge 0.1 15.00%, ridge 0 20.00%"]
    assert verdicts(made_up(pixels=0.18)) == [False, True, True, True]
    assert verdicts(made_up(counts=(0.2, 0.15, 0.15))) == [True, False, True, True]
    assert verdicts(made_up(eps=0.14)) == [True, True, False, True]
    assert verdicts(made_up(interpolant=0.1)) == [True, True, True, False]


def test_published_numbers_stand_beside_those_of_as_many_patches():
    exact, fewer = beside_published(made_up())
    assert (exact.ours, exact.published) == (pytest.approx(10.0), pytest.approx(17.3))
    assert exact.quantity == "CIFAR-10, 2048 patches: test error"
    assert fewer.quantity == "CIFAR-10, 16384 patches, ours 2048: test error"
    assert all("JPEG copy, n = 10000, kernel machine" in each.note and each.agrees is None for each in (exact, fewer))
    assert beside_published(made_up(data="fashion-mnist")) == []
    small = made_up()
    assert beside_published(small[small["count"] != 2048]) == []


@pytest.mark.slow
def test_tiny_scale(kl, tmp_path):
    result = kl("reproduce", "images", "--scale", "tiny", "--log-dir", "out")
    assert result.code == 0, result.err
    folder = tmp_path / "out/images-tiny"
    for name in ("count", "seconds", "changes", "dictionary", "wrong"):
        assert (folder / f"images-{name}.png").stat().st_size > 5_000
        assert "<image" in (folder / f"images-{name}.svg").read_text() or name not in ("dictionary", "wrong")
    record = json.loads((folder / "results.json").read_text())
    assert (len(record["claims"]), record["points"], len(record["rows"])) == (4, 13, 15)
    errors = {(row["change"], row["count"]): row["test_error"] for row in record["rows"]}
    assert errors[MAIN, 16] < errors[MAIN, 8]
    assert all(row["seconds"] >= row["extraction_seconds"] for row in record["rows"])
