"""`kl reproduce random-labels` and `kl reproduce networks`, and the networks' points."""

import json

import pytest

from recipes.reproduce.experiments import networks, random_labels
from recipes.reproduce.experiments.random_labels import Model
from recipes.reproduce.page.drawing import panels
from recipes.reproduce.points.network import Network
from recipes.reproduce.points.sample import Sample
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Context
from recipes.reproduce.table import sweep_table


def record(folder, name):
    with (folder / f"{name}-tiny" / "results.json").open() as file:
        return json.load(file)


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
    timed = [row for row in found["rows"] if row["part"] == "time"]
    last = {row["model"]: row for row in timed}
    assert set(last) == {"gaussian", "laplacian", "gaussian-exact", "laplacian-exact", "mlp", "cnn"}
    for model, row in last.items():
        assert row["test_error"] < 0.5, model
        seconds = [each["seconds"] for each in timed if each["model"] == model]
        assert seconds == sorted(seconds)
        assert seconds[0] > 0
    noised = [row for row in found["rows"] if row["part"] == "noise"]
    assert len(noised) == 6 * len(networks.NOISES)
    by_model = {row["model"]: [] for row in noised}
    for row in noised:
        by_model[row["model"]].append(row["test_error"])
    for kernel in ("Gaussian, exact", "Laplacian, exact"):
        assert by_model[kernel][0] < by_model[kernel][-1]
    for name in ("ReLU MLP", "ReLU CNN"):
        pairs = zip(by_model[f"{name}, best epoch"], by_model[f"{name}, last epoch"], strict=True)
        assert all(best <= final for best, final in pairs)


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


def test_error_limits_leave_first_epochs_out():
    low, high = networks.error_limits([[0.9, 0.1, 0.02], [0.04, 0.03]])
    assert (low, high) == (pytest.approx(0.016), pytest.approx(0.075))
    assert networks.error_limits([[0.031, 0.03]])[1] == pytest.approx(0.031 * 1.05)


def exact_levels(*errors):
    return {"levels": [{"test_error": error} for error in errors], "c": 10, "n": 9, "data_source": "digits"}


@pytest.mark.parametrize(
    ("noised", "train", "holds", "seen"),
    [
        (0.30, 0.0, True, "Gaussian +20.0 points; Laplacian +20.0 points; ReLU MLP +5.0 points; ReLU CNN +5.0 points"),
        (0.47, 0.0, False, "Gaussian +37.0 points; Laplacian +37.0 points; ReLU MLP +5.0 points; ReLU CNN +5.0 points"),
        (
            0.30,
            0.1,
            True,
            "Gaussian +20.0 points; Laplacian +20.0 points; ReLU MLP does not fit them; ReLU CNN does not",
        ),
    ],
)
def test_claim_about_noised_labels(noised, train, holds, seen):
    setting, results = Setting("tiny"), {}
    for kernel in setting.kernels("mnist"):
        results[networks.noisy(setting, "mnist", kernel)] = exact_levels(0.1, 0.2, noised)
    for network in networks.NETWORKS:
        for noise, error in ((0.0, 0.1), (0.4, 0.15)):
            point = networks.noisy_network(setting, "mnist", network, noise)
            results[point] = {"final": {"train/error": train}, "curves": {"val/error": [0.9, error]}}
    claim = networks.claim(setting, results, "mnist", 2)
    assert claim.holds is holds
    assert "36% of the training labels wrong" in claim.text
    assert claim.seen.startswith(seen)


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
