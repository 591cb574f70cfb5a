"""ExactInterpolation: its numbers against independent ones, its cache, and where it is left out."""

import logging
import math

import pytest
import pytorch_lightning as pl
import torch
from training import quiet_trainer

import kl
import kl.exact.limit as module
from callbacks import ExactInterpolation
from datamodules import ArrayDataModule, DigitsDataModule
from kl.distributed.ranks import Ranks
from kl.exact.cache import load_solution, save_solution
from kl.exact.checkpoint import solution_key
from kl.exact.conjugate_gradients import ConjugateGradients
from kl.exact.cost import estimate_seconds


def fit(exact, *, epochs=2, kernel="laplacian", data=None, more=(), ridge=0.0, **options):
    data = data or DigitsDataModule(train_size=150, test_size=60, label_noise=0.2)
    trainer = quiet_trainer(epochs, callbacks=[exact, *more], **options)
    machine = kl.KernelMachine(kernel, ridge=ridge)
    trainer.fit(machine, datamodule=data)
    return trainer, machine, data


def count_solves(monkeypatch):
    solves = []

    def solve(*args, **kwargs):
        solves.append(args)
        return kl.interpolate(*args, **kwargs)

    monkeypatch.setattr(module, "interpolate", solve)
    return solves


def test_results_are_those_of_a_dense_solve_written_out_here(tmp_path):
    exact = ExactInterpolation(cache_dir=tmp_path)
    trainer, machine, data = fit(exact, kernel={"kernel": "laplacian", "bandwidth": 2.0})
    x, y = data.train_set.x.double(), data.train_set.y.double()
    K = torch.exp(-torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") / 2.0)
    alpha = torch.linalg.solve(K, y)
    test = data.test_set
    scores = torch.exp(-torch.cdist(test.x.double(), x, compute_mode="donot_use_mm_for_euclid_dist") / 2.0) @ alpha
    wrong = scores.argmax(dim=1) != test.y.argmax(dim=1)
    wrong_noisy = scores.argmax(dim=1) != test.y_noisy.argmax(dim=1)
    results = exact.results
    assert exact.skipped is None
    assert results["exact_train_mse"] < 1e-20
    assert results["exact_train_error"] == 0
    assert results["exact_test_mse"] == pytest.approx(float((scores - test.y).square().mean()), rel=1e-9)
    assert results["exact_test_error"] == pytest.approx(float(wrong.double().mean()))
    assert results["exact_test_error_noisy"] == pytest.approx(float(wrong_noisy.double().mean()))
    assert results["exact_rkhs_norm"] == pytest.approx(math.sqrt(float((alpha * y).sum())), rel=1e-9)
    assert results["relative_residual"] < 1e-9
    assert results["jitter"] == 0
    assert results["seconds"] > 0
    assert results["cached"] is False

    weights = machine.in_data_order(machine.alpha.detach()) - alpha
    distance = math.sqrt(float((weights * (K @ weights)).sum()))
    assert results["distance_to_exact"] == pytest.approx(distance, rel=1e-3)
    assert results["distance_to_exact"] == pytest.approx(
        kl.rkhs_distance(machine.kernel, x, machine.in_data_order(machine.alpha.detach()), x, exact.solution.alpha),
        rel=1e-3,
    )
    logged = trainer.callback_metrics
    names = {"train_mse", "val_mse", "val_error", "val_error_noisy", "rkhs_norm", "distance"}
    names |= {"gap_train_mse", "gap_val_error"}
    assert {tag for tag in logged if tag.startswith("exact/")} == {f"exact/{name}" for name in names}
    assert float(logged["exact/distance"]) == pytest.approx(distance, rel=1e-3)
    assert float(logged["exact/gap_val_error"]) == pytest.approx(
        float(logged["val/error"]) - results["exact_test_error"], abs=1e-6
    )
    assert float(logged["exact/gap_train_mse"]) == pytest.approx(machine.train_metrics["train/mse"], rel=1e-5)


def test_distance_falls_to_the_difference_of_float32_and_float64(tmp_path):
    class Distances(pl.Callback):
        def __init__(self):
            self.seen = []

        def on_train_epoch_end(self, trainer, pl_module):
            self.seen.append(exact.distance(pl_module))

    exact, distances = ExactInterpolation(cache_dir=tmp_path), Distances()
    _, machine, data = fit(exact, epochs=30, more=[distances])
    norm = exact.results["exact_rkhs_norm"]
    assert all(b < a for a, b in zip(distances.seen[:10], distances.seen[1:10], strict=False))
    assert distances.seen[-1] < 1e-3 * norm
    x, alpha = data.train_set.x.double(), machine.in_data_order(machine.alpha.detach())
    true = kl.rkhs_distance(machine.kernel, x, alpha, x, exact.solution.alpha)
    assert abs(distances.seen[-1] - true) < 5e-4 * norm  # the documented floor


def test_distance_before_the_first_step_is_the_norm_of_the_limit(tmp_path):
    class First(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            self.distance = exact.results["distance_to_exact"]

    exact, first = ExactInterpolation(cache_dir=tmp_path), First()
    fit(exact, epochs=1, more=[first])
    assert first.distance == pytest.approx(exact.results["exact_rkhs_norm"], rel=1e-9)


def test_rows_that_repeat_with_other_targets(tmp_path, recwarn):
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    x, y = torch.cat([x, x[:5]]), torch.arange(45) % 3
    data = ArrayDataModule.from_arrays(x, y, x[:10], y[:10])
    exact = ExactInterpolation(cache_dir=tmp_path)
    _, machine, _ = fit(exact, data=data, epochs=5)
    alpha, x = machine.in_data_order(machine.alpha.detach()), data.train_set.x.double()
    true = kl.rkhs_distance(machine.kernel, x, alpha, x, exact.solution.alpha)
    assert exact.results["distance_to_exact"] == pytest.approx(
        true, rel=1e-3, abs=5e-4 * exact.results["exact_rkhs_norm"]
    )
    assert exact.results["exact_train_error"] > 0


def test_ridge_regression_without_test_errors_or_validation(tmp_path):
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    data = ArrayDataModule.from_arrays(x, x[:, 0].sin(), x[:10], x[:10, 0].sin())
    exact = ExactInterpolation(cache_dir=tmp_path)
    trainer, machine, data = fit(exact, data=data, limit_val_batches=0, ridge=0.5)
    x, y = data.train_set.x.double(), data.train_set.y.double()
    K = machine.kernel(x)
    alpha = torch.linalg.solve(K + 0.5 * torch.eye(50), y)
    results = exact.results
    assert results["exact_rkhs_norm"] == pytest.approx(math.sqrt(float((alpha * (K @ alpha)).sum())), rel=1e-6)
    assert results["exact_train_mse"] == pytest.approx(float((K @ alpha - y).square().mean()), rel=1e-6)
    assert [results[f"exact_{name}"] for name in ("train_error", "test_error", "test_error_noisy")] == [None] * 3
    assert results["exact_test_mse"] is not None
    assert "exact/gap_train_mse" in trainer.callback_metrics
    assert not {"exact/gap_val_error", "exact/val_error"} & set(trainer.callback_metrics)


def test_gap_is_only_logged_in_epochs_that_validate(tmp_path):
    class Seen(pl.Callback):
        def __init__(self):
            self.gaps = []

        def on_train_epoch_end(self, trainer, pl_module):
            self.gaps.append("exact/gap_val_error" in trainer._results.metrics(on_step=False)["callback"])

    seen = Seen()
    fit(ExactInterpolation(cache_dir=tmp_path), epochs=4, check_val_every_n_epoch=2, more=[seen])
    assert seen.gaps == [False, True, False, True]


def test_a_kept_solution_is_not_solved_again(tmp_path, monkeypatch, caplog):
    solves = count_solves(monkeypatch)
    first, second = ExactInterpolation(cache_dir=tmp_path), ExactInterpolation(cache_dir=tmp_path, max_rows=1)
    caplog.set_level(logging.INFO, "kl.exact")
    fit(first)
    assert "solving n=150 rows on cpu (direct), about" in caplog.text
    fit(second)
    assert len(solves) == 1
    assert second.results == {**first.results, "cached": True}
    assert "read from" in caplog.text
    assert len(list(tmp_path.iterdir())) == 1  # no temporary file is left


@pytest.mark.parametrize("content", [b"", b"no archive", "truncated", "other", "no solution"])
def test_a_damaged_file_is_solved_again_and_mended(tmp_path, monkeypatch, caplog, content):
    fit(ExactInterpolation(cache_dir=tmp_path))
    (path,) = tmp_path.iterdir()
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif content == "other":
        values = torch.load(path, weights_only=True)
        values["alpha"] = values["alpha"] * 1.01
        torch.save(values, path)
    elif content == "no solution":
        torch.save({"alpha": torch.zeros(3)}, path)
    else:
        path.write_bytes(content)
    solves = count_solves(monkeypatch)
    exact = ExactInterpolation(cache_dir=tmp_path)
    fit(exact)
    assert len(solves) == 1
    assert "cannot be used" in caplog.text
    assert exact.results["exact_train_error"] == 0
    fit(ExactInterpolation(cache_dir=tmp_path))
    assert len(solves) == 1


def test_a_file_that_runs_code_is_not_run(tmp_path, caplog):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "evil"), "w"))

    x, y = torch.rand(4, 2), torch.rand(4, 1)
    torch.save({"alpha": Evil()}, tmp_path / "a.pt")
    assert load_solution(tmp_path / "a.pt", "key", kl.Laplacian(1.0), x, y) is None
    assert not (tmp_path / "evil").exists()
    assert "solving again" in caplog.text


def test_the_key_follows_everything_the_solution_depends_on():
    x, y = torch.rand(10, 2), torch.rand(10, 1)
    clean, noisy = DigitsDataModule(train_size=50), DigitsDataModule(train_size=50, label_noise=0.1)
    for data in (clean, noisy):
        data.setup()
    kernel = kl.Laplacian(1.0)
    keys = [
        solution_key(kernel, x, y, 0.0),
        solution_key(kernel, x, y, 1e-6),
        solution_key(kl.Laplacian(1.1), x, y, 0.0),
        solution_key(kl.Gaussian(1.0), x, y, 0.0),
        solution_key(kernel, x + 1, y, 0.0),
        solution_key(kernel, x.double(), y, 0.0),
        solution_key(kernel, x.view(5, 4), y, 0.0),
        *(solution_key(kernel, data.train_set.x, data.train_set.y, 0.0) for data in (clean, noisy)),
    ]
    assert len(set(keys)) == len(keys)
    assert solution_key(kl.Laplacian(1.0), x.clone(), y.clone(), 0) == keys[0]


def test_a_kernel_whose_formula_changed_is_solved_again(tmp_path, caplog):
    x, y = torch.rand(10, 2), torch.rand(10, 1)
    save_solution(tmp_path / "a.pt", "key", kl.interpolate(kl.Laplacian(1.0), x, y))
    assert load_solution(tmp_path / "a.pt", "key", kl.Laplacian(1.0), x, y) is not None
    assert load_solution(tmp_path / "a.pt", "key", kl.Laplacian(1.001), x, y) is None
    assert "kernel as it is now" in caplog.text


def test_a_folder_that_cannot_be_written_is_a_log_line(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    exact = ExactInterpolation(cache_dir=tmp_path / "file" / "cache")
    fit(exact, epochs=1)
    assert exact.results is not None
    assert "could not be kept" in caplog.text


def test_default_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert ExactInterpolation().cache_dir == tmp_path / "kl" / "exact"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ExactInterpolation().cache_dir == tmp_path / ".cache" / "kl" / "exact"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"memory": "100KB"}, "more than the budget"),
        ({"memory": "100KB", "solver": "direct"}, "more than the budget"),
        ({"max_rows": 149}, "n=150 training rows are more than max_rows=149"),
        ({"solver": "pcg", "max_seconds": 1e-9}, "go on with `kl interpolate` and the same options"),
    ],
)
def test_too_large_is_left_out_with_one_message(tmp_path, caplog, options, reason):
    exact = ExactInterpolation(cache_dir=tmp_path, **options)
    trainer, machine, _ = fit(exact)
    assert exact.results is None
    assert exact.solution is None
    assert reason in exact.skipped
    records = [record for record in caplog.records if record.name.startswith("callbacks")]
    assert len(records) == 1
    assert reason in records[0].message
    assert not [tag for tag in trainer.callback_metrics if tag.startswith("exact/")]
    with pytest.raises(RuntimeError, match="no exact solution"):
        exact.distance(machine)


def test_a_singular_kernel_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    def fail(*_args, **_options):
        raise kl.SingularKernelError("singular")

    monkeypatch.setattr(module, "interpolate", fail)
    exact = ExactInterpolation(cache_dir=tmp_path)
    trainer, _, _ = fit(exact)
    assert exact.skipped == "singular"
    assert trainer.state.finished


def test_fast_dev_run_solves_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO, "callbacks")
    exact = ExactInterpolation(cache_dir=tmp_path)
    fit(exact, fast_dev_run=True, logger=True)
    assert (exact.results, exact.skipped) == (None, "fast_dev_run")
    assert "left out: fast_dev_run" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "lots"}, "memory must be"),
        ({"max_rows": 0}, "max_rows must be"),
        ({"max_seconds": 0}, "max_seconds must be"),
        ({"solver": "lu"}, "solver must be one of auto, direct, pcg"),
        ({"tolerance": 0.0}, "tolerance must be"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(kl.InputError, match=message):
        ExactInterpolation(**options)


@pytest.mark.parametrize("solver", ["direct", "pcg"])
def test_estimate_grows_with_n(solver):
    x = torch.rand(4000, 8)
    small, large = (estimate_seconds(kl.Laplacian(1.0), x[:n], solver) for n in (200, 4000))
    assert 0 < small < large < 600


def test_conjugate_gradients_to_the_same_limit(tmp_path):
    direct = ExactInterpolation(cache_dir=tmp_path / "a")
    iterative = ExactInterpolation(cache_dir=tmp_path / "b", solver="pcg", tolerance=1e-9)
    fit(direct)
    fit(iterative)
    assert (direct.results["solver"], iterative.results["solver"]) == ("direct", "pcg")
    assert iterative.results["iterations"] > 0
    for name in ("exact_rkhs_norm", "exact_test_mse", "distance_to_exact"):
        assert iterative.results[name] == pytest.approx(direct.results[name], rel=1e-6)


def test_a_kept_solution_serves_only_the_tolerance_it_was_asked_for(tmp_path, monkeypatch, caplog):
    solves = count_solves(monkeypatch)
    for tolerance in (1e-2, 1e-1, 1e-8, 1e-4):
        fit(ExactInterpolation(cache_dir=tmp_path, solver="pcg", tolerance=tolerance))
    assert len(solves) == 2
    assert "is above 1.0e-08, by pcg at a tolerance of 1.0e-02); solving again" in caplog.text


def test_the_machine_s_own_memory_is_left_to_it(tmp_path, monkeypatch):
    budgets = []

    def solve(kernel, x, y, ridge, memory, *rest, **options):
        budgets.append(memory)
        return kl.interpolate(kernel, x, y, ridge, memory, *rest, **options)

    monkeypatch.setattr(module, "interpolate", solve)
    _, machine, _ = fit(ExactInterpolation(cache_dir=tmp_path, memory="1GB"))
    assert budgets == [10**9 - machine.memory.total + machine.memory.items.get("K(X, X), kept rows", 0)]
    assert budgets[0] < 10**9


def test_an_interrupted_solve_goes_on_in_the_next_run(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "kl")
    step, steps = ConjugateGradients.step, []

    def interrupted(self, state):
        steps.append(state.iterations)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return step(self, state)

    monkeypatch.setattr(ConjugateGradients, "step", interrupted)
    with pytest.raises(SystemExit):
        fit(ExactInterpolation(cache_dir=tmp_path, solver="pcg"))
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    exact = ExactInterpolation(cache_dir=tmp_path, solver="pcg")
    fit(exact)
    assert "going on after 3 iterations" in caplog.text
    assert steps[4] == 3
    assert exact.results["relative_residual"] <= 1e-6
    assert [path.suffix for path in tmp_path.iterdir()] == [".pt"]


def test_the_training_rows_are_not_sent_with_the_solution(tmp_path, monkeypatch):
    sent, first = [], Ranks.broadcast_result
    monkeypatch.setattr(Ranks, "broadcast_result", lambda self, work: sent.append(first(self, work)) or sent[-1])
    exact = ExactInterpolation(cache_dir=tmp_path)
    _, _, data = fit(exact)
    [outcome] = [each for each in sent if hasattr(each, "solution")]
    assert outcome.solution.centers.numel() == 0
    assert exact.solution.centers is data.train_set.x
    torch.testing.assert_close(exact.solution.predict(data.train_set.x), exact.solution.fitted, atol=1e-9, rtol=0)
