"""`kl reproduce batch-size` and `acceleration`: what their numbers and claims are made of."""

import json
import math

import numpy as np
import pytest

from recipes.reproduce.analysis.reached import epochs_of, epochs_to, seconds_after, seconds_of
from recipes.reproduce.experiments import acceleration, batch_size
from recipes.reproduce.experiments.batch_size import curves_table, log_slope, saturation
from recipes.reproduce.points.sample import gaussian
from recipes.reproduce.table import stacked, table

KERNEL = gaussian(5.0)


def test_epochs_to_a_target():
    mses = [1e-1, 1e-2, 1e-4]  # from 1 before the first epoch
    assert epochs_to(mses, 1e-1, first=1.0) == 1
    assert epochs_to(mses, 10**-1.5, first=1.0) == pytest.approx(1.5)
    assert epochs_to(mses, 1e-3, first=1.0) == pytest.approx(2.5)
    assert epochs_to(mses, 1e-5, first=1.0) is None
    assert epochs_to(mses, 2.0, first=1.0) == 0
    assert epochs_to([0.0], 1e-3, first=1.0) == pytest.approx(0.1)  # 1e-30 stands for 0


def test_an_mse_that_rises_again():
    assert epochs_to([1e-1, 1e-3, 1e-1], 1e-2, first=1.0) == pytest.approx(1.5)


def test_seconds_of_a_part_of_an_epoch():
    assert seconds_after([2.0, 4.0], 0.5) == 1
    assert seconds_after([2.0, 4.0], 1.0) == 2
    assert seconds_after([2.0, 4.0], 1.5) == 4
    fit = run([1e-2, 1e-4], seconds=[2.0, 4.0])
    assert epochs_of(fit, 1e-3) == pytest.approx(1.5)
    assert seconds_of(fit, 1e-3) == pytest.approx(4)
    assert seconds_of(fit, 1e-9) is None


def test_slopes():
    assert log_slope([1, 2, 4, 8], [80, 40, 20, 10]) == pytest.approx(-1)
    assert log_slope([1, 10, 100], [3, 3, 3]) == pytest.approx(0)


def test_saturation_is_found_again():
    m = [2**i for i in range(3, 13)]
    assert saturation(m, [7 * (1 + each / 300) for each in m]) == pytest.approx(300)
    assert saturation(m, [7.0] * len(m)) is None  # no growth
    assert saturation(m, [1000 / each for each in m]) is None


def curve(critical=256, knee=256.0, epochs=8.0, q=20, m=None):
    """The row of one kernel and q whose epochs grow from `epochs` on, from its runs."""
    same = {"spec": KERNEL, "q": q, "critical_batch_size": critical}
    needed = {each: epochs * (1 + each / knee) for each in m or [2**i for i in range(3, 13)]}
    return curves_table(
        table({**same, "m": m, "epochs": e, "steps": 4096 / m * e, "seconds": e} for m, e in needed.items())
    )


def test_slopes_below_and_above_the_critical_size():
    scaled = curve().iloc[0]
    expected = np.polyfit(np.log([8, 16, 32, 64]), np.log([(1 + m / 256) / m for m in (8, 16, 32, 64)]), 1)[0]
    assert scaled.below == pytest.approx(expected)
    assert -1 < scaled.below < -0.9
    assert -0.2 < scaled.above < 0
    assert scaled.knee == pytest.approx(256)


def test_what_cannot_be_told():
    assert curve(epochs=1.0, knee=1e9).iloc[0].below is None  # less than one and a half epochs
    assert curve(m=[8, 16]).iloc[0].above is None
    assert curve(m=[8, 16, 32]).iloc[0].knee is None  # not beyond 2 m*


@pytest.mark.parametrize(
    ("knee", "linear", "saturated"), [(256.0, True, True), (16.0, False, True), (1e6, True, False)]
)
def test_claims_of_scaling(knee, linear, saturated):
    found = curve(knee=knee)
    assert batch_size.linear_claim(found).holds is linear
    assert batch_size.saturated_claim(found).holds is saturated


def test_claims_without_curves():
    assert batch_size.linear_claim(curve().iloc[:0]).holds is None
    assert batch_size.saturated_claim(curve(m=[8, 16])).holds is None


def test_claim_of_ranks():
    growing = stacked([curve(100, 100.0, q=0), curve(1000, 1100.0, q=20)])
    assert batch_size.rank_claim(growing).holds is True
    assert batch_size.rank_claim(growing[::-1]).holds is False
    far = stacked([curve(100, 1000.0, q=0), curve(1000, 1100.0, q=20)])  # from m*
    assert batch_size.rank_claim(far).holds is False
    assert batch_size.rank_claim(growing[:1]).holds is None


def run(mses, seconds=None, **more):
    return {
        "curves": {"train/mse": mses},
        "seconds_per_epoch": seconds or [1.0] * len(mses),
        "c": 1,
        "n": 10,
        "epochs": len(mses),
        **more,
    }


def test_acceleration():
    plain, ours = run([1e-1, 1e-2, 1e-3, 1e-4]), run([1e-2, 1e-4], seconds=[3.0, 3.0])
    assert acceleration.in_epochs(plain, ours, 1e-4) == (pytest.approx(2), False)
    assert acceleration.in_seconds(plain, ours, 1e-4) == (pytest.approx(4 / 6), False)


def test_acceleration_over_a_run_that_was_not_there_is_a_lower_bound():
    plain, ours = run([1e-1, 1e-2]), run([1e-2, 1e-4])
    assert acceleration.in_epochs(plain, ours, 1e-3) == (pytest.approx(2 / 1.5), True)
    assert acceleration.in_epochs(ours, plain, 1e-3) is None


def test_claims_of_acceleration():
    slow, fast = run([10 ** (-i / 4) for i in range(1, 21)]), run([1e-2, 1e-4])
    holds = acceleration.claims(KERNEL, {0: slow, 20: fast, None: fast}, (1e-2, 1e-4), 20)
    assert [claim.holds for claim in holds] == [True, True]
    fails = acceleration.claims(KERNEL, {0: fast, 20: slow, None: slow}, (1e-2, 1e-4), 20)
    assert [claim.holds for claim in fails] == [False, False]
    nowhere = run([0.9, 0.8])
    open_ = acceleration.claims(KERNEL, {0: nowhere, 20: fast, None: fast}, (1e-2, 1e-4), 20)
    assert [claim.holds for claim in open_] == [True, True]  # plain SGD needs more than it had
    slower = run([0.9, 0.8, 0.7, 0.6])
    neither = acceleration.claims(KERNEL, {0: nowhere, 20: slower, None: slower}, (1e-2, 1e-4), 20)
    assert [claim.holds for claim in neither] == [None, None]


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        pytest.param("batch-size", ["batch-size"], marks=pytest.mark.slow),
        pytest.param("acceleration", ["acceleration", "acceleration-curves"], marks=pytest.mark.slow),
    ],
)
def test_tiny_scale(kl, tmp_path, name, figures):
    result = kl("reproduce", name, "--scale", "tiny", "--log-dir", "out", "--accelerator", "cpu")
    assert result.code == 0, result.err
    folder = tmp_path / "out" / f"{name}-tiny"
    assert all((folder / f"{figure}.png").stat().st_size > 10_000 for figure in figures)
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert len({row["q"] for row in rows}) > 1
    for row in rows:
        assert (row["epochs"] is None) == (row["seconds"] is None)
        assert row["epochs"] is None or 0 < row["epochs"] <= row["epochs_run"]
        if name == "batch-size" and row["epochs"] is not None:
            assert row["steps"] == pytest.approx(row["epochs"] * math.ceil(row["n"] / row["m"]))
