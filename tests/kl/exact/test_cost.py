"""The memory that exact solves take, measured in a process of its own, stays within the budget, or they are refused."""

import json
import subprocess
import sys

import pytest
import torch

import kl
from kl.exact.cost import PROBES, direct_memory, eigen_memory, least_pcg_memory, pcg_plan
from kl.kernels import Laplacian, Polynomial
from kl.products.triangle import SIDE, LowerTriangle
from kl.rows.rows import Rows

MB = 10**6
CHILD = """
import json, sys, warnings
import torch
import kl
from kl.system.memory import peak_memory
torch.set_num_threads(1)
n, d, c, memory = (int(word) for word in sys.argv[1:5])
solver, kernel, left = sys.argv[5:]
kernel = kl.Laplacian(d ** 0.5) if kernel == "laplacian" else kl.Polynomial(degree=1, bias=0.0)
generator = torch.Generator().manual_seed(0)
x, y = torch.randn(n, d, generator=generator), torch.randn(n, c, generator=generator)
small = x[:60, :20].contiguous(), y[:60, :1].contiguous()
for name in ("direct", "pcg"):
    kl.interpolate(kl.Laplacian(3.0), *small, solver=name, leave_one_out=left == "left")
kl.interpolate(kl.Polynomial(degree=1, bias=0.0), *small, solver="direct")
before = peak_memory()
solved = kl.interpolate(kernel, x, y, memory=memory, solver=solver, tolerance=1e-2, leave_one_out=left == "left")
print(json.dumps({"solver": solved.solver, "taken": peak_memory() - before}))
"""


@pytest.mark.parametrize(
    ("n", "d", "c", "solver", "kernel", "found"),
    [
        pytest.param(2500, 30, 500, "direct", "laplacian", "direct", marks=pytest.mark.slow),  # many outputs
        pytest.param(2500, 30, 500, "pcg", "laplacian", "pcg", marks=pytest.mark.slow),
        (600, 20_000, 1, "direct", "laplacian", "direct"),  # many features
        pytest.param(600, 20_000, 1, "pcg", "laplacian", "pcg", marks=pytest.mark.slow),
        pytest.param(4000, 20, 1, "direct", "laplacian", "direct", marks=pytest.mark.slow),  # many rows
        pytest.param(4000, 20, 1, "pcg", "laplacian", "pcg", marks=pytest.mark.slow),
        pytest.param(2000, 20, 1, "direct", "linear", "eigen", marks=pytest.mark.slow),
    ],
)
def test_peak_is_within_the_least_budget(n, d, c, solver, kernel, found):
    need = eigen_memory if found == "eigen" else direct_memory if solver == "direct" else least_pcg_memory
    budget = need(n, d, c)
    arguments = [str(value) for value in (n, d, c, budget, solver, kernel, "alone")]
    child = subprocess.run([sys.executable, "-W", "ignore", "-c", CHILD, *arguments], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    result = json.loads(child.stdout)
    assert result["solver"] == found
    assert result["taken"] <= budget + 16 * MB


@pytest.mark.slow
@pytest.mark.parametrize("n", [2000, 4000])
@pytest.mark.parametrize("solver", ["direct", "pcg"])
def test_leave_one_out_is_within_its_budget(n, solver):
    budget = direct_memory(n, 20, 1, None, True) if solver == "direct" else least_pcg_memory(n, 20, 1 + PROBES)
    arguments = [str(value) for value in (n, 20, 1, budget, solver, "laplacian", "left")]
    child = subprocess.run([sys.executable, "-W", "ignore", "-c", CHILD, *arguments], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    result = json.loads(child.stdout)
    assert result["solver"] == solver
    assert result["taken"] <= budget + 16 * MB


@pytest.mark.parametrize("solver", ["direct", "pcg", "auto"])
def test_what_does_not_fit_is_refused_before_the_work(monkeypatch, solver):
    def work(*_args, **_options):
        raise AssertionError("work has begun")

    for name in ("merged.Rows", "merged.mean_targets", "interpolate.solution_key"):
        monkeypatch.setattr(f"kl.exact.{name}", work)
    monkeypatch.setattr(Laplacian, "resolve", work)
    memory = min(direct_memory(300, 2000, 1), least_pcg_memory(300, 2000, 1)) - 1
    with pytest.raises(kl.MemoryBudgetError, match=r"of n=300 rows needs 1\d\S* MB, more than the budget .*raise mem"):
        kl.interpolate(Laplacian(), torch.randn(300, 2000), torch.randn(300, 1), memory=memory, solver=solver)


def test_the_least_budget_of_conjugate_gradients_is_the_least():
    x, y = torch.randn(300, 20), torch.randn(300, 1)
    least = least_pcg_memory(300, 20, 1)
    assert [pcg_plan(300, 20, 1, budget)[0] for budget in (least - 1, least)] == [0, 1]
    assert kl.interpolate(Laplacian(5.0), x, y, memory=least, solver="pcg").converged
    with pytest.raises(kl.MemoryBudgetError, match="the solve by conjugate gradients of n=300 rows needs"):
        kl.interpolate(Laplacian(5.0), x, y, memory=least - 1, solver="pcg")


def test_a_tile_of_long_rows_that_are_converted_has_fewer_of_them():
    rows = Rows.of(torch.zeros(2, 2**20))
    assert LowerTriangle(Laplacian(1.0), rows).side == SIDE
    assert LowerTriangle(Laplacian(1.0), rows.double()).side == 8  # 64 MB


def test_an_eigen_decomposition_that_does_not_fit_is_refused():
    x, y = torch.randn(500, 4), torch.randn(500, 1)
    with pytest.raises(kl.MemoryBudgetError, match=r"n=500 rows is singular .* its eigen-decomposition needs .*pcg"):
        kl.interpolate(Polynomial(degree=1, bias=0.0), x, y, memory=eigen_memory(500, 4, 1) - 1, solver="direct")
