"""Checkpoints: resuming to the bit, loading without data, warm starts, and refusing what does not belong."""

import pytest
import torch
from training import fit, memory_for, quiet_trainer, regression
from user_kernels import Cauchy

import kl
from datamodules import DigitsDataModule
from kl import CheckpointError, KernelMachine, Laplacian


def digits(**options):
    return DigitsDataModule(train_size=150, test_size=50, **options)


def machine(kernel="laplacian", **options):
    return KernelMachine(kernel, **{"batch_size": 40, **options})


def state(model):
    return {
        "alpha": model.alpha.detach(),
        "values": model.fitted.values,
        "pending": model.fitted.pending,
        "sq_norm": model.fitted.sq_norm,
        "vectors": model.vectors,
        "weights": model.weights,
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A machine after 2 epochs, and its file."""
    path = tmp_path_factory.mktemp("checkpoints") / "two.ckpt"
    model = machine()
    fit(model, digits(), 2).save_checkpoint(path)
    return model, path


@pytest.mark.parametrize(
    "options", [{}, {"top_q": 0}, {"subsample": 50, "memory": memory_for(150, 64, 10, 50, integers=1)}]
)
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path, options):
    whole, first, rest = (machine(**options) for _ in range(3))
    fit(whole, digits(label_noise=0.1), 4)
    fit(first, digits(label_noise=0.1), 2).save_checkpoint(tmp_path / "two.ckpt")
    data = digits(label_noise=0.1)
    trainer = fit(rest, data, 4, ckpt_path=tmp_path / "two.ckpt")
    assert trainer.current_epoch == 4
    assert not torch.equal(first.alpha, whole.alpha)
    for name, value in state(whole).items():
        assert torch.equal(state(rest)[name], value), name
    assert rest.train_metrics == whole.train_metrics
    assert rest.plan == whole.plan
    assert trainer.global_step == 4 * -(-150 // rest.plan.batch_size)


def test_a_step_that_was_cut_stays_cut(tmp_path, caplog):
    data = regression()
    fit(auto := KernelMachine(Laplacian(1.0)), data, 1)
    options = {"step_size": 100 * auto.plan.step_size, "batch_size": 10}
    first, rest = (KernelMachine(Laplacian(1.0), **options) for _ in range(2))
    fit(first, data, 10).save_checkpoint(tmp_path / "cut.ckpt")
    assert first.step_size < first.plan.step_size
    caplog.clear()
    fit(rest, data, 12, ckpt_path=tmp_path / "cut.ckpt")
    assert "diverged" not in caplog.text
    assert rest.step_size == first.step_size


def test_a_checkpoint_from_inside_an_epoch_is_refused(tmp_path):
    data = regression()
    trainer = fit(KernelMachine(Laplacian(1.0), batch_size=10), data, max_epochs=5, max_steps=8)  # 6 steps an epoch
    trainer.save_checkpoint(tmp_path / "inside.ckpt")
    with pytest.raises(kl.CheckpointError, match="was written inside an epoch"):
        fit(KernelMachine(Laplacian(1.0), batch_size=10), data, 5, ckpt_path=tmp_path / "inside.ckpt")


def test_checkpoints_hold_plain_values_only(saved):
    model, path = saved
    content = torch.load(path, weights_only=True)
    assert content["kernel_machine"]["kernel"] == model.kernel.config()
    assert content["kernel_machine"]["plan"]["top_q"] == model.plan.top_q
    assert content["hyper_parameters"]["kernel"]["bandwidth"] == "auto"
    assert content["global_step"] == 2 * 4


def test_a_loaded_machine_predicts_without_data(saved):
    model, path = saved
    loaded = KernelMachine.load_from_checkpoint(path, weights_only=True)
    x = torch.rand(7, 64)
    assert torch.equal(loaded(x), model(x))
    assert loaded.kernel == model.kernel
    assert loaded.plan == model.plan
    assert loaded.data_info == model.data_info
    assert loaded.rkhs_norm == model.rkhs_norm
    assert torch.equal(loaded.in_data_order(loaded.alpha), model.in_data_order(model.alpha))
    (got,) = quiet_trainer().predict(loaded, datamodule=digits())
    assert got.shape == (50, 10)


def test_a_trainer_loads_it_too(saved):
    model, path = saved
    data = digits()
    (wanted,) = quiet_trainer().test(model, datamodule=data, verbose=False)
    for other in (machine(), model):  # new, and already fitted
        (got,) = quiet_trainer().test(other, datamodule=data, ckpt_path=path, verbose=False)
        assert got == wanted
        loader = digits()
        loader.setup()
        assert quiet_trainer().predict(other, dataloaders=loader.predict_dataloader(), ckpt_path=path)


@pytest.mark.parametrize("kernel", [Cauchy(3.0), Cauchy() + 0.5 * Laplacian(2.0), "user_kernels:Cauchy"])
def test_a_users_kernel_is_restored(tmp_path, kernel):
    model = KernelMachine(kernel)
    fit(model, regression(), 1).save_checkpoint(tmp_path / "user.ckpt")
    with pytest.raises(
        CheckpointError, match=r"user.ckpt: its kernel: kernel user_kernels:Cauchy is none of kl's.*kernel="
    ):
        KernelMachine.load_from_checkpoint(tmp_path / "user.ckpt")
    loaded = KernelMachine.load_from_checkpoint(tmp_path / "user.ckpt", kernel=Cauchy)
    assert loaded.kernel == model.kernel
    assert "auto" not in str(loaded.kernel)
    x = torch.randn(3, 4)
    assert torch.equal(loaded(x), model(x))


def test_training_goes_on_after_a_load(saved):
    model, path = saved
    loaded = KernelMachine.load_from_checkpoint(path, weights_only=True)
    fit(loaded, digits(), 2)
    assert loaded.train_metrics["train/mse"] < model.train_metrics["train/mse"]
    norm = kl.rkhs_norm(loaded.kernel, loaded.centers, loaded.alpha.detach())
    assert loaded.rkhs_norm == pytest.approx(norm, rel=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(loaded.fitted.values.float(), loaded(loaded.centers), atol=1e-4, rtol=1e-4)


def test_other_float_types_survive(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(20, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    data = regression()
    data.setup()
    data.train_set = kl.RowDataset(x, y)
    model = KernelMachine(Laplacian(1.0))
    fit(model, data, 2, limit_val_batches=0).save_checkpoint(tmp_path / "double.ckpt")
    loaded = KernelMachine.load_from_checkpoint(tmp_path / "double.ckpt", weights_only=True)
    assert torch.equal(loaded.targets, model.targets)
    assert loaded.centers.dtype == loaded.targets.dtype == loaded.vectors.dtype == torch.float64
    assert torch.equal(loaded(x), model(x))
    fit(loaded, data, 1, limit_val_batches=0)


@pytest.mark.parametrize("data", [{"label_noise": 0.5}, {"seed": 1}])
def test_resuming_on_other_data_is_refused(saved, data):
    with pytest.raises(CheckpointError, match=r"belongs to other training data \(its \w+ differ\).*label noise"):
        fit(machine(), digits(**data), 4, ckpt_path=saved[1])
    with pytest.raises(CheckpointError, match=r"other training data \(its centers differ\)"):
        fit(machine(), regression(), 4, ckpt_path=saved[1])


@pytest.mark.parametrize("options", [{"kernel": "gaussian"}, {"kernel": Laplacian(1.0)}, {"subsample": 30}])
def test_resuming_with_another_kernel_or_subsample_is_refused(saved, options):
    with pytest.raises(CheckpointError, match=r"trained with (kernel Laplacian|a subsample of 150 rows; got 30)"):
        fit(machine(**options), digits(), 4, ckpt_path=saved[1])


def test_resuming_takes_the_batch_and_the_rank_of_the_first_run(saved):
    model, path = saved
    data = digits()
    trainer = fit(rest := machine(batch_size=11, top_q=1), data, 3, ckpt_path=path)
    assert rest.plan == model.plan
    assert data.batch_size == model.plan.batch_size
    assert trainer.global_step == 3 * -(-150 // model.plan.batch_size)
    fit(whole := machine(), digits(), 3)
    assert torch.equal(rest.alpha, whole.alpha)


def test_files_that_are_no_checkpoints_of_ours(tmp_path):
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.0", "epoch": 0, "global_step": 0}, foreign)
    with pytest.raises(CheckpointError, match="holds no kernel machine"):
        KernelMachine.load_from_checkpoint(foreign, weights_only=True)
    with pytest.raises(CheckpointError, match="holds no kernel machine"):
        fit(machine(), digits(), 1, ckpt_path=foreign)
    damaged, empty = tmp_path / "damaged.ckpt", tmp_path / "empty.ckpt"
    damaged.write_bytes(b"hello")
    empty.write_bytes(b"")
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    faults = {damaged: "damaged or none", empty: "damaged or none", tmp_path / "missing.ckpt": "cannot be read"}
    for path, fault in {**faults, tmp_path / "other.ckpt": "is not a checkpoint of a Lightning run"}.items():
        with pytest.raises(CheckpointError, match=rf"{path.name} .*{fault}"):
            KernelMachine.load_from_checkpoint(path, weights_only=True)
