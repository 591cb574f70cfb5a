"""`kl interpolate`: its solvers, what it reports, and how an interrupted solve goes on."""

import json

import pytest

from kl.exact.conjugate_gradients import ConjugateGradients

DIGITS = ("--data", "digits", "--train-size", 200, "--test-size", 100, "--bandwidth", 3)
FIELDS = {"n", "d", "c", "train_mse", "train_error", "test_mse", "test_error", "rkhs_norm", "rkhs_norm_per_class"}
FIELDS |= {"solver", "iterations", "relative_residual", "tolerance", "converged", "jitter", "seconds_total"}
FIELDS |= {"peak_memory_bytes"}


def test_both_solvers_find_the_same(kl):
    direct = json.loads(kl("interpolate", *DIGITS, "--json").out)
    options = ("--solver", "pcg", "--tolerance", 1e-8, "--json")
    iterative = json.loads(kl("interpolate", *DIGITS, *options).out)
    assert set(direct) >= FIELDS
    assert (direct["solver"], iterative["solver"]) == ("direct", "pcg")
    assert iterative["converged"]
    assert iterative["relative_residual"] <= iterative["tolerance"] == 1e-8
    assert iterative["rkhs_norm"] == pytest.approx(direct["rkhs_norm"], rel=1e-7)
    assert iterative["test_mse"] == pytest.approx(direct["test_mse"], rel=1e-6)


def test_leave_one_out_is_reported_where_it_costs_little_or_is_asked_for(kl):
    noisy = (*DIGITS, "--label-noise", 0.2)
    exact = json.loads(kl("interpolate", *noisy, "--json").out)
    assert 0.2 < exact["loo_error"] < 0.5  # of the noisy labels, which the other rows do not know
    assert exact["loo_mse"] > exact["test_mse"]
    assert exact["loo_standard_error"] is None
    assert "loo error" in kl("interpolate", *noisy).out
    probed = json.loads(kl("interpolate", *noisy, "--solver", "pcg", "--leave-one-out", "--json").out)
    assert abs(probed["loo_mse"] - exact["loo_mse"]) < 5 * probed["loo_standard_error"] < 0.2 * exact["loo_mse"]
    shown = kl("interpolate", *noisy, "--solver", "pcg", "--leave-one-out").out
    assert f"{probed['loo_standard_error']:.6g}" in shown
    for options in (("--no-leave-one-out",), ("--train-size", 190, "--solver", "pcg")):
        without = json.loads(kl("interpolate", *DIGITS, *options, "--json").out)
        assert (without["loo_mse"], without["loo_error"], without["loo_standard_error"]) == (None, None, None)
    assert "loo" not in kl("interpolate", *DIGITS, "--no-leave-one-out", "--train-size", 190).out


def test_the_table_names_solver_and_iterations(kl):
    found = kl("interpolate", *DIGITS, "--solver", "pcg")
    assert found.code == 0
    assert "iterations" in found.out
    assert "pcg" in found.out


def test_the_same_command_goes_on_after_an_interrupt(kl, monkeypatch, caplog):
    step, left = ConjugateGradients.step, [3]

    def interrupted(self, state):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return step(self, state)

    monkeypatch.setattr(ConjugateGradients, "step", interrupted)
    command = ("interpolate", *DIGITS, "--solver", "pcg", "--json")
    stopped = kl(*command)
    assert stopped.code == 130
    assert "error: interrupted" in stopped.err
    assert "interrupted after 3 iterations, kept on disk" in caplog.text
    left[0] = 10**6
    found = kl(*command)
    assert found.code == 0
    assert "going on after 3 iterations" in caplog.text
    assert json.loads(found.out)["converged"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--solver", "lu"), "solver must be one of auto, direct, pcg; got 'lu'"),
        (("--tolerance", 0), "tolerance must be a finite number above 0; got 0.0"),
    ],
)
def test_wrong_options_are_refused(kl, options, message):
    found = kl("interpolate", *options)
    assert found.code == 2
    assert message in found.err
    assert len(found.err.splitlines()) == 1
