"""`kl report`: what its page says of one and of several runs, and that a browser shows it."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from browser import visit

from recipes.report.figures import curves_of, panels_of

ROOT = Path(__file__).resolve().parents[3]
VOID = {"meta", "link", "img", "br", "!doctype"}
MEASURE = """<script>onload = () => {
    const page = frames[0].document, broken = [...page.images].filter(each => !each.naturalWidth)
    const found = [page.documentElement.scrollWidth, frames[0].innerWidth, broken.length, page.images.length]
    document.title = found.join(" ")
}</script>"""
ODD = 'b<i>&"$x$'


class Page(HTMLParser):
    """A page's structure: tags that are open at the end, addresses, alternative texts, texts, and tables by caption."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.ids, self.alts, self.texts, self.tables = [], [], set(), [], [], {}
        self.tags, self._rows = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        self.addresses += [found[name] for name in ("src", "href") if name in found]
        self.ids |= {found["id"]} if "id" in found else set()
        if tag == "img":
            self.alts.append(found["alt"])
        if tag == "caption":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open[-1:] == ["caption"]:
            self.tables[data] = self._rows
        if self.open[-1:] in (["td"], ["th"]):
            self._rows[-1][-1] += data

    def column(self, caption, index=1):
        """The cells of a column by the first cell of their line."""
        return {row[0]: row[index] for row in self.tables[caption][1:]}

    def says(self, text):
        return any(text in each for each in self.texts)


@pytest.fixture(scope="module")
def whole(run_of, tmp_path_factory):
    """The text of the page of all three runs."""
    from recipes.app import app

    path = tmp_path_factory.mktemp("page") / "three.html"
    app(
        ["report", *(str(run_of(name)) for name in ("plain", ODD, "line")), "--output", str(path)],
        standalone_mode=False,
    )
    return path.read_text(encoding="utf-8")


def record_of(folder):
    return json.loads((folder / "results.json").read_text())


def test_one_run(kl, copied):
    folder = copied()
    done = kl("report", folder)
    assert done.code == 0, done.err
    assert done.out.startswith(f"page: {folder / 'report.html'} (")
    page, record = Page((folder / "report.html").read_text(encoding="utf-8")), record_of(folder)
    results = record["results"]
    numbers = page.column("Each run beside its exact limit")
    limits = page.column("Each run beside its exact limit", 2)
    assert numbers["train mse"] == f"{results['train_mse']:.3e}"
    assert numbers["test error"] == f"{results['test_error']:.2%}"
    assert limits["RKHS norm"] == f"{results['exact_rkhs_norm']:.6g}"
    run = page.column("Data, kernel and solver")
    assert (run["state"], run["data"], run["epochs"]) == ("finished", "digits, n=200 d=64 c=10", "3")
    where = page.column("Command, commit and machine")
    assert where["command"] == "kl fit --data digits --train-size 200 --test-size 100 --epochs 3 --name plain"
    assert where["commit"] == record["commit"]
    assert where["processor"] == record["machine"]["cpu"]
    assert where["compiled code"] == (record["machine"]["compiled"] or "none").strip("_")
    assert where["numpy"] == record["machine"]["versions"]["numpy"]
    options = page.tables["Options other than the defaults"]
    assert options[1:] == [["--train-size", "200", "–"], ["--test-size", "100", "–"], ["--epochs", "3", "10"]]
    wrong = sum(count for true, predicted, count in record["confusion"]["counts"] if true != predicted)
    assert f"confusion matrix of 10 classes: {wrong} of 100 test rows wrong" in page.alts
    assert sum(int(row[2]) for row in page.tables["Most frequent confusions"][1:]) <= wrong
    listed = page.tables["Misclassified rows with the largest margins f_predicted - f_true"][1:]
    assert [int(row[0]) for row in listed] == [error["row"] for error in record["worst_errors"]]
    assert any(each.startswith("eigenvalues by index; ") for each in page.alts)
    titles = [each.partition(" by epoch; ")[0] for each in page.alts if " by epoch; " in each]
    assert titles[:5] == ["training mse", "training error", "test mse", "test error", "RKHS norm"]
    assert f", exact limit {results['exact_test_error']:.2%}" in page.alts[3]


def test_several_runs(whole, run_of):
    page = Page(whole)
    assert page.tables["Options that differ"][0] == [
        "",
        "A: plain/version_0",
        f"B: {ODD}/version_0",
        "C: line/version_0",
    ]
    differ = {row[0]: row[1:] for row in page.tables["Options that differ"][1:]}
    assert differ["--kernel"] == ["laplacian", "gaussian", "laplacian"]
    assert differ["--label-noise"] == ["0.0", "0.1", "0.0"]
    assert differ["--no-exact"] == ["false", "false", "true"]
    assert "--seed" not in differ
    assert "--name" not in differ
    header = page.tables["Each run beside its exact limit"][0]
    assert header[:3] == ["", "A: EigenPro, 3 epochs", "A: exact limit"]
    assert header[-1] == "C: EigenPro, 2 epochs"  # without a limit
    assert page.says("C: there is no exact limit: it was left out (--no-exact)")
    assert page.says("A confusion matrix is of a classifier")
    residuals = page.tables["Rows with the largest residuals |f(x) - y|"][1:]
    assert [float(row[3]) for row in residuals] == pytest.approx(
        [abs(float(row[1]) - float(row[2])) for row in residuals], rel=0.01, abs=1e-4
    )
    (norm,) = [each for each in page.alts if each.startswith("RKHS norm by epoch")]
    assert re.findall(r"(?:; )(\w) ", norm) == ["A", "B", "C"]
    results = record_of(run_of(ODD))["results"]
    assert page.says("By the weights of the last") == (results["best_epoch"] != results["last"]["epoch"])


def test_it_is_self_contained_and_names_are_text(whole):
    page = Page(whole)
    assert page.open == []
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= page.ids
    assert not page.tags & {"script", "i", "iframe", "object"}
    assert "default-src 'none'" in whole
    assert page.says(ODD)
    assert all(page.alts)


def test_defaults_and_json(kl, copied, tmp_path):
    for name, version in (("plain", 9), ("plain", 10), ("line", 0)):
        copied(name).rename(tmp_path / f"{name}-{version}")
        (tmp_path / "all" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}-{version}").rename(tmp_path / "all" / name / f"version_{version}")
    checkpoint = Path("all/line/version_0/checkpoints/last.ckpt")
    done = kl("report", "all/plain", checkpoint, "all/line")  # the third is the second
    assert done.code == 0, done.err
    assert "all/plain: version_10 is the latest of 2 runs there" in done.out
    assert "page: all/report.html (" in done.out
    said = json.loads(kl("report", "all/line", "--json").out)
    assert said["output"] == str(tmp_path / "all/line/version_0/report.html")
    assert said["bytes"] == Path(said["output"]).stat().st_size
    (run,) = said["runs"]
    assert (run["folder"], run["finished"]) == ("all/line/version_0", True)
    assert run["notes"] == ["there is no exact limit: it was left out (--no-exact)"]


def test_a_run_of_record(kl, tmp_path):
    """Of an older kl: without options, spectrum and confusion, its machine in words."""
    done = kl("report", ROOT / "lightning_logs/reference/mnist-10000-laplacian", "--output", tmp_path / "page.html")
    assert done.code == 0, done.err
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.column("Each run beside its exact limit")["test error"] == "2.98%"
    assert "2 cores of an AMD EPYC" in page.column("Command, commit and machine")["processor"]
    assert page.says("There is no config.yaml")
    assert page.says("Unknown, for the folder holds no record of it")
    assert any("RKHS norm by epoch" in each and "exact limit 61.54" in each for each in page.alts)


def test_a_run_on_its_way(kl, copied):
    """As KeepRecord leaves it before the end; the last values are those of the epochs."""
    folder = copied()
    record = record_of(folder)
    on_its_way = record | {"finished": False, "results": None, "confusion": None, "worst_errors": None}
    (folder / "results.json").write_text(json.dumps(on_its_way))
    assert kl("report", folder).code == 0
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert page.says("The run has not finished: after 3 epochs")
    assert page.column("Data, kernel and solver")["kernel"] == "laplacian"
    assert page.column("Each run beside its exact limit")["test mse"] == f"{record['results']['test_mse']:.3e}"
    assert page.column("Command, commit and machine")["commit"] == record["commit"]
    assert page.says("Found at the end of a run, which has not finished")


def test_what_is_in_a_file_is_text(kl, copied):
    folder = copied()
    record = record_of(folder)
    evil = "<script>alert(1)</script>"
    record["confusion"]["names"] = [f"{evil}$\\x$ \u6570{k}" for k in range(10)]
    record["worst_errors"] = [{"row": 0, "true": evil, "predicted": "$", "by": 1.0}]
    record["machine"] = {"cpu": evil, "versions": {evil: evil}}
    record["results"] |= {"data": evil, "kernel": evil, "kernel_parameters": {evil: [evil]}}
    (folder / "results.json").write_text(json.dumps(record))
    (folder / "figures" / "val_worst_errors.png").write_text(evil)  # no picture
    assert kl("report", folder).code == 0
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "script" not in Page(text).tags
    assert html.escape(evil) in text


def test_what_is_no_character_is_shown_as_a_question_mark(kl, copied):
    """Python keeps the bytes of an argument or a file's name that are not UTF-8 as surrogates, and so does JSON."""
    folder = copied()
    record = record_of(folder)
    record["command"] = "kl fit --name \udcff"
    record["confusion"]["names"] = [f"\udcff{k}\n\x01" for k in range(10)]
    (folder / "results.json").write_text(json.dumps(record))
    assert kl("report", folder).code == 0
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert page.column("Command, commit and machine")["command"] == "kl fit --name ?"


def test_an_axis_stays_logarithmic_where_a_curve_reaches_zero(monkeypatch):
    monkeypatch.setattr("recipes.report.figures.as_svg", lambda figure: figure.axes[0].get_yscale())
    panel = next(each for each in panels_of("test") if each.title.startswith("RKHS distance"))
    for values, scale in (([10.0, 0.01, 0.0], "log"), ([0.0, 0.0], "linear")):
        points = list(enumerate(values, start=1))
        drawn = curves_of(panel, [SimpleNamespace(curves={"exact/distance": points}, results={})], [""])
        assert drawn.svg == scale
        assert drawn.alt.endswith(f"0 after epoch {len(values)}")


def test_a_browser_shows_it_on_a_phone_and_says_nothing(whole, tmp_path):
    framed = tmp_path / "framed.html"
    framed.write_text(
        f'<!doctype html><iframe style="width:390px;height:800px" srcdoc="{html.escape(whole)}"></iframe>{MEASURE}'
    )
    shown = visit(framed, tmp_path / "profile", "--dump-dom")
    wide, window, broken, images = map(int, re.search(r"<title>([\d ]+)</title>", shown)[1].split())
    assert (window, broken) == (390, 0)
    assert wide <= window
    assert images == len(Page(whole).alts) > 8
