"""The critical-difference picture."""

import pytest

from recipes.bench.tables.plot import draw, write_figure


def ranks(names, means, difference):
    return {"methods": names, "mean_ranks": means, "critical_difference": difference, "sets": 8, "level": 0.05}


def test_names_ranks_and_bars():
    figure = draw(ranks(["kl", "svm", "gp"], [1.2, 1.8, 3.0], 1.0))
    (axes,) = figure.axes
    said = {text.get_text().strip() for text in axes.texts}
    assert {"kl 1.20", "svm 1.80", "gp 3.00", "critical difference 1.00"} <= said
    thick = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 3]
    assert [list(each) for each in thick] == [pytest.approx([1.17, 1.83])]


def test_without_a_difference_there_is_no_picture(tmp_path):
    path = tmp_path / "ranks.png"
    write_figure(path, ranks(["kl", "svm"], [1.0, 2.0], 0.7))
    assert path.read_bytes().startswith(b"\x89PNG")
    write_figure(path, ranks(["kl"], [1.0], None))
    assert not path.exists()
