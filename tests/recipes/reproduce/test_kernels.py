"""The experiment on kernels: its numbers at the tiny scale, the search for bandwidths, and claims on made-up runs."""

import json

import pytest
import torch

import kl as library
from kl.errors import SingularKernelError
from recipes.reproduce.experiments.kernels import (
    ALL,
    HEADER,
    MAIN,
    NTK,
    RADIAL,
    ExponentialPowerSpec,
    Kernels,
    by_epoch_and_second,
    compare_ntk,
    course,
    course_table,
    rows_tested,
    run,
    search,
    side_by_side,
    slower_claim,
    worse_claim,
)
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.points.search import BandwidthSearch, at_an_end, best, three_digits
from recipes.reproduce.published import NTK_CIFAR_ACCURACY, NTK_CIFAR_EPOCHS
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Context
from recipes.reproduce.table import by_epoch, rows_of, stacked

CPU = Context(accelerator="cpu")


def made(kernel, train_error, test_error, tested=None, data="cifar10", source="cifar10", diverged=False):
    """A run of one second an epoch."""
    point = Fit(sample=Sample(data=data), kernel=kernel, epochs=len(train_error))
    fit = {
        "curves": {"train/mse": [0.01] * len(train_error), "train/error": train_error, "val/error": test_error},
        "tested_epochs": tested or list(range(1, len(test_error) + 1)),
        "seconds_per_epoch": [1.0] * len(train_error),
        "data_source": source,
        "n": 50_000,
        "diverged": diverged,
    }
    return course([point], {point: fit})


def three(gaussian, laplacian, ntk):
    """The three main runs from their training and test errors."""
    return stacked(made(kernel, *each) for kernel, each in zip(MAIN, (gaussian, laplacian, ntk), strict=True))


@pytest.mark.slow
def test_tiny_scale(kl, tmp_path):
    result = kl("reproduce", "kernels", "--scale", "tiny", "--log-dir", "out", "--accelerator", "cpu")
    assert result.code == 0, result.err
    folder = tmp_path / "out" / "kernels-tiny"
    written = {p.name for p in folder.iterdir()}
    assert {"results.json", "results.csv", "kernels-digits.png", "kernels-all.svg"} <= written
    record = json.loads((folder / "results.json").read_text())
    rows = record["rows"]
    assert len(rows) == 3 * len(ALL)  # epochs
    assert {r["kernel"] for r in rows} == {kernel.name for kernel in ALL}
    assert all(0 < r["test_error"] < 0.2 and r["unit_norm"] and not r["diverged"] for r in rows)
    assert all((r["bandwidth"] is None) == (r["kernel"] in ("relu-ntk", "relu-nngp", "polynomial")) for r in rows)
    assert record["comparisons"] == []
    assert len(record["claims"]) == 2
    assert len(record["tables"][-1]["rows"]) == len(RADIAL)


def test_every_kernel_of_the_command_line_is_in_it():
    others = {"dispersal", "lpq-laplacian", "product-laplacian"}  # other names, and a kernel of tables, not of images
    assert {kernel.name for kernel in ALL} == set(library.kernel_names()) - others


def test_runs_wait_for_the_searches():
    setting, experiment = Setting("full"), Kernels()
    searches = experiment.points(setting, {})
    assert {point.kind for point in searches} == {"bandwidth-search"}
    assert len(searches) == 2 * len(RADIAL)
    results = {point: {"bandwidth": 7.0 + i} for i, point in enumerate(searches)}
    points = experiment.points(setting, results)
    assert points[: len(searches)] == searches
    assert len(set(points)) == 2 * (len(RADIAL) + len(MAIN) + len(ALL))
    first = run(setting, "cifar10", RADIAL[0], results, whole=True)
    assert first in points
    assert (first.kernel.bandwidth, first.sample.n, first.sample.unit_norm) == (7.0, None, True)
    smaller = run(setting, "fashion-mnist", NTK, results, whole=False)
    assert (smaller.kernel, smaller.sample.n, smaller.sample.unit_norm) == (NTK, 10_000, False)


def test_exponential_power_keeps_its_power():
    spec = ExponentialPowerSpec(power=0.5, bandwidth=3.0)
    assert spec.build() == library.kernels.ExponentialPower(bandwidth=3.0, power=0.5)
    assert spec.title == "exponential power 0.5"
    points = [Fit(sample=Sample(data="digits"), kernel=ExponentialPowerSpec(power=p)) for p in (0.5, 0.7)]
    assert points[0].key != points[1].key


def searched(**fields):
    defaults = {"sample": Sample(data="digits", n=300), "kernel": KernelSpec(name="laplacian")}
    return BandwidthSearch(**{**defaults, "n_train": 200, "n_held_out": 100, **fields})


def test_a_search_finds_the_error_of_each_interpolant():
    """Against kernel regression written out: rows that train and rows that do not, in the order of the seed."""
    point = searched(factors=(0.5, 1.0))
    found = point.run(CPU)
    rows = point.sample.datamodule(CPU).train_set
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    x, y = rows.x.double()[order], rows.y.double()[order]
    median = float(torch.pdist(x[:200]).median())
    assert found["median_distance"] == pytest.approx(median, rel=1e-5)
    for each, factor in zip(found["tried"], (0.5, 1.0), strict=True):
        assert each["bandwidth"] == three_digits(factor * median)
        gram = torch.exp(-torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") / each["bandwidth"])
        scores = gram[200:, :200] @ torch.linalg.solve(gram[:200, :200], y[:200])
        wrong = (scores.argmax(dim=1) != y[200:].argmax(dim=1)).double().mean()
        assert each["error"] == pytest.approx(float(wrong))
        assert each["relative_residual"] < 1e-9
    assert found["error"] == min(each["error"] for each in found["tried"])
    assert found["n"] == 200


def test_a_search_leaves_out_singular_bandwidths(monkeypatch):
    solve = library.interpolate

    def fails_if_wide(kernel, *args, **options):
        if kernel.bandwidth > 2:
            raise SingularKernelError("singular to working precision")
        return solve(kernel, *args, **options)

    monkeypatch.setattr(library, "interpolate", fails_if_wide)
    found = searched(factors=(0.5, 4.0)).run(CPU)
    assert found["tried"][1]["error"] is None
    assert found["tried"][1]["reason"] == "singular to working precision"
    assert found["bandwidth"] == found["tried"][0]["bandwidth"]
    with pytest.raises(SingularKernelError, match=r"at each of the 1 bandwidths tried: singular to working"):
        searched(factors=(4.0,)).run(CPU)


def test_the_best_bandwidth():
    tried = [{"factor": f, "bandwidth": 10 * f, "error": e} for f, e in ((0.5, 0.1), (1.0, 0.2), (2.0, 0.3))]
    assert best(tried) == {"bandwidth": 5.0, "error": 0.1}
    assert at_an_end({"tried": tried, "bandwidth": 5.0})
    assert not at_an_end({"tried": tried, "bandwidth": 10.0})
    level = [{**each, "error": 0.1} for each in tried]
    assert best(level)["bandwidth"] == 10.0  # of equal ones the nearest to the median


@pytest.mark.parametrize(("value", "rounded"), [(5.1349, 5.13), (0.14678, 0.147), (1234.0, 1230.0)])
def test_three_digits(value, rounded):
    assert three_digits(value) == rounded


def test_a_course():
    each = made(NTK, [0.1, 0.0, 0.0], [0.5, 0.4, 0.45], source="cifar10-jpeg")
    rows = rows_of(by_epoch(each))
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["seconds"] for row in rows] == [1.0, 2.0, 3.0]
    assert each["fitted_at"].iat[0] == 2
    assert course_table(each).title == "CIFAR-10 (JPEG), n=50000"
    assert [row["test_error"] for row in rows] == [0.5, 0.4, 0.45]
    cells = ("ReLU NTK", "50.00%", "45.00%", "40.00%", "0.000%", "2", "1.00", "1.00")
    assert course_table(each).rows == [cells]


def test_a_course_that_was_tested_now_and_then():
    each = made(NTK, [0.1, 0.1, 0.1, 0.1], [0.5, 0.4], tested=[2, 4])
    assert [row["test_error"] for row in rows_of(by_epoch(each))] == [None, 0.5, None, 0.4]
    (cells,) = course_table(each).rows
    assert cells[1:3] == ("", "40.00%")
    assert cells[5] == "not reached"
    lines = by_epoch_and_second(each).axes
    assert list(lines[2].lines[0].get_xdata()) == [2, 4]
    assert list(lines[3].lines[0].get_xdata()) == [2.0, 4.0]


def test_a_course_that_diverged_at_once():
    each = made(NTK, [], [], diverged=True)
    assert len(by_epoch(each)) == 0
    assert course_table(each).rows == [("ReLU NTK (diverged)", *[""] * (len(HEADER) - 1))]
    good = made(MAIN[1], [0.1, 0.0], [0.5, 0.4])
    both = stacked([good, each])
    assert worse_claim(both).holds is None
    assert len(side_by_side([both, good]).axes) == 4


GOOD = ([0.1, 0.0, 0.0], [0.5, 0.44, 0.43])


@pytest.mark.parametrize(("last", "holds"), [(0.46, True), (0.40, False), (0.431, None)])
def test_the_claim_that_the_gaussian_is_worse(last, holds):
    assert worse_claim(three(([0.2, 0.1, 0.0], [0.5, 0.5, last]), GOOD, GOOD)).holds is holds


@pytest.mark.parametrize(
    ("errors", "holds"),
    [([0.2, 0.1, 0.0], True), ([0.2, 0.1, 0.1], True), ([0.0, 0.0, 0.0], False), ([0.1, 0.0, 0.0], None)],
)
def test_the_claim_that_the_gaussian_is_slower(errors, holds):
    claim = slower_claim(three((errors, [0.5, 0.5, 0.5]), GOOD, GOOD))
    assert claim.holds is holds
    assert "laplacian after 2 epochs, 2.0 s" in claim.seen


def test_a_run_that_diverged_says_nothing_of_epochs():
    runs = three(([0.2, 0.1, 0.0], [0.5] * 3), GOOD, GOOD)
    broken = made(MAIN[1], [0.1], [0.5], diverged=True)
    assert slower_claim(stacked([runs.iloc[:1], broken, runs.iloc[2:]])).holds is None


def test_the_published_accuracy():
    errors = [0.5] * (NTK_CIFAR_EPOCHS - 1) + [0.41, 0.9]
    each = made(NTK, [0.0] * len(errors), errors, source="cifar10-jpeg")
    (found,) = compare_ntk(rows_of(each)[0])
    assert (found.ours, found.published) == (pytest.approx(59.0), pytest.approx(100 * NTK_CIFAR_ACCURACY))
    assert "JPEG" in found.note
    (original,) = compare_ntk(rows_of(made(NTK, [0.0] * len(errors), errors))[0])
    assert "JPEG" not in original.note
    assert compare_ntk(rows_of(made(NTK, [0.0], [0.5]))[0]) == []


def test_rows_of_the_test_set():
    assert rows_tested(Sample(data="cifar10")) == 10_000
    assert rows_tested(Sample(data="cifar10", test_size=2000)) == 2000
    assert rows_tested(Sample(data="digits")) == 360


def test_the_test_set_is_no_part_of_the_search():
    point = search(Setting("full"), "cifar10", RADIAL[0])
    assert (point.sample.n, point.sample.test_size) == (6000, 1)
