"""The pages of the documentation as tests read them: blocks of code in order, and links."""

import re
import unicodedata
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
AT_THE_ROOT = sorted(ROOT.glob("*.md"))
FENCE = re.compile(r"^ *(`{3,})([a-z]*)\n(.*?)^ *\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]*)\)")


@cache
def text(path):
    return path.read_text(encoding="utf-8")


def blocks(path, *languages):
    """(language, code) of the fenced blocks, in the order of the page."""
    return [(each[2], each[3]) for each in FENCE.finditer(text(path)) if each[2] in languages]


def commands(code, program):
    """The lines of a block that call a program, without their comments."""
    return [line.split("#")[0].strip() for line in code.splitlines() if line.startswith(f"{program} ")]


def links(path):
    """The targets of all links and pictures, blocks of code aside."""
    return LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", text(path))))


@cache
def anchors(path):
    """What `path#anchor` may name: headings, as GitHub and MkDocs spell them, and spans with an id."""
    plain = FENCE.sub("", text(path))
    headings = re.findall(r"^#+ (.*)$", plain, re.MULTILINE)
    return {slug(heading) for heading in headings} | set(re.findall(r'id="([^"]+)"', plain))


def slug(heading):
    """The anchor of a heading."""
    letters = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", letters).strip().lower())
