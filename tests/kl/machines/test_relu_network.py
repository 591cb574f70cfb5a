"""ReLU networks: what they learn, what they report of it, and what they refuse."""

import copy
import math

import pytest
import pytorch_lightning as pl
import torch
from torch.nn.functional import cross_entropy
from training import edited, fit, quiet_trainer, regression

import kl
import kl.machines.described
from callbacks import History, StopWhenInterpolated, Timing
from datamodules import ArrayDataModule, DigitsDataModule
from kl import InputError, ReluNetwork


def digits(train_size=300, **options):
    return DigitsDataModule(train_size=train_size, test_size=100, **{"batch_size": 32, **options})


def network(architecture="mlp", **options):
    widths = {"mlp": (64, 32), "cnn": (4, 8), "cnn-bn": (4, 8)}[architecture]
    return ReluNetwork(architecture, **{"widths": widths, "learning_rate": 0.05, **options})


def naive_metrics(scores, y):
    """Mean cross-entropy, mse of the probabilities, and error, row by row in float64."""
    loss = square = wrong = 0.0
    for row, target in zip(scores.double(), y, strict=True):
        p = row.exp() / row.exp().sum()
        loss -= float(p[target == 1].log())
        square += float(((p - target) ** 2).mean())
        wrong += int(row.argmax()) != int(target.argmax())
    return loss / len(y), square / len(y), wrong / len(y)


@pytest.mark.parametrize("architecture", ["mlp", "cnn", "cnn-bn"])
def test_digits_are_learnt(architecture):
    each = network(architecture)
    trainer = fit(each, digits(), max_epochs=25)
    assert each.train_metrics["train/error"] < 0.05
    assert trainer.callback_metrics["val/error"] < 0.25
    assert each.is_classifier


@pytest.mark.parametrize("architecture", ["mlp", "cnn", "cnn-bn"])
def test_metrics_are_those_of_a_direct_computation(architecture):
    each, data = network(architecture), digits(label_noise=0.3)
    trainer = fit(each, data, max_epochs=12)
    with torch.no_grad():
        train, test = each(data.train_set.x), each(data.test_set.x)
    expected = naive_metrics(train, data.train_set.y)
    assert list(each.train_metrics) == ["train/loss", "train/mse", "train/error"]
    assert tuple(each.train_metrics.values()) == pytest.approx(expected, rel=1e-5)
    trainer.test(each, datamodule=data, verbose=False)
    _, mse, error = naive_metrics(test, data.test_set.y)
    _, mse_noisy, noisy = naive_metrics(test, data.test_set.y_noisy)
    found = {"test/mse": mse, "test/error": error, "test/error_noisy": noisy, "test/mse_noisy": mse_noisy}
    assert each.eval_metrics == pytest.approx(found, rel=1e-5)
    assert noisy > error


def test_the_loss_is_the_cross_entropy_of_the_batch():
    each, data = network(), digits()
    fit(each, data, max_epochs=1)
    batch = data.train_set[torch.arange(5)]
    with torch.no_grad():
        assert float(each.training_step(batch, 0)) == pytest.approx(naive_metrics(each(batch[0]), batch[1])[0])


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_layers_by_their_formula(architecture):
    """Plain loops in place of the layers."""
    each, data = network(architecture), digits()
    fit(each, data, max_epochs=1)
    x = data.test_set.x[:1]
    weights = [value.detach().double() for value in each.parameters()]
    if architecture == "mlp":
        assert [tuple(value.shape) for value in weights[::2]] == [(64, 64), (32, 64), (10, 32)]
        found = x[0].double()
    else:
        assert [tuple(value.shape) for value in weights[::2]] == [(4, 1, 3, 3), (8, 4, 3, 3), (10, 32)]
        image = x.double().view(1, 8, 8)
        for weight, bias in (weights[:2], weights[2:4]):
            side = image.shape[1]
            padded = torch.zeros(len(image), side + 2, side + 2, dtype=torch.float64)
            padded[:, 1:-1, 1:-1] = image
            filtered = torch.stack(
                [
                    torch.stack(
                        [(weight * padded[:, i : i + 3, j : j + 3]).sum(dim=(1, 2, 3)) + bias for j in range(side)]
                    )
                    for i in range(side)
                ]
            ).permute(2, 0, 1)
            relu = filtered.clamp(min=0)
            image = relu.view(len(bias), side // 2, 2, side // 2, 2).amax(dim=(2, 4))
        found, weights = image.flatten(), weights[4:]
    for k in range(0, len(weights), 2):
        found = weights[k] @ found + weights[k + 1]
        found = found.clamp(min=0) if k < len(weights) - 2 else found
    torch.testing.assert_close(each(x)[0].double(), found, rtol=1e-4, atol=1e-5)


def block(x, weight, gain, shift, moments=None):
    """A convolution of 3x3 pixels, pooling, batch norm and ReLU by their formulas, float64, and the norm's moments."""
    m, _, side, _ = x.shape
    padded = torch.zeros(m, x.shape[1], side + 2, side + 2, dtype=torch.float64)
    padded[:, :, 1:-1, 1:-1] = x
    filtered = torch.zeros(m, len(weight), side, side, dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            filtered += torch.einsum("oc,mcij->moij", weight[:, :, i, j], padded[:, :, i : i + side, j : j + side])
    pooled = filtered.view(m, len(weight), side // 2, 2, side // 2, 2).amax(dim=(3, 5))
    flat = pooled.transpose(0, 1).reshape(len(weight), -1)
    mean, variance = (flat.mean(dim=1), ((flat - flat.mean(dim=1, keepdim=True)) ** 2).mean(dim=1))
    used = moments or (mean, variance)
    scaled = (pooled - used[0].view(-1, 1, 1)) / (used[1].view(-1, 1, 1) + 1e-5).sqrt()
    count = flat.shape[1]
    relu = (gain.view(-1, 1, 1) * scaled + shift.view(-1, 1, 1)).clamp(min=0)
    return relu, (mean, variance * count / (count - 1))


def naive_cnn_bn(state, x, trained):
    """The scores of two blocks and a linear layer, float64, and each block's mean and unbiased variance."""
    image, seen = x.double().view(-1, 1, 8, 8), []
    for i in (1, 5):
        norm = f"layers.{i + 2}."
        moments = None if trained else (state[f"{norm}running_mean"], state[f"{norm}running_var"])
        image, moments = block(
            image, state[f"layers.{i}.weight"], state[f"{norm}weight"], state[f"{norm}bias"], moments
        )
        seen.append(moments)
    return image.flatten(1) @ state["layers.10.weight"].T + state["layers.10.bias"], seen


def doubles(module):
    return {name: value.detach().double().clone() for name, value in module.state_dict().items()}


def test_batch_norm_by_its_formula():
    """Training takes the moments of the batch and moves the running ones a tenth of the way; evaluation takes those."""
    each, data = network("cnn-bn"), digits()
    fit(each, data, max_epochs=2)
    assert not each.training
    x, before = data.test_set.x[:20], doubles(each)
    expected, _ = naive_cnn_bn(before, x, trained=False)
    torch.testing.assert_close(each(x).double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(each(x[:1]), each(x)[:1])  # whatever the other rows are
    assert all(torch.equal(value, before[name]) for name, value in doubles(each).items())
    each.train()
    expected, seen = naive_cnn_bn(before, x, trained=True)
    torch.testing.assert_close(each(x).double(), expected, rtol=1e-4, atol=1e-4)
    after = doubles(each)
    for i, moments in zip((3, 7), seen, strict=True):
        for name, moment in zip(("running_mean", "running_var"), moments, strict=True):
            moved = 0.9 * before[f"layers.{i}.{name}"] + 0.1 * moment
            torch.testing.assert_close(after[f"layers.{i}.{name}"], moved, rtol=1e-4, atol=1e-6)


def test_the_gradient_through_batch_norm_is_that_of_the_formula():
    """Autograd in float64 through the formula."""
    each, data = network("cnn-bn"), digits()
    fit(each, data, max_epochs=1)
    state = {name: value.requires_grad_(value.is_floating_point()) for name, value in doubles(each).items()}
    x, y, index = data.train_set[torch.arange(30)]
    scores, _ = naive_cnn_bn(state, x, trained=True)
    loss = -(scores.log_softmax(dim=1) * y).sum(dim=1).mean()
    loss.backward()
    each.train()
    each.training_step((x, y, index), 0).backward()
    for name, value in each.named_parameters():
        torch.testing.assert_close(value.grad.double(), state[name].grad, rtol=1e-3, atol=1e-5)


class Rates(pl.Callback):
    """The learning rate of every step."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen += [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize(
    ("schedule", "epochs"), [("cosine", {"max_epochs": 3}), ("cosine", {"max_steps": 11}), ("constant", {})]
)
def test_the_learning_rate_of_every_step(schedule, epochs):
    rates = Rates()
    trainer = fit(network(schedule=schedule, learning_rate=0.2), digits(100), callbacks=[rates], **epochs)
    steps = trainer.global_step
    assert steps == len(rates.seen) == epochs.get("max_steps", 12)
    falling = [0.1 * (1 + math.cos(math.pi * t / steps)) for t in range(steps)]
    assert rates.seen == pytest.approx(falling if schedule == "cosine" else [0.2] * steps)


def test_weight_decay_adds_the_weights_to_the_gradient():
    """One step from the same weights: w - eta (g + lambda w) against w - eta g."""
    options = {"learning_rate": 0.1, "architecture": "cnn-bn"}
    plain, decayed = network(**options), network(**options, weight_decay=0.5)
    start = network(**options)
    data = digits()
    data.setup()
    start._make_layers(kl.machines.described.describe_data(data))
    for each in (plain, decayed):
        fit(each, digits(), max_steps=1)
    for name, first in start.named_parameters():
        expected = dict(plain.named_parameters())[name] - 0.1 * 0.5 * first
        torch.testing.assert_close(dict(decayed.named_parameters())[name], expected)


def test_training_metrics_can_be_left_out():
    each = network(measures_training=False)
    trainer = fit(each, digits(), max_epochs=2)
    assert each.train_metrics == {}
    assert trainer.callback_metrics["val/error"] < 0.9


def test_a_colour_image_has_three_channels():
    x = torch.rand(40, 3, 6, 5).numpy()
    data = ArrayDataModule.from_arrays(x, [0, 1] * 20, x, [0, 1] * 20, batch_size=8)
    data.setup()
    if data.image_shape is None:  # floats may be anything
        data.image_shape = (3, 6, 5)
    each = network("cnn", widths=(4,))
    fit(each, data, max_epochs=1)
    assert each.layers[1].weight.shape == (4, 3, 3, 3)
    assert each.layers[-1].weight.shape == (2, 4 * 3 * 2)


def test_initial_weights_are_hes():
    each, data = ReluNetwork(widths=(2000,)), digits()
    data.setup()
    each._make_layers(kl.machines.described.describe_data(data))
    for layer in (each.layers[0], each.layers[2]):
        assert float(layer.weight.detach().var()) == pytest.approx(2 / layer.in_features, rel=0.05)
        assert not layer.bias.any()


@pytest.mark.parametrize("architecture", ["mlp", "cnn", "cnn-bn"])
def test_a_seed_gives_the_same_run_whatever_the_global_random_state(architecture):
    def run(seed, state):
        torch.manual_seed(state)
        each = network(architecture, seed=seed)
        fit(each, digits(), max_epochs=2)
        return each.state_dict()

    first, same, other = run(0, 1), run(0, 2), run(1, 1)
    assert all(torch.equal(first[name], same[name]) for name in first)
    counts = {name for name in first if name.endswith("num_batches_tracked")}
    assert not any(torch.equal(first[name], other[name]) for name in first.keys() - counts)


@pytest.mark.parametrize("architecture", ["mlp", "cnn", "cnn-bn"])
def test_making_layers_leaves_the_global_random_state_alone(architecture):
    data, each = digits(), network(architecture)
    data.setup()
    before = torch.get_rng_state()
    each._make_layers(kl.machines.described.describe_data(data))
    assert torch.equal(torch.get_rng_state(), before)


class Spy(pl.Callback):
    """What callbacks see at the end of an epoch."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, pl_module):
        rows = trainer.datamodule.train_set
        with torch.no_grad():
            loss = float(cross_entropy(pl_module(rows.x), rows.y))
        self.seen.append((dict(pl_module.train_metrics), dict(pl_module.eval_metrics), loss, pl_module.training))


@pytest.mark.parametrize("options", [{}, {"limit_train_batches": 2}])
def test_callbacks_see_the_metrics_of_the_epoch_that_ends(options):
    spy = Spy()
    fit(network(), digits(), max_epochs=3, callbacks=[spy], **options)
    assert len(spy.seen) == 3
    for metrics, _, loss, training in spy.seen:
        assert metrics["train/loss"] == pytest.approx(loss, rel=1e-5)
        assert training
    assert "val/error" in spy.seen[0][1]


def test_metrics_of_an_epoch_that_max_steps_cuts_short():
    each, data = network(), digits()
    trainer = fit(each, data, max_steps=13)
    assert trainer.global_step == 13
    with torch.no_grad():
        assert each.train_metrics["train/error"] == naive_metrics(each(data.train_set.x), data.train_set.y)[2]


def test_history_timing_and_stopping_work_as_for_kernel_machines():
    history, timing, stop = History(), Timing(), StopWhenInterpolated()
    each = network()
    trainer = fit(each, digits(100), max_epochs=60, callbacks=[history, timing, stop])
    errors = [value for _, value in history.history["train/error"]]
    assert stop.stopped_epoch == trainer.current_epoch == len(errors) == len(timing.seconds_per_epoch)
    assert errors[-1] == 0
    assert all(errors[:-1])
    assert {"train/loss", "train/mse", "val/mse", "val/error"} <= set(history.history)
    assert len(history.history["val/error"]) == len(errors)


def test_fast_dev_run():
    each = network("cnn")
    fit(each, digits(), fast_dev_run=True)
    assert set(each.train_metrics) == {"train/loss", "train/mse", "train/error"}
    assert set(each.eval_metrics) == {"val/mse", "val/error"}


@pytest.mark.parametrize("architecture", ["mlp", "cnn", "cnn-bn"])
def test_a_checkpoint_predicts_as_the_network(architecture, tmp_path):
    each, data = network(architecture), digits()
    trainer = fit(each, data, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = ReluNetwork.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(loaded(data.test_set.x), each(data.test_set.x))
    assert loaded.data_info == each.data_info
    probabilities = torch.cat(quiet_trainer().predict(loaded, datamodule=data))
    torch.testing.assert_close(probabilities, each(data.test_set.x).softmax(dim=1))


class Stop(pl.Callback):
    """Ends a run after an epoch, as an interrupt does."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


@pytest.mark.parametrize(
    "options",
    [{}, {"architecture": "cnn-bn", "schedule": "cosine", "weight_decay": 1e-3}],
    ids=["mlp", "cnn-bn, cosine, decay"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(options, tmp_path):
    """Weights, and the means and variances of batch norm."""
    whole, half, rest = (network(**options) for _ in range(3))
    fit(whole, digits(), max_epochs=4)
    fit(half, digits(), max_epochs=4, callbacks=[Stop(2)]).save_checkpoint(tmp_path / "last.ckpt")
    assert not all(torch.equal(value, half.state_dict()[name]) for name, value in whole.state_dict().items())
    fit(rest, digits(), max_epochs=4, ckpt_path=tmp_path / "last.ckpt")
    assert all(torch.equal(value, rest.state_dict()[name]) for name, value in whole.state_dict().items())


def test_fitting_again_goes_on_from_the_weights():
    each = network(learning_rate=1e-12)
    fit(each, digits(), max_epochs=1)
    before = copy.deepcopy(each.state_dict())
    fit(each, digits(), max_epochs=1)
    torch.testing.assert_close(each.state_dict(), before, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "rnn"}, "architecture must be one of mlp, cnn, cnn-bn; got 'rnn'"),
        ({"widths": ()}, r"widths must be a sequence of at least one whole number, as \(512, 512\); got \(\)"),
        ({"widths": 512}, "widths must be a sequence .* got 512"),
        ({"widths": "512"}, "widths must be a sequence .* got '512'"),
        ({"widths": (64, 0)}, "each of widths must be a whole number, 1 or above; got 0"),
        ({"learning_rate": 0}, "learning_rate must be a finite number above 0; got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number above 0; got nan"),
        ({"schedule": "step"}, "schedule must be one of constant, cosine; got 'step'"),
        ({"weight_decay": -1e-4}, "weight_decay must be a finite number, 0 or above; got -0.0001"),
        ({"weight_decay": "a"}, "weight_decay must be a finite number, 0 or above; got 'a'"),
        ({"seed": -1}, "seed must be a whole number from 0 to 2\\^63 - 1; got -1"),
        ({"seed": 1.5}, "seed must be a whole number .* got 1.5"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        ReluNetwork(**options)


def test_data_that_a_network_cannot_take():
    with pytest.raises(InputError, match=r"ReluNetwork needs classes, .* is a regression set: use a kernel machine"):
        fit(network(), regression())
    x, y = torch.rand(20, 7), [0, 1] * 10
    rows = ArrayDataModule.from_arrays(x, y, x, y)
    with pytest.raises(InputError, match="needs images of at least 4x4 pixels; arrays has no image_shape: use mlp"):
        fit(network("cnn"), rows)
    with pytest.raises(InputError, match="at least 16x16 pixels; digits has images of 8x8: use mlp, or fewer widths"):
        fit(network("cnn", widths=(4, 4, 4, 4)), digits())
    with pytest.raises(InputError, match=r"ReluNetwork needs a datamodule whose train_set is a kl.RowDataset"):
        quiet_trainer().fit(network(), torch.utils.data.DataLoader([0]), torch.utils.data.DataLoader([0]))


def test_batch_norm_needs_two_rows_in_a_batch():
    with pytest.raises(
        InputError, match=r"batch norm needs batches of 2 or more rows, .* got 1 row: use another batch"
    ):
        fit(network("cnn-bn"), digits(33), max_epochs=1)
    with pytest.raises(InputError, match="architecture cnn-bn with 4 convolutions needs images of at least 16x16"):
        fit(network("cnn-bn", widths=(4, 4, 4, 4)), digits())


def test_a_cosine_needs_an_end():
    with pytest.raises(InputError, match='schedule "cosine" needs the number of steps; got a Trainer without max_ep'):
        fit(network(schedule="cosine"), digits(), max_epochs=-1)


def test_a_network_without_weights_does_not_predict():
    with pytest.raises(InputError, match="holds no weights: fit it, or load a checkpoint, before predicting"):
        network()(torch.zeros(1, 64))


def test_rows_of_another_length():
    each = network()
    fit(each, digits(), max_epochs=1)
    with pytest.raises(InputError, match=r"x must have shape \(rows, 64\), as the training data had; got \(3, 5\)"):
        each(torch.zeros(3, 5))


def test_weights_of_other_data(tmp_path):
    each, x, y = network(), torch.rand(20, 7), [0, 1] * 10
    rows = ArrayDataModule.from_arrays(x, y, x, y)
    fit(each, digits(), max_epochs=1).save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(kl.CheckpointError, match=r"belong to other data: they are for d=64 .* the data has d=7, c=2"):
        fit(each, rows)
    with pytest.raises(kl.CheckpointError, match=r"the checkpoint is for d=64 .* this network for d=7, c=2 and widths"):
        fit(network(), rows, ckpt_path=tmp_path / "last.ckpt")
    with pytest.raises(kl.CheckpointError, match=r"this network for d=64 .* and widths \[9\]"):
        fit(network(widths=(9,)), digits(), ckpt_path=tmp_path / "last.ckpt")


def test_a_negative_variance_in_a_checkpoint_is_refused(tmp_path):
    fit(network("cnn-bn"), digits(), max_epochs=1).save_checkpoint(tmp_path / "last.ckpt")
    bad = edited(tmp_path / "last.ckpt", tmp_path, lambda c: c["state_dict"]["layers.3.running_var"].fill_(-1.0))
    with pytest.raises(kl.CheckpointError, match=r"its layers.3.running_var must be at least 0, .* got -1"):
        ReluNetwork.load_from_checkpoint(bad)


def test_a_loaded_network_predicts_without_being_put_in_evaluation_mode(tmp_path):
    each, data = network("cnn-bn"), digits()
    fit(each, data, max_epochs=1).save_checkpoint(tmp_path / "last.ckpt")
    loaded = ReluNetwork.load_from_checkpoint(tmp_path / "last.ckpt")
    assert torch.equal(loaded(data.test_set.x[:1]), each(data.test_set.x[:1]))
    fit(loaded, digits(), max_epochs=1)  # goes on in training mode
    assert int(loaded.layers[3].num_batches_tracked) == 2 * int(each.layers[3].num_batches_tracked)


def test_a_kernel_machines_checkpoint_is_refused(tmp_path):
    fit(kl.KernelMachine(), digits(), max_epochs=1).save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(kl.CheckpointError, match="the checkpoint holds no ReLU network"):
        fit(network(), digits(), ckpt_path=tmp_path / "last.ckpt")
