"""A page for each experiment of record: figures, claims, comparisons and tables, as its results.json has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import Any

from recipes.reproduce.page.html import provenance
from recipes.reproduce.page.presentation import HEADER, Comparison

FOLDER = "results/experiments"


def pages(reproduced: Path) -> dict[str, str]:
    """The pages by path, from the folders NAME-full."""
    found = sorted(reproduced.glob("*-full/results.json"))
    return {f"{FOLDER}/{path.parent.name.removesuffix('-full')}.md": page(path) for path in found}


def page(path: Path) -> str:
    """The page of one experiment."""
    record = json.loads(path.read_text(encoding="utf-8"))
    name, folder = record["experiment"], f"../../../lightning_logs/reference/reproduce/{path.parent.name}"
    parts = [
        f"# {name}",
        f"{escape(record['title'])}. Source: {escaped(record['source'])}.",
        f"- Command: `{record['command']}`\n"
        f"- Points: {record['points']}, computed in {record['seconds_of_points']:.0f} s\n"
        f"- Of record: {escaped(provenance(record))}\n"
        f"- Numbers: [results.json]({folder}/results.json), [results.csv]({folder}/results.csv)",
    ]
    parts += [f"!!! note\n    {escaped(text)}" for text in record["warnings"]]
    parts += [f"![{figure.stem}]({folder}/{figure.name})" for figure in sorted(path.parent.glob("*.png"))]
    if record["sentences"]:
        parts += ["## What the results say", "\n".join(f"- {escaped(text)}" for text in record["sentences"])]
    if record["claims"]:
        rows = [[claim[key] for key in ("text", "verdict", "seen", "source")] for claim in record["claims"]]
        parts += ["## Claims", table(("claim", "verdict", "seen here", "source"), rows)]
    if record["comparisons"]:
        rows = [comparison(each).cells() for each in record["comparisons"]]
        parts += ["## Ours beside the published numbers", table(HEADER, rows)]
    if record["tables"]:
        parts.append("## Tables")
        for each in record["tables"]:
            parts += [f"**{escaped(each['title'])}**" if each["title"] else "", table(each["header"], each["rows"])]
    return "\n\n".join(parts) + "\n"


def comparison(record: dict[str, Any]) -> Comparison:
    """The comparison that a record was written from."""
    return Comparison(**{field.name: record[field.name] for field in fields(Comparison)})


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(escaped(str(cell)) for cell in line) + " |" for line in lines)


def escaped(text: str) -> str:
    """Text in which nothing is markup."""
    for sign in "\\*_|[$<":
        text = text.replace(sign, "\\" + sign)
    return text
