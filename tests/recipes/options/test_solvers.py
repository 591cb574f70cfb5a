"""The solvers of the command line: which options each takes, and what is said of the others."""

import pytest

import kl
from recipes.options.groups import ExactOptions, SolverOptions
from recipes.options.solvers import SOLVER_HELP, SOLVERS, check_solver_options

EIGENPRO = {"batch_size", "step_size", "top_q", "subsample"}
ROUNDS = {"learn_features", "metric", "metric_power", "bandwidth_factor", "by", "round_solver", "round_epochs"}


def test_each_solver_is_a_machine_of_kl():
    exported = {getattr(kl, name) for name in kl.__all__}
    assert all(solver.machine_class in exported for solver in SOLVERS.values())
    assert all(f"{name}: {solver.help}" in SOLVER_HELP for name, solver in SOLVERS.items())


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("eigenpro", {*EIGENPRO, "ridge"}),
        ("eigenpro3", {*EIGENPRO, *ROUNDS, "ridge", "centers", "centers_from"}),
        ("eigenpro4", {*EIGENPRO, *ROUNDS, "ridge", "centers", "centers_from", "projection_period"}),
        ("pcg", set()),
        ("rfm", {*ROUNDS, "ridge"}),
    ],
)
def test_options_of_each(name, taken):
    options = {**vars(SolverOptions()), **vars(ExactOptions())}
    assert SOLVERS[name].arguments & options.keys() == taken
    check_solver_options(name, SolverOptions(), ExactOptions())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cg", {}, "solver must be one of eigenpro, eigenpro3, eigenpro4, pcg, rfm; got 'cg'"),
        ("pcg", {"top_q": "5"}, "top_q is for --solver eigenpro, eigenpro3 and eigenpro4; got 5 with pcg"),
        ("eigenpro", {"projection_period": "3"}, "projection_period is for --solver eigenpro3 and eigenpro4; got 3"),
        ("eigenpro3", {"projection_period": "3"}, "must be 1 with --solver eigenpro3; got 3: use --solver eigenpro4"),
        ("eigenpro4", {"ridge": 0.5}, "ridge is for the rounds of --learn-features with --solver eigenpro4; got 0.5"),
    ],
)
def test_an_option_of_another_solver_is_refused(name, options, message):
    exact = ExactOptions(options.pop("ridge", 0.0))
    with pytest.raises(kl.InputError, match=message):
        check_solver_options(name, SolverOptions(solver=name, **options), exact)


def test_what_a_solver_fixes_may_be_repeated():
    check_solver_options("eigenpro3", SolverOptions(solver="eigenpro3", projection_period="1"))
