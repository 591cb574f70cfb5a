"""`kl reproduce random-labels` and `kl reproduce networks`, and the networks' points."""

import json
from dataclasses import replace

import pytest
from training import fit

from callbacks import History
from datamodules import DigitsDataModule
from kl import InputError, ReluNetwork
from recipes.reproduce import network_models as models
from recipes.reproduce.analysis.network_claims import ahead_claim, equal_time_claim, harmless_claim
from recipes.reproduce.analysis.network_tables import AUGMENTED, CHOSEN, CNN, LAST, MLP, PATCHES
from recipes.reproduce.experiments import networks, random_labels
from recipes.reproduce.experiments.random_labels import Model
from recipes.reproduce.network_models import NOISES
from recipes.reproduce.page.drawing import panels
from recipes.reproduce.points.network import Network
from recipes.reproduce.points.sample import Sample
from recipes.reproduce.points.training import error_within
from recipes.reproduce.points.tuned_network import TunedNetwork
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Context
from recipes.reproduce.table import sweep_table, table


def record(folder, name):
    with (folder / f"{name}-tiny" / "results.json").open() as file:
        return json.load(file)


@pytest.mark.slow
def test_random_labels(kl, tmp_path):
    result = kl("reproduce", "random-labels", "--scale", "tiny", "--log-dir", tmp_path)
    assert result.code == 0, result.err
    found = record(tmp_path, "random-labels")
    assert (tmp_path / "random-labels-tiny" / "random-labels.png").is_file()
    assert found["comparisons"] == []  # digits are not the paper's data
    assert len(found["claims"]) == 3
    runs = {}
    for row in found["rows"]:
        runs.setdefault((row["model"], row["labels"]), []).append(row["train_error"])
    assert set(runs) == {
        (model, labels) for model in ("laplacian", "gaussian", "mlp") for labels in ("original", "random")
    }
    for (model, labels), errors in runs.items():
        assert all(0 < error <= 1 for error in errors[:-1])
        assert errors[-1] == 0, f"{model} has not fitted {labels} labels"
    assert found["claims"][0]["verdict"] == "holds"
    assert len(runs["mlp", "random"]) > len(runs["mlp", "original"])
    chance = [float(row[3].rstrip("%")) for row in found["tables"][0]["rows"] if "random" in row[0]]
    assert len(chance) == 3
    assert all(75 < value < 98 for value in chance)  # nothing is learnt from random labels


@pytest.mark.slow
def test_networks(kl, tmp_path):
    result = kl("reproduce", "networks", "--scale", "tiny", "--log-dir", tmp_path)
    assert result.code == 0, result.err
    found = record(tmp_path, "networks")
    for name in ("networks-time", "networks-noise"):
        assert (tmp_path / "networks-tiny" / f"{name}.png").is_file()
    parts = {}
    for row in found["rows"]:
        parts.setdefault(row["part"], []).append(row)
    curves = {"Gaussian, EigenPro", "Laplacian, EigenPro", MLP, CNN, AUGMENTED}
    limits = {"Gaussian, exact", "Laplacian, exact"}
    assert {row["model"] for row in parts["time"]} == curves
    for model in curves:
        seconds = [each["seconds"] for each in parts["time"] if each["model"] == model]
        assert seconds == sorted(seconds)
        assert seconds[0] > 0
    ends = {row["model"]: row for row in parts["end"]}
    assert set(ends) == curves | limits | {PATCHES}
    assert all(row["test_error"] < 0.7 for row in ends.values())
    assert len({row["within_seconds"] for row in ends.values()}) == 1
    assert ends[PATCHES]["within"] == ends[PATCHES]["test_error"]
    assert {row["model"] for row in parts["whole"]} == curves | limits
    by_model = {}
    for row in parts["noise"]:
        by_model.setdefault(row["model"], []).append(row["test_error"])
    assert set(by_model) == limits | {PATCHES, f"{MLP}, last epoch", f"{MLP}, best epoch", LAST, CHOSEN}
    assert all(len(errors) == len(NOISES) for errors in by_model.values())
    for kernel in (*limits, PATCHES):
        assert by_model[kernel][0] < by_model[kernel][-1]
    pairs = zip(by_model[f"{MLP}, best epoch"], by_model[f"{MLP}, last epoch"], strict=True)
    assert all(best <= final for best, final in pairs)
    assert len(found["claims"]) == 1 + 2 + len(NOISES[1:])


def test_a_network_point_gives_what_a_fit_gives():
    sample = Sample(data="digits", n=100, test_size=50)
    point = Network(sample=sample, widths=(64,), epochs=100, until_interpolated=True, batch_size=16)
    result = point.run(Context())
    errors = result["curves"]["train/error"]
    assert result["fitted_epoch"] == result["epochs"] == len(errors) == len(result["seconds_per_epoch"])
    assert errors[-1] == result["final"]["train/error"] == 0
    assert result["curves"]["val/error"][-1] == pytest.approx(result["final"]["val/error"])  # logged in float32
    assert result["final"]["val/error"] < 0.5
    assert result["weights"] == 64 * 64 + 64 + 64 * 10 + 10
    assert (result["n"], result["d"], result["c"], result["data_source"]) == (100, 64, 10, "digits")
    json.dumps(result)


def test_a_network_point_that_tests_once_and_does_not_stop():
    sample = Sample(data="digits", n=60, test_size=50)
    point = Network(sample=sample, architecture="cnn", widths=(4,), noise=1.0, epochs=3, test_every=0)
    result = point.run(Context())
    assert result["epochs"] == 3
    assert result["fitted_epoch"] is None
    assert result["tested_epochs"] == []
    assert {"val/error", "val/error_noisy", "train/error"} <= set(result["final"])


def test_a_network_point_says_what_it_is():
    sample = Sample(data="digits", n=100)
    point = Network(sample=sample, widths=(64, 32), noise=1.0, epochs=8, until_interpolated=True)
    assert point.describe() == "mlp 64-32, digits n=100 seed 0, label noise 100%, 8 epochs until interpolated"
    longer = Network(sample=sample, widths=(64, 32), noise=1.0, epochs=80, until_interpolated=True)
    assert longer.seconds > point.seconds
    assert longer.key != point.key


def run(fitted, epochs=None):
    return {"fitted_epoch": fitted, "epochs": epochs or fitted}


@pytest.mark.parametrize(
    ("original", "random", "expected", "text"),
    [
        (run(4), run(7), (1.75, False), "1.8"),
        (run(4), run(None, 100), (25.0, True), "more than 25"),
        (run(None, 100), run(7), None, "not reached"),
    ],
)
def test_ratio(original, random, expected, text):
    assert random_labels.ratio(original, random) == expected
    assert random_labels.ratio_text(expected) == text


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((40.0, False), (2.0, False), True),
        ((2.0, False), (40.0, False), False),
        ((2.0, False), (2.0, False), False),
        ((40.0, True), (2.0, False), True),
        ((2.0, True), (3.0, False), None),
        ((40.0, False), (2.0, True), None),
        (None, (2.0, False), None),
        ((2.0, False), None, None),
    ],
)
def test_is_larger(first, second, expected):
    assert random_labels.is_larger(first, second) is expected


def models_and_results(**epochs):
    """Models named by their keys, with (original, random) epochs to zero error."""
    found = [Model(name, name.title(), "k", f"{name} 0", f"{name} 1") for name in epochs]
    results = {
        f"{name} {i}": run(value, 900) | {"final": {}} for name, pair in epochs.items() for i, value in enumerate(pair)
    }
    return found, results


def test_comparisons_with_the_published_epochs():
    comparisons = random_labels.compare(*models_and_results(laplacian=(3, 6), gaussian=(10, None), mlp=(20, 50)))
    found = {each.quantity: (each.ours, each.published) for each in comparisons}
    assert found == {
        "Laplacian: epochs, original labels": (3, 4),
        "Laplacian: epochs, random labels": (6, 7),
        "Laplacian: ratio random / original": (2.0, 1.75),
        "Gaussian: epochs, original labels": (10, 20),
        "Gaussian: epochs, random labels": (None, 873),
        "Gaussian: ratio random / original": (None, 873 / 20),
        "Mlp: ratio random / original": (2.5, 3.0),
    }
    notes = {each.quantity: each.note for each in comparisons}
    assert notes["Gaussian: epochs, random labels"] == "not reached in 900 epochs; EigenPro 2 here, EigenPro 1 there"
    assert notes["Gaussian: ratio random / original"] == "more than 90 here"


def test_claims_about_random_labels():
    found = models_and_results(laplacian=(4, 7), gaussian=(20, 873), mlp=(20, 60))
    assert random_labels.fits_claim(*found).holds is True
    assert [each.holds for each in random_labels.ratio_claims(*found)] == [True, True]
    found = models_and_results(laplacian=(4, 40), gaussian=(20, 30), mlp=(20, None))
    assert random_labels.fits_claim(*found).holds is None
    assert [each.holds for each in random_labels.ratio_claims(*found)] == [False, True]


TUNED = TunedNetwork(
    sample=Sample(data="digits", n=200, seed=3),
    widths=(4, 8),
    learning_rates=(0.001, 0.1),
    epochs=4,
    noise=0.2,
    batch_size=32,
)


def test_a_tuned_network_is_chosen_on_noisy_held_out_rows_and_trained_on_all():
    """Each run again, with a data module, a network and a Trainer of the test's own."""
    found = TUNED.run(Context(accelerator="cpu"))

    def again(rate, validation, epochs=4):
        data = DigitsDataModule(
            train_size=200, label_noise=0.2, noise_seed=3, seed=3, batch_size=32, validation=validation
        )
        network = ReluNetwork("cnn-bn", widths=(4, 8), learning_rate=rate, schedule="cosine", weight_decay=5e-4, seed=3)
        history = History()
        fit(network, data, max_epochs=epochs, callbacks=[history])
        assert len(data.train_set) == 200 - round(200 * validation)
        return {tag: [value for _, value in curve] for tag, curve in history.history.items()}

    runs = {rate: again(rate, 0.1) for rate in TUNED.learning_rates}
    merits = {
        (error, mse, rate, epoch): None
        for rate, run in runs.items()
        for epoch, (error, mse) in enumerate(zip(run["val/error_noisy"], run["val/mse_noisy"], strict=True), start=1)
    }
    error, _, rate, epoch = min(merits)
    assert (found["learning_rate"], found["chosen_epoch"]) == (rate, epoch)
    assert [each["learning_rate"] for each in found["tried"]] == [0.001, 0.1]
    for each in found["tried"]:
        assert each["held_out_errors"] == runs[each["learning_rate"]]["val/error_noisy"]
        assert each["best_error"] == min(each["held_out_errors"])
        assert each["best_error"] == each["held_out_errors"][each["best_epoch"] - 1]
    assert min(each["best_error"] for each in found["tried"]) == error
    last = again(rate, 0.0)
    assert found["curves"]["val/error"] == last["val/error"]
    assert found["curves"]["train/error"] == last["train/error"]
    assert found["chosen_error"] == last["val/error"][epoch - 1]
    assert found["final"]["val/error"] == last["val/error"][-1]
    assert (found["n"], found["epochs"], len(found["seconds_per_epoch"])) == (200, 4, 4)
    assert found["weights"] == 4 * 9 + 8 + 8 * 4 * 9 + 16 + 10 * (8 * 2 * 2 + 1)
    assert found["tuning_seconds"] > 0
    json.dumps(found)


def test_a_tuned_network_without_noise_and_with_augmentation():
    point = replace(TUNED, noise=0.0, augment="shift:1", epochs=2, learning_rates=(0.05,))
    found = point.run(Context(accelerator="cpu"))
    assert "val/error_noisy" not in found["curves"]
    plain = replace(point, augment=None).run(Context(accelerator="cpu"))
    assert found["curves"]["val/error"] != plain["curves"]["val/error"]
    unchosen = replace(point, held_out=0.0).run(Context(accelerator="cpu"))
    assert unchosen["curves"] == found["curves"]
    assert (unchosen["tried"], unchosen["learning_rate"], unchosen["chosen_epoch"]) == ([], 0.05, 2)
    assert unchosen["chosen_error"] == unchosen["final"]["val/error"]
    with pytest.raises(InputError, match="without held-out rows nothing can be chosen among learning_rates"):
        replace(TUNED, held_out=0.0)


def test_a_tuned_network_says_what_it_is():
    assert TUNED.describe() == (
        "tuned cnn-bn 4-8, digits n=200 seed 3, label noise 20%, 4 epochs at learning rate 0.001, 0.1"
    )
    augmented = replace(TUNED, noise=0.0, augment="shift:1", learning_rates=(0.1,), held_out=0.0)
    assert augmented.describe() == "cnn-bn 4-8, digits n=200 seed 3, shift:1, 4 epochs at learning rate 0.1"
    assert augmented.seconds < TUNED.seconds
    assert augmented.key != TUNED.key


def test_the_error_within_some_seconds():
    result = {"seconds_per_epoch": [2.0, 1.0, 3.0], "curves": {"val/error": [0.5, 0.4, 0.3]}}
    found = [error_within(result, seconds) for seconds in (1.9, 2.0, 3.5, 6.0, 100.0)]
    assert found == [None, 0.5, 0.4, 0.3, 0.3]


@pytest.mark.parametrize(
    ("seconds", "epochs"), [(0.9, None), (1.0, 1), (3.7, 3), (50.0, 5)]
)  # 5: as many as the network has that is not in a hurry
def test_a_hurried_network_has_the_epochs_that_end_in_the_seconds_of_the_kernel_machine(seconds, epochs):
    setting = Setting("tiny")
    calm = models.noisy_cnn(setting, "mnist", 0.0)
    results = {
        models.on_patches(setting, "mnist"): {"extraction_seconds": 0.5, "levels": [{"solve_seconds": seconds - 0.5}]},
        calm: {"seconds_per_epoch": [1.5, 0.5, 1.0], "learning_rate": 0.1},
    }
    found = models.hurried_cnn(setting, results, "mnist", augmented=False)
    assert (found and found.epochs) == epochs
    if epochs == 5:
        assert found == calm
    elif epochs:
        assert replace(found, epochs=calm.epochs, learning_rates=calm.learning_rates, held_out=calm.held_out) == calm
        assert (found.learning_rates, found.held_out) == ((0.1,), 0)
    points = models.points(setting, results, ("mnist",))
    assert (found in points) is (found is not None)
    whole = models.whole_cnn(setting, results, "mnist", augmented=False)
    assert whole in points
    assert (whole.learning_rates, whole.sample.n) == ((0.1,), 200)


def test_error_limits_leave_first_epochs_out():
    low, high = networks.error_limits([[0.9, 0.1, 0.02], [0.04, 0.03]])
    assert (low, high) == (pytest.approx(0.016), pytest.approx(0.075))
    assert networks.error_limits([[0.031, 0.03]])[1] == pytest.approx(0.031 * 1.05)


def noised(**errors):
    """Errors by model at noise 0, 10% and 40%, with a training error of 0, or that after the errors."""
    return table(
        {
            "set": "digits",
            "c": 10,
            "model": model,
            "noise": noise,
            "test_error": error,
            "train_error": (*values[3:], 0.0)[0],
        }
        for model, values in errors.items()
        for noise, error in zip((0.0, 0.1, 0.4), values, strict=False)
    )


@pytest.mark.parametrize(
    ("errors", "holds", "seen"),
    [
        ({"a": (0.1, 0.2, 0.30), "b": (0.1, 0.1, 0.15)}, True, "a +20.0 points; b +5.0 points"),
        ({"a": (0.1, 0.2, 0.47), "b": (0.1, 0.1, 0.15)}, False, "a +37.0 points; b +5.0 points"),
        ({"a": (0.1, 0.2, 0.30), "b": (0.1, 0.1, 0.9, 0.1)}, True, "a +20.0 points; b does not fit them"),
        ({"a": (0.1, 0.2, 0.30), "b": (0.1, 0.1, 0.9, None)}, True, "a +20.0 points"),
    ],
)
def test_claim_about_noised_labels(errors, holds, seen):
    claim = harmless_claim(noised(**errors), 0.4)
    assert (claim.holds, claim.seen) == (holds, seen)
    assert claim.text.startswith("digits, 36% of the training labels wrong: ")


@pytest.mark.parametrize(("wrong", "holds"), [(0.15, True), (0.21, False), (0.2, False)])
def test_claim_about_who_is_ahead_under_noise(wrong, holds):
    """Without noise the kernel may be behind."""
    errors = noised(kernel=(0.1, 0.12, wrong), last=(0.05, 0.2, 0.4), chosen=(0.06, 0.13, 0.2))
    claim = ahead_claim(errors, "kernel", ("last", "chosen"))
    assert claim.holds is holds
    assert claim.text.startswith("digits: under label noise of 10% to 40% the interpolant (kernel) errs less")
    assert claim.seen.endswith(f"40% noise: {wrong:.2%} against 20.00% (last epoch 40.00%)")


@pytest.mark.parametrize(("within", "holds"), [((0.2, 0.3), True), ((0.2, 0.09), False), ((None, 0.2), True)])
def test_claim_about_equal_seconds(within, holds):
    rows = table(
        {"name": f"net {i}", "within": error, "test_error": 0.08, "seconds": 30.0} for i, error in enumerate(within)
    )
    kernel = {"set": "digits", "n": 150, "name": "kernel", "test_error": 0.1, "seconds": 12.0}
    claim = equal_time_claim(kernel, rows)
    assert claim.holds is holds
    first = "20.00%" if within[0] else "ends no epoch"
    assert claim.seen.startswith(f"kernel 10.00% in 12 s; net 0 {first}, at its best 8.00% in 30 s; net 1 ")


def test_text_of_epochs():
    assert random_labels.epochs_text(7, 7) == "7"
    assert random_labels.epochs_text(None, 900) == "not reached in 900 epochs"


def test_zero_stands_below_one_row():
    curves = {"train/error": [0.5, 0.01, 0.0], "train/mse": [0.5, 0.01, 0.0]}
    result = {"n": 100, "fitted_epoch": 3, "curves": curves, "tested_epochs": [], "seconds_per_epoch": [1.0] * 3}
    point = Network(sample=Sample(data="digits", n=100), widths=(64,))
    runs = sweep_table([point], {point: result}, labels=lambda run: "original")
    _, ((axes,),) = panels(1, 1)
    random_labels.draw(axes, runs.assign(title="", colour="k", style=[{}]))
    plotted = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    assert plotted == [([1, 2, 3], [0.5, 0.01, 0.004]), ([3], [0.004])]
