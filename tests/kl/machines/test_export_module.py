"""A machine's exported form: torch.export, torch.jit.trace and ONNX, for batches of any size."""

import pytest
import torch
from every_kernel import KERNELS
from training import fit, regression

from datamodules import ArrayDataModule
from kl import (
    ConjugateGradientMachine,
    GeneralKernelMachine,
    InputError,
    KernelMachine,
    Laplacian,
)


def fitted(kernel=None, d=20, kind=KernelMachine, **options):
    machine = kind(kernel or Laplacian(5.0), **options)
    data = regression(n=60, d=d, c=2, seed=1)
    fit(machine, data, 2)
    return machine, data.test_set.x


def values(machine, x):
    with torch.no_grad():
        return machine(x)


def exported(machine, x):
    rows = torch.export.Dim("rows")
    return torch.export.export(machine.export_module(), (x[:2],), dynamic_shapes=({0: rows},)).module()


@pytest.mark.parametrize("d", [3, 20])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_an_exported_graph_takes_any_number_of_rows(kernel, d):
    machine, x = fitted(kernel, d)
    graph = exported(machine, x)
    for rows in (x, x[:5], x[:3]):
        torch.testing.assert_close(graph(rows), values(machine, rows), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [GeneralKernelMachine, ConjugateGradientMachine])
def test_other_machines_are_exported(kind):
    machine, x = fitted(kind=kind, **({"centers": 20} if kind is GeneralKernelMachine else {}))
    torch.testing.assert_close(exported(machine, x)(x), values(machine, x), atol=1e-5, rtol=1e-5)


# torch says so of jit.trace itself
@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_of_two_rows_takes_five():
    machine, x = fitted()
    traced = torch.jit.trace(machine.export_module(), x[:2])
    torch.testing.assert_close(traced(x[:5]), values(machine, x[:5]), atol=1e-5, rtol=1e-5)


def test_8_bit_features_and_medium_precision_are_exported():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (80, 64), generator=generator) / 255
    y = torch.randn(80, 1, generator=generator)
    machine = KernelMachine(Laplacian(3.0))
    fit(machine, ArrayDataModule.from_arrays(pixels[:60], y[:60], pixels[60:], y[60:]), 2)
    x = pixels[60:]
    torch.testing.assert_close(exported(machine, x)(x), values(machine, x), atol=1e-4, rtol=1e-4)
    machine, x = fitted(precision="medium")
    torch.testing.assert_close(exported(machine, x)(x), values(machine, x), atol=1e-4, rtol=1e-4)


def test_data_far_from_0_is_exported():
    data = regression(n=60, d=20)
    data.setup()
    machine = KernelMachine(Laplacian(5.0))
    train = data.train_set
    data.train_set = type(train)(1000 + train.x, train.y)
    fit(machine, data, 2, limit_val_batches=0)
    assert machine.origin.any()
    x = 1000 + data.test_set.x
    torch.testing.assert_close(exported(machine, x)(x), values(machine, x), atol=1e-4, rtol=1e-4)


def test_an_exported_machine_is_of_its_own():
    machine, x = fitted()
    module, before = machine.export_module(), values(machine, x)
    with torch.no_grad():
        machine.alpha.zero_()
    torch.testing.assert_close(module(x), before, atol=1e-5, rtol=1e-5)
    assert not list(module.parameters())
    with pytest.raises(InputError, match="this machine holds no weights"):
        KernelMachine().export_module()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.onnx and onnxscript warn of their own deprecations
@pytest.mark.parametrize("d", [3, 20])
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_onnxruntime_computes_the_same(kernel, d, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'kl[onnx]'")
    import onnxruntime

    machine, x = fitted(kernel, d)
    rows = torch.export.Dim("rows")
    program = torch.onnx.export(
        machine.export_module(), (x[:2],), dynamo=True, dynamic_shapes=({0: rows},), verbose=False
    )
    program.save(tmp_path / "machine.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "machine.onnx"), providers=["CPUExecutionProvider"])
    (name,) = [each.name for each in session.get_inputs()]
    for part in (x, x[:5]):
        (got,) = session.run(None, {name: part.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), values(machine, part), atol=1e-4, rtol=1e-4)
