"""`kl reproduce features`: its points against independent computations, its claims, and a run."""

import json

import numpy as np
import pytest
import torch

from recipes.reproduce.analysis import feature_claims
from recipes.reproduce.analysis.feature_claims import LAST, LEARNT, PLAIN
from recipes.reproduce.experiments import features
from recipes.reproduce.points.directions import Directions, largest_sine, target_of
from recipes.reproduce.points.learned import Learned
from recipes.reproduce.points.sample import KernelSpec, Sample
from recipes.reproduce.sweep.point import Context
from recipes.reproduce.table import table

LAPLACIAN = KernelSpec(name="laplacian")


def test_targets_by_hand():
    u = torch.tensor([[0.5, 2.0, -1.0]], dtype=torch.float64)
    assert target_of("single-index", u).item() == pytest.approx(np.sin(1.0))
    assert target_of("product", u[:, :2]).item() == pytest.approx(1.0)
    assert target_of("parity", u).item() == pytest.approx(-np.tanh(1.5) * np.tanh(6.0) * np.tanh(3.0))


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.3, np.pi / 2])
def test_sine_of_the_largest_angle_by_hand(angle):
    """The metric's leading plane is that of the first two axes; one of the directions is turned out of it."""
    metric = torch.tensor([1.0, 0.5, 0.1, 0.0], dtype=torch.float64).diag()
    directions = torch.zeros(4, 2, dtype=torch.float64)
    directions[1, 0] = 1
    directions[0, 1], directions[2, 1] = np.cos(angle), np.sin(angle)
    assert largest_sine(metric, directions) == pytest.approx(np.sin(angle), rel=1e-9, abs=1e-15)


def test_directions_of_the_first_round_are_those_of_a_plain_computation():
    """Round 0 by numpy alone; and round 1's angle from its gradients by finite differences."""
    point = Directions(target="single-index", n=120, d=4, kernel=LAPLACIAN, ridge=1e-3, rounds=1, seed=3)
    found = point.run(Context())
    generator = torch.Generator().manual_seed(3)
    u = torch.linalg.qr(torch.randn(4, 1, generator=generator, dtype=torch.float64)).Q.numpy()
    x = torch.randn(120 + 30 + 2000, 4, generator=generator).double().numpy()
    y = np.sin(2 * (x @ u)[:, 0])
    train, test = x[:120], x[150:]
    bandwidth = median(train)

    def kernel(a):
        return np.exp(-distances(a, train) / bandwidth)

    alpha = np.linalg.solve(kernel(train) + 1e-3 * np.eye(120), y[:120])
    errors = kernel(test) @ alpha - y[150:]
    plain, learnt = found["rounds"]
    assert plain["test_error"] == pytest.approx((errors**2).mean() / y[150:].var(), rel=1e-2)
    assert plain["sine"] is None
    step = 1e-4
    gradients = np.stack(
        [(kernel(train + step * e) @ alpha - kernel(train - step * e) @ alpha) / (2 * step) for e in np.eye(4)], axis=1
    )
    leading = np.linalg.eigh(gradients.T @ gradients)[1][:, -1]
    assert learnt["sine"] == pytest.approx(np.sqrt(1 - (leading @ u[:, 0]) ** 2), rel=2e-2)
    assert found["chosen"] == int(learnt["held_out_mse"] < plain["held_out_mse"]) == 1


def distances(a, b):
    return np.linalg.norm(a[:, None] - b[None], axis=2)


def median(x):
    """The median distance, the lower of the middle two, as torch has it."""
    found = np.sort(distances(x, x)[np.triu_indices(len(x), 1)])
    return found[(len(found) - 1) // 2]


def test_learned_interpolates_the_noisy_labels_of_its_rows():
    found = Learned(sample=Sample(data="digits", n=150), kernel=LAPLACIAN, noise=0.3, rounds=2).run(Context())
    assert (found["n"], found["d"], found["c"], len(found["rounds"])) == (120, 64, 10, 3)
    for each in found["rounds"]:
        assert each["train_error"] == 0
        assert each["test_error"] < each["test_error_noisy"] < 0.7
    data = Sample(data="digits", n=150).datamodule(Context(), 0.3)
    x, y = data.train_set.x[:120].double().numpy(), data.train_set.y[:120].double().numpy()
    gram = np.exp(-distances(x, x) / median(x))
    norm = np.sqrt((y * np.linalg.solve(gram, y)).sum())
    assert found["rounds"][0]["rkhs_norm"] == pytest.approx(norm, rel=1e-4)


def made_up(sine=0.05, ratio=0.5):
    """Two seeds of a target at two n, with errors of the learnt metric as a share of the plain kernel's."""
    return table(
        {"target": "product", "d": 50, "n": n, "seed": seed, "way": way, "round": int(way == LEARNT)}
        | {"sine": sine if way == LEARNT else None}
        | {"test_error": 0.8 * (ratio if way == LEARNT else 1.0)}
        for n in (500, 1000)
        for seed in (0, 1)
        for way in (PLAIN, LEARNT)
    )


def test_claims_of_directions():
    good = made_up()
    assert feature_claims.found_claim(good).holds is True
    assert feature_claims.found_claim(good).seen == "n=1000: d=50: sine 0.050"
    assert feature_claims.better_claim(good).holds is True
    assert feature_claims.better_claim(good).seen.startswith("learnt / plain: 0.5 at n=500, d=50")
    assert feature_claims.found_claim(made_up(sine=0.2)).holds is False
    assert feature_claims.better_claim(made_up(ratio=1.0)).holds is False  # round 0 was chosen
    nothing = feature_claims.found_claim(made_up(sine=None))
    assert (nothing.holds, nothing.seen) == (False, "n=1000: d=50: nothing learnt in 2 of 2 draws")


def noisy(learnt):
    """Runs at 0 and 20% noise; the error of the plain kernel on clean labels is 5 and 8%."""
    errors = {PLAIN: {0.0: 0.05, 0.2: 0.08}, LEARNT: learnt}
    frame = table(
        {"way": way, "noise": noise, "n": 100, "seed": 0, "round": 0, "test_error": error}
        | {"test_error_noisy": noise * 0.9 + error, "rkhs_norm": 10.0 + error, "set": "digits", "train_error": 0.0}
        for way, by_noise in errors.items()
        for noise, error in by_noise.items()
    )
    return features.with_bayes_error(frame)


def test_claims_of_noise():
    good, bad = noisy({0.0: 0.04, 0.2: 0.05}), noisy({0.0: 0.04, 0.2: 0.2})
    assert list(good["bayes_error"]) == pytest.approx([0.04, 0.18 + 0.8 * 0.04] * 2)  # Prop. 1
    way = LEARNT
    for claim in (feature_claims.harmless_claim, feature_claims.norm_claim, feature_claims.near_bayes_claim):
        assert [claim(each, way).holds for each in (good, bad)] == [True, False]
    seen = feature_claims.harmless_claim(bad, way).seen
    assert "plain kernel 5.0% and 8.0%, learnt metric 4.0% and 20.0%; 1 of 1 runs with noise are of the plain" in seen
    assert feature_claims.near_bayes_claim(bad, PLAIN).holds is True


def test_ways_of_a_run_are_its_first_chosen_and_last_round():
    run = {"rounds": [{"e": 0.5}, {"e": 0.1}, {"e": 0.3}], "chosen": 1}
    found = features.by_way(table([run, run | {"chosen": 0}]))
    assert list(zip(found["way"], found["round"], found["e"], strict=True)) == [
        *((PLAIN, 0, 0.5),) * 2,
        *((LEARNT, 1, 0.1), (LEARNT, 0, 0.5)),
        *((LAST, 2, 0.3),) * 2,
    ]


@pytest.mark.slow
def test_tiny_scale(kl, tmp_path):
    result = kl("reproduce", "features", "--scale", "tiny", "--log-dir", "out")
    assert result.code == 0, result.err
    folder = tmp_path / "out/features-tiny"
    for name in ("features-directions", "features-noise"):
        assert (folder / f"{name}.png").stat().st_size > 10_000
    record = json.loads((folder / "results.json").read_text())
    assert [len(record["claims"]), record["points"]] == [13, 8]
    parts = [row["part"] for row in record["rows"]]
    assert (parts.count("directions"), parts.count("noise")) == (12, 6)
    learnt = [row for row in record["rows"] if row["part"] == "noise" and row["way"] == LEARNT]
    assert [row["noise"] for row in learnt] == [0.0, 0.2]
    assert "A single draw, without a spread." in record["sentences"]
