"""Tables of results and the panels drawn from them."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import same_color

from recipes.reproduce.page.drawing import Mark, counts, finish, kernel_look, panel, panels, percent, scale
from recipes.reproduce.page.presentation import Table
from recipes.reproduce.points.exact import Exact
from recipes.reproduce.points.fit import Fit
from recipes.reproduce.points.sample import Sample, gaussian, laplacian
from recipes.reproduce.table import by_epoch, by_level, derived, groups, rows_of, stacked, sweep_table, table


def fit(errors, tests=(), tested=(), seconds=None):
    curves = {"train/mse": [e / 10 for e in errors], "train/error": list(errors), "val/error": list(tests)}
    same = {"data_source": "digits", "n": 100, "epochs": len(errors), "top_q": 7, "batch_size": 50, "curves": curves}
    return {**same, "tested_epochs": list(tested), "seconds_per_epoch": seconds or [1.0] * len(errors)}


def point(kernel=None, noise=0.0, seed=0):
    return Fit(sample=Sample(data="digits", n=100, seed=seed), kernel=kernel or gaussian(5.0), noise=noise)


@pytest.mark.slow
def test_the_command_line_and_the_experiments_import_no_pandas():
    code = "import sys; import recipes.cli; import recipes.reproduce.experiments; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_values_stay_as_they_are():
    rows = [{"a": 1, "b": None, "c": True, "d": [1, 2]}, {"a": None, "b": 2.0, "c": False, "d": []}]
    found = rows_of(table(rows))
    assert found == rows
    assert [type(row["a"]) for row in found] == [int, type(None)]
    assert rows_of(table(rows), "b a") == [{"b": None, "a": 1}, {"b": 2.0, "a": None}]


def test_what_one_of_two_tables_has_not_is_none():
    both = stacked([table([{"a": 1}]), table([]), table([{"b": 2}])])
    assert rows_of(both) == [{"a": 1, "b": None}, {"a": None, "b": 2}]


def test_derived_columns_know_those_before_them():
    frame = table([{"a": 1}, {"a": 2}]).set_axis([7, 8])
    found = derived(frame, b=lambda row: 10 * row["a"], c=lambda row: None if row["b"] == 10 else row["b"])
    assert rows_of(found) == [{"a": 1, "b": 10, "c": None}, {"a": 2, "b": 20, "c": 20}]
    assert list(found.index) == [7, 8]
    assert list(frame) == ["a"]


def test_groups_come_in_their_order():
    frame = table({"a": a, "b": None} for a in (3, 1, 3))
    assert [list(own["a"]) for own in groups(frame, "a")] == [[3, 3], [1]]
    assert len(groups(frame, ["a", "b"])) == 2  # no value is a value


def test_a_row_of_a_sweep_has_the_fields_of_point_and_result():
    results = {point(noise=0.1, seed=3): fit([0.5, 0.0]), point(laplacian(10.0)): fit([0.5, 0.1])}
    first, second = rows_of(sweep_table(results, results, half=lambda run: run["bandwidth"] / 2))
    assert (first["kernel"], first["bandwidth"], first["half"], first["spec"]) == ("gaussian", 5.0, 2.5, gaussian(5.0))
    assert (first["data"], first["set"], first["seed"], first["noise"]) == ("digits", "digits", 3, 0.1)
    assert (first["epochs"], first["q"], first["m"]) == (2, 7, 50)  # those of the result, not those asked for
    assert [row["fitted_at"] for row in (first, second)] == [2, None]
    assert second["point"] == point(laplacian(10.0))


def test_epochs_of_runs():
    results = {
        point(): fit([0.5, 0.2, 0.0], tests=[0.3, 0.1], tested=[1, 3], seconds=[1.0, 2.0, 0.5]),
        point(noise=0.1): fit([0.4], seconds=[2.0, 9.0]),  # the second epoch broke off
    }
    found = by_epoch(sweep_table(results, results))
    assert [row["epoch"] for row in rows_of(found)] == [1, 2, 3, 1]
    assert [row["seconds"] for row in rows_of(found)] == [1.0, 3.0, 3.5, 2.0]
    assert [row["test_error"] for row in rows_of(found)] == [0.3, None, 0.1, None]
    assert [row["train_mse"] for row in rows_of(found)] == pytest.approx([0.05, 0.02, 0.0, 0.04])
    assert list(found.index) == [0, 0, 0, 1]


def test_levels_of_solves():
    solve = Exact(sample=Sample(data="digits", n=100), kernel=gaussian(5.0), noises=(0.0, 0.1))
    levels = [{"noise": noise, "rkhs_norm": 10 + noise} for noise in (0.0, 0.1)]
    found = rows_of(by_level(sweep_table([solve], {solve: {"levels": levels, "n": 100, "data_source": "digits"}})))
    assert [(row["n"], row["noise"], row["rkhs_norm"]) for row in found] == [(100, 0.0, 10.0), (100, 0.1, 10.1)]
    assert "levels" not in found[0]


def test_a_table_of_text():
    frame = table(
        [{"name": "a", "of": {"x/y": [0.5]}, "value": None}, {"name": "b", "of": {"x/y": [0.25]}, "value": 3.0}]
    )
    found = Table.of(
        "first {name}", frame, ("", "{name}!"), ("of", "{of[x/y][0]:.0%}"), ("value", "{value:g}", "no {name}")
    )
    assert (found.title, found.header) == ("first a", ("", "of", "value"))
    assert found.rows == [("a!", "50%", "no a"), ("b!", "25%", "3")]


def drawn(rows, **options):
    """A panel of y against x, and its lines as (x, y)."""
    _, ((axes,),) = panels(1, 1)
    panel(axes, table(rows), "x", "y", **options)
    return axes, [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def test_a_panel_has_a_curve_for_each_group():
    rows = [
        {"kernel": name, "x": x, "y": x * scale} for name, scale in (("laplacian", 2), ("gaussian", 1)) for x in (1, 2)
    ]
    rows.append({"kernel": "gaussian", "x": 3, "y": None})
    axes, lines = drawn(rows, by="kernel", look=kernel_look, label="the {kernel}", title="y of the {kernel}")
    assert lines == [([1, 2], [2, 4]), ([1, 2], [1, 2])]
    assert [line.get_label() for line in axes.lines] == ["the laplacian", "the gaussian"]
    assert same_color(axes.lines[1].get_color(), kernel_look({"kernel": "gaussian"})["color"])
    assert axes.get_title(loc="left") == "y of the laplacian"


def test_a_panel_with_gaps():
    rows = [{"x": x, "y": y} for x, y in ((1, 5.0), (2, None), (3, 7.0))]
    assert drawn(rows)[1] == [([1, 3], [5.0, 7.0])]
    _, ((x, y),) = drawn(rows, gaps=True)
    assert (x, np.isnan(y).tolist()) == ([1, 2, 3], [False, True, False])


def test_a_panel_with_bands_and_marks():
    rows = [{"name": "a", "x": x, "y": y, "limit": 0.5} for x, y in ((2, 1.0), (2, 3.0), (1, 4.0))]
    rows += [{"name": "b", "x": 1, "y": None, "limit": None}]
    mark = Mark("limit", "limit of {name}")
    axes, lines = drawn(rows, by="name", band=True, mark=mark)
    assert lines[0] == ([1, 2], [4.0, 2.0])  # the mean at each x, in their order
    assert [line.get_label() for line in axes.lines[1:]] == ["limit of a"]
    assert axes.lines[1].get_ydata() == [0.5, 0.5]
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    ends = corners[corners[:, 0] == 2][:, 1]
    assert (ends.min(), ends.max()) == pytest.approx((2 - 2**0.5, 2 + 2**0.5))  # one standard deviation of 1 and 3


def test_axes():
    rows = [{"x": x, "y": y} for x, y in ((100, 0.5), (1500, 0.25))]
    axes, _ = drawn(rows, across=counts("n"), up=percent("error"))
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "n", "error")
    assert [text.get_text() for text in axes.get_xticklabels()] == ["100", "1.5k"]
    assert axes.yaxis.get_major_formatter()(0.25) == "25%"
    axes, _ = drawn(rows, across=scale("x", ticks={100: "few"}), up=scale("y", 2))
    assert [text.get_text() for text in axes.get_xticklabels()] == ["few"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")


def test_names_and_labels_stand_once():
    figure, axes = panels(2, 2, sharex="col")
    for row in axes:
        for each, name in zip(row, ("left", "right"), strict=True):
            panel(each, table([{"n": 10, "y": 1.0}, {"n": 20, "y": 2.0}]), "n", "y", label=name, up=scale("error"))
    finish(figure)
    assert [[each.get_ylabel() for each in row] for row in axes] == [["error", ""], ["error", ""]]
    assert [[each.get_xlabel() for each in row] for row in axes] == [["", ""], ["n, training rows"] * 2]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["left", "right"]
