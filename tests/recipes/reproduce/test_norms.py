"""The experiments whose points are the interpolants and overfitted classifiers of MNIST: laws, claims, figures."""

import json
from pathlib import Path

import numpy as np
import pytest

from recipes.reproduce.analysis.growth import GROWTH_NOISES, growth_draws, growth_points, growth_table, norms_by_n
from recipes.reproduce.analysis.laws import best_dimension, fit_exponential, fit_power
from recipes.reproduce.analysis.norm_claims import (
    coincide,
    identity_sentence,
    interpolated_exceeds,
    law_sentences,
    noise_raises,
    share_near_one,
)
from recipes.reproduce.experiments.noise import draws, near_bayes
from recipes.reproduce.points.eigenvalues import Eigenvalues
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import KernelSpec, Sample, gaussian, laplacian
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Context
from recipes.reproduce.table import rows_of, table

SIZES = [500, 1000, 5000, 20_000, 60_000]


def test_a_power_law_is_found_again():
    law = fit_power(SIZES, [3 * n**0.4 for n in SIZES])
    assert (np.exp(law.a), law.b, law.residual) == pytest.approx((3, 0.4, 0), abs=1e-9)
    assert law([100.0]) == pytest.approx([3 * 100**0.4])


@pytest.mark.parametrize("d", [1, 3, 20])
def test_an_exponential_law_is_found_again(d):
    law = fit_exponential(SIZES, [2 * np.exp(1e-4 * n ** (1 / d)) for n in SIZES], d)
    assert (np.exp(law.a), law.b) == pytest.approx((2, 1e-4), rel=1e-6)
    assert law.residual == pytest.approx(0, abs=1e-12)


def test_a_law_of_many_features_keeps_its_digits():
    """n^(1/784) lies between 1.008 and 1.014: b and a cancel to ten digits unless they are centred."""
    norms = [np.exp(700 * n ** (1 / 784) - 700) for n in SIZES]
    law = fit_exponential(SIZES, norms, 784)
    assert law.b == pytest.approx(700, rel=1e-9)
    assert law(SIZES) == pytest.approx(norms, rel=1e-8)


def test_residuals_are_those_of_least_squares():
    generator = np.random.default_rng(0)
    norms = [n**0.3 * np.exp(0.1 * generator.standard_normal()) for n in SIZES]
    law = fit_power(SIZES, norms)
    design = np.stack([np.ones(len(SIZES)), np.log(SIZES)], axis=1)
    solution, squares, *_ = np.linalg.lstsq(design, np.log(norms), rcond=None)
    assert (law.a, law.b) == pytest.approx(tuple(solution))
    assert law.residual == pytest.approx(np.sqrt(squares[0] / len(SIZES)))


def test_best_dimension():
    assert best_dimension(SIZES, [np.exp(0.5 * n ** (1 / 4)) for n in SIZES], 50) == (4, 4)
    best, least = best_dimension(SIZES, [n**0.3 for n in SIZES], 50)  # a power law: the larger d, the better
    assert best == 50
    assert 40 < least <= 50


def laws(d, **norms):
    """The table of laws through norms without label noise, by kernel."""
    return table(
        {"kernel": name, "noise": 0.0, "n": SIZES, "power": fit_power(SIZES, own), "exponential": exponential}
        for name, own in norms.items()
        for exponential in [fit_exponential(SIZES, own, d)]
    )


def test_laws_that_data_tells_apart_are_not_said_to_be_the_same():
    steep = [np.exp(0.5 * n ** (1 / 4)) for n in SIZES]
    apart = law_sentences(laws(4, gaussian=steep), 4)
    assert "cannot tell" not in apart[0]
    generator = np.random.default_rng(0)
    rough = [n**0.3 * np.exp(0.1 * generator.standard_normal()) for n in SIZES]
    same = law_sentences(laws(784, gaussian=rough), 784)
    assert "cannot tell growth like" in same[0]


def record(n, noise, norm, way="interpolated", seed=0, kernel="gaussian", fitted=True):
    return {
        "spec": KernelSpec(name=kernel, bandwidth=5.0),
        "kernel": kernel,
        "n": n,
        "seed": seed,
        "noise": noise,
        "way": way,
        "rkhs_norm": norm,
        "fitted": fitted,
    }


def test_noise_that_raises_the_norm():
    raised = [
        record(n, e, n**0.5 * (1 + e * n / 50), seed=s) for n in (100, 1000) for e in GROWTH_NOISES for s in (0, 1)
    ]
    assert noise_raises(table(raised)).holds is True
    level = [record(n, e, n**0.5 + s, seed=s) for n in (100, 1000) for e in GROWTH_NOISES for s in (0, 1)]
    assert noise_raises(table(level)).holds is False


def test_norms_are_compared_on_the_same_rows_and_labels():
    exact = [record(100, 0.0, 10.0, seed=0), record(100, 0.0, 20.0, seed=1)]
    assert interpolated_exceeds(table(exact)).holds is None
    assert interpolated_exceeds(table([*exact, record(100, 0.0, 19.0, "overfitted", 1)])).holds is True
    assert interpolated_exceeds(table([*exact, record(100, 0.0, 11.0, "overfitted", 0)])).holds is False
    unfitted = record(100, 0.0, 11.0, "overfitted", 0, fitted=False)
    assert interpolated_exceeds(table([*exact, unfitted])).holds is None


def test_curves_that_coincide():
    same = [record(n, e, n**0.5 * (1 + e / 10)) for n in (100, 1000) for e in GROWTH_NOISES]
    assert coincide(table(same)).holds is True
    assert coincide(table([*same[:-1], record(1000, 0.1, 40.0)])).holds is False


def test_every_law_is_judged_by_itself():
    steep = [np.exp(0.5 * n ** (1 / 4)) for n in SIZES]
    rough = [n**0.3 * np.exp(0.5 * (-1) ** i) for i, n in enumerate(SIZES)]
    said = law_sentences(laws(4, gaussian=steep, laplacian=rough), 4)[0]
    assert said.endswith("gaussian with 0% noise grows more like the exponential law.")


def test_near_to_the_bayes_error():
    same = {"spec": gaussian(5.0), "n": 100, "bayes_error": 0.1}
    gaps = ((0.0, 0.0), (0.2, 0.04), (0.4, 0.12), (0.6, 0.04))
    levels = [{**same, "noise": noise, "test_error_noisy": 0.1 + gap} for noise, gap in gaps]
    far = near_bayes(table(levels))
    assert far.holds is False
    assert "at most 12.0 points above it, at 40% noise; within 5 points up to 20%" in far.seen
    near = near_bayes(table(levels[:2]))
    assert near.holds is True
    assert "within 5 points up to 20%" in near.seen


def test_single_draws_are_named():
    records = [
        record(n, 0.0, 1.0, way, seed) for n in (10, 20) for way in ("interpolated", "overfitted") for seed in (0, 1)
    ]
    assert draws(table(records)) == "there are several of each"
    assert draws(table(records[:-1])).endswith("overfitted n=20")


def test_draws_beyond_all_rows_are_one(tmp_path):
    found = growth_draws(Setting("quick", Context(data_dir=str(tmp_path))))
    assert found == [(500, 0), (500, 1), (500, 2), (1000, 0), (1000, 1), (1000, 2), (None, 0)]  # digits: 1437 rows


def test_an_overfitted_run_that_diverged_has_no_error(monkeypatch):
    setting = Setting("tiny")
    results = {p: fake(p) for p in growth_points(setting, gaussian(1.5))}
    found = [r for r in rows_of(growth_table(setting, results, gaussian(1.5))) if r["way"] == "overfitted"]
    assert found
    assert all(r["test_error"] is None and not r["fitted"] for r in found)


def fake(point):
    """The result of a point without its computation; every run diverges in its first epoch."""
    same = {"data_source": "digits", "n": point.sample.rows}
    if isinstance(point, Fit):
        return {**same, "final": {}, "fitted_epoch": None, "rkhs_norm": 1.0, "rkhs_norm_per_class": [1.0]}
    level = {"test_error": 0.1, "test_error_noisy": 0.1, "rkhs_norm": 1.0, "rkhs_norm_per_class": [1.0]}
    return {**same, "levels": [{**level, "noise": noise} for noise in point.noises]}


def test_near_to_the_identity():
    assert share_near_one([3.0, 1.1, 0.9, 0.1]) == 0.5
    records = table(record(100, e, 10.0) for e in GROWTH_NOISES)
    close = identity_sentence(records, {"eigenvalues": [1.0] * 10, "n": 10})
    assert "100% of K's eigenvalues at n=10" in close
    assert "|f*|^2 / n = 1.00. The nearer K is to the identity" in close
    assert "not close" in identity_sentence(records, {"eigenvalues": [5.0, 0.1], "n": 2})


def test_norms_by_n_are_means_over_seeds():
    records = [record(1000, 0.0, 3.0), record(100, 0.0, 1.0), record(100, 0.0, 2.0, seed=1), record(100, 0.1, 9.0)]
    assert list(norms_by_n(table(records), gaussian(5.0), 0.0).items()) == [(100, 1.5), (1000, 3.0)]


def test_levels_of_noise_are_those_of_runs_with_that_noise_alone():
    sample = Sample(data="digits", n=150)
    together = Exact(sample=sample, kernel=laplacian(3.0), noises=(0.0, 0.2)).run(Context(accelerator="cpu"))
    for noise, level in zip((0.0, 0.2), together["levels"], strict=True):
        alone = Exact(sample=sample, kernel=laplacian(3.0), noises=(noise,)).run(Context(accelerator="cpu"))["levels"][
            0
        ]
        assert level == {key: pytest.approx(value, rel=1e-6, abs=1e-12) for key, value in alone.items()}
        assert level["rkhs_norm"] == pytest.approx(sum(v**2 for v in level["rkhs_norm_per_class"]) ** 0.5)
        assert level["relative_residual"] < 1e-8


def test_exact_against_a_dense_solve():
    sample = Sample(data="digits", n=120)
    found = Exact(sample=sample, kernel=gaussian(1.5), noises=(0.1,)).run(Context(accelerator="cpu"))["levels"][0]
    data = sample.datamodule(Context(), 0.1)
    x, z, y = (part.double().numpy() for part in (data.train_set.x, data.test_set.x, data.train_set.y))

    def kernel(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=2) / (2 * 1.5**2))

    alpha = np.linalg.solve(kernel(x, x), y)
    predicted = (kernel(z, x) @ alpha).argmax(axis=1)
    assert found["rkhs_norm"] == pytest.approx(np.sqrt((alpha * y).sum()), rel=1e-6)
    assert found["test_error_noisy"] == (predicted != data.test_set.y_noisy.numpy().argmax(axis=1)).mean()
    assert found["test_error"] == (predicted != data.test_set.y.numpy().argmax(axis=1)).mean()


def test_unit_norm_rows():
    data = Sample(data="digits", n=100, unit_norm=True).datamodule(Context(), 0.1)
    assert data.train_set.x.norm(dim=1).numpy() == pytest.approx(np.ones(100), abs=1e-6)
    assert data.test_set.y_noisy is not None


def test_an_overfitted_run_has_no_training_error():
    found = Fit(
        sample=Sample(data="digits", n=150),
        kernel=laplacian(3.0),
        noise=0.1,
        epochs=50,
        until_interpolated=True,
        test_every=0,
    ).run(Context(accelerator="cpu"))
    assert found["final"]["train/error"] == 0
    assert found["fitted_epoch"] == found["epochs"] == len(found["curves"]["train/error"])
    assert all(value > 0 for value in found["curves"]["train/error"][:-1])
    assert found["final"]["val/error_noisy"] > 0
    assert "val/error" not in found["curves"]


def test_eigenvalues():
    sample = Sample(data="digits", n=80)
    found = Eigenvalues(sample=sample, kernel=laplacian(3.0)).run(Context())
    x = sample.datamodule(Context()).train_set.x.double()
    matrix = np.exp(-np.sqrt(((x[:, None] - x[None]) ** 2).sum(dim=2).numpy()) / 3)
    assert found["eigenvalues"] == pytest.approx(np.linalg.eigvalsh(matrix)[::-1], rel=1e-5, abs=1e-7)
    assert found["mean_off_diagonal"] == pytest.approx((matrix.sum() - 80) / (80 * 79))
    assert found["identity_distance"] == pytest.approx(np.linalg.norm(matrix - np.eye(80)) / np.sqrt(80))


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory):
    """One folder for both experiments, which share their points."""
    return tmp_path_factory.mktemp("reproduce")


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        pytest.param("noise", ["noise-n", "noise-sweep"], marks=pytest.mark.slow),
        pytest.param(
            *("norm-growth", ["norm-growth", "norm-per-class", "norm-laws", "spectrum"]), marks=pytest.mark.slow
        ),
    ],
)
def test_experiments(kl, log_dir, name, figures):
    result = kl("reproduce", name, "--scale", "tiny", "--log-dir", log_dir, "--accelerator", "cpu")
    assert result.code == 0, result.err
    folder = Path(log_dir, f"{name}-tiny")
    for figure in figures:
        assert (folder / f"{figure}.png").stat().st_size > 10_000
        assert (folder / f"{figure}.svg").read_text().startswith("<?xml")
    record = json.loads((folder / "results.json").read_text())
    rows = [row for row in record["rows"] if row.get("way") == "interpolated" and row["bandwidth"] > 1]
    assert {row["noise"] for row in rows} == set(GROWTH_NOISES)
    for kernel in ("gaussian", "laplacian"):  # more noise, larger norm, on the same rows
        norms = {(r["n"], r["seed"], r["noise"]): r["rkhs_norm"] for r in rows if r["kernel"] == kernel}
        assert all(norm >= norms[n, seed, 0.0] for (n, seed, _), norm in norms.items())
    assert len((folder / "results.csv").read_text().splitlines()) == len(record["rows"]) + 1
