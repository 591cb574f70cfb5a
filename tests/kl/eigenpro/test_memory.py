"""What a run may keep: the budget by item, its refusals, and the memory that is free."""

import json
import subprocess
import sys

import pytest
import torch

import kl
from kl.eigenpro.memory import LEAST_KEPT, training_memory
from kl.errors import MemoryBudgetError
from kl.system.memory import UNLIMITED, _free_in_groups, _free_in_limits, free_memory

IMAGES = {"d": 784, "c": 10, "s": 2000, "integers": 1}


def least(n, **options):
    plan = training_memory(n, budget=10**15, **{**IMAGES, **options})
    return sum(size for name, size in plan.items.items() if "kept" not in name)


@pytest.mark.parametrize("n", [50, 3000, 20000])
def test_total_never_exceeds_the_budget_and_grows_with_it(n):
    base, before = least(n), -1
    for extra in (0, 10**5, 10**7, 10**8, 10**9, 10**10):
        plan = training_memory(n, budget=base + extra, **{**IMAGES, "s": min(n, 2000)} if n > 2000 else IMAGES)
        assert plan.total <= plan.budget
        assert plan.kept_rows >= before
        assert plan.kept_rows == 0 or plan.kept_rows >= LEAST_KEPT * n
        before = plan.kept_rows
    assert before == n


def test_items_grow_with_rows_features_batch_and_subsample():
    assert least(3000) < least(20000)
    assert least(20000) < least(20000, d=3072)
    assert least(20000, s=1000) < least(20000, s=4000)
    assert least(20000, batch_size=100) <= least(20000) < least(20000, batch_size=20000)


def test_a_gpu_keeps_all_of_k_or_nothing():
    everything = training_memory(3000, budget=10**15, gpu=True, **IMAGES)
    assert everything.kept_rows == 3000
    almost = training_memory(3000, budget=everything.total - 3000, gpu=True, **IMAGES)
    assert almost.kept_rows == 0
    assert "K(X, X), kept rows" not in almost.items


def test_refusal_names_options_that_help():
    with pytest.raises(MemoryBudgetError, match=r"n=10000 rows of d=784 .* more than the budget of 300 MB") as caught:
        training_memory(10000, budget=3 * 10**8, **IMAGES)
    text = str(caught.value)
    assert "\n" not in text
    rows = int(text.split("or use ")[1].split()[0])
    subsample = int(text.split("subsample=")[1].split()[0])
    training_memory(rows, budget=3 * 10**8, **IMAGES)
    training_memory(10000, budget=3 * 10**8, **{**IMAGES, "s": subsample})
    amount = float(text.split("memory= to ")[1].split()[0])
    training_memory(10000, budget=int(amount * 10**6), **IMAGES)


def test_refusal_proposes_nothing_that_does_not_help():
    with pytest.raises(MemoryBudgetError) as caught:
        training_memory(10**6, budget=3 * 10**8, **IMAGES)
    assert "subsample=" not in str(caught.value)
    with pytest.raises(MemoryBudgetError) as caught:
        training_memory(10, budget=10, **{**IMAGES, "s": 10})
    assert "rows or less" not in str(caught.value)
    assert "raise memory= to" in str(caught.value)


def groups(tmp_path, lines, files):
    own = tmp_path / "own"
    own.write_text("".join(f"{line}\n" for line in lines))
    for name, value in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return [size for size in _free_in_groups(tmp_path / "groups", own) if size is not None]


def test_limits_of_control_groups_version_2(tmp_path):
    files = {
        "box/job/memory.max": "max",
        "box/memory.max": 1000,
        "box/memory.current": 700,
        "box/memory.stat": "anon 600\ninactive_file 50",
    }
    assert groups(tmp_path, ["0::/box/job"], files) == [350]


def test_limits_of_control_groups_version_1(tmp_path):
    files = {
        "memory/job/memory.limit_in_bytes": 2000,
        "memory/job/memory.usage_in_bytes": 500,
        "memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 100",
        "memory/memory.limit_in_bytes": UNLIMITED * 8 - 4096,
    }
    assert groups(tmp_path, ["5:cpu,cpuacct:/job", "4:memory:/job", "0::/"], files) == [1600]


def test_a_container_that_sees_only_the_top_of_its_group(tmp_path):
    files = {"memory.max": 900, "memory.current": 1000, "memory.stat": "inactive_file 0"}
    assert groups(tmp_path, ["0::/docker/0123"], files) == [0]


def test_groups_that_cannot_be_read_are_no_limit(tmp_path):
    assert groups(tmp_path, ["4:memory:/gone", "0::/"], {}) == []
    assert _free_in_groups(tmp_path, tmp_path / "missing") == []


def test_free_memory_respects_the_group(monkeypatch):
    monkeypatch.setattr("kl.system.memory._free_in_groups", lambda: [None, 12345])
    assert free_memory("cpu") == 12345
    monkeypatch.setattr("kl.system.memory._free_in_groups", lambda: [None])
    assert free_memory("cpu") > 12345


LIMITED = """
import json, re, resource, sys
from pathlib import Path
from kl.system.memory import free_memory, parse_memory
name, room = sys.argv[1], int(sys.argv[2])
used = {"AS": "VmSize", "DATA": "VmData"}[name]
now = 1024 * int(re.search(rf"^{used}:\\s+(\\d+)", Path("/proc/self/status").read_text(), re.M)[1])
resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (now + room, now + room))
print(json.dumps([free_memory(), parse_memory("auto")]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what a process uses is read from /proc")
@pytest.mark.parametrize("name", ["AS", pytest.param("DATA", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_auto_respects_the_limits_of_the_process(name):
    room = 10**8
    child = subprocess.run([sys.executable, "-c", LIMITED, name, str(room)], capture_output=True, text=True, check=True)
    free, auto = json.loads(child.stdout)
    assert 0.9 * room < free <= room
    assert auto <= free // 2 + 2**20


def test_limits_that_are_not_set_or_not_known_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda limit: (-1, -1))
    assert set(_free_in_limits()) <= {None}
    assert _free_in_limits(tmp_path / "missing") == []
    monkeypatch.setattr("resource.getrlimit", lambda limit: (5 * 1024, 5 * 1024))
    (tmp_path / "status").write_text("VmSize:\t 3 kB\nVmData:\t 9 kB\n")
    assert _free_in_limits(tmp_path / "status") == [2048, 0]


@pytest.mark.parametrize("machine", [kl.KernelMachine, kl.ConjugateGradientMachine])
def test_what_cannot_fit_is_refused_before_any_work(machine, monkeypatch):
    monkeypatch.setattr(kl.Laplacian, "resolve", lambda *_, **__: pytest.fail("a bandwidth was chosen first"))
    with pytest.raises(kl.MemoryBudgetError, match="more than the budget of 1 MB"):
        machine("laplacian", memory="1MB").prepare(torch.randn(60, 5000), torch.randn(60, 2))
