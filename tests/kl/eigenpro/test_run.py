"""EigenPro 2 on plain tensors, against dense float64 steps, the machine under a Trainer, a resumed run and ranks."""

import contextlib
import copy
import doctest
import math
import pickle
import time

import numpy as np
import oracle
import pytest
import torch
import torch.distributed as dist
from processes import on_ranks
from training import fit, memory_for

import kl
import kl.eigenpro.run
from datamodules import ArrayDataModule
from kl import CheckpointError, EigenProRun, InputError, KernelMachine, Laplacian
from kl.distributed.ranks import Ranks

pytestmark = pytest.mark.numeric

N, D, C, S, Q, M = 40, 4, 2, 15, 4, 7
OPTIONS = {"subsample": S, "top_q": Q, "batch_size": M}


def draw(n=N, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.sin(x @ torch.randn(D, C, generator=generator, dtype=torch.float64)).to(dtype)


def train(run, epochs):
    for _ in range(epochs):
        for rows in run.batches():
            run.step(rows)
        run.end_epoch()
    return run


def test_the_example_runs():
    failed, run = doctest.testmod(kl.eigenpro.run)
    assert (failed, run) == (0, 8)


@pytest.mark.parametrize("memory", ["1GB", memory_for(N, D, C, S) * 2 - 4000])
def test_epochs_equal_dense_steps(memory):
    x, y = draw()
    run = EigenProRun(Laplacian(1.5), x, y, memory=memory, seed=3, **OPTIONS)
    K = oracle.matrix(oracle.laplacian, x.numpy(), x.numpy(), bandwidth=1.5)
    subsample = torch.randperm(N, generator=torch.Generator().manual_seed(3))[:S].tolist()
    alpha, eta = np.zeros((N, C)), run.plan.step_size
    for epoch in range(3):
        seen = []
        for rows in run.batches():
            batch = rows.tolist()
            np.testing.assert_allclose(run.fitted_values()[rows], K[batch] @ alpha, atol=1e-12)
            alpha = oracle.naive_eigenpro_step(K, alpha, y.numpy(), batch, subsample, Q, eta * len(batch) / M)
            run.step(rows)
            seen += batch
            assert run.rkhs_norm == pytest.approx(oracle.naive_rkhs_norm(K, alpha), rel=1e-10)
        run.end_epoch()
        assert sorted(seen) == list(range(N))
        assert run.epoch == epoch + 1
    np.testing.assert_allclose(run.in_data_order(run.alpha), alpha, atol=1e-12)
    np.testing.assert_allclose(run.fitted_values(), K @ alpha, atol=1e-12)
    np.testing.assert_allclose(run.sq_norm_per_class, np.sum(alpha * (K @ alpha), axis=0), rtol=1e-10)
    z = draw(9, seed=1)[0]
    np.testing.assert_allclose(
        run.predict(z), oracle.matrix(oracle.laplacian, z.numpy(), x.numpy(), bandwidth=1.5) @ alpha, atol=1e-12
    )
    assert run.guard.cuts == 0


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float32, {}),
        (torch.float64, {"ridge": 0.1}),
        (torch.float32, {"memory": memory_for(100, D, C, S, kept_rows=30)}),
        (torch.float32, {"top_q": 0, "precision": "medium"}),
    ],
)
def test_a_run_equals_the_machine_under_a_trainer_to_the_bit(dtype, options):
    x, y = draw(100, dtype)
    data = ArrayDataModule.from_arrays(x.float(), y.float(), x.float(), y.float(), seed=5)
    data.setup()
    data.train_set, data.test_set = kl.RowDataset(x + 30, y), kl.RowDataset(x + 30, y)
    options = {**OPTIONS, "seed": 5, **options}
    machine = KernelMachine("laplacian", **options)
    fit(machine, data, 3)
    run = train(EigenProRun("laplacian", x + 30, y, **options), 3)
    assert run.kernel == machine.kernel
    assert run.plan == machine.plan
    assert torch.equal(run.alpha, machine.alpha)
    assert torch.equal(run.sq_norm_per_class, machine.sq_norm_per_class)
    assert torch.equal(run.fitted_values(), machine.in_data_order(machine.fitted_values()))
    assert torch.equal(run.predict(x + 30), machine(x + 30).detach())


def test_a_seed_of_numpy_is_the_same_seed():
    one, other = (EigenProRun(Laplacian(1.5), *draw(), seed=seed, **OPTIONS) for seed in (3, np.int64(3)))
    other.load_state_dict(one.state_dict())
    assert type(other.state_dict()["seed"]) is int
    assert [rows.tolist() for rows in other.batches()] == [rows.tolist() for rows in one.batches()]


def test_targets_in_bfloat16():
    x, y = draw()
    run, other = (EigenProRun(Laplacian(1.5), x, given, **OPTIONS) for given in (y.bfloat16(), y.bfloat16().double()))
    for each in (run, other):
        train(each, 2)
    assert torch.equal(run.alpha, other.alpha)


def test_gradients_of_the_data_are_left_aside():
    x, y = draw()
    weights = torch.ones(N, dtype=torch.float64)
    options = {"ridge": 0.1, **OPTIONS}
    run = train(EigenProRun("laplacian", x, y, weights=weights, **options), 2)
    given = [each.clone().requires_grad_() for each in (x, y, weights)]
    other = train(EigenProRun("laplacian", *given[:2], weights=given[2], **options), 2)
    assert torch.equal(other.alpha, run.alpha)
    assert not other.predict(given[0]).requires_grad


def test_a_ridge_leads_to_the_ridge_solution():
    x, y = draw()
    run = train(EigenProRun(Laplacian(1.5), x, y, ridge=1.0, batch_size=M), 60)
    K = oracle.matrix(oracle.laplacian, x.numpy(), x.numpy(), bandwidth=1.5)
    np.testing.assert_allclose(run.in_data_order(run.alpha), oracle.naive_interpolate(K, y, ridge=1.0), atol=1e-6)


def test_weights_lead_to_the_weighted_ridge_solution():
    x, y = draw()
    weights = 0.3 + 3 * torch.rand(N, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    run = train(EigenProRun(Laplacian(1.5), x, y, ridge=0.5, weights=weights, batch_size=M), 200)
    K = oracle.matrix(oracle.laplacian, x.numpy(), x.numpy(), bandwidth=1.5)
    expected = np.linalg.solve(K + 0.5 * np.diag(1 / weights.numpy()), y.numpy())
    np.testing.assert_allclose(run.in_data_order(run.alpha), expected, atol=1e-6)
    assert run.plan.ridge == pytest.approx(0.5 / float(weights.min()))
    assert run.guard.cuts == 0


def test_equal_weights_are_a_smaller_ridge():
    x, y = draw()
    weighted = train(EigenProRun(Laplacian(1.5), x, y, ridge=1.0, weights=torch.full((N,), 2.0), **OPTIONS), 3)
    plain = train(EigenProRun(Laplacian(1.5), x, y, ridge=0.5, **OPTIONS), 3)
    np.testing.assert_allclose(weighted.alpha, plain.alpha, rtol=1e-12)


def test_a_state_of_other_weights_is_refused():
    x, y = draw()
    one, other = (EigenProRun(Laplacian(1.5), x, y, ridge=1.0, weights=torch.full((N,), w)) for w in (1.0, 1.5))
    with pytest.raises(CheckpointError, match="the state must be of a run on this run's data"):
        other.load_state_dict(one.state_dict())


# State


@pytest.mark.parametrize("options", [{}, {"ridge": 0.5}, {"top_q": 0}, {"memory": memory_for(100, D, C, S)}])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path, options):
    x, y = draw(100, torch.float32)
    whole, first, rest = (EigenProRun("laplacian", x, y, **{**OPTIONS, **options}) for _ in range(3))
    train(whole, 4)
    torch.save(train(first, 2).state_dict(), tmp_path / "state.pt")
    rest.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert rest.epoch == 2
    train(rest, 2)
    assert not torch.equal(first.alpha, whole.alpha)
    assert torch.equal(rest.alpha, whole.alpha)
    assert torch.equal(rest.fitted_values(), whole.fitted_values())
    assert torch.equal(rest.sq_norm_per_class, whole.sq_norm_per_class)


def test_a_run_goes_on_inside_an_epoch():
    x, y = draw()
    run, rest = (EigenProRun(Laplacian(1.0), x, y, **OPTIONS) for _ in range(2))
    batches = list(run.batches())
    for rows in batches[:3]:
        run.step(rows)
    state = run.state_dict()
    rest.load_state_dict(state)
    for each in (run, rest):
        for rows in batches[3:]:
            each.step(rows)
        each.end_epoch()
    torch.testing.assert_close(rest.alpha, run.alpha, rtol=1e-12, atol=1e-12)
    assert not torch.equal(state["alpha"], run.alpha)  # the state is a copy


def test_a_resumed_run_has_the_plan_and_the_cut_step_of_the_first():
    x, y = draw()
    first = EigenProRun(Laplacian(1.0), x, y, step_size=1e4, **OPTIONS)
    train(first, 3)
    assert first.step_size < first.plan.step_size
    rest = EigenProRun(Laplacian(1.0), x, y, subsample=S, top_q=1, batch_size=11)
    rest.load_state_dict(first.state_dict())
    assert (rest.plan, rest.step_size, rest.guard.cuts) == (first.plan, first.step_size, first.guard.cuts)
    assert [len(rows) for rows in rest.batches()] == [len(rows) for rows in first.batches()]
    for run in (first, rest):
        train(run, 1)
    assert torch.equal(rest.alpha, first.alpha)


def test_states_that_do_not_fit():
    x, y = draw()
    run = EigenProRun(Laplacian(1.0), x, y, **OPTIONS)
    state = run.state_dict()
    others = [
        (
            EigenProRun(Laplacian(2.0), x, y, **OPTIONS),
            "the state's kernel must be that of this run, .*2.0.*; got .*1.0",
        ),
        (EigenProRun(Laplacian(1.0), x, -y, **OPTIONS), "the state must be of a run on this run's data"),
        (EigenProRun(Laplacian(1.0), x, y, seed=3, **OPTIONS), "seed must be that of this run, 3; got 0: make the run"),
        (EigenProRun(Laplacian(1.0), x, y, precision="medium", **OPTIONS), "precision must be .*, medium; got high"),
        (EigenProRun(Laplacian(1.0), x, y, subsample=9), "subsample must be that of this run, 9; got 15: make"),
        (EigenProRun(Laplacian(1.0), x, y, ridge=2.0, **OPTIONS), "ridge must be that of this run, 2.0; got 0.0: make"),
    ]
    for other, match in others:
        with pytest.raises(CheckpointError, match=match) as caught:
            other.load_state_dict(state)
        assert "\n" not in str(caught.value)
    changes = [
        (
            {"alpha": state["alpha"][:-1]},
            r"the state's alpha must have shape \(40, 2\) and type torch.float64; got \(39",
        ),
        (
            {"fitted.values": state["fitted.values"].float()},
            r"fitted.values must have .*; got \(40, 2\) and torch.float32",
        ),
        ({"vectors": state["vectors"][:, :2]}, r"its vectors must have shape \(15, 4\), as its plan says"),
        ({"weights": state["weights"][:2]}, r"the state's weights must have shape \(4,\)"),
        ({"plan": {**state["plan"], "beta": -1.0}}, "its plan must have beta above 0; got -1.0: give what state_dict"),
        ({"plan": {**state["plan"], "more": 1}}, "its plan must be among subsample, .*: give what state_dict"),
        (
            {"plan": {name: state["plan"][name] for name in state["plan"] if name != "beta"}},
            "its plan has no beta: give",
        ),
        ({"rank": 1}, "the state's rank must be that of this run, 0; got 1"),
        ({"ranks": 2}, "the state's ranks must be that of this run, 1; got 2"),
        ({"alpha": None}, "the state has no tensor alpha: give what state_dict"),
        ({"step_size": "large"}, "its state must have step_size of type float; .*: give what state_dict"),
        ({"step_size": -1.0}, "the state's step_size must be above 0; got -1.0: give"),
        ({"epoch": -3}, "the state's epoch must be 0 or above; got -3: give"),
        ({"cuts": 100}, "the state's cuts must be from 0 to 12; got 100: give"),
        ({"alpha": state["alpha"] * torch.nan}, "the state's alpha must be finite; it holds NaN or infinity: give"),
    ]
    for change, match in changes:
        with pytest.raises(CheckpointError, match=match):
            run.load_state_dict({**state, **change})
    with pytest.raises(CheckpointError, match="its state has no plan: give what state_dict"):
        run.load_state_dict({name: value for name, value in state.items() if name != "plan"})
    assert run.step_size == state["step_size"]
    assert not run.alpha.any()
    run.load_state_dict(state)


@pytest.mark.parametrize("keep", [pickle.dumps, copy.deepcopy, copy.copy])
def test_a_run_is_not_copied_without_its_matrix(keep):
    run = EigenProRun(Laplacian(1.0), *draw(), **OPTIONS)
    with pytest.raises(InputError, match=r"an EigenProRun cannot be pickled or copied, .*: keep its state_dict\(\)"):
        keep(run)


# The guard


@pytest.mark.parametrize("batch_size", [10, N])  # noticed in a step, and at the end of an epoch
@pytest.mark.parametrize("factor", [30.0, 1e300])
def test_too_large_a_step_recovers(batch_size, factor, caplog):
    x, y = draw()
    auto = EigenProRun(Laplacian(1.0), x, y, batch_size=batch_size)
    run = EigenProRun(Laplacian(1.0), x, y, batch_size=batch_size, step_size=factor * auto.plan.step_size)
    train(run, 40)
    assert "going back to the start of epoch 0 with step size" in caplog.text
    assert run.guard.cuts == 1
    assert run.step_size == auto.plan.step_size
    assert float((run.fitted_values() - y).square().mean()) < 0.05
    K = oracle.matrix(oracle.laplacian, x.numpy(), x.numpy(), bandwidth=1.0)
    assert run.rkhs_norm == pytest.approx(oracle.naive_rkhs_norm(K, run.in_data_order(run.alpha).numpy()), rel=1e-9)


def test_a_hopeless_step_ends_in_an_error_with_finite_weights(monkeypatch):
    monkeypatch.setattr("kl.eigenpro.parameters.optimal_step_size", lambda *_: math.inf)  # no better step is known
    x, y = draw()
    run = EigenProRun(Laplacian(1.0), x, y, step_size=1e300, batch_size=10)
    with pytest.raises(kl.DivergenceError, match="still diverges"):
        train(run, 50)
    run.load_state_dict(run.state_dict())
    assert run.cuts == 12
    assert not run.alpha.any()
    assert not run.fitted_values().any()


# Seams


def test_other_targets_for_a_step():
    x, y = draw()
    run, other = (EigenProRun(Laplacian(1.0), x, targets, **OPTIONS) for targets in (torch.zeros_like(y), y))
    for rows in list(other.batches())[:3]:
        run.guard = None  # to which these targets are unknown
        run.step(rows, y[rows])
        other.step(rows)
    assert torch.equal(run.alpha, other.alpha)
    with pytest.raises(InputError, match=r"a row of targets for each row of the batch, shape \(3, 2\); got \(3, 1\)"):
        run.step(torch.arange(3), y[:3, :1])


@pytest.mark.parametrize(
    ("rows", "y", "message"),
    [
        ([0, 1], [[math.nan, 0.0], [0.0, 0.0]], "y must be finite; row 0 holds NaN or infinity"),
        ([0, N], None, "rows must be row numbers of x, from 0 to 39; got 0 to 40"),
        ([-1, 5], None, "rows must be row numbers of x, from 0 to 39; got -1 to 5"),
        ([], None, "rows must be a tensor of row numbers, torch.int64, .*; got .0,. torch.float32"),
        ([[0, 1]], None, r"rows must be a tensor of row numbers, torch.int64, shape \(m,\); got \(1, 2\) torch.int64"),
        (
            [0.0, 1.0],
            None,
            r"rows must be a tensor of row numbers, torch.int64, shape \(m,\); got \(2,\) torch.float32",
        ),
        ([True] * N, None, "rows must be a tensor of row numbers, .* torch.bool"),
        ([3, 5, 3], None, "rows must have each row number at most once; got 3 numbers of 2 rows: leave"),
    ],
)
def test_a_step_on_no_batch_changes_nothing(rows, y, message):
    run = EigenProRun(Laplacian(1.0), *draw(), **OPTIONS)
    step_size = run.step_size
    with pytest.raises(InputError, match=message):
        run.step(torch.tensor(rows), None if y is None else torch.tensor(y))
    assert not run.alpha.any()
    assert (run.step_size, run.last_batch) == (step_size, None)


def test_more_steps_on_no_batch():
    run = EigenProRun(Laplacian(1.0), *draw(), **OPTIONS)
    with pytest.raises(InputError, match="rows must be row numbers of x, from 0 to 39; got none"):
        run.step(torch.arange(0))
    with pytest.raises(InputError, match=r"rows must be a tensor of row numbers, .*; got list"):
        run.step([0, 1])
    with pytest.raises(InputError, match=r"epoch must be a whole number from 0 .*; got -1"):
        run.batches(-1)


def test_whoever_applies_the_step_gets_its_arguments():
    x, y = draw()
    run, other = (EigenProRun(Laplacian(1.0), x, y, **OPTIONS) for _ in range(2))
    seen = []

    def apply(**arguments):
        seen.append(sorted(arguments))
        return run.optimizer.step(**arguments)

    rows = torch.arange(M)
    run.step(rows, apply=apply)
    other.step(rows)
    assert seen == [["batch", "block", "residual"]]
    assert torch.equal(run.alpha, other.alpha)


def test_a_clock_sees_the_parts_and_changes_nothing():
    x, y = draw()
    seconds = {"step": 0.0, "advance": 0.0, "sweep": 0.0}

    @contextlib.contextmanager
    def clock(part):
        start = time.perf_counter()
        yield
        seconds[part] += time.perf_counter() - start

    run, other = (EigenProRun(Laplacian(1.0), x, y, **OPTIONS) for _ in range(2))
    run.clock = clock
    for each in (run, other):
        train(each, 2)
    assert 0 < seconds["sweep"] <= seconds["advance"] <= seconds["step"]
    assert torch.equal(run.alpha, other.alpha)


@pytest.mark.parametrize("weights", [None, torch.linspace(0.5, 2, N, dtype=torch.float64)])
def test_it_starts_from_weights_of_a_similar_kernel(weights):
    """The scale of each output makes its residual least; f(X) and the norm are those of the scaled weights."""
    x, y = draw()
    first, second = (oracle.matrix(oracle.laplacian, x.numpy(), x.numpy(), bandwidth=each) for each in (1.2, 1.5))
    ridge = 0.1 / (np.ones(N) if weights is None else weights.numpy())
    known = np.linalg.solve(first + np.diag(ridge), y.numpy())
    product = second @ known + ridge[:, None] * known
    scale = (product * y.numpy()).sum(axis=0) / np.square(product).sum(axis=0)
    run = EigenProRun(Laplacian(1.5), x, y, ridge=0.1, weights=weights, **OPTIONS)
    train(run, 1)
    run.step(next(run.batches()))  # what was left inside an epoch is gone
    run.start_from(torch.from_numpy(known))
    np.testing.assert_allclose(run.in_data_order(run.alpha), known * scale, atol=1e-12)
    np.testing.assert_allclose(run.fitted_values(), second @ (known * scale), atol=1e-12)
    assert run.rkhs_norm == pytest.approx(oracle.naive_rkhs_norm(second, known * scale), rel=1e-10)
    wanted = np.linalg.solve(second + np.diag(ridge), y.numpy())

    def gap(start):
        epochs = EigenProRun(Laplacian(1.5), x, y, ridge=0.1, weights=weights, **OPTIONS)
        if start is not None:
            epochs.start_from(start)
        train(epochs, 3)
        return float(np.linalg.norm(second @ (epochs.in_data_order(epochs.alpha).numpy() - wanted)))

    assert gap(torch.from_numpy(known)) < 0.5 * gap(None)
    run.start_from(torch.zeros(N, C))
    assert not run.alpha.any()
    assert run.rkhs_norm == 0


def test_weights_to_start_from_are_checked():
    run = EigenProRun(Laplacian(1.0), *draw())
    for alpha in (torch.ones(N - 1, C), torch.ones(N, C + 1)):
        with pytest.raises(InputError, match=r"alpha must have a weight for each target, shape \(40, 2\); got"):
            run.start_from(alpha)
    with pytest.raises(InputError, match="alpha must be finite"):
        run.start_from(torch.full((N, C), math.nan))


def on_shares(epochs=4):
    x, y = draw(100)
    size = dist.get_world_size() if dist.is_initialized() else 1
    ranks = Ranks(dist.get_rank() if size > 1 else 0, size)
    run = EigenProRun(Laplacian(1.5), x, y, ranks=ranks, memory="1GB", **OPTIONS)
    run.start_from(y.flip(0))
    train(run, epochs)
    rows = torch.tensor([3, 77, 50])
    run.step(rows, y[rows] + 1)
    state = run.state_dict()
    run.load_state_dict(state)
    return run.in_data_order(run.alpha), run.fitted_values(), run.sq_norm_per_class, run.predict(x[:5])


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_find_what_one_finds(size):
    alone = on_shares()
    for found in on_ranks(size, on_shares):
        for ours, one in zip(found, alone, strict=True):
            torch.testing.assert_close(ours, one, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be auto or an integer of at least 1; got 0"),
        ({"top_q": -1}, "top_q must be auto or an integer of at least 0; got -1"),
        ({"subsample": "all"}, "subsample must be auto or an integer of at least 1; got 'all'"),
        ({"step_size": 0.0}, 'step_size must be a finite number above 0 or "auto"; got 0.0'),
        ({"ridge": -1.0}, "ridge must be a finite number, 0 or above; got -1.0"),
        ({"memory": "none"}, "memory must be auto, a number of bytes"),
        ({"precision": "low"}, "precision must be high or medium; got 'low'"),
        ({"y": torch.ones(3)}, "y must be a float tensor of shape"),
        ({"y": torch.ones(3, 1)}, "x and y must have one row per sample; got 40 rows of features and 3 of targets"),
        ({"kernel": "laplace"}, "laplacian"),
        ({"weights": torch.ones(39)}, r"weights must be a tensor of shape \(40,\), one number for each row of x"),
        ({"weights": torch.arange(40)}, "weights must be above 0; got 1 zeros: leave those rows out"),
        ({"seed": 1.5}, "seed must be a whole number from 0 to .*; got 1.5"),
        ({"seed": None}, "seed must be a whole number from 0 to .*; got None"),
        ({"seed": 2**70}, "seed must be a whole number from 0 to .*; got 1180"),
        ({"device": "abc"}, "device must be one that torch can use here, of cpu.*; got 'abc'$"),
        ({"device": "cuda:99"}, "device must be one that torch can use here, of cpu.*; got 'cuda:99'$"),
        ({"device": [1]}, r"device must be one that torch can use here, of cpu.*; got \[1\]$"),
        ({"ranks": Ranks(0, 50)}, "40 training rows are fewer than the 50 ranks"),
    ],
)
def test_mistakes_are_explained(options, message):
    x, y = draw()
    with pytest.raises(InputError, match=message):
        EigenProRun(**{"kernel": "laplacian", "x": x, "y": y, **options})


def test_a_budget_too_small_is_refused():
    with pytest.raises(kl.MemoryBudgetError, match="more than the budget of 2 KB"):
        EigenProRun(Laplacian(1.0), *draw(), memory="2KB")


def test_predictions_of_other_features_are_refused():
    run = EigenProRun(Laplacian(1.0), *draw())
    with pytest.raises(InputError, match=r"x must have shape \(rows, 4\); got \(2, 3\)"):
        run.predict(torch.ones(2, 3))
