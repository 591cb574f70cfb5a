"""The page of one or several runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from callbacks.figures import CYCLE
from recipes.output.page import document, image, picture, table
from recipes.report.figures import curves_of, matrix_of, panels_of, spectra_of
from recipes.report.reading import CLASSES, Run
from recipes.report.tables import (
    confused_table,
    errors_table,
    numbers_table,
    options_table,
    origin_table,
    runs_table,
)

SECTIONS = {
    "runs": "What was run",
    "numbers": "Final numbers",
    "curves": "Curves against the exact limit",
    "confusion": "Confusion",
    "errors": "Worst errors",
    "spectrum": "Spectrum",
    "features": "Learnt features",
    "options": "Options",
    "origin": "Where the numbers come from",
}


def page(runs: Sequence[Run]) -> str:
    """The page as HTML."""
    letters = [chr(ord("A") + i) for i in range(len(runs))] if len(runs) > 1 else [""]
    title = f"kl report: {', '.join(run.label for run in runs)}"
    heading = f"Run {runs[0].label}" if len(runs) == 1 else f"{len(runs)} runs side by side"
    contents = {
        "runs": _runs(runs, letters),
        "numbers": _numbers(runs, letters),
        "curves": _curves(runs, letters),
        "confusion": _each(_confusion, runs, letters),
        "errors": _each(_errors, runs, letters),
        "spectrum": _spectrum(runs, letters),
        "features": _each(_features, runs, letters),
        "options": _options(runs, letters),
        "origin": table("Command, commit and machine", _header(runs, letters), origin_table(runs), "text"),
    }
    shown = {key: html for key, html in contents.items() if html}
    links = " · ".join(f'<a href="#{key}">{escape(SECTIONS[key])}</a>' for key in shown)
    sections = "".join(
        f'<section><h2 id="{key}">{escape(SECTIONS[key])}</h2>\n{html}</section>\n' for key, html in shown.items()
    )
    return document(title, f"<main><h1>{escape(heading)}</h1>\n<nav>{links}</nav>\n{sections}</main>")


def _each(part: Callable[[Run], str], runs: Sequence[Run], letters: Sequence[str]) -> str:
    """A part of each run that has it, side by side."""
    parts = {letter: (run, html) for letter, run in zip(letters, runs, strict=True) if (html := part(run))}
    if len(runs) == 1 or not parts:
        return "".join(html for _, html in parts.values())
    inside = "".join(
        f"<article><h3>{escape(letter)}: {escape(run.label)}</h3>\n{html}</article>\n"
        for letter, (run, html) in parts.items()
    )
    return f'<div class="beside">{inside}</div>'


def _runs(runs: Sequence[Run], letters: Sequence[str]) -> str:
    """Names in their colours, what each run is, and what it lacks."""
    names = "".join(
        f'<li><span class="swatch" style="background:{CYCLE[i]}"></span> {_name(letters[i], run)}</li>'
        for i, run in enumerate(runs)
    )
    legend = f'<ul aria-label="Colours of the runs">{names}</ul>\n' if len(runs) > 1 else ""
    notes = "".join(
        f'<p class="note">{escape(f"{letter}: {note}" if letter else note[0].upper() + note[1:])}.</p>\n'
        for letter, run in zip(letters, runs, strict=True)
        for note in run.notes
    )
    return legend + notes + table("Data, kernel and solver", _header(runs, letters), runs_table(runs), "text")


def _numbers(runs: Sequence[Run], letters: Sequence[str]) -> str:
    header, rows = numbers_table(runs, letters)
    return table("Each run beside its exact limit", header, rows, "values") if rows else _none("no epoch was finished")


def _curves(runs: Sequence[Run], letters: Sequence[str]) -> str:
    rows = {run.rows for run in runs}
    drawn = [curves_of(panel, runs, letters) for panel in panels_of(rows.pop() if len(rows) == 1 else "held-out")]
    figures = "".join(image(each.alt, each.svg) for each in drawn if each is not None)
    if not figures:
        return _none("no epoch was finished")
    held = "; held-out rows are the validation rows, or the test rows of a run without them" if rows else ""
    return (
        f'<div class="panels">{figures}</div>\n<p class="small">Dashed: the exact limit of the run in that colour. A '
        "logarithmic axis has no room for 0, and a limit far below the curve is rounding error: neither is drawn"
        f"{held}.</p>\n"
    )


def _confusion(run: Run) -> str:
    if run.confusion is None:
        return _none(_why_not(run, "a confusion matrix is of a classifier with test or validation rows"))
    parts = [_last_epoch(run)]
    if len(run.confusion["names"]) <= CLASSES:
        drawn = matrix_of(run.confusion, run.rows)
        parts.append(image(drawn.alt, drawn.svg))
    if rows := confused_table(run.confusion):
        parts.append(table("Most frequent confusions", ("true class", "predicted class", "rows"), rows, "values"))
    return "".join(parts)


def _errors(run: Run) -> str:
    if run.worst_errors is None:
        return _none(_why_not(run, "there are neither test nor validation rows"))
    if not run.worst_errors:
        return _none(f"no {run.rows} row is misclassified")
    classes = isinstance(run.worst_errors[0]["true"], str)
    title = "Misclassified rows with the largest margins f_predicted - f_true"
    title = title if classes else "Rows with the largest residuals |f(x) - y|"
    header = (f"{run.rows} row, from 0", "true", "predicted", "margin" if classes else "residual")
    listed = table(title, header, errors_table(run.worst_errors), "values")
    if run.worst_images is None:
        return _last_epoch(run) + listed
    alt = f"the {len(run.worst_errors)} {run.rows} images with the largest margins, as in the table below"
    shown = _last_epoch(run) + picture(alt, run.worst_images, 36)
    return f"{shown}<details><summary>As a table</summary>{listed}</details>"


def _last_epoch(run: Run) -> str:
    best, last = run.results.get("best_epoch"), run.results.get("last") or {}
    return "" if best in (None, last.get("epoch")) else _none("by the weights of the last epoch, not of the best")


def _spectrum(runs: Sequence[Run], letters: Sequence[str]) -> str:
    drawn = spectra_of(runs, letters)
    lack = "".join(
        _none(f"{letter + ': ' if letter else ''}{_why_not(run, 'its solver estimates no eigenvalues', late=False)}")
        for letter, run in zip(letters, runs, strict=True)
        if run.spectrum is None
    )
    text = (
        '<p class="small">The eigenvalues of the subsample that the preconditioner was built from. Dashed: the first q '
        "as the preconditioner leaves them; the largest of these sets the step size.</p>\n"
    )
    return (image(drawn.alt, drawn.svg) + text if drawn is not None else "") + lack


def _features(run: Run) -> str:
    if run.features is None:
        return ""
    return picture("the learnt metric, its eigenvalues and the score of each round", run.features, 60)


def _options(runs: Sequence[Run], letters: Sequence[str]) -> str:
    if not any(run.options for run in runs):
        return _none("no run has a config.yaml")
    rows = options_table(runs)
    if len(runs) == 1:
        header: tuple[str, ...] = ("option", "of this run", "default")
        return table("Options other than the defaults", header, rows, "text") if rows else _none("all are the defaults")
    if not rows:
        return _none("the options of these runs do not differ")
    return table("Options that differ", _header(runs, letters), rows, "text")


def _why_not(run: Run, why: str, late: bool = True) -> str:
    """Why a part is missing: what holds for a finished run, unless its record is not there, or comes too late."""
    if not run.recorded:
        return "unknown, for the folder holds no record of it"
    return "found at the end of a run, which has not finished" if late and not run.finished else why


def _header(runs: Sequence[Run], letters: Sequence[str]) -> tuple[str, ...]:
    return ("", *(f"{letter}: {run.label}" if letter else run.label for letter, run in zip(letters, runs, strict=True)))


def _name(letter: str, run: Run) -> str:
    return f"<strong>{escape(letter)}</strong> {escape(run.label)}"


def _none(why: str) -> str:
    return f'<p class="small">{escape(why[0].upper() + why[1:])}.</p>\n'
