"""All experiments on one self-contained page: no script, no network, figures embedded."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from callbacks.figures import as_svg
from kl.system.files import written_whole
from recipes.output.page import document, image, table
from recipes.reproduce.page.presentation import HEADER, Presentation

Done = Sequence[tuple[dict[str, Any], Presentation]]


def write_report(path: Path, done: Done, failed: dict[str, str]) -> None:
    """Write the page, whole or not at all."""
    with written_whole(path) as file:
        file.write(report(done, failed).encode())


def report(done: Done, failed: dict[str, str]) -> str:
    """The page: contents, the agreement with the published numbers, and a section for each experiment."""
    contents = "".join(
        f'<li><a href="#{r["experiment"]}">{r["experiment"]}</a>: {escape(r["title"])}</li>' for r, _ in done
    )
    broken = "".join(f'<p class="note">{escape(name)} failed: {escape(why)}</p>' for name, why in failed.items())
    sections = "".join(section(record, shown) for record, shown in done)
    scale = done[0][0]["scale"] if done else ""
    return document(
        f"kl reproduce: {scale}",
        f"<h1>Kernel learning experiments, reproduced ({escape(scale)} scale)</h1>\n"
        f"<p>{agreement(done)}</p>{broken}<ol>{contents}</ol>\n{sections}",
    )


def agreement(done: Done) -> str:
    """A text: how many numbers agree and how many claims hold."""
    judged = [c.agrees for _, shown in done for c in shown.comparisons if c.agrees is not None]
    claims = [c.holds for _, shown in done for c in shown.claims]
    numbers = f"{sum(judged)} of {len(judged)} numbers that have a tolerance are within it of the published ones. "
    return (
        f"{numbers if judged else ''}Of {len(claims)} claims {claims.count(True)} hold, {claims.count(False)} do not, "
        f"and {claims.count(None)} cannot be told from these results."
    )


def section(record: dict[str, Any], shown: Presentation) -> str:
    """The section of one experiment."""
    parts = [
        f'<h2 id="{record["experiment"]}">{record["experiment"]}: {escape(record["title"])}</h2>',
        f'<p class="small">{escape(record["source"])}. <code>{escape(record["command"])}</code>, '
        f"{record['points']} points, {record['seconds_of_points']:.0f} s; {escape(provenance(record))}</p>",
    ]
    parts += [f'<p class="note">{escape(text)}</p>' for text in record["warnings"]]
    parts += [image(name, as_svg(figure)) for name, figure in shown.figures.items()]
    if shown.sentences:
        parts.append("<ul>" + "".join(f"<li>{escape(text)}</li>" for text in shown.sentences) + "</ul>")
    if shown.claims:
        rows = [(claim.text, claim.verdict, claim.seen, claim.source) for claim in shown.claims]
        parts.append(table("Claims", ("claim", "verdict", "seen here", "source"), rows, "text"))
    if shown.comparisons:
        parts.append(table("Ours beside the published numbers", HEADER, [each.cells() for each in shown.comparisons]))
    parts += [table(each.title, each.header, each.rows) for each in shown.tables]
    return "\n".join(parts) + "\n"


def provenance(record: dict[str, Any]) -> str:
    """Commit and machine of the points."""
    machines = [each for each in record["points_machines"] if each]
    where = "; ".join(f"{m['gpu'] or m['cpu']}, {m['cores']} cores, torch {m['torch']}" for m in machines)
    return f"commit {', '.join(commit[:12] for commit in record['points_commits'])}; {where}"
