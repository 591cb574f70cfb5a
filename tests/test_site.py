"""`make docs` builds the whole site: no broken link, nothing from a host, no browser error, readable on a phone."""

import functools
import html
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
MISSING = [name for name in ("mkdocs", "material", "mkdocstrings", "ziamath") if importlib.util.find_spec(name) is None]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHOWN = (  # one of each kind, and all that have wide tables or equations
    *("", "data/", "images/", "extend/", "tensorboard/", "how/eigenpro2/", "how/leave-one-out/", "how/products/"),
    *("results/", "results/papers/", "results/speed/", "results/tables/", "results/experiments/noise/", "glossary/"),
    *("reference/commands/", "reference/machines/", "reference/kernels/", "contributing/"),
)
PHONE, DESKTOP = 390, 1360  # pixels
# Opens every page in a frame of a phone's width, then of a desktop's, and writes down what it finds.
VISITOR = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><body><script>
const found = []
const visit = (page, width) => new Promise(done => {
  const frame = document.createElement("iframe")
  frame.style = `width:${width}px;height:800px;border:0`
  frame.src = "/" + page
  frame.onload = () => setTimeout(() => {
    const root = frame.contentDocument.documentElement
    const broken = [...frame.contentDocument.images].filter(each => each.complete && !each.naturalWidth)
    found.push({page, width, scroll: root.scrollWidth, broken: broken.map(each => each.src)})
    frame.remove(); done()
  }, 300)
  document.body.append(frame)
})
const all = async () => {
  for (const page of PAGES) for (const width of WIDTHS) await visit(page, width)
  document.body.innerHTML = "<pre id=found>" + JSON.stringify(found) + "</pre>"
}
all()
</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed: make docs does it"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """The text of every page, by its path."""
    found = {path.relative_to(site): path.read_text(encoding="utf-8") for path in site.rglob("index.html")}
    assert len(found) > 60
    return found


def attributes(text, *names):
    return [html.unescape(value) for value in re.findall(rf'(?:{"|".join(names)})="([^"]*)"', text)]


def test_nothing_is_loaded_from_a_host(site, pages):
    for path, text in pages.items():
        loaded = re.findall(r"<(?:script|link|img|source|iframe|video)\b[^>]*>", text)
        assert not [value for tag in loaded for value in attributes(tag, "src", "href", "srcset") if "//" in value], (
            path
        )
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_links_lead_somewhere(site, pages):
    ids = {path: set(attributes(text, "id", "name")) for path, text in pages.items()}
    for path, text in pages.items():
        for link in attributes(text, "href", "src"):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("//"):
                continue
            target = (site / path.parent / unquote(parts.path)).resolve() if parts.path else site / path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path}: {link}"
            known = ids.get(target.relative_to(site))
            assert not parts.fragment or known is None or unquote(parts.fragment) in known, f"{path}: {link}"


def test_the_reference_has_docstrings_and_every_option(pages):
    machines, commands = (pages[Path("reference", name, "index.html")] for name in ("machines", "commands"))
    assert "one output per class, fitted to its training set by EigenPro 2" in machines
    assert "half of m* on a CPU" in html.unescape(machines)
    for option in ("--label-noise", "--patch-encoding", "--resume", "--round-epochs"):
        assert f"<code>{option}</code>" in commands
    for name in ("kl fit", "kl predict", "kl data synthetic", "kl bench tables"):
        assert re.search(rf"<h2[^>]*>{name}<", commands), name


def test_equations_are_drawn(pages):
    text = pages[Path("how", "eigenpro2", "index.html")]
    assert text.count("<math") > 20
    assert not [path for path, text in pages.items() if re.search(r'class="arithmatex">\s*\\[(\[]', text)]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_pages_in_a_browser(site, tmp_path):
    script = f"const PAGES = {json.dumps(SHOWN)}, WIDTHS = {[PHONE, DESKTOP]}\n"
    (site / "visitor.html").write_text(VISITOR.replace("<script>", f"<script>{script}"))
    handler = functools.partial(Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
        options = [f"--user-data-dir={tmp_path}", "--window-size=1400,900", "--virtual-time-budget=60000"]
        address = f"http://127.0.0.1:{server.server_port}/visitor.html"
        done = subprocess.run(
            [*command, *options, address],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "HOME": "/tmp"},
        )
    finally:
        server.shutdown()
        server.server_close()
    said = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert not said
    assert not Quiet.missing
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)[1]))
    assert len(found) == 2 * len(SHOWN)
    assert not [each for each in found if each["broken"] or each["scroll"] > each["width"]]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and writes down what is missing."""

    missing: ClassVar[list[str]] = []

    def log_message(self, *_):
        """Say nothing."""

    def send_error(self, code, *rest):
        """Note what is not there."""
        Quiet.missing.append(f"{code} {self.path}")
        super().send_error(code, *rest)
