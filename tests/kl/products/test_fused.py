"""The fused product: its values by Triton's interpreter, its code for GPUs by Triton's compiler, and the choice."""

import importlib
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from fused_cases import FEATURES, KERNELS, SIZES
from user_kernels import Cauchy

import kl.products.fused as fused
from kl.kernels import Gaussian, Laplacian, Polynomial, ReluNTK
from kl.products import blocks
from kl.rows.rows import Rows

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
# Of a sum of at most 70 products of size 1: float32 sums of another order, and distances from float32 inner products.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """What `fused_cases` computed in a process of its own."""
    pytest.importorskip("triton")
    path = tmp_path_factory.mktemp("fused") / "found.pt"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
    command = [sys.executable, ROOT / "tests" / "fused_cases.py", path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(path, weights_only=False)


PARAMETERS = {"exponential_power": {"bandwidth": 2.0, "power": 0.7}}
PARAMETERS |= {"relu_ntk": {"depth": 3, "bias": 0.5}, "relu_nngp": {"depth": 3, "bias": 0}}


def check(found, name):
    parameters = PARAMETERS.get(name, {"bandwidth": 2.0})
    K = oracle.matrix(getattr(oracle, name), found["x"].numpy(), found["z"].numpy(), **parameters)
    near = {"atol": TOLERANCE * max(1, K.max()), "rtol": 0}
    assert found["fused"].dtype == torch.float32
    np.testing.assert_allclose(found["fused"].numpy(), K @ found["v"].numpy(), **near)
    torch.testing.assert_close(found["fused"], found["engine"], **near)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("kind", fused.TILES)
def test_products_equal_the_oracle_and_the_engine(interpreted, kind, name):
    check(interpreted[kind, name], name)


@pytest.mark.parametrize("c", [1, 17])
@pytest.mark.parametrize("kind", fused.TILES)
def test_any_number_of_outputs(interpreted, kind, c):
    assert interpreted[kind, c]["fused"].shape == (21, c)
    check(interpreted[kind, c], "gaussian")


@pytest.mark.parametrize(("m", "p"), [size[:2] for size in SIZES])
@pytest.mark.parametrize("kind", fused.TILES)
def test_sizes_around_the_borders_of_tiles_and_parts(interpreted, kind, m, p):
    check(interpreted[kind, m, p], "matern32")


def test_tiles_of_a_gpu(interpreted):
    check(interpreted["default tiles"], "gaussian")


@pytest.mark.parametrize("kind", [*fused.TILES, "unnamed"])
def test_equal_rows_have_distance_zero(interpreted, kind):
    """Where `same` names them, and without it where distances are exact."""
    assert torch.equal(interpreted["equal", kind], torch.eye(40))


def test_equal_rows_have_distance_zero_far_from_the_origin(interpreted):
    assert torch.equal(interpreted["far"], torch.eye(20))


def test_nan_is_not_hidden(interpreted):
    of_row, of_weight = interpreted["broken"]
    assert of_row.isnan().flatten().nonzero().flatten().tolist() == [3]
    assert of_weight.isnan().all()


def test_relu_kernels_of_zero_rows(interpreted):
    for found in interpreted["zero"]:
        torch.testing.assert_close(found["fused"], found["engine"], atol=3e-4, rtol=0)  # K is about 50, of 20 rows


def test_nothing_is_a_sum_of_zero(interpreted):
    without_rows, without_columns = interpreted["empty"]
    assert without_rows.shape == (0, 2)
    assert torch.equal(without_columns, torch.zeros(4, 2))


def test_the_probe_finds_the_interpreter_right_but_slow(interpreted):
    for choice, error in interpreted["choices"].values():
        assert 0 <= error < fused.TOLERATED / 4
        assert not choice.fused
        assert "times the seconds" in choice.why


# The code for GPUs, which the interpreter does not see: it takes programs that the compiler refuses.

SHARED = 99 * 1024  # bytes of shared memory of a program on consumer GPUs; others have more


def compiled(kind, capability, monkeypatch, tmp_path, kernel=KERNELS["gaussian"], c=10):
    """What Triton compiles for the arguments of `fused_matmul`; needs no GPU."""
    triton = pytest.importorskip("triton")
    pytest.importorskip("triton.backends.nvidia")
    module = importlib.import_module("kl.products.fused_kernel")
    function, launched = module.fused_product, {}

    class Recorder:
        def __getitem__(self, grid):
            return lambda *arguments, **options: launched.update(grid=grid, arguments=arguments, options=options)

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(module, "fused_product", Recorder())
    monkeypatch.setattr("kl.rows.int8.int8_is_exact", lambda device: True)
    x = fused.probed_rows(kind, 70, 16 if kind == "few" else 48, CPU)
    fused.fused_matmul(kernel, x, x, torch.rand(70, c))
    names = {torch.float32: "*fp32", torch.int8: "*i8", torch.int32: "*i32", torch.int64: "*i64", int: "i32"}
    types = [names.get(getattr(each, "dtype", type(each)), "fp32") for each in launched["arguments"]]
    options = {name: value for name, value in launched["options"].items() if name not in function.arg_names}
    constants = {name: value for name, value in launched["options"].items() if name in function.arg_names}
    signature = dict(zip(function.arg_names, types + ["constexpr"] * len(constants), strict=True))
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, (name, kind) in enumerate(signature.items())
        if kind.startswith("*") or name in ("d", "x_stride", "z_stride")
    }
    source = triton.compiler.ASTSource(function, signature, constants, aligned)
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options=options)


SLOW = pytest.mark.slow
INT8 = {80: r"mma\.sync\S*\.s8\.s8", 90: r"wgmma\.mma_async\S*\.s8\.s8"}
TF32 = {80: r"mma\.sync\S*\.tf32\.tf32", 90: r"wgmma\.mma_async\S*\.tf32\.tf32"}


@pytest.mark.parametrize("capability", [pytest.param(80, marks=SLOW), 90])
@pytest.mark.parametrize(
    "kind", ["codes", *(pytest.param(kind, marks=SLOW) for kind in fused.TILES if kind != "codes")]
)
def test_gpus_multiply_in_the_units_of_the_engine(kind, capability, monkeypatch, tmp_path):
    found = compiled(kind, capability, monkeypatch, tmp_path)
    code = found.asm["ptx"]
    assert bool(re.search(INT8[capability], code)) == (kind in ("codes", "digits"))
    assert bool(re.search(TF32[capability], code)) == ("tf32" in code) == (kind == "rounded")
    assert found.metadata.shared <= SHARED


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("c", [1, fused.MOST_OUTPUTS])
def test_gpus_have_every_formula(name, c, monkeypatch, tmp_path):
    assert compiled("few", 90, monkeypatch, tmp_path, KERNELS[name], c).metadata.shared <= SHARED


# The choice


@pytest.fixture
def probing(monkeypatch):
    """A small probe, with a fused product and with clocks that a test sets; returns what the probe chooses."""
    monkeypatch.setattr(fused, "PROBED_ROWS", 40)
    monkeypatch.setattr(fused, "PROBED_COLUMNS", 20)

    def choose(product, seconds):
        monkeypatch.setattr(fused, "fused_matmul", product)
        monkeypatch.setattr(fused, "seconds", lambda work, repeats: seconds.pop(0))
        fused._probe.cache_clear()
        return fused._probe("cpu", None, Gaussian(1.0), "floats", 20, 16)

    yield choose
    fused._probe.cache_clear()


def blocked(kernel, x, z, v, same=None):
    return kernel.block(x, z, same) @ v


def test_the_probe_takes_what_is_right_and_faster(probing, caplog):
    caplog.set_level("INFO", logger="kl")
    choice = probing(blocked, [1.0, 2.0] * fused.ROUNDS)
    assert choice == fused.Choice(True, "fused, in 0.5 times the seconds of blocked ones")
    assert caplog.messages == [f"Gaussian products of 20 features (floats) on cpu are {choice.why}"]


def test_the_probe_takes_nothing_that_was_slower_once(probing):
    assert probing(blocked, [1.0, 2.0, 1.0, 1.0]) == (False, "blocked, because fused they take 1 times the seconds")


@pytest.mark.parametrize("fault", [1 + 1e-4, torch.nan])
def test_the_probe_takes_nothing_wrong(probing, fault):
    choice = probing(lambda *arguments: fault * blocked(*arguments), [])
    assert not choice.fused
    assert "is wrong here" in choice.why


def test_the_probe_notices_a_tf32_product(probing):
    def tf32(t):
        return (t.view(torch.int32) & ~0x1FFF).view(torch.float32)  # 10 bits after the first

    choice = probing(lambda kernel, x, z, v, same: tf32(kernel.block(x, z, same)) @ tf32(v), [])
    assert "is wrong here" in choice.why


def test_the_probe_says_what_fails(probing):
    def fail(*arguments):
        raise ModuleNotFoundError("No module named 'triton'\nand more")

    why = "blocked, because the fused kernel fails here (ModuleNotFoundError: No module named 'triton')"
    assert probing(fail, []) == (False, why)


def on_gpu(x):
    """Rows that say that they lie on a GPU."""
    data = types.SimpleNamespace(is_cuda=True, device=CPU, dtype=x.data.dtype, shape=x.data.shape, stride=x.data.stride)
    return types.SimpleNamespace(data=data, dtype=x.dtype, codes=x.codes, digits=x.digits, rounded=x.rounded)


def test_cpus_and_whoever_did_not_ask_get_blocked_products(monkeypatch):
    x = Rows.of(torch.rand(4, 20))
    monkeypatch.delenv(fused.SWITCH, raising=False)
    assert "is not 1" in fused.choose(Gaussian(1.0), on_gpu(x), on_gpu(x), 3).why
    monkeypatch.setenv(fused.SWITCH, "1")
    assert "need CUDA" in fused.choose(Gaussian(1.0), x, x, 3).why
    for kernel, rows, c in [
        (Polynomial(2), x, 3),
        (Cauchy(1.0), x, 3),
        (Gaussian(1.0), x.double(), 3),
        (Gaussian(1.0), Rows.of(x.data.T), 3),
        (Gaussian(1.0), x, 65),
    ]:
        assert "does not have" in fused.choose(kernel, on_gpu(rows), on_gpu(rows), c).why


@pytest.mark.parametrize(
    ("kernel", "c", "probed"),
    [
        (Gaussian(1.0), 3, (Gaussian((20 / 6) ** 0.5), "floats", 20, 16)),
        (ReluNTK(2), 33, (ReluNTK(2), "floats", 20, 64)),
    ],
)
def test_a_probe_stands_for_all_bandwidths_and_numbers_of_rows(kernel, c, probed, monkeypatch):
    monkeypatch.setenv(fused.SWITCH, "1")
    monkeypatch.setattr(fused, "_probe", lambda *arguments: arguments)
    x = on_gpu(Rows.of(torch.rand(4, 20)))
    assert fused.choose(kernel, x, x, c) == ("cpu", None, *probed)


@pytest.mark.parametrize("kind", fused.TILES)
def test_kinds_of_rows(kind, monkeypatch):
    monkeypatch.setattr("kl.rows.int8.int8_is_exact", lambda device: True)
    x = fused.probed_rows(kind, 9, FEATURES[kind], CPU)
    assert fused.kind_of(Gaussian(1.0), x, x) == kind
    if kind == "codes":
        assert fused.kind_of(Gaussian(1.0), x, x.floats()) == "floats"
        other = Rows.of(2 * x.data)
        assert other.codes is not None
        assert fused.kind_of(Gaussian(1.0), x, other) is None


def test_the_engine_asks(monkeypatch):
    x, v, same = Rows.of(torch.rand(4, 20)), torch.rand(4, 3), torch.arange(4)
    monkeypatch.setattr(blocks, "choose", lambda kernel, x, z, c: fused.Choice(c == 3, ""))
    monkeypatch.setattr(blocks, "fused_matmul", lambda *arguments: arguments)
    kernel = Laplacian(1.0)
    assert blocks.kernel_matmul(kernel, x, x, v, same) == (kernel, x, x, v, same)
    torch.testing.assert_close(blocks.kernel_matmul(kernel, x, x, v[:, :2]), kernel.block(x, x) @ v[:, :2])
