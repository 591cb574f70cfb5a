"""The parts of `kl bench`, each at a size that takes a moment: what they report, never how fast."""

import json
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch

import kl
import kl.rows.int8
from kl.compiled import best
from kl.rows.int8 import encode, int8_is_exact
from recipes.bench.child import Outcome, run_child
from recipes.bench.options import BenchOptions
from recipes.bench.output import TITLES
from recipes.bench.parts import (
    epochs,
    exact,
    general,
    growth,
    memory,
    memory_child,
    patches,
    peer_script,
    peers,
    roofline,
    tune,
)
from recipes.bench.parts.limit import Limits, mm_limit
from recipes.bench.parts.roofline import UNITS, Roofline, Shape
from recipes.bench.parts.training import StopAtMse, budget_for, train
from recipes.bench.record import PARTS, Measurement, Task, one_line
from recipes.bench.runner import limit_rows, limit_tasks, run_task
from recipes.bench.settings import Bench, Sizes, choose_sizes

TINY = Sizes(
    parts=("limit",),
    train=120,
    exact=60,
    peers=60,
    peer_floats=50,
    growth=(60, 120),
    features=(32,),
    classes=(1, 3),
    growth_rows=80,
    centers=30,
    tune=60,
    epochs=2,
    repeats=1,
    time_limit=60.0,
    subsample=20,
)


@pytest.fixture
def bench():
    data = growth.random_data(120, 32, coded=True)
    kernels = {"gaussian": kl.Gaussian(2.0), "laplacian": kl.Laplacian(2.0), "relu-ntk": kl.ReluNTK(depth=3)}
    return Bench(data, kernels, TINY, Limits(1, "cpu"), small_roofline(), rate=1e11)


def small_roofline():
    """A roofline of made-up rates, so that nothing is measured."""
    roofline = Roofline(1, "cpu")
    for unit in ("int8", "float32", "bfloat16"):
        roofline.measured[f"{unit} product, d = 32"] = 1e12, "op/s"
    for name in ("exp in cache", "sqrt in cache", "acos in cache", "memory, read", "empty batches"):
        roofline.measured[name] = 1e9, "a second"
    for name in ("gaussian", "laplacian", "relu-ntk"):
        roofline.measured[f"formula of {name}"] = 8e8, "values/s"
    for c in (3, 10):
        roofline.measured[f"float32 product with {c} weights"] = 1e10, "FLOP/s"
    roofline.measured["float32 product, d = 20"] = 1e11, "op/s"
    return roofline


def test_limit(bench):
    found = mm_limit(bench.data.x, 32, repeats=1)
    assert found.seconds > 0
    assert found.gflops == pytest.approx(2e-9 * 120**2 * 32 / found.seconds)
    (task,) = limit_tasks(bench)
    assert run_task(task) == []
    rows = limit_rows(bench)
    assert rows[0].detail["batch_size"] == 120
    assert [each.name for each in rows[1:]] == list(bench.roofline.measured)
    assert all(each.detail["rate"] > 0 for each in rows[1:])
    assert bench.limits.of(bench.data.x, 500) is bench.limits.of(bench.data.x, 120)  # measured once


@pytest.mark.parametrize("coded", [True, False])
def test_budgets_keep_all_or_nothing_of_k(coded):
    data = growth.random_data(300, 40, coded)
    assert (encode(data.x) is not None) == (coded and kl.rows.int8.int8_is_exact(data.x.device))
    for keep in (True, False):
        for subsample in (None, 30):
            run = train(data, kl.Gaussian(2.0), epochs=1, subsample=subsample, memory=budget_for(data, keep, subsample))
            assert run.detail["kept_rows"] == (300 if keep else 0)
            assert run.detail["kept_columns"] or subsample is None


def test_too_little_memory_is_an_error_of_one_line(bench, monkeypatch):
    monkeypatch.setattr("recipes.bench.parts.training.free_memory", lambda device: 1000)
    task = Task("epochs", "tight", 1.0, lambda: epochs.measure_case(bench, bench.data, epochs.Case("gaussian")))
    (found,) = run_task(task)
    assert "1 KB are free" in found.error
    assert found.seconds is None


def test_epochs(bench):
    names = [case.name for case in epochs.cases(["gaussian", "relu-ntk"])]
    assert names == [
        "gaussian, K not kept",
        "gaussian, K kept",
        "relu-ntk, K not kept",
        "relu-ntk, K kept",
        "gaussian, K not kept, general floats",
        "relu-ntk, K not kept, general floats",
        "gaussian, K not kept, general floats, precision medium",
        "relu-ntk, K not kept, general floats, precision medium",
    ]
    found = epochs.measure_case(bench, bench.data, epochs.Case("gaussian", keep=True))
    assert [each.name.partition(": ")[2] for each in found] == ["", "Lightning", "norm and training error"]
    epoch, lightning, norm = found
    assert epoch.ratio == pytest.approx(epoch.seconds / epoch.detail["roofline_seconds"])
    assert epoch.mm_ratio == pytest.approx(epoch.seconds / epoch.detail["limit_seconds"])
    assert epoch.target == 1.5
    assert epoch.detail["kept_rows"] == 120
    assert epoch.detail["products"] == "blocked, because fused products need CUDA"
    assert 0 < lightning.ratio < 1
    assert norm.ratio > 0
    assert (lightning.target, norm.target) == (0.03, 0.03)


@pytest.mark.parametrize(
    ("case", "n", "target"),
    [
        (epochs.Case("gaussian"), 20_000, 1.5),
        (epochs.Case("gaussian", keep=True), 60_000, 1.25),
        (epochs.Case("laplacian", floats=True), 20_000, 1.3),
        (epochs.Case("laplacian", floats=True, precision="medium"), 60_000, None),
    ],
)
def test_targets_of_epochs(case, n, target):
    assert case.target(n) == target


@pytest.mark.parametrize("compiled", [False, True])
def test_the_roofline_adds_up_its_parts(bench, monkeypatch, compiled):
    monkeypatch.setattr(roofline, "code_for", lambda values: object() if compiled else None)
    shape = Shape(n=1000, d=32, c=3, s=20, q=7, m=300)
    assert shape.steps == 4
    fixed = 4 * 6 * 20 * 7 * 3 / 1e11 + 4 * 1e-9  # projections and launches
    weights, read = 2 * 3 / 1e10, 4e-9
    for kernel, functions in ((kl.Gaussian(2.0), 1), (kl.Laplacian(2.0), 2), (kl.ReluNTK(depth=4), 6)):
        for unit in UNITS:
            found = bench.roofline.epoch(shape, kernel, unit, False, False)
            each = (6 if unit == "digits" else 1) * 2 * 32 / 1e12
            each += min(functions, 1.25 if compiled else 6) * 1e-9
            assert found == pytest.approx(1000 * (1000 * (each + weights) + 20 * (each + 2 * weights)) + fixed)
    gaussian = kl.Gaussian(2.0)
    kept = bench.roofline.epoch(shape, gaussian, "int8", True, True)
    assert kept == pytest.approx(1020 * 1000 * read + fixed)  # reading takes longer than 2 products
    assert bench.roofline.epoch(shape, gaussian, "int8", True, False) == kept  # the columns are a part of K
    columns = bench.roofline.epoch(shape, gaussian, "int8", False, True)
    none = bench.roofline.epoch(shape, gaussian, "int8", False, False)
    assert none - columns == pytest.approx(20 * 1000 * (2 * 32 / 1e12 + 1e-9 + 2 * weights - read))
    bench.roofline.measured["memory, read"] = 1e11, "B/s"
    kept = bench.roofline.epoch(shape, gaussian, "int8", True, True)
    assert kept == pytest.approx(1000 * (1000 + 2 * 20) * weights + fixed)  # and now less
    together = bench.roofline.epoch(replace(shape, steps_per_batch=3), gaussian, "int8", True, True)
    assert kept - together == pytest.approx(2e-9)  # 2 training batches in place of 4


def test_the_parts_of_the_roofline_are_measured_once(monkeypatch):
    monkeypatch.setattr(roofline, "SIDE", 64)
    monkeypatch.setattr(roofline, "CACHED", 64)
    monkeypatch.setattr(roofline, "READ", 2**14)
    monkeypatch.setattr(roofline, "BATCHES", 3)
    found = Roofline(1, "cpu")
    shape = Shape(n=100, d=40, c=2, s=20, q=3, m=50)
    for unit in UNITS:
        for kernel in (kl.Gaussian(2.0), kl.Laplacian(2.0), kl.ReluNTK(depth=3)):
            assert found.epoch(shape, kernel, unit, False, True) > 0
    before = dict(found.measured)
    formulas = 0 if best() is None else 3
    assert len(before) == 3 + 1 + 1 + 3 + formulas + 1 + 1  # products, projections, weights, functions, memory, steps
    found.epoch(shape, kl.Gaussian(2.0), "int8", True, True)
    assert found.measured == before


def test_general_floats_are_no_codes_and_hardly_other_data(bench):
    noisy = bench.data.noisy()
    assert encode(noisy.x) is None
    assert (noisy.x - bench.data.x).norm() < 0.01 * bench.data.x.norm()
    found = epochs.measure_case(bench, noisy, epochs.Case("laplacian", floats=True, precision="medium"))
    assert [each.detail["precision"] for each in found] == ["medium"]
    assert not found[0].detail["coded"]


def test_clocks_change_nothing_and_cover_the_steps():
    data = growth.random_data(120, 32, coded=True)
    runs = [train(data, kl.Laplacian(2.0), epochs=3, subsample=20, clocks=clocks) for clocks in (False, True)]
    assert torch.equal(runs[0].machine.alpha, runs[1].machine.alpha)
    assert runs[0].inside == []
    assert len(runs[1].epochs) == len(runs[1].inside) == 2  # the first epoch is left out
    for epoch, part in zip(runs[1].epochs, runs[1].inside, strict=True):
        assert 0 < part["sweep"] <= part["advance"] <= part["step"] <= epoch
        assert part["finish"] > 0


def test_stops_at_the_mse_and_not_at_zero_error():
    data = growth.random_data(120, 32, coded=True)
    run = train(data, kl.Laplacian(2.0), epochs=500, callbacks=(StopAtMse(1e-6),))
    assert run.detail["train_mse"] <= 1e-6
    assert len(run.detail["seconds_per_epoch"]) < 500


def test_exact_solvers_agree(bench):
    for kernel in exact.KERNELS:
        found = exact.measure_exact(bench, kernel, 60)
        assert [each.name.partition(", ")[2] for each in found] == list(exact.SOLVERS)
        assert not any(each.error for each in found)
        assert next(each.ratio for each in found if "KernelRidge" in each.name) == 1
        # cdist's distances of a row to itself are not 0, which the Laplacian feels
        assert all(each.detail["relative_residual"] < 1e-6 for each in found)


def test_exact_features_undo_the_rounding_to_float32():
    pixels = torch.randint(256, (50, 40), generator=torch.Generator().manual_seed(0))
    pixels[0, :2] = torch.tensor([0, 255])
    x = pixels.float() / 255
    assert exact.exact_features(x).dtype == torch.float64
    if encode(x) is not None:
        assert torch.allclose(exact.exact_features(x), pixels.double() / 255, rtol=1e-15)


def test_a_failing_solver_is_a_line_of_its_own(bench, monkeypatch):
    def fail(kernel, x, y):
        raise RuntimeError("no such luck\nmore")

    monkeypatch.setitem(exact.SOLVERS, "torch cdist + solve", fail)
    found = exact.measure_exact(bench, "gaussian", 60)
    assert [each.error for each in found] == [None, None, None, "RuntimeError: no such luck"]


def test_growth(bench, monkeypatch):
    peak_of = Measurement("memory", "x", 60, 32, ratio=0.5, target=1, detail={"used_bytes": 123})
    monkeypatch.setattr(growth, "measure_memory", lambda *_: peak_of)  # which has a test of its own
    rows, peak = growth.measure_rows(bench, 60)
    assert (rows.n, rows.d, rows.detail["grows"]) == (60, 32, "n")
    assert (peak.part, peak.n, peak.target, peak.detail["grows"]) == ("growth", 60, None, "n, bytes")
    assert peak.detail["grown"] == 123
    for coded, kind in ((True, "d, 8-bit"), (False, "d, general floats")):
        (features,) = growth.measure_features(bench, 80, 48, coded)
        assert (features.n, features.d, features.detail["grows"]) == (80, 48, kind)
        assert features.detail["kept_rows"] == 0
    for c in (1, 3):
        (classes,) = growth.measure_classes(bench, 40, c)
        assert (classes.n, classes.detail["grows"], classes.detail["c"]) == (40, "c", c)
    assert len(growth.growth_tasks(bench)) == 6


def test_exponents_of_growth():
    def grown(grows, value, n=1, d=1, c=1):
        return Measurement("growth", "", n, d, detail={"grows": grows, "grown": value, "c": c})

    found = growth.exponents(
        [
            *(grown("n", 3 * n**2.5, n=n) for n in (10, 20, 80)),
            *(grown("n, bytes", 7 * n, n=n) for n in (10, 20)),
            *(grown("d, 8-bit", d**0.5, d=d) for d in (4, 64)),
            *(grown("c", c**0.25 if c <= 16 else 1e9, c=c) for c in (1, 4, 16, 64)),
            grown("d, general floats", 1.0),  # one place gives no slope
            Measurement("growth", "failed", error="x"),
            Measurement("epochs", "another part", 5, 5, 1.0),
        ]
    )
    assert [each.name for each in found] == [f"exponent in {x}" for x in ("n", "n, bytes", "d, 8-bit", "c")]
    assert [each.ratio for each in found] == pytest.approx([2.5, 1.0, 0.5, 0.25])
    assert [each.met for each in found] == [False, True, None, True]


@pytest.mark.slow
def test_memory_of_a_process(bench, monkeypatch, capsys):
    found = memory.measure_memory(bench, bench.data, "all of K", budget := budget_for(bench.data, True, TINY.subsample))
    assert found.error is None
    assert found.detail["kept_rows"] == 120
    assert found.ratio == found.detail["used_bytes"] / budget

    def in_this_process(command, time_limit):
        monkeypatch.setattr(sys, "argv", command[3:])
        memory_child.main()
        values = json.loads(capsys.readouterr().out.splitlines()[-1])
        return Outcome(values, values["error"])

    monkeypatch.setattr(memory, "run_child", in_this_process)
    refused = memory.measure_memory(bench, bench.data, "nothing", 1000)
    assert "more than the budget" in refused.error
    assert refused.ratio is None


def test_peers_of_ours_and_of_scikit_learn(bench, tmp_path):
    peers.write_problem(tmp_path / "problem.npz", bench, bench.data.first(60), bench.kernels["gaussian"])
    problem = peer_script.read_problem(str(tmp_path / "problem.npz"))
    found = {name: peer_script.measure(name, dict(problem)) for name in list(peer_script.PEERS)[:4]}
    assert found["kl EigenPro"]["train_mse"] <= peers.TARGET_MSE
    assert found["kl EigenPro"]["epochs"] >= 1
    assert found["kl.interpolate"]["train_mse"] < 1e-10
    assert found["sklearn KernelRidge"]["train_mse"] < 1e-20
    assert found["sklearn SVC"]["train_mse"] is None
    assert found["sklearn SVC"]["train_error"] == 0
    limit, ridge = (found[name]["test_mse"] for name in ("kl.interpolate", "sklearn KernelRidge"))
    assert limit == pytest.approx(ridge, rel=1e-3)
    assert {each["error"] for each in found.values()} == {None}


def test_floats_of_few_features_and_a_smooth_target(bench):
    data = peers.smooth_floats(5000, 3, 0)
    assert data.x.shape == (5000, 3)
    assert float(data.y.square().mean()) == pytest.approx(1, abs=0.3)
    assert len(data.test[0]) == len(data.test[1]) == 1000
    assert [task.name for task in peers.peer_tasks(bench)] == [
        f"time to mse 0.0001, {name}, gaussian" for name in (bench.data.name, "floats, d = 3")
    ]
    found = peers.measure_peers(
        bench, peers.smooth_floats(50, 3, 0), kl.Gaussian(1.0), ("kl.interpolate", "sklearn SVC")
    )
    assert [each.name for each in found] == ["floats, d = 3, gaussian, kl.interpolate"]  # regression has no SVC
    assert found[0].error is None


def test_the_code_of_eigenpros_authors_stops_at_the_target(bench, tmp_path, monkeypatch):
    """Their package is not on PyPI; in its place a model whose mse falls tenfold an epoch."""

    class KernelModel:
        def __init__(self, kernel_fn, centers, y_dim, device):
            self.kernel_fn, self.centers, self.passes, models = kernel_fn, centers, 0, seen
            models.append(self)

        def __call__(self, rows):
            return self.kernel_fn(rows, self.centers)[:, :10]

        def evaluate(self, x, y, bs):
            return {"mse": 10.0**-self.passes}

        def fit(self, x, y, x_val, y_val, *, epochs, mem_gb, n_train_eval, seed):
            assert n_train_eval == len(x)
            for self.passes in range(1, epochs + 1):
                self.evaluate(x, y, 1)
                self.evaluate(x_val, y_val, 1)

    seen = []
    kernels = SimpleNamespace(gaussian=lambda a, b, bandwidth: kl.Gaussian(bandwidth)(a, b), laplacian=None)
    package = ModuleType("eigenpro2")
    package.kernels = kernels
    monkeypatch.setitem(sys.modules, "eigenpro2", package)
    monkeypatch.setitem(sys.modules, "eigenpro2.models", SimpleNamespace(KernelModel=KernelModel))
    peers.write_problem(tmp_path / "problem.npz", bench, bench.data.first(60), bench.kernels["gaussian"])
    found = peer_script.measure("EigenPro's code", peer_script.read_problem(str(tmp_path / "problem.npz")))
    assert [model.passes for model in seen] == [4, 4]  # the warm-up and the run, to 1e-4
    assert (found["epochs"], found["train_mse"] > 0, found["seconds"] >= 0) == (4, True, True)


def test_peers_in_processes(bench):
    found = peers.measure_peers(bench, bench.data.first(60), bench.kernels["gaussian"], ("sklearn SVC", "no such peer"))
    assert [each.error for each in found] == [None, "KeyError: 'no such peer'"]
    assert found[0].seconds > 0
    assert found[0].ratio is None  # ours was not asked for
    assert peers.measure_peers(bench, bench.data, bench.kernels["laplacian"], ("sklearn SVC",)) == []


def test_a_peer_that_is_not_installed_or_hangs_is_reported(bench, tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(peers, "SCRIPT", script)
    hasty = Bench(
        bench.data, bench.kernels, Sizes(**{**vars(TINY), "time_limit": 0.3}), bench.limits, bench.roofline, 1e11
    )
    (found,) = peers.measure_peers(hasty, bench.data, bench.kernels["gaussian"], ("gpytorch",))
    assert found.error == "timed out after 0.3 s"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("print('noise'); print('{\"seconds\": 1, \"error\": null}')", None),
        ('print(\'{"error": "ModuleNotFoundError: xrfm"}\')', "ModuleNotFoundError: xrfm"),
        ("import os; os.abort()", "killed by signal 6"),
        ("raise SystemExit('out of luck')", "exit code 1: out of luck"),
        ("print('no JSON')", "exit code 0: nothing said"),
    ],
)
def test_child_processes(code, error):
    outcome = run_child([sys.executable, "-c", code], 30)
    assert (outcome.error is None) if error is None else outcome.error.startswith(error)
    assert run_child(["/no/such/python"], 1).error.startswith("FileNotFoundError")


def test_records():
    found = Measurement("epochs", "x", ratio=0.5, target=0.45)
    assert found.met is False
    assert json.loads(json.dumps(found.as_dict()))["met"] is False
    assert Measurement("epochs", "x", ratio=0.4, target=0.45).met is True
    assert Measurement("epochs", "x", ratio=0.4).met is None
    assert one_line(ValueError("a\nb")) == "ValueError: a"
    assert len(one_line(ValueError("a" * 999))) == 200


def test_every_part_has_a_title():
    assert list(TITLES) == list(PARTS)


def test_general(bench):
    (task,) = general.general_tasks(bench)
    found = run_task(task)
    assert [each.name for each in found] == [
        "EigenPro 4, p = 30",
        "EigenPro 4, p = 30, projected by a factor",
        "EigenPro 4, p = 30, projected by EigenPro 2",
    ]
    limit, same, papers = found
    assert limit.detail["columns"] == 30 + (limit.detail["period"] - 1) * limit.detail["batch_size"] / 2
    plain = bench.limits.of(bench.data.x, limit.detail["batch_size"]).seconds
    assert limit.ratio == pytest.approx(limit.seconds / (plain * limit.detail["columns"] / 120))
    assert limit.target == 1.3
    assert same.detail["eigenpro3"]["period"] == 1
    assert papers.target is None  # far fewer centres than the target is about
    assert all(each.detail["test_error"] is not None for each in found)


def test_sizes():
    full = choose_sizes(BenchOptions(scale="full"), 60_000)
    assert full.growth == (2_000, 5_000, 10_000, 20_000, 40_000, 60_000)
    assert (full.exact, full.peers, full.subsample) == (10_000, 10_000, None)
    assert choose_sizes(BenchOptions(scale="full", train_size=15_000), 60_000).growth == (2_000, 5_000, 10_000, 15_000)
    quick = choose_sizes(BenchOptions(only="peers, limit"), 1437)
    assert quick.train == 1437
    assert quick.parts == ("limit", "peers")  # always in the same order


def test_tune_beside_a_grid_search(bench, monkeypatch):
    monkeypatch.setattr(tune, "KERNELS", ("gaussian", "matern32"))
    monkeypatch.setattr(tune, "POWERS", range(-1, 1))
    (task,) = tune.tune_tasks(bench)
    ours, theirs = run_task(task)
    assert (ours.error, theirs.error) == (None, None)
    assert (ours.name, theirs.name) == ("kl.tune", "sklearn GridSearchCV")
    assert ours.ratio == pytest.approx(ours.seconds / theirs.seconds)
    assert ours.target is None  # too few rows
    assert {"choice", "cv_mse"} <= set(ours.detail) & set(theirs.detail)


def test_patches(bench, monkeypatch):
    monkeypatch.setattr(patches, "COUNT", 8)
    monkeypatch.setattr(patches, "SQUARE", 32)
    tasks = patches.patch_tasks(bench)
    assert [task.name for task in tasks] == ["gray, count", "gray, rectified", "colour, count", "colour, rectified"]
    features, matrix = tasks[3].run()
    assert (features.d, matrix.d) == (2 * 4 * 8, 2 * 4 * 8)
    assert features.ratio == pytest.approx(features.seconds / features.detail["plain_seconds"])
    assert matrix.ratio == pytest.approx(matrix.seconds / matrix.detail["plain_seconds"])
    assert matrix.detail["exact"] == int8_is_exact(torch.device("cpu"))
    assert patches.flops_of(10, (3, 32, 32)) == 2 * 10 * 27**2 * 108 * 8


def test_a_grid_search_that_is_too_long_is_scaled(bench, monkeypatch):
    data = bench.data.first(60)
    kernels = tune.candidates(data, 0)
    assert len(kernels) == 24
    found = tune.grid_search(data, kernels, 0, limit=0.0)
    assert found.timed == 1
    monkeypatch.setattr(tune, "grid_search", lambda *_: found)
    theirs = tune.measure_tune(bench, 60)[1]
    assert theirs.name.endswith("scaled from 1 of 24 kernels and bandwidths, drawn at random")
    assert "choice" not in theirs.detail


@pytest.mark.parametrize("name", tune.KERNELS)
def test_gram_matrices_are_those_of_our_kernels(name):
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = kl.build_kernel(name, bandwidth=1.5)
    torch.testing.assert_close(torch.from_numpy(tune.gram_matrix(kernel, torch.cdist(x, x).numpy())), kernel(x))
