"""The exact limit is solved for once, whoever asks, and what was asked for is what comes."""

import json

import pytest
import torch
from training import quiet_trainer, regression

import kl
from callbacks import BestEpoch, ConvergenceFigure, ExactInterpolation
from kl.exact import limit as module
from kl.exact.cache import load_solution, solutions_folder
from kl.exact.checkpoint import solution_key
from kl.exact.cost import direct_memory
from kl.exact.limit import ExactLimit, LimitForecast, NoLimit, exact_limit, forecast_limit
from kl.exact.patience import Patience

KERNEL = kl.Laplacian(2.0)
DIGITS = ("--data", "digits", "--train-size", 200, "--test-size", 100, "--label-noise", 0.1, "--accelerator", "cpu")
OWN = {"seconds_total", "peak_memory_bytes"}  # of a run, not of its solution


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, Y = draw(60, 3), draw(60, 2, seed=1)


@pytest.fixture
def solves(monkeypatch, tmp_path):
    """The solvers that were asked for, one for each solve; kept solutions are in an empty folder."""
    asked, solve = [], module.interpolate
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "interpolate", lambda *args, **more: asked.append(args[5]) or solve(*args, **more))
    return asked


def solved(**options):
    found = exact_limit(KERNEL, X, Y, **options)
    assert isinstance(found, ExactLimit)
    return found


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("alpha", "fitted")) and a.solver == b.solver


def test_what_is_read_is_what_was_solved_for(solves):
    first, second = solved(), solved()
    key = solution_key(KERNEL, X, Y, 0.0)
    assert solves == ["auto"]
    assert first.read_from is None
    assert second.read_from == solutions_folder() / f"{key}.pt"
    assert same(first.solution, second.solution)
    assert second.solution.centers is X  # no copy


def test_a_solver_that_is_named_is_the_one_whose_solution_comes(solves):
    assert solved().solution.solver == "direct"
    found = solved(solver="pcg", tolerance=1e-8)
    assert (found.solution.solver, found.read_from) == ("pcg", None)
    assert solved(solver="direct").read_from is not None
    assert solves == ["auto", "pcg"]


def test_a_solution_is_not_replaced_by_a_worse_one(solves):
    solved(solver="pcg", tolerance=1e-2)
    solved(solver="pcg", tolerance=1e-9)
    best = solved(tolerance=1e-9).solution.relative_residual
    solved(solver="direct")
    key = solution_key(KERNEL, X, Y, 0.0)
    kept = load_solution(solutions_folder() / f"{key}.pt", key, KERNEL, X, Y)
    assert kept.relative_residual < best < 1e-9
    solved(solver="pcg", tolerance=1e-2)
    assert solved().solution.solver == "direct"
    assert solves == ["pcg", "pcg", "direct", "pcg"]


def test_a_least_squares_solution_is_kept_as_well(solves, monkeypatch):
    centers = draw(20, 3, seed=2)
    first = solved(centers=centers)
    monkeypatch.setattr(module, "least_squares", None)
    second = solved(centers=centers, solver="direct")  # there is one way
    assert second.read_from is not None
    assert same(first.solution, second.solution)
    assert second.solution.centers is centers


def test_leave_one_out_predictions_are_solved_for_where_they_are_missing(solves, caplog):
    first = solved(solver="pcg", tolerance=1e-4)
    assert solved(tolerance=1e-4, leave_one_out=None).solution.leave_one_out is None  # pcg has none unasked
    estimated = solved(solver="pcg", tolerance=1e-4, leave_one_out=True).solution
    assert estimated.leave_one_out.method == "probes"
    assert estimated.relative_residual <= first.solution.relative_residual
    assert solves == ["pcg", "pcg"]
    solved(solver="direct")
    exact = solved(solver="direct", leave_one_out=None)
    assert exact.read_from is None
    again = solved(leave_one_out=True)
    assert again.read_from is not None
    assert torch.equal(again.solution.leave_one_out.predictions, exact.solution.leave_one_out.predictions)
    assert same(again.solution, exact.solution)
    assert solved(leave_one_out=None).read_from is not None
    assert solves == ["pcg", "pcg", "direct", "direct"]


def test_leave_one_out_that_does_not_fit_is_left_out_unless_it_is_asked_for(solves):
    memory = direct_memory(60, 3, 2, 8, leave_one_out=True) - 1
    assert solved(memory=memory, solver="direct", leave_one_out=None).solution.leave_one_out is None
    assert isinstance(exact_limit(KERNEL, X, Y, memory=memory, solver="direct", leave_one_out=True), NoLimit)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"memory": "1KB"}, kl.MemoryBudgetError, "more than the budget of 1 KB"),
        ({"memory": "1KB", "centers": X[:20]}, kl.MemoryBudgetError, "the exact limit of p=20 centres needs"),
        ({"patience": Patience(max_rows=59)}, kl.KLError, "n=60 training rows are more than max_rows=59"),
        ({"patience": Patience(max_seconds=1e-9), "solver": "pcg"}, kl.KLError, "conjugate gradients took more than"),
        ({"patience": Patience(max_seconds=1e-9), "centers": X[:20]}, kl.KLError, "least squares would take about"),
    ],
)
def test_why_there_is_none(solves, options, kind, message):
    found = exact_limit(KERNEL, X, Y, **options)
    assert isinstance(found, NoLimit)
    assert type(found.reason) is kind
    assert message in str(found.reason)


def test_a_forecast_is_what_comes(solves, monkeypatch):
    assert forecast_limit(KERNEL, X, Y).solver == "direct"
    assert forecast_limit(KERNEL, X, Y).memory == direct_memory(60, 3, 2)
    assert forecast_limit(KERNEL, X, Y, leave_one_out=None).memory == direct_memory(60, 3, 2, None, True)
    monkeypatch.setattr(module, "estimate_seconds", lambda *_: 5000.0)
    patience = Patience(max_rows=60, max_seconds=1800)
    found = forecast_limit(KERNEL, X, Y, patience=patience)
    assert (found.seconds, found.left_out) == (5000, None)  # a factorisation is not stopped
    found = forecast_limit(KERNEL, X, Y, solver="pcg", patience=patience)
    assert (found.solver, found.seconds) == ("pcg", 1800)
    assert "pcg would take about" in found.left_out
    monkeypatch.setattr(module, "estimate_seconds", lambda *_: 1000.0)
    found = forecast_limit(KERNEL, X, Y, solver="pcg", patience=patience)
    assert (found.seconds, found.left_out) == (1000, None)
    assert solves == []
    path = solved().read_from or solved().read_from
    assert forecast_limit(KERNEL, X, Y, patience=Patience(max_rows=1)) == LimitForecast(read_from=path)
    assert forecast_limit(KERNEL, X, Y, leave_one_out=None).seconds == 1000  # it was kept without


@pytest.mark.parametrize("options", [{"memory": "1KB"}, {"patience": Patience(max_rows=59)}])
def test_a_forecast_says_why_there_would_be_no_limit(solves, options):
    reason = exact_limit(KERNEL, X, Y, **options).reason
    assert forecast_limit(KERNEL, X, Y, **options) == LimitForecast(left_out=str(reason))


def test_arguments_are_checked_whatever_is_kept(solves):
    solved()
    for options, name in (({"solver": "lu"}, "solver"), ({"tolerance": 0.0}, "tolerance")):
        with pytest.raises(kl.InputError, match=f"{name} must be"):
            exact_limit(KERNEL, X, Y, **options)


def results_of(found):
    assert found.code == 0, found.err
    return {name: value for name, value in json.loads(found.out).items() if name not in OWN}


def test_interpolate_reads_what_fit_has_kept(kl, solves, caplog):
    alone = results_of(kl("interpolate", *DIGITS, "--json"))
    [path] = solutions_folder().iterdir()
    path.unlink()
    options = (*DIGITS, "--no-leave-one-out")
    fitted = json.loads(kl("fit", *DIGITS, "--epochs", 1, "--json").out)
    assert solves == ["auto"] * 2
    missing = dict.fromkeys(("loo_mse", "loo_error", "loo_log_loss"))
    missing |= dict.fromkeys(f"test_{name}" for name in ("log_loss", "brier", "calibration_error"))
    assert results_of(kl("interpolate", *options, "--json")) == alone | missing
    assert fitted["exact_rkhs_norm"] == alone["rkhs_norm"]
    assert fitted["exact_test_error_noisy"] == alone["test_error_noisy"]
    text = kl("interpolate", *options)
    assert f"read from {path}" in " ".join(text.out.split())
    assert f"exact interpolation: read from {path}" in caplog.text
    assert solves == ["auto"] * 2
    assert results_of(kl("interpolate", *DIGITS, "--json")) == alone  # fit has kept leave-one-out predictions, too
    assert solves == ["auto"] * 2


def test_a_solution_that_was_kept_without_leave_one_out_is_solved_for_again(kl, solves, caplog):
    options = (*DIGITS, "--no-leave-one-out", "--json")
    assert json.loads(kl("interpolate", *options).out)["loo_mse"] is None
    again = [results_of(kl("interpolate", *DIGITS, "--json")) for _ in range(2)]
    assert again[0] == again[1]
    assert again[0]["loo_mse"] > 0
    assert "was kept without leave-one-out predictions: solving once more for them" in caplog.text
    assert "cannot be used" not in caplog.text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert solves == ["auto"] * 2


def test_fit_reads_what_interpolate_has_kept(kl, solves):
    first = kl("interpolate", *DIGITS, "--ridge", 0.5)
    assert "read from" not in first.out
    fitted = json.loads(kl("fit", *DIGITS, "--ridge", 0.5, "--epochs", 1, "--json").out)
    assert solves == ["auto"]
    assert fitted["exact_relative_residual"] < 1e-9


def test_interpolate_solves_again_where_more_is_asked_for(kl, solves):
    loose = results_of(kl("interpolate", *DIGITS, "--solver", "pcg", "--tolerance", 1e-2, "--json"))
    tight = results_of(kl("interpolate", *DIGITS, "--tolerance", 1e-9, "--json"))
    again = results_of(kl("interpolate", *DIGITS, "--tolerance", 1e-3, "--json"))
    assert solves == ["pcg", "auto"]
    assert 1e-9 < loose["relative_residual"] <= 1e-2
    assert tight["relative_residual"] <= 1e-9
    assert (loose["solver"], tight["solver"]) == ("pcg", "direct")
    assert again == {**tight, "tolerance": 1e-3}


def test_interpolate_ends_with_the_reason_where_there_is_no_limit(kl, solves):
    found = kl("interpolate", *DIGITS, "--memory", "1KB")
    assert found.code == 1
    assert "more than the budget of 1 KB" in found.err
    assert len([line for line in found.err.splitlines() if line.startswith("error")]) == 1


def test_the_distance_is_computed_once_an_epoch_for_all_callbacks(tmp_path, monkeypatch):
    asked, distance = [], ExactInterpolation.distance
    monkeypatch.setattr(ExactInterpolation, "distance", lambda self, m: asked.append(m) or distance(self, m))
    exact, figure, best = ExactInterpolation(cache_dir=tmp_path), ConvergenceFigure(), BestEpoch()
    trainer = quiet_trainer(3, callbacks=[figure, exact, best])
    trainer.fit(kl.KernelMachine(KERNEL), datamodule=regression(n=60, d=3, c=2, validation=0.2))
    assert len(asked) == 1 + 3  # before the first step, and after each epoch
    values = [value for _, value in figure.history["exact/distance"]]
    assert values[-1] == exact.results["distance_to_exact"] == best.last["exact/distance"]
    assert len(set(values)) == 3
