"""What MkDocs cannot do by itself: pages that are made from the code and the results, links into the repository, and
equations without a script.

- CONTRIBUTING.md and the like are pages, as they stand, and so are the notebooks, with their output.
- A link from a page to a file outside docs/ works in the repository as it stands. On the site a figure or record of
  lightning_logs/reference is copied, and a source file becomes a page.
- `{{ commands }}` is every option of every command; `{{ measurements }}` and `{{ sets }}` are tables of `kl bench`. A
  results.json of `kl reproduce` is a page.
- Equations become MathML, which browsers draw, in the font that ziamath brings.
"""

from __future__ import annotations

import html
import logging
import posixpath
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import benchmarks  # noqa: E402 - beside this file, as the next two
import commands  # noqa: E402
import experiments  # noqa: E402
import notebooks  # noqa: E402

log = logging.getLogger("mkdocs.hooks.kl")

PAGES = {"CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md"}
"""Files at the root that are pages of the site."""
MADE = {"commands": commands.markdown, "measurements": benchmarks.measurements, "sets": benchmarks.sets}
"""What stands in double braces on a page, and what makes it."""
MATH_FONT = "STIXTwoMath-Regular.ttf"
ALONE = ("index.md", "glossary.md")
"""Pages that have no others beside them, and need no list of these."""
COPIED = "lightning_logs/reference/"
RECORD = re.compile(COPIED + r"reproduce/([a-z-]+)-full/results\.json")
SOURCES = {".py": "python", ".toml": "toml", ".yml": "yaml", "": "text", ".cff": "yaml"}
LINK = re.compile(r"(\]\()([^)\s#]*)(#[^)\s]*)?(\))")
FENCE = re.compile(r"(^ *(`{3,}|~{3,}).*?^ *\2`*~*$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and everything outside docs/ that a page links to."""
    for name, page in PAGES.items():
        if (ROOT / name).is_file():
            files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    for page, text in experiments.pages(ROOT / COPIED / "reproduce").items():
        files.append(File.generated(config, page, content=text))
    texts, figures = notebooks.pages(DOCS / notebooks.FOLDER)
    for path in figures:
        if (beside := files.get_file_from_path(path)) is not None:
            files.remove(beside)
    for path, made in {**texts, **figures}.items():
        files.append(File.generated(config, path, content=made))
    files.append(File.generated(config, f"assets/{MATH_FONT}", abs_src_path=str(math_font())))
    for file in list(files.documentation_pages()):
        folder = origin(file.src_uri).parent
        for link in LINK.finditer(without_fences(file.content_string)):
            target = repository_path(link[2], folder)
            if target and not files.get_file_from_path(site_path(target, file.src_uri)):
                add(files, config, target, file.src_uri)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links into the repository to links within the site, and fill in what is made."""
    if page.file.src_uri in ALONE:
        page.meta["hide"] = ["navigation"]
    for name, made in MADE.items():
        if f"{{{{ {name} }}}}" in markdown:
            markdown = markdown.replace(f"{{{{ {name} }}}}", made())
    here = page.file.src_uri
    parts = FENCE.split(markdown)  # text, fence, its mark, text, ...
    change = partial(_site_link, folder=origin(here).parent, here=posixpath.dirname(here))
    return "".join(LINK.sub(change, part) if i % 3 == 0 else part for i, part in enumerate(parts) if i % 3 != 2)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draw the equations."""
    content = re.sub(r'(<span class="arithmatex">)\\\((.*?)\\\)(</span>)', _math("inline"), content, flags=re.DOTALL)
    return re.sub(r'(<div class="arithmatex">)\s*\\\[(.*?)\\\]\s*(</div>)', _math("block"), content, flags=re.DOTALL)


def origin(page: str) -> Path:
    """The file of the repository that a page is made from, which its links are relative to."""
    names = {page: name for name, page in PAGES.items()}
    return ROOT / names[page] if page in names else DOCS / page


def repository_path(target: str, folder: Path) -> str | None:
    """The path in the repository of a link to a file outside docs/; None for all other links."""
    if not target or ":" in target:
        return None
    path = posixpath.normpath(posixpath.join(folder.relative_to(ROOT).as_posix(), target))
    return None if path.startswith(("docs/", "..")) else path


def site_path(path: str, page: str) -> str:
    """Where a file of the repository that a page links to stands on the site.

    The record of an experiment is its page; only that page itself links to the numbers.
    """
    record = RECORD.fullmatch(path)
    if record and not page.startswith(experiments.FOLDER):
        return f"{experiments.FOLDER}/{record[1]}.md"
    if path in PAGES:
        return PAGES[path]
    if path == "README.md":
        return "index.md"
    return path if path.startswith(COPIED) else f"source/{path}.md"


def add(files: Files, config: MkDocsConfig, path: str, linked_from: str) -> None:
    """Copy a file of the records, or make a page of a source file."""
    file = ROOT / path
    if not file.is_file():
        log.warning(f"a page links to {path}, which is no file")
    elif path.startswith(COPIED):
        files.append(File.generated(config, path, abs_src_path=str(file)))
    else:
        language, text = SOURCES.get(file.suffix, "text"), file.read_text(encoding="utf-8")
        page = f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n``````{language}\n{text}\n``````\n"
        files.append(File.generated(config, site_path(path, linked_from), content=page))


def math_font() -> Path:
    """The font of the equations in the package that brings it, which is found and not imported: its import warns."""
    found = find_spec("ziamath")
    assert found is not None, "make docs installs ziamath"
    return next(Path(str(found.origin)).parent.rglob(MATH_FONT))


def without_fences(markdown: str) -> str:
    """The text without its blocks of code."""
    return FENCE.sub("", markdown)


def _site_link(link: re.Match[str], folder: Path, here: str) -> str:
    target = link[2]
    outside = repository_path(target, folder)
    if outside:
        target = posixpath.relpath(site_path(outside, f"{here}/"), here or ".")
    elif target and ":" not in target and folder != (DOCS / here):  # a page that stands at the root of the repository
        inside = (folder / target).relative_to(DOCS).as_posix()
        target = posixpath.relpath(inside, here or ".")
    return f"{link[1]}{target}{link[3] or ''}{link[4]}"


def _math(display: str) -> Callable[[re.Match[str]], str]:
    def drawn(found: re.Match[str]) -> Any:
        return found[1] + convert(html.unescape(found[2]).strip(), display=display) + found[3]

    return drawn
