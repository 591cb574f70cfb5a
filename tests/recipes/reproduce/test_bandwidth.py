"""The experiment on bandwidths: its numbers at the tiny scale, and its claims on made-up results."""

import json

import pytest
import torch

from kl.errors import SingularKernelError
from recipes.reproduce.experiments.bandwidth import (
    CLAIMED,
    FRACTIONS,
    NOISES,
    Bandwidth,
    case_table,
    draw,
    epochs_claim,
    error_claim,
    exact,
    fractions,
    overfitted,
    search,
    search_sentence,
    span,
    summary,
)
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import Sample, gaussian
from recipes.reproduce.points.solvable import ExactWhereSolvable
from recipes.reproduce.setting import Setting
from recipes.reproduce.sweep.point import Context
from recipes.reproduce.table import rows_of, stacked


def case(fraction=1.0, noise=0.0, error=0.03, fitted=2, cap=60, norm=30.0, mses=(0.02, 0.005)):
    """A row of the table; error None is a singular matrix, fitted None a run that was cut off."""
    level = None if error is None else {"test_error_noisy": error, "test_error": error / 2, "rkhs_norm": norm}
    level = level and {**level, "relative_residual": 1e-12}
    final = {"val/error": 0.02, **({"val/error_noisy": 0.12} if noise else {})}
    epochs = cap if fitted is None else fitted
    fit = {"n": 100, "epochs": epochs, "fitted_epoch": fitted, "final": final, "diverged": False}
    fit["curves"] = {"train/mse": list(mses)}
    reason = "K is singular" if error is None else None
    where = {"sample": Sample(data="digits", n=100), "kernel": gaussian(5.0 * fraction)}
    point, solve = Fit(**where, noise=noise), ExactWhereSolvable(**where, noises=NOISES)
    results = {point: fit, solve: {"levels": level and [level] * len(NOISES), "reason": reason}}
    return case_table([point], results, {"gaussian": gaussian(5.0)}).assign(data="digits")


def cases(errors, fitted, noises=NOISES):
    return stacked(case(f, noise, e, k) for noise in noises for f, e, k in zip(CLAIMED, errors, fitted, strict=True))


def only(row):
    """A table's single row as a record."""
    (found,) = rows_of(row)
    return found


@pytest.mark.slow
def test_tiny_scale(kl, tmp_path):
    result = kl("reproduce", "bandwidth", "--scale", "tiny", "--log-dir", "out", "--accelerator", "cpu")
    assert result.code == 0, result.err
    folder = tmp_path / "out" / "bandwidth-tiny"
    assert {"results.json", "results.csv", "bandwidth.png", "bandwidth.svg"} <= {p.name for p in folder.iterdir()}
    record = json.loads((folder / "results.json").read_text())
    rows = record["rows"]
    assert len(rows) == 2 * len(CLAIMED) * len(NOISES)
    assert {(r["kernel"], r["bandwidth"]) for r in rows} >= {("gaussian", 1.5), ("laplacian", 6.0)}
    for row in rows:
        assert 0 < row["interpolated_test_error"] < 0.2
        assert row["relative_residual"] < 1e-6
        assert row["singular"] is None
        if row["label_noise"]:
            assert row["interpolated_test_error_noisy"] > row["interpolated_test_error"]
        else:
            assert row["interpolated_test_error_noisy"] == row["interpolated_test_error"]
    for row in rows:  # noise raises the norm
        noisy = {(r["kernel"], r["fraction"]): r["rkhs_norm"] for r in rows if r["label_noise"]}
        assert noisy[row["kernel"], row["fraction"]] >= row["rkhs_norm"]
    assert len(record["claims"]) == 4
    assert record["points"] == 2 * (1 + 3 * len(CLAIMED))


def test_points_of_the_full_scale():
    setting = Setting("full")
    points = Bandwidth().points(setting, {})
    assert fractions(setting) == FRACTIONS
    assert len(points) == len(set(points)) == 2 * (1 + 3 * len(FRACTIONS))
    kernel = setting.kernels("mnist")[0]
    assert exact(setting, kernel, 4.0) in points
    assert exact(setting, kernel, 4.0).kernel.bandwidth == 20
    assert exact(setting, kernel, 4.0).sample == overfitted(setting, kernel, 4.0, 0.1).sample
    assert search(setting, kernel).kernel.bandwidth is None


def test_a_singular_matrix_is_a_result_with_its_reason(monkeypatch):
    def fail(self, context):
        raise SingularKernelError("the kernel matrix is singular")

    monkeypatch.setattr(Exact, "run", fail)
    point = ExactWhereSolvable(sample=Sample(data="digits", n=50), kernel=gaussian(1.0))
    assert point.run(Context()) == {"levels": None, "reason": "the kernel matrix is singular"}


def test_where_it_is_solvable_the_result_is_that_of_exact():
    fields = {"sample": Sample(data="digits", n=50, test_size=20), "kernel": gaussian(1.5), "noises": (0.0, 0.1)}
    context = Context(accelerator="cpu")
    found, plain = ExactWhereSolvable(**fields), Exact(**fields)
    assert found.run(context)["levels"] == plain.run(context)["levels"]
    assert found.key != plain.key


def test_a_case_of_a_run_that_was_cut_off():
    cut = case(fitted=None, mses=(0.5, 0.2))
    row = only(cut)
    assert row["epochs_to_zero_training_error"] is None
    assert (row["overfitted_test_error_noisy"], row["epochs_to_train_mse"]) == (None, None)
    assert summary(cut).rows[0][3:6] == ("not reached", "over 60", "over 60")
    assert row["overfitted_test_error"] is None


def test_a_case_with_noise_has_both_test_errors():
    noisy = only(case(noise=0.1))
    assert (noisy["overfitted_test_error_noisy"], noisy["overfitted_test_error"]) == (0.12, 0.02)
    assert (noisy["interpolated_test_error_noisy"], noisy["interpolated_test_error"]) == (0.03, 0.015)
    assert (noisy["epochs_to_zero_training_error"], noisy["epochs_to_train_mse"], noisy["rkhs_norm"]) == (2, 2, 30.0)
    assert only(case())["overfitted_test_error_noisy"] == 0.02


def test_a_singular_case_leaves_gaps():
    singular = case(error=None)
    assert only(singular)["singular"] == "K is singular"
    assert only(singular)["interpolated_test_error"] is None
    (cells,) = summary(singular).rows
    assert cells[2] == cells[-1] == "singular"
    figure = draw([stacked([singular, case(2.0), case(4.0, fitted=None), *(case(f, 0.1) for f in CLAIMED)])])
    norms = figure.axes[2].lines[0].get_ydata()
    assert torch.tensor(norms).isnan().tolist() == [True, False, False]
    hollow = [line for line in figure.axes[1].lines if line.get_linestyle() == "None"]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in hollow] == [([4.0], [60])]


@pytest.mark.parametrize(
    ("errors", "holds"),
    [((0.030, 0.025, 0.034), True), ((0.030, 0.025, 0.036), False), ((0.030, None, 0.034), None)],
)
def test_the_claim_on_errors(errors, holds):
    claim = error_claim(cases(errors, (1, 1, 1)))
    assert claim.holds is holds
    assert ("not known" in claim.seen) is (holds is None)


def test_the_claim_on_errors_is_about_the_middle_bandwidths():
    outer = [case(f, noise, 0.5) for f in (0.25, 4.0) for noise in NOISES]
    assert error_claim(stacked([cases((0.03, 0.03, 0.03), (1, 1, 1)), *outer])).holds is True


@pytest.mark.parametrize(
    ("fitted", "holds"),
    [
        ((5, 9, 10), True),
        ((6, 9, 10), False),
        ((1, 1, 4), None),
        ((8, 20, None), True),
        ((40, 45, None), None),
        ((None, None, None), None),
    ],
)
def test_the_claim_on_epochs(fitted, holds):
    assert epochs_claim(cases((0.03, 0.03, 0.03), fitted)).holds is holds


def test_span():
    assert span([3.0, 1.0, 2.0]) == (1.0, 3.0)
    assert span([3.0, None]) is None


def test_the_sentence_on_the_search():
    tried = [{"bandwidth": 2.5, "error": 0.1}, {"bandwidth": 5.1, "error": 0.04}, {"bandwidth": 10.0, "error": None}]
    found = {"tried": tried, "bandwidth": 5.1}
    said = search_sentence(gaussian(5.0), found)
    assert "best bandwidth is 5.1 (error at 2.5: 10.00%, 5.1: 4.00%, 10: singular); 100% here is 5" in said
    assert "an end of what was tried" in search_sentence(gaussian(5.0), {**found, "bandwidth": 2.5})
