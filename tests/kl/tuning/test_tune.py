"""kl.tune against refits with a naive kernel, its two stages, its choice, and what it refuses."""

import math

import numpy as np
import oracle
import pytest
import torch

import kl
from kl.tuning import search, tune
from kl.tuning.losses import Losses

pytestmark = pytest.mark.numeric
KERNELS = {"gaussian": oracle.gaussian, "laplacian": oracle.laplacian, "matern32": oracle.matern32}


def draw(n=30, d=3, c=3, seed=0):
    """Rows around the centre of their class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % c
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    x[:, 0] += labels
    return x, torch.eye(c)[labels]


def refit(function, x, y, ridge, folds, **parameters):
    """f at the rows of each fold, solved on the other rows with a naive kernel."""
    x, y = x.double().numpy(), y.double().numpy()
    out = np.empty_like(y)
    for fold in folds:
        rest = [i for i in range(len(x)) if i not in fold]
        K = oracle.matrix(function, x[rest], x[rest], **parameters)
        alpha = oracle.naive_interpolate(K, y[rest], ridge)
        out[fold] = oracle.matrix(function, x[fold], x[rest], **parameters) @ alpha
    return torch.from_numpy(out)


def check(point, outputs, y, classes=True):
    wanted = Losses.of(outputs, y.double(), classes)
    found = [point.mse, point.error, point.log_loss] if classes else [point.mse]
    assert found == pytest.approx([wanted.mse, wanted.error, wanted.log_loss] if classes else [wanted.mse], rel=1e-7)
    assert (point.score, point.standard_error) == pytest.approx(wanted.by("mse"), rel=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", list(KERNELS))
def test_leave_one_out_equals_n_refits(name, dtype):
    x, y = draw()
    x = x.to(dtype)
    found = kl.tune(x, y, kernels=name, bandwidths=[0.8, 2.5], ridges=[0, 1e-3, 1.0])
    assert [(p.bandwidth, p.ridge) for p in found.points] == [(b, r) for b in (0.8, 2.5) for r in (0.0, 1e-3, 1.0)]
    for point in found.points:
        outputs = refit(KERNELS[name], x, y, point.ridge, [[i] for i in range(30)], bandwidth=point.bandwidth)
        check(point, outputs, y)
        solved = kl.interpolate(point.kernel, x, y, ridge=point.ridge)
        assert point.rkhs_norm == pytest.approx(solved.rkhs_norm, rel=1e-6)
        assert (point.rows, point.stage) == (30, "all rows")
    assert found.best == min(found.points, key=lambda each: each.mse)


def test_folds_equal_refits_and_hold_their_share_of_the_classes():
    x, y = draw()
    found = kl.tune(x, y, kernels="laplacian", bandwidths=[1.0], ridges=[0, 0.1], by="kfold", folds=5, seed=3)
    problem = tune.Problem(x, y.double(), True, None, 5, 3)
    folds = [fold.tolist() for fold in problem.fold_numbers(problem.distinct(kl.Laplacian(1.0)))]
    assert sorted(i for fold in folds for i in fold) == list(range(30))
    assert all(y[fold].sum(dim=0).tolist() == [2, 2, 2] for fold in folds)
    for point in found.points:
        check(point, refit(oracle.laplacian, x, y, point.ridge, folds, bandwidth=1.0), y)
    other = kl.tune(x, y, kernels="laplacian", bandwidths=[1.0], ridges=[0, 0.1], by="kfold", folds=5, seed=4)
    assert [each.mse for each in other.points] != [each.mse for each in found.points]


def test_held_out_rows_are_evaluated():
    x, y = draw(36)
    x_val, y_val = x[30:], y[30:]
    found = kl.tune(x[:30], y[:30], kernels="gaussian", bandwidths=[1.5], ridges=[1e-3, 0.5], by=(x_val, y_val))
    for point in found.points:
        check(point, kl.interpolate(point.kernel, x[:30], y[:30], ridge=point.ridge).predict(x_val), y_val)


def test_equal_rows_are_left_out_together():
    x, y = draw()
    x[7], x[20] = x[2], x[2]
    found = kl.tune(x, y, kernels="laplacian", bandwidths=[1.0], ridges=[0.1])
    folds = [[2, 7, 20], *([i] for i in range(30) if i not in (2, 7, 20))]
    check(found.best, refit(oracle.laplacian, x, y, 0.1, folds, bandwidth=1.0), y)
    both = kl.tune(x, y, kernels="laplacian", bandwidths=[1.0], ridges=[0.0])
    outputs = torch.empty(30, 3, dtype=torch.float64)
    for fold in folds:
        rest = [i for i in range(30) if i not in fold]
        outputs[fold] = kl.interpolate(kl.Laplacian(1.0), x[rest], y[rest]).predict(x[fold])
    check(both.best, outputs, y)


@pytest.mark.parametrize("by", ["loo", "kfold"])
def test_a_kernel_of_low_rank_without_a_ridge(by):
    """Linear functions of 2 features, so least squares: residuals are those of the refits of least norm."""
    x, y = draw(d=2)
    kernel = kl.Polynomial(degree=1, bias=1.0)
    point = kl.tune(x, y, kernels=[kernel], ridges=[0.0], by=by).best
    problem = tune.Problem(x, y.double(), True, None, 5, 0)
    folds = [each.tolist() for each in problem.fold_numbers(problem.distinct(kernel))]
    outputs = torch.empty(30, 3, dtype=torch.float64)
    features = torch.cat([x, torch.ones(30, 1)], dim=1)
    for fold in folds if by == "kfold" else [[i] for i in range(30)]:
        rest = [i for i in range(30) if i not in fold]
        outputs[fold] = features[fold] @ torch.linalg.lstsq(features[rest], y[rest].double()).solution
    check(point, outputs, y)
    assert point.bandwidth is None


def test_rows_far_from_zero_score_as_those_near_it():
    x, y = draw()
    near = kl.tune(x, y, kernels="gaussian", bandwidths=[1.0], ridges=[0.1])
    far = kl.tune(x + 2.0**20, y, kernels="gaussian", bandwidths=[1.0], ridges=[0.1])
    assert far.best.mse == pytest.approx(near.best.mse, rel=1e-5)


def test_auto_bandwidths_are_multiples_of_the_median_distance():
    x, y = draw()
    found = kl.tune(x, y, kernels=["gaussian", "relu-ntk", kl.Laplacian(3.0)], ridges=[0.1])
    median = kl.median_distance(x)
    wanted = [(kl.Gaussian(median * 2.0**power), 0.1) for power in range(-3, 5)]
    assert [(p.kernel, p.ridge) for p in found.points] == [*wanted, (kl.ReluNTK(), 0.1), (kl.Laplacian(3.0), 0.1)]


@pytest.mark.parametrize("metric", ["mse", "error", "log_loss"])
def test_the_metric_decides(metric):
    x, y = draw(60)
    found = kl.tune(x, y, ridges=[0, 0.1, 10], metric=metric)
    assert found.best.score == getattr(found.best, metric) == min(getattr(p, metric) for p in found.points)
    assert found.metric == metric


def test_regression_has_mse_alone():
    x, _ = draw()
    found = kl.tune(x, x[:, :1].sin(), kernels="gaussian", bandwidths=[1.0, 2.0], ridges=[0.01])
    assert found.metric == "mse"
    assert (found.best.error, found.best.log_loss) == (None, None)
    numbers = kl.tune(*draw(), kernels="gaussian", bandwidths=[1.0], ridges=[0.1], task="regression")
    assert numbers.best.error is None


def test_one_standard_error_takes_the_largest_ridge_within():
    x, y = draw(60)
    grid = {
        "kernels": "laplacian",
        "bandwidths": [1.0, 2.0],
        "ridges": [0, 0.1, 0.5, 1.0, 1.5, 2.0, 3.0, 10.0],
        "metric": "mse",
    }
    best, chosen = kl.tune(x, y, **grid).best, kl.tune(x, y, one_standard_error=True, **grid).best
    assert chosen.kernel == best.kernel
    assert chosen.ridge > best.ridge
    assert chosen.rkhs_norm < best.rkhs_norm
    assert best.score < chosen.score <= best.score + best.standard_error
    larger = [p for p in kl.tune(x, y, **grid).points if p.kernel == best.kernel and p.ridge > chosen.ridge]
    assert all(p.score > best.score + best.standard_error for p in larger)


# Two stages


@pytest.fixture
def few_rows(monkeypatch):
    """Sizes at which the second stage is there on small data."""
    monkeypatch.setattr(search, "SUBSAMPLE_ROWS", 40)


@pytest.mark.usefixtures("few_rows")
@pytest.mark.parametrize("by", ["loo", "kfold", "held out"])
def test_finalists_are_scored_on_all_rows_as_one_stage_scores_them(by):
    x, y = draw(120)
    by = (x[90:], y[90:]) if by == "held out" else by
    x, y = x[:90], y[:90]
    two = kl.tune(x, y, kernels=["laplacian", "gaussian"], by=by, finalists=2, metric="mse")
    one = kl.tune(x, y, kernels=["laplacian", "gaussian"], by=by, subsample=90, metric="mse")
    assert {(p.stage, p.rows) for p in two.points} == {("subsample", 40), ("all rows", 90)}
    assert (two.stage, two.best.stage, one.stage) == ("all rows", "all rows", "all rows")
    whole = {(p.kernel, p.ridge): p for p in one.points}
    last = [p for p in two.points if p.stage == "all rows"]
    assert len({p.kernel for p in last}) == 2
    for point in last:
        same = whole[point.kernel, point.ridge]
        assert (point.mse, point.log_loss, point.rkhs_norm) == pytest.approx(
            (same.mse, same.log_loss, same.rkhs_norm), rel=1e-5
        )
    for kernel in {p.kernel for p in last}:  # the best ridge was searched for until both beside it are worse
        mine = [p for p in last if p.kernel == kernel]
        ridges, best = sorted(p.ridge for p in mine), min(mine, key=lambda p: p.score).ridge
        assert ridges[0] < best or best == 0
        assert ridges[-1] > best or best == 10


@pytest.mark.usefixtures("few_rows")
def test_the_window_of_ridges_moves_to_the_best(monkeypatch):
    x, y = draw(90)
    grid = {
        "kernels": "laplacian",
        "bandwidths": [1.0],
        "ridges": [0, *(10.0**k for k in range(-6, 4))],
        "metric": "mse",
    }
    one = kl.tune(x, y, subsample=90, **grid)
    worst = max(one.points, key=lambda p: p.score)
    monkeypatch.setattr("kl.tuning.tune.choose_finalists", lambda points, count: [worst])
    two = kl.tune(x, y, **grid)
    assert two.best.ridge == one.best.ridge
    assert two.best.mse == pytest.approx(one.best.mse, rel=1e-6)


@pytest.mark.usefixtures("few_rows")
def test_a_singular_finalist_is_decomposed_or_left_out(monkeypatch):
    x, y = draw(90)
    linear = kl.Polynomial(degree=1, bias=1.0)
    found = kl.tune(x, y, kernels=[linear], ridges=[0, 1.0], metric="mse")
    wanted = kl.tune(x, y, kernels=[linear], ridges=[0, 1.0], metric="mse", subsample=90)
    assert found.ranked() == wanted.ranked()
    monkeypatch.setattr(search, "EIGEN_ROWS", 60)
    monkeypatch.setattr("kl.tuning.tune.choose_finalists", lambda points, count: [p for p in points if p.ridge == 0])
    without = kl.tune(x, y, kernels=[linear], ridges=[0, 1.0], metric="mse")
    assert [p.ridge for p in without.ranked()] == [1.0]
    assert "ridge 0 of Polynomial" in without.remarks[0]


@pytest.mark.usefixtures("few_rows")
def test_the_subsample_decides_where_all_rows_are_too_many(monkeypatch):
    x, y = draw(90)
    monkeypatch.setattr(tune, "FINAL_ROWS", 80)
    found = kl.tune(x, y, ridges=[0.1])
    assert (found.stage, found.best.rows) == ("subsample", 40)
    assert "the ranking on 40 of 90 rows decides, because more than 80 rows would take too long" in found.remarks[0]


@pytest.mark.usefixtures("few_rows")
def test_the_subsample_decides_where_memory_is_short():
    x, y = draw(90)
    found = kl.tune(x, y, ridges=[0.1], memory="100KB")
    assert found.stage == "subsample"
    assert "of memory, and the budget is 100 KB" in found.remarks[0]
    smaller = kl.tune(x, y, ridges=[0.1], memory="40KB")
    assert 20 <= smaller.best.rows < 40


def test_the_subsample_has_the_shares_of_the_classes():
    y = torch.eye(3)[torch.tensor([0] * 60 + [1] * 30 + [2] * 10)]
    chosen = tune.drawn_rows(y, 20, True, 0)
    assert y[chosen].sum(dim=0).tolist() == [12, 6, 2]
    assert len(set(chosen.tolist())) == 20
    assert chosen.tolist() != tune.drawn_rows(y, 20, True, 1).tolist()
    assert sorted(tune.drawn_rows(y, 100, False, 0).tolist()) == list(range(100))


def test_ends_of_the_lists_are_remarked():
    x, y = draw()
    found = kl.tune(x, y, kernels="gaussian", bandwidths=[0.2, 0.3], ridges=[0.1, 100.0], metric="mse")
    assert any("the best bandwidth is the largest that was tried" in each for each in found.remarks)
    assert not kl.tune(x, y, kernels="gaussian", bandwidths=[1.0], ridges=[0.1]).remarks


def test_progress_is_reported_with_an_estimate():
    x, y = draw()
    heard = []
    kl.tune(x, y, kernels="gaussian", bandwidths=[1.0, 2.0, 3.0], ridges=[0.1], progress=heard.append)
    assert [(each.done, each.total) for each in heard] == [(1, 3), (2, 3), (3, 3)]
    assert all(math.isfinite(each.seconds_left) for each in heard)
    assert heard[-1].seconds_left == 0
    assert "1 of 3 kernels and bandwidths, about" in str(heard[0])


# Kept scores


@pytest.mark.usefixtures("few_rows")
def test_the_same_call_goes_on(tmp_path, monkeypatch):
    x, y = draw(90)
    grid = {"kernels": ["gaussian", "laplacian"], "bandwidths": [1.0, 2.0], "ridges": [0, 0.1, 1.0], "folder": tmp_path}
    wanted = kl.tune(x, y, **(grid | {"folder": None}))
    counted, score = [], search.score_all

    def interrupted(problem, kernel, ridges):
        counted.append(kernel)
        if len(counted) == 3:
            raise KeyboardInterrupt
        return score(problem, kernel, ridges)

    monkeypatch.setattr(search, "score_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kl.tune(x, y, **grid)
    assert len(list(tmp_path.iterdir())) == 2
    assert kl.tune(x, y, **grid) == wanted
    assert len(counted) == 5  # two before the interrupt, and the third one twice
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4 + 3  # and the finalists
    assert kl.tune(x, y, **grid) == wanted
    assert len(counted) == 5
    for file in files:
        file.write_bytes(file.read_bytes()[:-30])
    assert kl.tune(x, y, **grid) == wanted
    assert len(counted) == 9


@pytest.mark.parametrize("change", ["x", "y", "ridges", "seed", "by", "kernel", "task"])
def test_scores_of_something_else_are_not_taken(tmp_path, monkeypatch, change):
    x, y = draw()
    options = {"kernels": "gaussian", "bandwidths": [1.0], "ridges": [0.1], "folder": tmp_path}
    kl.tune(x, y, **options)
    changed = {"ridges": {"ridges": [0.2]}, "seed": {"seed": 1}, "by": {"by": (x, y)}, "task": {"task": "regression"}}
    options |= changed.get(change, {}) | ({"kernels": "laplacian"} if change == "kernel" else {})
    x[3, 1] += change == "x"
    if change == "y":
        y[[0, 1]] = y[[1, 0]]
    asked, score = [], search.score_all
    monkeypatch.setattr(search, "score_all", lambda *given: asked.append(1) or score(*given))
    assert kl.tune(x, y, **options) == kl.tune(x, y, **(options | {"folder": None}))
    assert len(asked) == 2


# What is refused

ONE = torch.ones(1, 1, dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernels": ["gausian"]}, "unknown kernel 'gausian'. Did you mean gaussian"),
        ({"kernels": []}, "kernels must name one kernel at least; got none"),
        ({"bandwidths": []}, "bandwidths must hold one number at least; got none"),
        ({"bandwidths": [0.0]}, "bandwidths must be a finite number above 0; got 0.0: leave it out, or give auto"),
        ({"bandwidths": "wide"}, "bandwidths must be \"auto\" or a list of numbers; got 'wide'"),
        ({"bandwidths": 3.0}, 'bandwidths must be "auto" or a list of numbers; got 3.0'),
        (
            {"ridges": [0.1, -1.0]},
            "ridges must be a finite number, 0 or above; got -1.0: leave it out; 0 is without a ridge",
        ),
        ({"ridges": [math.nan]}, "ridges must be a finite number, 0 or above; got nan"),
        ({"ridges": []}, "ridges must hold one number at least; got none"),
        ({"ridges": 0.1}, "ridges must be a list of numbers, 0 or above; got 0.1"),
        ({"by": "loocv"}, "by must be one of loo, kfold; got 'loocv'"),
        ({"by": (1, 2, 3)}, 'by must be "loo", "kfold" or a pair'),
        ({"by": (torch.ones(2, 5), torch.ones(2, 3))}, "by must hold x_val of 3 columns and y_val of 3"),
        ({"by": (torch.ones(2, 3), torch.ones(2, 3))}, "y_val must be one-hot rows"),
        ({"by": "kfold", "folds": 1}, "folds must be at least 2, so that rows remain; got 1"),
        ({"by": "kfold", "folds": 31}, "folds must be at most the number of rows that differ, 30; got 31"),
        ({"metric": "auc"}, "metric must be one of auto, mse, error, log_loss; got 'auc'"),
        ({"subsample": 0}, "subsample must be a whole number, 1 or above; got 0"),
        ({"subsample": 1}, "subsample must be at least 2 rows"),
        ({"finalists": 0}, "finalists must be a whole number, 1 or above; got 0"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"task": "ranking"}, "task must be one of auto, classification, regression; got 'ranking'"),
        ({"memory": "lots"}, "memory must be auto, a number of bytes"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(kl.InputError) as caught:
        kl.tune(*draw(), **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (ONE, ONE, {}, "x must have at least 2 rows that differ for by='loo'"),
        (ONE.expand(5, 2), ONE.expand(5, 1), {}, "got 5 row(s), all equal"),
        (ONE, ONE[:0], {}, "y must have at least one row"),
        (draw()[0], draw()[1][:-1], {}, "x and y must have one row per sample; got 30 and 29"),
        (draw()[0], torch.eye(3)[[0] * 30], {}, "y must hold rows of two classes at least; got one class"),
        (draw()[0], draw()[0], {"task": "classification"}, "y must be one-hot rows of at least two classes"),
        (draw()[0], draw()[0], {"metric": "error"}, "metric must be \"mse\" for regression; got 'error'"),
        (draw()[0] / 0, draw()[1], {}, "x must be finite"),
        (torch.eye(30)[[0] * 29 + [1]], draw()[1], {}, "the median distance of the rows of x is 0: give bandwidths"),
        (1e200 * draw()[0], draw()[1], {"kernels": "polynomial"}, "is not finite on some pairs of rows"),
    ],
)
def test_wrong_data_is_refused(x, y, options, message):
    with pytest.raises(kl.InputError) as caught:
        kl.tune(x, y, **options)
    assert message in str(caught.value)


def test_a_budget_that_nothing_fits_is_refused():
    x, y = draw()
    with pytest.raises(
        kl.MemoryBudgetError, match=r"the eigen-decomposition of 30 rows needs .*more than the budget of"
    ):
        kl.tune(x, y, memory=1000)
    with pytest.raises(kl.MemoryBudgetError, match="of 30 rows needs"):
        kl.tune(x, y, subsample=30, memory=40000)
    assert kl.tune(ONE, ONE, by=(ONE, ONE), ridges=[0.0], bandwidths=[1.0]).best.mse == pytest.approx(0, abs=1e-20)


def test_in_units_converts_squared_errors_alone():
    x = torch.linspace(-2, 2, 40, dtype=torch.float64)[:, None]
    y = torch.cat([x.sin(), x.square()], dim=1)
    y = y / y.std(dim=0)
    tuning = kl.tune(x, y, kernels="gaussian", bandwidths=[0.5, 2.0], ridges=[1e-3, 0.1])
    own = tuning.in_units([10.0, 0.5])
    for before, after in zip(tuning.points, own.points, strict=True):
        assert after.output_mse == pytest.approx((100 * before.output_mse[0], 0.25 * before.output_mse[1]))
        assert after.mse == pytest.approx(sum(after.output_mse) / 2)
        assert after.score == pytest.approx(50.125 * before.score)
        assert after.standard_error == pytest.approx(50.125 * before.standard_error)
        assert (after.kernel, after.rkhs_norm) == (before.kernel, before.rkhs_norm)
    assert own.points.index(own.best) == tuning.points.index(tuning.best)
    assert tuning.best.mse == pytest.approx(sum(tuning.best.output_mse) / 2)


@pytest.mark.parametrize(
    ("scale", "message"),
    [([1.0], "scale must hold a number for each of 2 output"), ([1.0, 0.0], "scale must be")],
)
def test_in_units_of_wrong_scales(scale, message):
    x = torch.linspace(0, 1, 10)[:, None]
    tuning = kl.tune(x, torch.cat([x, -x], dim=1), kernels="gaussian", bandwidths=[1.0], ridges=[1e-3])
    with pytest.raises(kl.InputError, match=message):
        tuning.in_units(scale)


def test_auto_bandwidths_are_of_the_kernels_own_distance():
    x, y = draw()
    found = kl.tune(x, y, kernels=[kl.LpqLaplacian(), "laplacian"], ridges=[0.1])
    for name, p in (("lpq-laplacian", 1.0), ("laplacian", 2.0)):
        widths = sorted({each.bandwidth for each in found.points if each.kernel.name == name})
        assert widths[3] == kl.median_distance(x, p=p)
