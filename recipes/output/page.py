"""A self-contained HTML page: no script, no network, figures embedded."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 2rem auto; max-width: 62rem;
  padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 3rem; border-top: 1px solid #ccc; padding-top: 1rem; }
h3 { font-size: 1.05rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 13px; overflow-wrap: normal; }
th, td { padding: 0.2rem 0.7rem; text-align: right; border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child, td:last-child, th:last-child, .text th, .text td { text-align: left; }
.values td:last-child, .values th:last-child { text-align: right; }
.values td:not(:first-child) { white-space: nowrap; }
.values td:first-child { position: sticky; left: 0; background: #fff; min-width: 7rem; }
.text td { vertical-align: top; min-width: 6rem; overflow-wrap: anywhere; }
caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; background: #fff; }
.panels { display: flex; flex-wrap: wrap; gap: 0 1rem; } .panels figure { margin: 0.5rem 0; max-width: 100%; }
.beside { display: flex; flex-wrap: wrap; gap: 0 1.5rem; } .beside > * { flex: 1 1 22rem; min-width: 0; }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 50%; }
.small { color: #555; font-size: 13px; } .note { background: #fff6dd; padding: 0.4rem 0.7rem; }
code { background: #f3f3f3; padding: 0 0.2rem; }
@media (prefers-color-scheme: dark) {
  body { color: #e4e4e4; background: #16181b; } a { color: #7db7ff; }
  h2 { border-color: #444; } th, td { border-color: #333; } code { background: #2a2d31; }
  .values td:first-child { background: #16181b; }
  .small { color: #aaa; } .note { background: #3d3415; } img { border-radius: 4px; }
}
@media print { h2 { break-before: page; } body { max-width: none; } }
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser loads and runs: nothing, whatever the texts of a page are."""


def document(title: str, body: str) -> str:
    """The page, of a title as plain text and a body as HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n{body}</body></html>\n"
    )


def image(alt: str, svg: str) -> str:
    """A figure embedded in the page as an image, so that the ids inside different figures cannot clash."""
    return f'<figure><img alt="{escape(alt)}" src="{_embedded("image/svg+xml", svg.encode())}"></figure>'


def picture(
    alt: str,
    png: bytes,
    width: int,  # rem at most: files have more pixels than a screen
) -> str:
    """A PNG file embedded in the page."""
    style = f"max-width:min(100%,{width}rem)"
    return f'<figure><img alt="{escape(alt)}" style="{style}" src="{_embedded("image/png", png)}"></figure>'


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "numbers") -> str:
    """A table with a caption, which scrolls where the page is narrow.

    Args:
        title: the caption.
        header: headings of the columns.
        rows: the cells, as plain text.
        kind: "numbers", whose last column is text; "values", all numbers but the first column; or "text".
    """
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    caption = f"<caption>{escape(title)}</caption>"
    inside = f"{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table class="{kind}">{inside}</table></div>'


def _embedded(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
