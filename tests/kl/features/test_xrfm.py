"""Parity with xrfm 0.4.5, another implementation of recursive feature machines, where it is installed.

Read from its source. The same as here: the Laplacian exp(-|x - z|_M / bandwidth), the ridge added to the diagonal of K
and not multiplied by n, round 0 with the identity for M, gradients pulled back to the features before M, the outer
product summed over rows and outputs and divided by its largest entry, so that power 1 here is its agop_power 1/2 of
M^(1/2). Different, and therefore set or avoided in these tests:

- It computes in the dtype of the rows, float32 in `xrfm.xRFM`, with LU; here K is factorised in float64 by Cholesky.
- Its bandwidth is a constant 10, or 10 times the median distance ("adaptive"), here the median distance times a factor.
- Its gradients are of the first rows, 20,000 and what fills the last batch; here of a random sample of 10,000.
- Its center_grads subtracts one mean over rows and outputs together; here each output has a mean of its own. With one
  output both are the same.
- Its iters=3 ends with round 3 as counted here. It stops where the validation metric is 1.1 times the best one; here
  after two rounds without a better score.
- Its kernel "laplace" adds 1e-8 to the diagonal of M before it takes the root; "l2_high_dim" takes M itself.
"""

import numpy as np
import pytest
import torch
from sklearn import datasets

import kl
from kl.features.chain import Chain, MetricOptions, evaluate_solution
from kl.solve import Problem

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning"),  # of xrfm's docstrings
]
ROUNDS, RIDGE = 3, 1e-2


@pytest.fixture
def xrfm():
    return pytest.importorskip("xrfm.rfm_src", reason="xrfm is not installed: pip install 'xrfm==0.4.5'")


def rows_of(name):
    """Distinct standardised rows in a random order, and targets: one-hot for classes, standardised for numbers."""
    if name == "friedman":
        x, y = datasets.make_friedman1(600, 10, noise=0.5, random_state=0)
    else:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    y = ((y - y.mean()) / y.std())[:, None] if name in ("friedman", "diabetes") else np.eye(y.max() + 1)[y]
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    chosen = np.random.default_rng(0).permutation(np.unique(x, axis=0, return_index=True)[1])[:1000]
    return torch.from_numpy(x[chosen]), torch.from_numpy(y[chosen])


def ours(x, y, n, bandwidth, options):
    """The validation mse of each round."""
    solving = {"ridge": RIDGE, "solver": "direct", "epochs": 1, "memory": "auto"}
    problem = Problem.of(x[:n], y[:n], torch.ones(n, dtype=torch.float64))
    chain = Chain(problem, kl.Laplacian(bandwidth), options, solving, seed=0, leave_one_out=False)
    fits = [chain.step() for _ in range(ROUNDS + 1)]
    return [float((evaluate_solution(fit.solution, x[n:]) - y[n:]).square().mean()) for fit in fits]


def theirs(xrfm, x, y, n, bandwidth, diagonal, dtype, **options):
    """The same of xrfm, which gives the last round alone, so that it is run for each number of iterations."""
    x, y = x.to(dtype), y.to(dtype)
    found = []
    for iters in range(ROUNDS + 1):
        model = xrfm.RFM("l2_high_dim", bandwidth=bandwidth, diag=diagonal, device="cpu", verbose=False)
        whole = {"early_stop_rfm": False, "return_best_params": False}
        model.fit((x[:n], y[:n]), (x[n:], y[n:]), iters=iters, reg=RIDGE, **whole, **options)
        found.append(float((model.predict(x[n:]) - y[n:]).square().mean()))
    return found


@pytest.mark.parametrize("metric", ["full", "diagonal"])
@pytest.mark.parametrize("name", ["friedman", "diabetes", "breast_cancer", "wine", "digits"])
def test_validation_errors_are_those_of_xrfm(xrfm, name, metric):
    x, y = rows_of(name)
    n, bandwidth = len(x) * 4 // 5, kl.median_distance(x)
    errors = ours(x, y, n, bandwidth, MetricOptions(metric))
    diagonal = metric == "diagonal"
    assert errors == pytest.approx(theirs(xrfm, x, y, n, bandwidth, diagonal, torch.float64), rel=1e-5)
    assert errors == pytest.approx(theirs(xrfm, x, y, n, bandwidth, diagonal, torch.float32), rel=2e-2)
    assert len(set(errors)) == ROUNDS + 1  # each round learnt something


@pytest.mark.parametrize("metric", ["full", "diagonal"])
def test_centred_gradients_of_one_output_are_those_of_xrfm(xrfm, metric):
    x, y = rows_of("friedman")
    n, bandwidth = 480, kl.median_distance(x)
    errors = ours(x, y, n, bandwidth, MetricOptions(metric, centered=True))
    same = theirs(xrfm, x, y, n, bandwidth, metric == "diagonal", torch.float64, center_grads=True)
    assert errors == pytest.approx(same, rel=1e-5)
    assert errors[1:] != pytest.approx(ours(x, y, n, bandwidth, MetricOptions(metric))[1:], rel=1e-3)
