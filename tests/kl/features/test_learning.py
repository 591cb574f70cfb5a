"""The rounds of a recursive feature machine against loops in float64, and how they choose and stop."""

import logging

import numpy as np
import pytest
import torch
from user_kernels import Cauchy

import kl
from kl.errors import InputError
from kl.features.chain import Chain, MetricOptions, evaluate_solution
from kl.features.learning import Choice, FeatureLearning, held_out_parts
from kl.solve import Problem, solve

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
    _n, d = x.shape
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
    learning = learn(x, y, w, kl.Gaussian(1.5), 0.05, Choice(3, "loo", 9), MetricOptions(metric), solver="direct")
    for number, (m, score) in enumerate(naive_rounds(x, y, w, 1.5, 0.05, 3, metric == "diagonal")):
        found = learning.step()
        got = torch.eye(4, dtype=torch.float64) if found.metric is None else found.metric.dense()
        torch.testing.assert_close(got, m, atol=1e-5, rtol=1e-4)
        assert (found.number, learning.scores[-1]) == (number, pytest.approx(score, rel=1e-4))
    assert learning.is_finished
    assert learning.scores[learning.best.number] == min(learning.scores)


def learn(x, y, w=None, kernel=None, ridge=1e-3, choice=None, metric=None, **more):
    return FeatureLearning(
        problem_of(x, y, w), kernel or kl.Laplacian(), ridge=ridge, choice=choice, metric=metric, **more
    )


def test_folds_and_a_held_out_part_are_scored_by_rounds_without_them():
    x, y = two_directions(60, 4)
    w = torch.linspace(0.5, 2, 60, dtype=torch.float64)
    problem = problem_of(x, y, w)
    for by, parts in (("kfold", 5), ("holdout", 1)):
        found = held_out_parts(problem, by, 3)
        assert len(found) == parts
        total = weight = 0.0
        for rest, held in found:
            chain = Chain(
                rest,
                kl.Gaussian(1.5),
                MetricOptions(),
                {"ridge": 0.05, "solver": "direct", "epochs": 1, "memory": "auto"},
                seed=3,
                leave_one_out=False,
            )
            chain.step(), chain.step()
            squares = (evaluate_solution(chain.last.solution, held.x) - held.y).square().mean(dim=1)
            total, weight = total + float(held.weights @ squares), weight + float(held.weights.sum())
        learning = learn(x, y, w, kl.Gaussian(1.5), 0.05, Choice(1, by), seed=3)
        learning.step(), learning.step()
        assert learning.scores[1] == pytest.approx(total / weight)
    held = torch.cat([held.x for _, held in held_out_parts(problem, "kfold", 3)])
    assert torch.equal(held[held[:, 0].argsort()], x[x[:, 0].argsort()])
    assert [len(held.x) for _, held in held_out_parts(problem, "holdout", 3)] == [12]


def test_the_best_round_is_solved_on_all_rows():
    """By folds the metric of the best round is learnt on all rows; by a held-out fifth on the others."""
    x, y = two_directions(100, 5)
    for by in ("kfold", "holdout"):
        said = []
        learning = learn(x, y, choice=Choice(3, by), say=said.append)
        best = learning.run()
        assert len(best.solution.centers) == len(best.solution.left_out) == 100
        assert f"round {best.number} is the best: solving on all 100 rows" in said
        rows = problem_of(x, y) if by == "kfold" else held_out_parts(problem_of(x, y), by, 0)[0][0]
        options = {"ridge": 1e-3, "solver": "auto", "epochs": 10, "memory": "auto"}
        chain = Chain(rows, kl.Laplacian(), MetricOptions(), options, seed=0, leave_one_out=False)
        for _ in range(best.number + 1):
            fit = chain.step()
        torch.testing.assert_close(best.metric.dense(), fit.metric.dense())


def not_finite_from(monkeypatch, number):
    """Make the error of rounds infinite from a number on."""
    score = FeatureLearning._score
    monkeypatch.setattr(
        FeatureLearning, "_score", lambda self: float("inf") if len(self.scores) >= number else score(self)
    )


@pytest.mark.parametrize("by", ["kfold", "holdout"])
def test_rounds_end_before_one_whose_error_is_not_finite(by, monkeypatch, caplog):
    """The state is that of the rounds before, from which learning can go on; the best of them is solved for."""
    x, y = two_directions(60, 4)
    whole = learn(x, y, choice=Choice(1, by))
    wanted = whole.run()
    not_finite_from(monkeypatch, 2)
    learning = learn(x, y, choice=Choice(3, by))
    found = learning.run()
    assert (learning.scores, learning.is_finished, learning.step()) == (whole.scores, True, None)
    assert caplog.messages[0] == "the error of round 2 is inf: rounds end with the one before"
    torch.testing.assert_close(found.solution.alpha, wanted.solution.alpha, rtol=0, atol=0)
    again = learn(x, y, choice=Choice(3, by))
    again.load_state_dict(learning.state_dict())
    assert (again.scores, again.is_finished, again.best.number) == (whole.scores, True, whole.best.number)


def test_round_0_without_a_finite_error(monkeypatch):
    not_finite_from(monkeypatch, 0)
    with pytest.raises(
        InputError, match=r"^ridge must be large enough for a finite error of round 0; got 0\.001, with"
    ):
        learn(*two_directions()).step()


def test_what_auto_chooses_by():
    x, y = two_directions(3100, 2)
    assert learn(x, y).by == "holdout"
    assert learn(x[:3000], y[:3000]).by == "kfold"
    assert learn(x[:19], y[:19]).by == "loo"
    assert learn(x[:30], y[:30], held_out=problem_of(x[30:40], y[30:40])).by == "validation"


def test_the_bandwidth_is_the_factor_times_the_median_distance_under_the_metric():
    x, y = two_directions()
    learning = learn(x, y, choice=Choice(1, "loo"), metric=MetricOptions(bandwidth_factor=2.0))
    for _ in range(2):
        found = learning.step()
        rows = x if found.metric is None else found.metric.transform(x)
        assert found.solution.kernel.bandwidth == pytest.approx(2 * kl.median_distance(rows), rel=1e-6)


@pytest.mark.parametrize("by", ["kfold", "holdout", "loo"])
def test_what_is_learnt_and_kept(by):
    """The other columns count little, and leaving them out makes the function better than the plain kernel's."""
    x, y = two_directions(300, 10)
    z, truth = two_directions(200, 10, seed=1, noise=0)
    best = learn(x, y, choice=Choice(5, by)).run()
    importances = best.metric.importances
    assert importances[:2].sum() > 0.9 * importances.sum()
    plain = learn(x, y, choice=Choice(0, by)).run()
    errors = [float((evaluate_solution(each.solution, z) - truth).square().mean()) for each in (plain, best)]
    assert errors[1] < 0.5 * errors[0]
    assert plain.metric is None


def test_rounds_stop_when_they_are_no_better():
    """Of noise alone no round is better than the one before for long."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=generator).double(), torch.randn(60, 1, generator=generator).double()
    learning = learn(x, y, choice=Choice(50, patience=2))
    best = learning.run()
    assert len(learning.scores) == best.number + 3 < 20
    assert learning.is_finished


def test_rounds_by_eigenpro():
    x, y = two_directions(200, 5)
    learning = learn(x, y, ridge=0.0, solver="eigenpro", epochs=5, choice=Choice(2, "holdout"))
    best = learning.run()
    assert len(best.solution.centers) == 200
    assert learning.scores[1] < learning.scores[0]
    assert best.solution.left_out is None


@pytest.mark.parametrize("solver", ["eigenpro", "pcg"])
def test_a_round_starts_from_the_weights_of_the_round_before(solver, monkeypatch):
    """Of the same rows, or of those of all rows that it was fitted on."""
    x, y = two_directions(100, 5)
    learning, asked = learn(x, y, solver=solver, epochs=5, choice=Choice(2, "holdout")), []
    monkeypatch.setattr("kl.features.chain.solve", lambda *args, **more: asked.append(more) or solve(*args, **more))
    rounds = [learning.step() for _ in range(3)]
    assert asked[0]["initial"] is None
    for more, before in zip(asked[1:], rounds, strict=False):
        assert torch.equal(more["initial"], before.solution.alpha)
    learning.run()
    fitted = torch.isin(learning.whole.first, learning.problem.first)
    assert int(fitted.sum()) == 80
    assert torch.equal(asked[3]["initial"][fitted], rounds[2].solution.alpha)
    assert not asked[3]["initial"][~fitted].any()
    assert [more["epochs"] for more in asked] == [5, 3, 3, 5]


def test_rows_that_choose_may_be_given():
    x, y = two_directions(100, 5)
    given = learn(x, y, held_out=problem_of(x[:30] + 0.1, y[:30]))
    found = given.step()
    expected = (evaluate_solution(found.solution, x[:30] + 0.1) - y[:30]).square().mean()
    assert given.scores == [pytest.approx(float(expected))]


def test_a_constant_function_has_no_features(caplog):
    x, _ = two_directions(30, 3)
    with caplog.at_level(logging.INFO):
        learning = learn(x, torch.zeros(30, 1).double(), kernel=kl.Gaussian(1.0), ridge=1.0)
        best = learning.run()
    assert (best.number, len(learning.scores)) == (0, 1)
    assert "the function of round 0 is constant on its rows, so it has no features" in caplog.text


def test_edges():
    """A constant column, two equal ones, more columns than rows, one column, many outputs."""
    x, y = two_directions(50, 4)
    x[:, 3] = 7.0
    x[:, 2] = x[:, 0]
    learning = learn(x, y, choice=Choice(2, "loo", 9))
    learning.step()
    dense = learning.step().metric.dense()
    assert float(dense[3].abs().max()) == 0
    torch.testing.assert_close(dense[0], dense[2], atol=1e-6, rtol=1e-5)
    wide, _ = two_directions(20, 60)
    for rows, targets in ((wide, wide[:, :1]), (x[:, :1], y), (x, torch.randn(50, 100).double())):
        found = learn(rows, targets, choice=Choice(1)).run()
        assert bool(found.solution.alpha.isfinite().all())


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        (Choice, {"rounds": -1}, "rounds must be"),
        (Choice, {"by": "cv"}, "by must be one of auto, kfold, holdout, loo"),
        (Choice, {"patience": 0}, "patience must be"),
        (MetricOptions, {"metric": "block"}, "metric must be one of full, diagonal"),
        (MetricOptions, {"power": 0.0}, "power must be"),
        (MetricOptions, {"scale": "sum"}, "scale must be one of max, trace"),
        (MetricOptions, {"sample": 0}, "sample must be"),
        (MetricOptions, {"sketch": 0}, "sketch must be"),
        (MetricOptions, {"bandwidth_factor": -1.0}, "bandwidth_factor must be"),
    ],
)
def test_options_out_of_range(form, options, message):
    with pytest.raises(kl.InputError, match=message):
        form(**options)


def test_what_cannot_be_learnt_from():
    x, y = two_directions(30, 3)
    with pytest.raises(kl.InputError, match=r'bandwidth_factor multiplies a bandwidth "auto"; got 2 with Gaussian'):
        learn(x, y, kernel=kl.Gaussian(1.0), metric=MetricOptions(bandwidth_factor=2.0))
    with pytest.raises(kl.InputError, match="2 is missing"):
        learn(x, y, metric=MetricOptions(((0, 1),)))
    with pytest.raises(kl.InputError, match="x must have at least 20 rows that differ"):
        learn(x[:15], y[:15], solver="eigenpro")
    with pytest.raises(kl.InputError, match='by must be "holdout" with solver eigenpro'):
        learn(x, y, solver="eigenpro", choice=Choice(by="loo"))
    with pytest.raises(kl.InputError, match="Cauchy must define _slope"):
        learn(x, y, kernel=Cauchy(1.0))
