"""The same results on a CUDA device as on a CPU."""

import pytest
import torch
from training import fit, quiet_trainer, regression

import kl
import kl.products.fused as fused
from datamodules import DigitsDataModule
from kl import KernelMachine, Laplacian, ReluNTK
from kl.eigenpro import graph
from kl.rows.digits import split
from kl.rows.pair import Pair
from kl.rows.rows import Rows
from kl.rows.workspace import Workspace
from kl.system.memory import free_memory, parse_memory, peak_memory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
GPU = {"accelerator": "gpu", "devices": 1}
# Another order of summation, and another m* rule unless the batch is given.
OPTIONS = {"batch_size": 50, "top_q": 5, "subsample": 100}


def digits():
    return DigitsDataModule(train_size=300, test_size=100)


@pytest.mark.parametrize("recorded", ["0", "1"])
@pytest.mark.parametrize("kernel", [Laplacian(4.0), ReluNTK(3)])
def test_training_equals_the_cpu(kernel, recorded, monkeypatch):
    monkeypatch.setenv(graph.SWITCH, recorded)
    machines = [KernelMachine(kernel, **OPTIONS) for _ in range(2)]
    fit(machines[0], digits(), 3)
    trainer = fit(machines[1], data := digits(), 3, **GPU)
    cpu, gpu = machines
    assert (cpu.run.graph.recorded, gpu.run.graph.recorded) == (0, int(recorded))
    assert gpu.fitted.values.device.type == "cpu" or trainer.strategy.root_device.type == "cuda"
    assert gpu.plan.step_size == pytest.approx(cpu.plan.step_size, rel=1e-3)
    assert gpu.rkhs_norm == pytest.approx(cpu.rkhs_norm, rel=1e-3)
    assert gpu.train_metrics["train/mse"] == pytest.approx(cpu.train_metrics["train/mse"], rel=1e-2)
    x = data.test_set.x
    with torch.no_grad():
        torch.testing.assert_close(gpu.cpu()(x), cpu(x), atol=5e-3, rtol=0)


@pytest.mark.parametrize("projection", ["factor", "eigenpro"])
def test_general_models_equal_the_cpu(projection):
    options = {**OPTIONS, "centers": 80, "subsample": 60, "projection": projection, "projection_period": 2}
    cpu, gpu = (kl.GeneralKernelMachine(Laplacian(4.0), **options) for _ in range(2))
    fit(cpu, digits(), 4)
    fit(gpu, data := digits(), 4, **GPU)
    assert gpu.rkhs_norm == pytest.approx(cpu.rkhs_norm, rel=1e-2)
    with torch.no_grad():
        torch.testing.assert_close(gpu.cpu()(data.test_set.x), cpu(data.test_set.x), atol=2e-2, rtol=0)
    assert gpu.rkhs_norm == pytest.approx(cpu.rkhs_norm, rel=1e-2)  # after it has left the GPU


@pytest.mark.parametrize("metric", ["full", "diagonal"])
def test_recursive_feature_machines_equal_the_cpu(metric, tmp_path):
    options = {"rounds": 2, "metric": metric, "ridge": 1e-3}
    cpu, gpu, resumed = (kl.RecursiveFeatureMachine(Laplacian(4.0), **options) for _ in range(3))
    fit(cpu, digits(), 4)
    trainer = fit(gpu, data := digits(), 4, **GPU)
    assert gpu.round == cpu.round
    assert gpu.rkhs_norm == pytest.approx(cpu.rkhs_norm, rel=1e-3)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = kl.load_machine(tmp_path / "last.ckpt")
    with torch.no_grad():
        torch.testing.assert_close(gpu.cpu()(data.test_set.x), cpu(data.test_set.x), atol=5e-3, rtol=0)
        torch.testing.assert_close(loaded(data.test_set.x), cpu(data.test_set.x), atol=5e-3, rtol=0)
    assert gpu.rkhs_norm == pytest.approx(cpu.rkhs_norm, rel=1e-3)  # after it has left the GPU
    first = fit(resumed, digits(), 2, **GPU)
    first.save_checkpoint(tmp_path / "first.ckpt")
    again = kl.RecursiveFeatureMachine(Laplacian(4.0), **options)
    fit(again, digits(), 4, tmp_path / "first.ckpt", **GPU)
    assert again.rkhs_norm == pytest.approx(gpu.rkhs_norm, rel=1e-3)


def test_the_norm_and_the_values_stay_exact():
    machine = KernelMachine(Laplacian(4.0))
    fit(machine, digits(), 5, **GPU)
    machine.cpu()
    norm = kl.rkhs_norm(machine.kernel, machine.centers, machine.alpha.detach())
    assert machine.rkhs_norm == pytest.approx(norm, rel=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(machine.fitted.values.float(), machine(machine.centers), atol=1e-3, rtol=0)


def test_the_exact_solve_equals_the_cpu():
    data = digits()
    data.setup()
    x, y = data.train_set.x, data.train_set.y
    cpu, gpu = kl.interpolate(Laplacian(4.0), x, y), kl.interpolate(Laplacian(4.0), x.cuda(), y.cuda())
    torch.testing.assert_close(gpu.alpha.cpu(), cpu.alpha, atol=1e-8, rtol=1e-8)
    assert gpu.alpha.is_cuda
    assert gpu.rkhs_norm == pytest.approx(cpu.rkhs_norm, rel=1e-9)
    doubled = torch.cat([x, x[:5]]).cuda(), torch.cat([y, y[:5]]).cuda()
    assert kl.interpolate(Laplacian(4.0), *doubled).rkhs_norm == pytest.approx(cpu.rkhs_norm, rel=1e-9)


def test_checkpoints_move_between_devices(tmp_path):
    fit(machine := KernelMachine("laplacian", **OPTIONS), data := digits(), 2, **GPU).save_checkpoint(
        tmp_path / "a.ckpt"
    )
    loaded = KernelMachine.load_from_checkpoint(tmp_path / "a.ckpt", map_location="cpu", weights_only=True)
    machine.cpu()
    x = data.test_set.x
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), machine(x))
    fit(KernelMachine("laplacian", **OPTIONS), digits(), 3, ckpt_path=tmp_path / "a.ckpt", **GPU)
    fit(KernelMachine("laplacian", **OPTIONS), digits(), 3, ckpt_path=tmp_path / "a.ckpt")
    assert quiet_trainer(**GPU).predict(loaded, datamodule=digits())


def test_features_of_augmented_images_are_computed_there():
    def made():
        data = DigitsDataModule(train_size=300, test_size=100, augment="shift:1,flip", patches={"count": 16, "size": 3})
        return kl.GeneralKernelMachine(Laplacian(20.0), 100, **OPTIONS), data

    (cpu, _), (gpu, data) = one, other = made(), made()
    fit(*one, 3)
    fit(*other, 3, **GPU)
    assert next(iter(data.train_dataloader()))[0].is_cuda
    assert gpu.rkhs_norm == pytest.approx(cpu.rkhs_norm, rel=1e-2)
    assert gpu.eval_metrics["val/mse"] == pytest.approx(cpu.eval_metrics["val/mse"], rel=1e-2)


@pytest.mark.parametrize("kept", [0, 300])
@pytest.mark.parametrize("kernel", [Laplacian(4.0), kl.Gaussian(4.0), ReluNTK(3)])
def test_recorded_steps_equal_steps(kernel, kept, monkeypatch):
    def trained(recorded):
        monkeypatch.setenv(graph.SWITCH, recorded)
        data = digits()
        data.setup()
        machine = KernelMachine(kernel, **OPTIONS)
        machine.prepare(data.train_set.x, data.train_set.y, "cuda")
        machine.fitted.keep_rows(kept)
        for epoch in range(3):
            for rows in torch.randperm(300, generator=torch.Generator().manual_seed(epoch)).split(50):
                machine.run.step(rows)
            machine.run.end_epoch()
        return machine, machine.fitted.flush().cpu(), *(part.cpu() for part in machine.run.last_batch)

    (plain, *wanted), (machine, *found) = trained("0"), trained("1")
    assert (plain.run.graph.recorded, machine.run.graph.recorded) == (0, 1)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert machine.rkhs_norm == pytest.approx(plain.rkhs_norm, rel=1e-4)


@pytest.mark.parametrize("recorded", ["0", "1"])
def test_divergence_recovers(recorded, monkeypatch):
    monkeypatch.setenv(graph.SWITCH, recorded)
    machine = KernelMachine(Laplacian(1.0), step_size=1e4, batch_size=10)
    fit(machine, regression(), 60, **GPU)
    assert (machine.run.graph.recorded > 1) == (recorded == "1")  # anew after each cut
    assert machine.train_metrics["train/mse"] < 0.1


def test_memory_is_that_of_the_device():
    free = free_memory("cuda")
    assert 0 < parse_memory("auto", "cuda") <= free
    torch.zeros(10**6, device="cuda")
    assert peak_memory("cuda") >= 4 * 10**6


@pytest.mark.parametrize(("m", "p", "d"), [(1, 1, 32), (17, 8, 784), (300, 301, 100), (2048, 777, 3072)])
def test_products_of_8_bit_features_are_exact(m, p, d):
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randint(0, 256, (rows, d), generator=generator).float() for rows in (m, p))
    x[:, 0], x[:, 1] = 0, 255
    rows = Rows.of((x / 255).cuda())
    others = Rows.of((z / 255).cuda(), like=rows)
    assert rows.codes is not None
    assert others.codes is not None
    distance = Pair(rows, others).sq_dist().cpu()
    exact = torch.cdist(x.double(), z.double(), compute_mode="donot_use_mm_for_euclid_dist").square().round()
    torch.testing.assert_close(distance, (exact / 255**2).float(), rtol=3e-7, atol=0)


def test_medium_precision_is_exact_on_rounded_features():
    x = torch.randn(500, 300, generator=torch.Generator().manual_seed(0)).cuda()
    rows = Rows.of(x, precision="medium")
    wanted = rows.data.double() @ rows.data.double().T
    torch.testing.assert_close(Pair(rows, rows).inner().double(), wanted, rtol=1e-5, atol=1e-4)


def test_products_of_digits_are_those_of_the_cpu_to_the_bit():
    x, z = (torch.randn(n, 300, generator=torch.Generator().manual_seed(n)) for n in (9, 501))
    on_cpu = split(x).inner(split(z), Workspace())
    on_gpu = split(x.cuda()).inner(split(z.cuda()), Workspace())
    assert torch.equal(on_gpu.cpu(), on_cpu)


@pytest.fixture
def fused_products(monkeypatch):
    """Fused products wherever they are right, whatever the clock says."""
    pytest.importorskip("triton")
    monkeypatch.setenv(fused.SWITCH, "1")
    monkeypatch.setattr(fused, "PAYS", float("inf"))
    fused._probe.cache_clear()
    yield
    fused._probe.cache_clear()


@pytest.mark.parametrize("kernel", fused.FORMULAS)
@pytest.mark.parametrize("kind", fused.TILES)
def test_fused_products_are_right_and_repeat_to_the_bit(kind, kernel):
    pytest.importorskip("triton")
    d = 11 if kind == "few" else 300
    x = fused.probed_rows(kind, 1000, d, torch.device("cuda"))
    z = x[torch.arange(776, -1, -1, device="cuda")]
    kernel = kernel(bandwidth=(d / 6) ** 0.5) if kernel.shift_invariant else kernel(depth=3, bias=0.5)
    same = 776 - torch.arange(1000, device="cuda")
    for c in (1, 10, 64) if isinstance(kernel, Laplacian) else (10,):  # 64 outputs are compiled anew
        v = torch.randn(777, c, generator=torch.Generator().manual_seed(c)).cuda()
        assert fused.relative_error(kernel, x, z, v, same) <= fused.TOLERATED
        assert fused.relative_error(kernel, x, z[:1], v[:1], same) <= fused.TOLERATED
        one, two = (fused.fused_matmul(kernel, x, z, v, same) for _ in range(2))
        assert torch.equal(one, two)
        torch.testing.assert_close(fused.fused_matmul(kernel, x, z, v, same, parts=1), one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", [Laplacian(4.0), kl.Gaussian(4.0)])
def test_steps_with_fused_products_equal_the_cpu(kernel, fused_products):
    def fitted(device):
        data = digits()
        data.setup()
        machine = KernelMachine(kernel, **OPTIONS)
        machine.prepare(data.train_set.x, data.train_set.y, device)
        machine.fitted.keep_rows(0)
        for rows in torch.arange(300, device=device).split(50):
            machine.run.step(rows)
        rows = machine.fitted.matrix.rows
        return machine.fitted.flush().cpu(), machine.fitted.sq_norm.cpu(), fused.choose(kernel, rows, rows, 10)

    (cpu, cpu_norm, _), (gpu, gpu_norm, choice) = fitted("cpu"), fitted("cuda")
    assert choice.fused, choice.why
    torch.testing.assert_close(gpu, cpu, atol=1e-3, rtol=0)
    torch.testing.assert_close(gpu_norm, cpu_norm, rtol=1e-3, atol=0)


@pytest.mark.parametrize("wanted", ["0", "1"])
@pytest.mark.parametrize("kept", [0, 300])
def test_a_step_does_not_wait_for_the_device(kept, wanted, fused_products, monkeypatch):
    monkeypatch.setenv(fused.SWITCH, wanted)
    data = digits()
    data.setup()
    machine = KernelMachine(Laplacian(4.0), **OPTIONS)
    machine.prepare(data.train_set.x, data.train_set.y, "cuda")
    machine.fitted.keep_rows(kept)
    rows = torch.arange(50, device="cuda")
    machine.run.step(rows)  # the first may set things up
    torch.cuda.set_sync_debug_mode("error")
    try:
        machine.run.step(rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")
