"""The rounds of a recursive feature machine against loops in float64, and how they choose and stop."""

import logging

import numpy as np
import pytest
import torch

import kl
from kl.features.learning import FeatureLearning, FeatureOptions, evaluate_solution, split
from kl.solve import Problem

pytestmark = pytest.mark.numeric


def two_directions(n=80, d=6, seed=0, noise=0.05):
    """Targets of two of d columns."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    y = np.stack([np.sin(x[:, 0]) * x[:, 1], x[:, 1]], axis=1) + noise * rng.normal(size=(n, 2))
    return torch.from_numpy(x), torch.from_numpy(y)


def problem_of(x, y, weights=None):
    return Problem.of(x, y, torch.ones(len(x), dtype=torch.float64) if weights is None else weights)


def naive_rounds(x, y, w, bandwidth, ridge, rounds, diagonal):
    """Gaussian kernel: (M, leave-one-out mse) of each round, by loops and autograd."""
    n, d = x.shape
    m, found = torch.eye(d, dtype=torch.float64), []

    def kernel(a, b):
        step = a[:, None] - b[None]
        return torch.exp(-torch.einsum("ijk,kl,ijl->ij", step, m, step) / (2 * bandwidth**2))

    for _ in range(rounds + 1):
        gram = kernel(x, x) + torch.diag(ridge / w)
        alpha = torch.linalg.solve(gram, y)
        left = alpha / torch.linalg.inv(gram).diagonal()[:, None]
        found.append((m, float((w * left.square().mean(dim=1)).sum() / w.sum())))
        jacobian = torch.func.vmap(torch.func.jacrev(lambda row, a=alpha: (kernel(row[None], x) @ a)[0]))(x)
        outer = torch.einsum("i,iok,iol->kl", w, jacobian, jacobian)
        outer = outer.diagonal().diag() if diagonal else outer
        m = outer / outer.abs().max()
    return found


@pytest.mark.parametrize("metric", ["full", "diagonal"])
@pytest.mark.parametrize("weighted", [False, True])
def test_rounds_against_loops(metric, weighted):
    x, y = two_directions(40, 4)
    w = torch.linspace(0.5, 2, 40, dtype=torch.float64) if weighted else torch.ones(40, dtype=torch.float64)
    options = FeatureOptions(3, metric, patience=9)
    learning = FeatureLearning(problem_of(x, y, w), kl.Gaussian(1.5), ridge=0.05, solver="direct", options=options)
    for number, (m, score) in enumerate(naive_rounds(x, y, w, 1.5, 0.05, 3, metric == "diagonal")):
        found = learning.step()
        got = torch.eye(4, dtype=torch.float64) if found.metric is None else found.metric.dense()
        torch.testing.assert_close(got, m, atol=1e-5, rtol=1e-4)
        assert (found.number, found.score) == (number, pytest.approx(score, rel=1e-4))
    assert learning.is_finished
    assert learning.best.score == min(learning.scores)


def test_the_bandwidth_is_the_factor_times_the_median_distance_under_the_metric():
    x, y = two_directions()
    options = FeatureOptions(1, bandwidth_factor=2.0)
    learning = FeatureLearning(problem_of(x, y), kl.Laplacian(), ridge=1e-3, options=options)
    for _ in range(2):
        found = learning.step()
        rows = x if found.metric is None else found.metric.transform(x)
        assert found.solution.kernel.bandwidth == pytest.approx(2 * kl.median_distance(rows), rel=1e-6)


def test_what_is_learnt_and_kept():
    """The other columns count little, and leaving them out makes the function better than the plain kernel's."""
    x, y = two_directions(300, 10)
    z, truth = two_directions(200, 10, seed=1, noise=0)
    learning = FeatureLearning(problem_of(x, y), kl.Laplacian(), ridge=1e-3)
    best = learning.run()
    importances = best.metric.importances
    assert importances[:2].sum() > 0.9 * importances.sum()
    plain = FeatureLearning(problem_of(x, y), kl.Laplacian(), ridge=1e-3, options=FeatureOptions(0)).run()
    errors = [float((evaluate_solution(each.solution, z) - truth).square().mean()) for each in (plain, best)]
    assert errors[1] < 0.5 * errors[0]
    assert plain.metric is None


def test_rounds_stop_when_they_are_no_better():
    """Of noise alone no round is better than the one before for long."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=generator).double(), torch.randn(60, 1, generator=generator).double()
    learning = FeatureLearning(problem_of(x, y), kl.Laplacian(), ridge=1e-3, options=FeatureOptions(50, patience=2))
    best = learning.run()
    assert len(learning.scores) == best.number + 3 < 20
    assert learning.is_finished


def test_rows_are_held_out_where_the_solver_leaves_out_none(caplog):
    x, y = two_directions(200, 5)
    said = []
    learning = FeatureLearning(
        problem_of(x, y), kl.Laplacian(), ridge=0.0, solver="eigenpro", epochs=5, say=said.append, options=FeatureOptions(2)
    )
    best = learning.run()
    assert len(learning.problem.x) == 180
    assert "on 20 rows held out" in " ".join(said)
    assert f"round {best.number} is the best: solving on all 200 rows" in said
    assert len(best.solution.centers) == 200
    again = split(problem_of(x, y), 0)
    assert torch.equal(again[0].x, learning.problem.x)
    together = torch.cat([again[0].x, again[1][0]])
    assert torch.equal(together[together[:, 0].argsort()], x[x[:, 0].argsort()])
    given = FeatureLearning(problem_of(x, y), kl.Laplacian(), ridge=1e-3, held_out=(x[:30] + 0.1, y[:30]))
    round_ = given.step()
    expected = (evaluate_solution(round_.solution, x[:30] + 0.1) - y[:30]).square().mean()
    assert round_.score == pytest.approx(float(expected))


def test_a_constant_function_has_no_features(caplog):
    x, _ = two_directions(30, 3)
    with caplog.at_level(logging.INFO):
        learning = FeatureLearning(problem_of(x, torch.zeros(30, 1).double()), kl.Gaussian(1.0), ridge=1.0)
        best = learning.run()
    assert (best.number, len(learning.scores)) == (0, 1)
    assert "the function of round 0 is constant on all rows, so it has no features" in caplog.text


def test_edges():
    """A constant column, two equal ones, more columns than rows, one column, many outputs."""
    x, y = two_directions(50, 4)
    x[:, 3] = 7.0
    x[:, 2] = x[:, 0]
    best = FeatureLearning(problem_of(x, y), kl.Laplacian(), ridge=1e-3, options=FeatureOptions(2, patience=9))
    best.step()
    second = best.step()
    dense = second.metric.dense()
    assert float(dense[3].abs().max()) == 0
    torch.testing.assert_close(dense[0], dense[2], atol=1e-6, rtol=1e-5)
    wide, _ = two_directions(20, 60)
    for rows, targets in ((wide, wide[:, :1]), (x[:, :1], y), (x, torch.randn(50, 100).double())):
        found = FeatureLearning(problem_of(rows, targets), kl.Laplacian(), ridge=1e-3, options=FeatureOptions(1)).run()
        assert bool(found.solution.alpha.isfinite().all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": -1}, "rounds must be"),
        ({"metric": "block"}, "metric must be one of full, diagonal"),
        ({"power": 0.0}, "power must be"),
        ({"scale": "sum"}, "scale must be one of max, trace"),
        ({"sample": 0}, "sample must be"),
        ({"sketch": 0}, "sketch must be"),
        ({"bandwidth_factor": -1.0}, "bandwidth_factor must be"),
        ({"patience": 0}, "patience must be"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(kl.InputError, match=message):
        FeatureOptions(**options)


def test_what_cannot_be_learnt_from():
    x, y = two_directions(30, 3)
    with pytest.raises(kl.InputError, match=r'bandwidth_factor multiplies a bandwidth "auto"; got 2 with Gaussian'):
        FeatureLearning(problem_of(x, y), kl.Gaussian(1.0), ridge=0.1, options=FeatureOptions(bandwidth_factor=2.0))
    with pytest.raises(kl.InputError, match="2 is missing"):
        FeatureLearning(problem_of(x, y), kl.Gaussian(1.0), ridge=0.1, options=FeatureOptions(metric=((0, 1),)))
    with pytest.raises(kl.InputError, match="x must have at least 20 rows that differ"):
        FeatureLearning(problem_of(x[:15], y[:15]), kl.Gaussian(1.0), ridge=0.1, solver="eigenpro")
