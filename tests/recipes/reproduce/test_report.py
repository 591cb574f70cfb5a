"""The report of all experiments: one page that needs nothing else, and that a browser shows without complaint."""

import re
from html.parser import HTMLParser

from browser import visit

from recipes.reproduce.page.drawing import panels
from recipes.reproduce.page.html import report
from recipes.reproduce.page.presentation import Claim, Comparison, Presentation, Table

VOID = {"meta", "link", "img", "br", "!doctype"}


def record(name):
    return {
        "experiment": name,
        "title": f"{name} <&>",
        "source": "a paper",
        "scale": "tiny",
        "command": "kl reproduce all",
        "points": 3,
        "seconds_of_points": 1.5,
        "warnings": ["a lossy copy"],
        "points_commits": ["0123456789abcdef"],
        "points_machines": [{"gpu": None, "cpu": "a processor", "cores": 2, "torch": "2.11"}],
    }


def page(failed=None):
    figure, axes = panels(1, 2)
    axes[0, 0].plot([1, 2, 3], [1, 4, 9])
    shown = Presentation(
        figures={"a": figure},
        rows=[],
        comparisons=[
            Comparison("close", 1.0, 1.1, "a table", tolerance=0.2),
            Comparison("far", 1.0, 2.0, "a table", tolerance=0.2),
            Comparison("open", 1.0, 2.0, "a table"),
        ],
        claims=[Claim("it grows", True, "so it does", "a figure"), Claim("it ends", None, "not seen", "a figure")],
        tables=[Table("numbers", ("x", "y"), [("1", "<script>alert(1)</script>")])],
        sentences=["1 < 2"],
    )
    return report([(record("first"), shown), (record("second"), Presentation(figures={}, rows=[]))], failed or {})


class Structure(HTMLParser):
    """Open tags, addresses, and texts by their tag."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.texts, self.ids = [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        self.ids |= {value for name, value in attrs if name == "id"}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_every_tag_is_closed_and_nothing_is_fetched():
    found = Structure()
    found.feed(page())
    assert found.open == []
    assert all(address.startswith(("data:", "#")) for address in found.addresses)
    assert {address[1:] for address in found.addresses if address.startswith("#")} <= found.ids
    assert "script" not in re.findall(r"<(\w+)", page())
    assert "<script>alert(1)</script>" in found.texts  # as text


def test_what_it_sums_up():
    text = page({"third": "no <data>"})
    assert "1 of 2 numbers that have a tolerance are within it" in text
    assert "Of 2 claims 1 hold, 0 do not, and 1 cannot be told" in text
    assert "third failed: no &lt;data&gt;" in text
    assert text.count("a lossy copy") == 2


def test_a_browser_shows_it(tmp_path):
    from PIL import Image

    path, shot = tmp_path / "report.html", tmp_path / "shot.png"
    path.write_text(page())
    visit(path, tmp_path / "profile", "--window-size=1000,1400", f"--screenshot={shot}")
    blue = sum(count for count, pixel in Image.open(shot).convert("RGB").getcolors(2**24) if pixel == (31, 119, 180))
    assert blue > 100  # the curve: the figure was shown, not only its name
