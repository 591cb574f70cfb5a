"""`kl reproduce general`: its numbers at the tiny scale, which runs it has, and its claims on made-up runs."""

import json

import pytest

from recipes.reproduce.experiments.general import General
from recipes.reproduce.experiments.general.runs import (
    augmented,
    centers,
    curves_table,
    periods,
    run_table,
    runs,
    surface,
)
from recipes.reproduce.experiments.general.shown import augment_claim, delayed_claim, gaussian_claim
from recipes.reproduce.experiments.kernels import MAIN
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.general import GeneralFit
from recipes.reproduce.points.sample import Sample, laplacian
from recipes.reproduce.points.search import BandwidthSearch
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Context

FULL = Setting("full")


class Found(dict):
    """Results whose searches all chose bandwidth 1."""

    def __missing__(self, point):
        return {"bandwidth": 1.0}


def made(error=0.1, seconds=1.0, n=60_000):
    return {
        "final": {"val/error": error},
        "seconds_per_epoch": [2 * seconds, seconds],
        "data_source": "fashion-mnist",
        "n": n,
        "epochs": 2,
    }


@pytest.mark.slow
def test_tiny_scale(kl, tmp_path):
    result = kl("reproduce", "general", "--scale", "tiny", "--log-dir", "out", "--accelerator", "cpu")
    assert result.code == 0, result.err
    folder = tmp_path / "out" / "general-tiny"
    for name in ("general-digits", "general-time", "general-surface"):
        assert (folder / f"{name}.png").stat().st_size > 5000
    record = json.loads((folder / "results.json").read_text())
    parts = {part: [row for row in record["rows"] if row["part"] == part] for part in ("curves", "time", "surface")}
    assert len(parts["curves"]) == 3 * 4
    assert len(parts["time"]) == 2 * 2 * 2
    assert len(parts["surface"]) == 2 * 2
    assert all(0 < row["test_error"] < 0.8 for row in record["rows"])
    assert {row["T"] for row in parts["time"] if "3" in row["name"]} <= {1}
    assert len(record["claims"]) == 3


def test_the_point_is_the_machine():
    point = GeneralFit(sample=Sample(data="digits", n=150), kernel=laplacian(3.0), centers=30, period=1, epochs=2)
    found = point.run(Context(accelerator="cpu"))
    assert (found["projection_period"], found["centers"], found["epochs"]) == (1, 30, 2)
    assert len(found["curves"]["val/error"]) == 2
    assert found["final"]["val/error"] < 0.5
    assert point.method == "EigenPro 3"
    assert point.describe() == "EigenPro 3, digits n=150 seed 0, laplacian 3, p = 30, 2 epochs"


def test_runs_of_the_full_scale():
    for data in ("cifar10", "fashion-mnist"):
        found = runs(FULL, data, MAIN[0], Found())
        assert list(found) == [
            "EigenPro 2",
            "EigenPro 4, p = 1k",
            "EigenPro 4, p = 5k",
            "EigenPro 4, p = 20k",
            "EigenPro 3, p = 5k",
        ]
        assert isinstance(found["EigenPro 2"], Fit)
        assert len({(point.sample, point.kernel) for point in found.values()}) == 1
    assert centers(FULL) == (1000, 5000, 20_000)
    assert {p for p, _, _ in periods(FULL)} == {1000, 2000, 5000, 10_000, 20_000}
    assert all(p <= n for n, p in surface(FULL))
    plain, changed, more = augmented(FULL, "cifar10").values()
    assert [each.augment for each in (plain, changed, more)] == [None, "shift:1,flip", "shift:1,flip"]
    assert [each.centers for each in (plain, changed, more)] == [10_000, 10_000, 40_000]
    assert plain.sample == changed.sample == more.sample


def test_searches_come_first():
    points = General().points(FULL, {})
    assert points
    assert all(isinstance(point, BandwidthSearch) for point in points)


@pytest.mark.parametrize(
    ("three", "error", "holds"), [(3.0, 0.1, True), (1.0, 0.1, False), (3.0, 0.2, False), (0.5, 0.1, False)]
)
def test_the_claim_on_delayed_projections(three, error, holds):
    timed = periods(FULL)
    results = {
        point: made(error if period == 1 else 0.1, three * p / 1000 if period == 1 else 1.0 + (three == 1.0) * p / 1000)
        for (p, _, period), point in timed.items()
    }
    assert delayed_claim(run_table("time", timed, results)).holds is holds


@pytest.mark.parametrize(("gaussian", "holds"), [(0.3, True), (0.15, False)])
def test_the_claim_on_the_gaussian(gaussian, holds):
    results = Found()
    for kernel in MAIN:
        for point in runs(FULL, "fashion-mnist", kernel, Found()).values():
            results[point] = made(gaussian if kernel.name == "gaussian" else 0.2)
    assert gaussian_claim(curves_table(FULL, "fashion-mnist", results)).holds is holds


@pytest.mark.parametrize(("error", "holds"), [(0.05, True), (0.1, False)])
def test_the_claim_on_augmented_images(error, holds):
    each = augmented(FULL, "fashion-mnist")
    results = {point: made(error if point.centers > 10_000 else 0.1) for point in each.values()}
    assert augment_claim(run_table("augment", each, results)).holds is holds
