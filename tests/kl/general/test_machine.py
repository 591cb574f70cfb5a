"""GeneralKernelMachine: its limits against float64 least squares, every choice, checkpoints, edge cases."""

import logging
import math

import numpy as np
import pytest
import torch
from training import fit, quiet_trainer, regression

import kl
import kl.rows.int8
from datamodules import ArrayDataModule, DigitsDataModule
from kl import CheckpointError, GeneralKernelMachine, InputError, Laplacian, MemoryBudgetError
from kl.eigenpro.divergence import LossGuard
from kl.general.plan import choose_period, general_memory
from kl.general.projection import EigenProProjection, FactorProjection

pytestmark = pytest.mark.numeric

N, P, C = 60, 20, 2


def data(n=N, c=C, **options):
    return regression(n=n, d=4, c=c, **options)


def machine(centers=P, **options):
    return GeneralKernelMachine(Laplacian(1.5), centers, **options)


def kernel_matrix(x, z, bandwidth=1.5):
    return np.exp(-np.linalg.norm(x[:, None] - z[None], axis=2) / bandwidth)


def matrices(trained, rows):
    """K(X, Z), K(Z, Z) and Y in float64."""
    z = (trained.centers + trained.origin).double().numpy()
    x = rows.train_set.x.double().numpy()
    return kernel_matrix(x, z), kernel_matrix(z, z), rows.train_set.y.double().numpy()


def distance(K, alpha, beta):
    """|f - g|_H / |g|_H."""
    change = alpha - beta
    return (np.sum(change * (K @ change)) / np.sum(beta * (K @ beta))) ** 0.5


@pytest.mark.parametrize("projection", ["factor", "eigenpro"])
def test_full_batches_converge_to_least_squares(projection):
    rows = data()
    trained = machine(batch_size=N, projection=projection, decay=0)
    fit(trained, rows, 400)
    K_XZ, K_ZZ, y = matrices(trained, rows)
    best = np.linalg.lstsq(K_XZ, y, rcond=None)[0]
    alpha = trained.alpha.detach().numpy()
    assert distance(K_ZZ, alpha, best) < 2e-3
    assert np.mean((K_XZ @ alpha - y) ** 2) == pytest.approx(np.mean((K_XZ @ best - y) ** 2), rel=1e-5)
    assert trained.period == 1
    assert trained.method == "EigenPro 3"


@pytest.mark.slow
@pytest.mark.parametrize("projection", ["factor", "eigenpro"])
@pytest.mark.parametrize("period", [1, "auto"])
def test_mini_batches_come_near_least_squares(projection, period):
    rows = data(n=300)
    trained = machine(40, batch_size=20, projection=projection, projection_period=period)
    fit(trained, rows, 60)
    K_XZ, _, y = matrices(trained, rows)
    best = np.linalg.lstsq(K_XZ, y, rcond=None)[0]
    alpha = trained.alpha.detach().numpy()
    assert np.mean((K_XZ @ alpha - y) ** 2) == pytest.approx(np.mean((K_XZ @ best - y) ** 2), rel=0.01)
    assert trained.period == (1 if period == 1 else 2)


@pytest.mark.parametrize("period", [1, 3])
@pytest.mark.parametrize("projection", ["factor", "eigenpro"])
def test_centres_that_are_the_data_give_the_interpolant(period, projection):
    rows = data(n=40)
    rows.setup()
    trained = machine(rows.train_set.x, batch_size=10, projection_period=period, projection=projection)
    fit(trained, rows, 150)
    exact = kl.interpolate(Laplacian(1.5), rows.train_set.x, rows.train_set.y)
    scores = trained(rows.train_set.x).detach()
    assert float((scores - rows.train_set.y).square().mean()) < (1e-8 if projection == "factor" else 1e-4)
    test = kl.rkhs.evaluate(Laplacian(1.5), rows.train_set.x, exact.alpha, rows.test_set.x)
    torch.testing.assert_close(
        trained(rows.test_set.x).detach().double(), test, atol=2e-3 if projection == "factor" else 2e-2, rtol=0
    )
    assert trained.rkhs_norm == pytest.approx(exact.rkhs_norm, rel=1e-3 if projection == "factor" else 2e-2)


@pytest.mark.parametrize("projection", ["factor", "eigenpro"])
def test_norm_and_metrics(projection):
    rows = DigitsDataModule(train_size=300, test_size=100)
    trained = GeneralKernelMachine("laplacian", 50, projection=projection)
    trainer = fit(trained, rows, 3)
    norm = kl.rkhs_norm(trained.kernel, trained.centers, trained.alpha.detach())
    assert trained.rkhs_norm == pytest.approx(norm, rel=1e-4)
    assert float(trained.rkhs_norm_per_class.norm()) == pytest.approx(norm, rel=1e-4)
    assert 0 < trained.train_metrics["train/error"] < 0.3
    assert trained.eval_metrics["val/error"] < 0.3
    assert trainer.global_step == 3 * -(-300 // trained.batch_rows)
    predicted = torch.cat(trainer.predict(trained, datamodule=rows))
    torch.testing.assert_close(predicted, trained(rows.test_set.x))


def test_the_norm_is_that_of_the_weights_whoever_steps():
    rows = data()
    rows.setup()
    x, y = rows.train_set.x, rows.train_set.y
    trained = machine(batch_size=30, projection_period=2)

    def norm():
        return pytest.approx(kl.rkhs_norm(trained.kernel, trained.centers, trained.alpha.detach()), rel=1e-4)

    trained.prepare(x, y)
    assert trained.rkhs_norm == 0
    trained.run.start_epoch()
    trained.run.step(trained.rows_of(x[:30]), y[:30])
    assert trained.rkhs_norm == norm()
    assert float(trained.state_dict()["sq_norm"].sum().sqrt()) == norm()  # and it goes on from there
    trained.run.step(trained.rows_of(x[30:]), y[30:])
    trained.run.end_epoch()
    assert trained.rkhs_norm == norm()
    trained.prepare(x, y)
    assert trained.rkhs_norm == norm()
    trained.run.start_epoch()
    trained.run.step(trained.rows_of(x[:30]), y[:30])
    trained.state_dict()
    trained.run.end_epoch()
    assert trained.rkhs_norm == norm()
    assert float(trained.state_dict()["sq_norm"].sum().sqrt()) == norm()


def naive_epoch(trained, K_XZ, K_XX, y, batches, eta, m, period):
    """EigenPro 3 or 4 in dense float64 matrices: P on all that a period adds, then the projection."""
    p, s = K_XZ.shape[1], len(trained.vectors)
    E, D = trained.vectors.double().numpy(), trained.weights.double().numpy()
    K_ZZ = kernel_matrix(*[trained.centers.double().numpy()] * 2)
    alpha = np.zeros((p, y.shape[1]))
    temporary, weights = np.zeros(0, dtype=int), np.zeros((0, y.shape[1]))
    for i, rows in enumerate(batches):
        g = K_XZ[rows] @ alpha + K_XX[np.ix_(rows, temporary)] @ weights - y[rows]
        temporary, weights = np.concatenate([temporary, rows]), np.concatenate([weights, -eta / m * g])
        alpha[:s] += eta / m * E @ (D[:, None] * (E.T @ (K_XZ[rows][:, :s].T @ g)))
        if (i + 1) % period == 0 or i + 1 == len(batches):
            alpha += np.linalg.solve(K_ZZ, K_XZ[temporary].T @ weights)
            temporary, weights = np.zeros(0, dtype=int), np.zeros((0, y.shape[1]))
    return alpha


def watch(trained, look):
    """What `look` sees of each batch after its step."""
    seen, step = [], trained.training_step

    def training_step(batch, batch_idx):
        step(batch, batch_idx)
        seen.append(look(batch))

    trained.training_step = training_step
    return seen


@pytest.mark.parametrize("period", [1, 2, 3, 100])
def test_an_epoch_is_that_of_the_formulas(period):
    rows = data()
    trained = machine(batch_size=16, projection_period=period, decay=0, step_size=10.0)
    seen = watch(trained, lambda batch: batch[2].numpy())
    fit(trained, rows, 1)
    K_XZ, _, y = matrices(trained, rows)
    x = rows.train_set.x.double().numpy()
    alpha = naive_epoch(trained, K_XZ, kernel_matrix(x, x), y, seen, 10.0, 16, period)
    np.testing.assert_allclose(trained.alpha.detach().numpy(), alpha, rtol=2e-4, atol=2e-4 * np.abs(alpha).max())


def test_the_step_size_falls_in_the_last_half():
    trained = machine(batch_size=30)
    rates = watch(trained, lambda _: trained.run.optimizer.param_groups[0]["lr"])
    fit(trained, data(), 4)
    done = np.arange(8) / 8
    np.testing.assert_allclose(rates, trained.step_size * np.minimum(1, (1 - done) / 0.5) ** 2)


def test_targets_that_can_be_met_need_no_decay():
    rows = data(n=20)
    rows.setup()
    trained = machine(rows.train_set.x, batch_size=10)
    fit(trained, rows, 2)
    assert trained.decay == 0


def test_rows_that_are_encoded_once_are_the_same():
    def trained(**options):
        made = GeneralKernelMachine(Laplacian(3.0), 50, batch_size=40)
        fit(made, DigitsDataModule(train_size=200, test_size=50, **options), 2)
        return made

    once = trained()
    if once.centers.dtype == torch.float32 and kl.rows.int8.int8_is_exact(torch.device("cpu")):
        assert once._train_rows.codes is not None
    other = GeneralKernelMachine(Laplacian(3.0), 50, batch_size=40)
    other.on_train_start = lambda: None
    fit(other, DigitsDataModule(train_size=200, test_size=50), 2)
    assert other._train_rows is None
    assert torch.equal(once.alpha, other.alpha)
    assert trained(augment="shift:1")._train_rows is None  # other rows in every epoch


# Checkpoints


@pytest.mark.parametrize("projection", ["factor", "eigenpro"])
def test_a_resumed_run_is_the_same(tmp_path, projection):
    options = {"batch_size": 16, "decay": 0, "projection": projection}
    whole = machine(**options)
    fit(whole, data(), 4)
    first = machine(**options)
    trainer = fit(first, data(), 2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    second = machine(**options)
    fit(second, data(), 4, ckpt_path=tmp_path / "a.ckpt")
    assert torch.equal(second.alpha, whole.alpha)
    assert second.rkhs_norm == whole.rkhs_norm


def test_a_loaded_machine_predicts(tmp_path):
    trained = machine()
    trainer = fit(trained, data(), 2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = GeneralKernelMachine.load_from_checkpoint(tmp_path / "a.ckpt")
    x = torch.randn(7, 4)
    assert torch.equal(loaded(x), trained(x))
    assert loaded.rkhs_norm == trained.rkhs_norm
    assert loaded.kernel == trained.kernel


def test_a_checkpoint_of_other_centres_is_refused(tmp_path):
    trainer = fit(machine(), data(), 1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="its centers differ"):
        fit(machine(seed=1), data(), 2, ckpt_path=tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="holds a GeneralKernelMachine"):
        kl.KernelMachine.load_from_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("options", "rows", "message"),
    [
        ({}, {"seed": 1}, "belongs to other training data: resume with the same data"),
        ({"projection": "eigenpro"}, {}, "projections by factor, and memory leads to eigenpro now: resume with the"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, options, rows, message):
    centers = torch.randn(P, 4, generator=torch.Generator().manual_seed(0))
    own = {"batch_size": 16, "top_q": 5, "projection_period": 2, "projection": "factor"}
    fit(machine(centers, **own), data(), 1).save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=message):
        fit(machine(centers, **{**own, **options}), data(**rows), 2, ckpt_path=tmp_path / "a.ckpt")


@pytest.mark.parametrize(("first", "second"), [(1, "auto"), (1, 3), ("auto", 1), (3, 1)])
def test_a_checkpoint_of_the_other_solver_is_refused(tmp_path, first, second):
    fit(machine(batch_size=5, projection_period=first), data(), 1).save_checkpoint(tmp_path / "a.ckpt")
    T = {1: 1, 3: 3, "auto": 4}
    numbers = [3 if T[each] == 1 else 4 for each in (first, second)]
    message = (
        f"trained by EigenPro {numbers[0]} with projection_period {T[first]}, and this run is EigenPro {numbers[1]} "
        f"with projection_period {T[second]}: resume with the same solver and projection period"
    )
    with pytest.raises(CheckpointError, match=message):
        fit(machine(batch_size=5, projection_period=second), data(), 2, ckpt_path=tmp_path / "a.ckpt")


def test_a_period_that_memory_has_changed_has_no_effect_on_a_resumed_run(tmp_path, caplog, monkeypatch):
    fit(machine(batch_size=5), data(), 1).save_checkpoint(tmp_path / "a.ckpt")
    monkeypatch.setattr("kl.general.plan.GeneralMemory.longest_period", lambda *_: 1)
    other = machine(batch_size=5)
    fit(other, data(), 2, ckpt_path=tmp_path / "a.ckpt")
    assert other.period == 4
    assert caplog.text.count("projection_period 1 has no effect: the run goes on with 4, the checkpoint's") == 1


def test_options_that_have_no_effect_on_a_resumed_run(tmp_path, caplog):
    centers = torch.randn(P, 4, generator=torch.Generator().manual_seed(0))
    own = {"batch_size": 16, "top_q": 5, "projection_period": 2, "step_size": 0.5}
    fit(machine(centers, **own), data(), 1).save_checkpoint(tmp_path / "a.ckpt")
    other = machine(centers, batch_size=20, top_q=3, projection_period=3, step_size=0.25)
    fit(other, data(), 2, ckpt_path=tmp_path / "a.ckpt")
    assert {name: other.parameters_chosen[name] for name in own} == own
    for name, theirs in own.items():
        assert f"has no effect: the run goes on with {theirs}, the checkpoint's" in caplog.text, name


# Edge cases


@pytest.mark.slow
def test_more_centres_than_rows():
    rows = data(n=15)
    centers = torch.randn(40, 4, generator=torch.Generator().manual_seed(3))
    trained = machine(centers, batch_size=3)
    fit(trained, rows, 350)
    K_XZ, K_ZZ, y = matrices(trained, rows)
    # The least norm in the span of the centres among all that fit: alpha = K_ZZ^-1 K_ZX (K_XZ K_ZZ^-1 K_ZX)^-1 Y.
    half = np.linalg.solve(K_ZZ, K_XZ.T)
    best = half @ np.linalg.solve(K_XZ @ half, y)
    assert distance(K_ZZ, trained.alpha.detach().numpy(), best) < 1e-2
    assert np.mean((K_XZ @ trained.alpha.detach().numpy() - y) ** 2) < 1e-5


def test_one_centre():
    rows = data()
    trained = machine(1, batch_size=N)
    fit(trained, rows, 60)
    K_XZ, _, y = matrices(trained, rows)
    np.testing.assert_allclose(trained.alpha.detach().numpy(), np.linalg.lstsq(K_XZ, y, rcond=None)[0], rtol=1e-3)


@pytest.mark.parametrize("projection", ["factor", "eigenpro"])
def test_centres_that_repeat(projection):
    rows = data()
    rows.setup()
    once = rows.train_set.x[:P]
    trained = machine(torch.cat([once, once[:5], once[:5]]), batch_size=N, decay=0, projection=projection)
    fit(trained, rows, 300)
    K_XZ, _, y = matrices(trained, rows)
    alpha = trained.alpha.detach().numpy()
    best = np.linalg.lstsq(K_XZ, y, rcond=None)[0]
    assert np.mean((K_XZ @ alpha - y) ** 2) == pytest.approx(np.mean((K_XZ @ best - y) ** 2), rel=1e-3)
    assert np.abs(alpha).max() < 10 * np.abs(best).max()


def test_sizes_beyond_what_there_is_are_clipped(caplog):
    caplog.set_level(logging.WARNING, "kl")
    trained = machine(500, subsample=900, batch_size=1000)
    fit(trained, data(), 2)
    assert len(trained.centers) == N
    assert len(trained.vectors) == N
    assert "centers 500 is more than the 60 training rows; using 60" in caplog.text
    assert "subsample 900 is more than the 60 centres; using 60" in caplog.text
    assert "batch_size 1000 is more than the 60 training rows; using 60" in caplog.text
    assert trained.batch_rows == N
    assert np.isfinite(trained.train_metrics["train/mse"])


def test_a_batch_that_is_clipped_takes_the_steps_of_one_that_is_asked_for():
    clipped, asked = machine(batch_size=10**9), machine(batch_size=N)
    for trained in (clipped, asked):
        fit(trained, data(), 3)
    assert clipped.plan == asked.plan
    assert torch.equal(clipped.alpha, asked.alpha)
    assert asked.train_metrics["train/mse"] < 0.5 * float(asked.trainer.datamodule.train_set.y.square().mean())


def test_automatic_batches_have_at_most_the_rows_of_an_epoch():
    centers = torch.randn(80, 4, generator=torch.Generator().manual_seed(3))
    trained = machine(centers)
    fit(trained, data(n=20), 1)
    assert trained.batch_rows <= 20


def test_the_rows_of_an_epoch_of_a_stream():
    x, y = torch.randn(50, 4), torch.randn(50, 1)
    for rows, expected in ((None, 100), (70, 70), (500, 100)):
        trained = machine(batch_size=100)
        trained._streamed, trained._epoch_rows = True, rows
        trained.prepare(x, y)  # a sample of the stream
        assert trained.batch_rows == expected


@pytest.mark.parametrize("how", ["random", "kmeans", "rpcholesky"])
def test_ways_to_choose_centres(how):
    rows = DigitsDataModule(train_size=300, test_size=100)
    trained = GeneralKernelMachine("laplacian", 40, centers_from=how)
    fit(trained, rows, 5)
    assert trained.eval_metrics["val/error"] < 0.15
    assert len(torch.unique(trained.centers, dim=0)) == 40


def test_rows_far_from_zero_are_shifted():
    near = data()
    near.setup()
    x, z = near.train_set.x, near.test_set.x
    far = ArrayDataModule.from_arrays(x + 1000, near.train_set.y, z + 1000, near.test_set.y)
    first, second = machine(batch_size=N, seed=3), machine(batch_size=N, seed=3)
    fit(first, near, 5)
    fit(second, far, 5)
    assert second.origin.abs().min() > 900
    torch.testing.assert_close(first(z), second(z + 1000), atol=5e-3, rtol=0)


def test_a_step_that_is_too_large_is_cut(caplog):
    caplog.set_level(logging.WARNING, "kl")
    trained = machine(batch_size=10, step_size=1e4)
    fit(trained, data(), 10)
    assert "training diverged" in caplog.text
    assert trained.step_size < 1e4
    assert trained.train_metrics["train/mse"] < float(trained.trainer.datamodule.train_set.y.square().mean())


def test_an_epoch_with_a_loss_that_is_no_number_does_not_spoil_the_next():
    alpha = torch.ones(3, 2, dtype=torch.float64)
    guard, y = LossGuard(alpha), torch.ones(5, 2)
    assert guard.loss_exploded(torch.full((5, 2), torch.nan), y)
    alpha.fill_(torch.nan)
    assert guard.recover(1.0, 0) == 0.5
    assert torch.equal(alpha, torch.ones(3, 2, dtype=torch.float64))
    assert not guard.loss_exploded(0.5 * y, y)  # the same epoch goes on
    assert not guard.epoch_diverged()
    guard.loss_exploded(torch.full((5, 2), torch.nan), y)
    guard.remember()  # on a GPU the epoch ends before anyone looks
    guard.loss_exploded(0.5 * y, y)
    assert not guard.epoch_diverged()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"centers": 0}, "centers must be a whole number, 1 or above; got 0"),
        ({"centers": "auto"}, "centers must be a whole number, 1 or above; got 'auto'"),
        ({"centers": torch.ones(3)}, r"centers must be a float tensor of shape \(rows, columns\)"),
        ({"centers_from": "best"}, "centers_from must be one of random, kmeans, rpcholesky; got 'best'"),
        ({"projection_period": 0}, "projection_period must be auto or an integer of at least 1; got 0"),
        ({"projection": "lazy"}, "projection must be one of auto, factor, eigenpro; got 'lazy'"),
        ({"decay": 1.5}, "decay must be auto or a share of the run from 0 to 1; got 1.5"),
        ({"decay": -1}, "decay must be auto or a share of the run from 0 to 1; got -1"),
        ({"decay": math.nan}, "decay must be auto or a share of the run from 0 to 1; got nan"),
        ({"decay": True}, "decay must be auto or a share of the run from 0 to 1; got True"),
        ({"decay": "half"}, "decay must be auto or a share of the run from 0 to 1; got 'half'"),
        ({"decay": torch.ones(2)}, r"decay must be auto or a share of the run from 0 to 1; got \[1.0, 1.0\]"),
        ({"centers": np.ones((3, 2))}, r"a torch tensor of shape \(p, d\); got ndarray: use torch.as_tensor"),
        ({"centers": [[1.0], [2.0]]}, r"a torch tensor of shape \(p, d\); got list: use torch.as_tensor"),
        ({"step_size": -1.0}, "step_size must be"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(InputError, match=message):
        GeneralKernelMachine("laplacian", **options)


def test_a_decay_of_torch_is_a_plain_number():
    assert GeneralKernelMachine("laplacian", decay=torch.tensor(0.5)).hparams["decay"] == 0.5
    assert type(GeneralKernelMachine("laplacian", decay=np.float64(0.5)).hparams["decay"]) is float


def test_centres_of_other_features_are_refused():
    with pytest.raises(InputError, match="centers must have as many columns as the data has features, 4; got 3"):
        fit(machine(torch.randn(5, 3)), data(), 1)


# The plan


def test_memory_decides_the_projection():
    small, large = (general_memory(3000, 100, 10, 500, budget) for budget in (150_000_000, 10**9))
    assert not small.keep_factor
    assert large.keep_factor
    assert large.batch_rows > small.batch_rows
    with pytest.raises(MemoryBudgetError, match=r"p=3000 centres of d=100 features needs .* raise memory="):
        general_memory(3000, 100, 10, 500, 10**6)


def test_periods():
    assert choose_period(None, 1000, 100, 10**4, 10**6) == 10
    assert choose_period(None, 1000, 100, 5, 10**6) == 5
    assert choose_period(None, 50, 100, 10**4, 10**6) == 1
    assert choose_period(None, 1000, 100, 10**4, 310) == 4  # an epoch has no more steps
    assert choose_period(7, 1000, 100, 10**4, 10**6) == 7
    assert choose_period(10**9, 1000, 100, 5, 310) == 4
    with pytest.raises(InputError, match="projection_period must be at most 5"):
        choose_period(7, 1000, 100, 5, 10**6)


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_batch_and_its_temporary_centres_never_exceed_the_budget(ranks):
    room = general_memory(3000, 100, 10, 500, 150_000_000, ranks=ranks)
    largest = (room.budget - sum(room.items.values())) // room.batch_row
    assert largest > room.batch_rows
    for m in (1, 7, 32, 100, room.batch_rows, (room.batch_rows + largest) // 2, largest):
        temporary = (room.longest_period(m, ranks) - 1) * -(-m // ranks)
        assert room.with_run(m, temporary).total <= room.budget
    with pytest.raises(MemoryBudgetError, match=f"batch_size={largest + 1} needs .* batch_size={largest} or less"):
        room.longest_period(largest + 1, ranks)


def test_a_batch_that_does_not_fit_the_budget_is_refused():
    rows = data(n=5000)
    room = general_memory(20, 4, C, 20, 10**9)
    least = sum(room.items.values()) - room.items["factor of K(Z, Z)"] + 10**5
    fit(machine(memory=least), rows, 1)  # an automatic batch fits
    with pytest.raises(MemoryBudgetError, match="training with batch_size=5000 needs"):
        fit(machine(memory=least, batch_size=5000), rows, 1)


def test_memory_of_a_run_is_that_of_its_plan():
    trained = machine()
    trainer = quiet_trainer(1)
    trainer.fit(trained, datamodule=data())
    assert trained.memory.total <= trained.memory.budget
    assert "factor of K(Z, Z)" in trained.memory.items
    assert trained.parameters_chosen["projection"] == "factor"
    assert trained.parameters_chosen["projection_period"] == trained.period
    assert f"T {trained.period} (factor)" in trained.describe()


# The projections


@pytest.mark.parametrize("n", [30, 2100])
def test_a_factor_projects(n):
    z = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    rows = kl.Rows.of(z)
    projection = FactorProjection(Laplacian(1.5), rows)
    K = kernel_matrix(z.double().numpy(), z.double().numpy())
    wanted = np.random.default_rng(0).standard_normal((n, 2))
    theta = projection.solve(torch.from_numpy(K @ wanted), torch.zeros(1, 2)).numpy()
    assert distance(K, theta, wanted) < (1e-4 if n == 30 else 2e-2)
    squares = projection.sq_norm(torch.from_numpy(wanted)).numpy()
    np.testing.assert_allclose(squares, np.sum(wanted * (K @ wanted), axis=0), rtol=1e-4)


def test_eigenpro_projects_better_with_more_epochs():
    z = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    K = kernel_matrix(z.double().numpy(), z.double().numpy())
    wanted = np.random.default_rng(0).standard_normal((200, 2))
    off = []
    for epochs in (1, 30):
        rows = kl.Rows.of(z)
        projection = EigenProProjection(Laplacian(1.5), rows, rows, 200, 2, 100, 10**8, epochs=epochs)
        theta = projection.solve(torch.from_numpy(K @ wanted), torch.zeros(100, 2)).numpy()
        off.append(distance(K, theta, wanted))
    assert off[1] < 0.2 * off[0]
    start = torch.from_numpy(wanted[:100])
    rest = torch.from_numpy(K[:, :100] @ wanted[:100])
    exact = projection.solve(rest, start)  # starts at the solution
    np.testing.assert_allclose(exact[:100].numpy(), wanted[:100], atol=1e-3)
