"""The page of one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
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
    "runs": "Runs",
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
        "confusion": _confusion(runs, letters),
        "errors": _errors(runs, letters),
        "spectrum": _spectrum(runs, letters),
        "features": "".join(_features(*each) for each in zip(letters, runs, strict=True)),
        "options": _options(runs, letters),
        "origin": table("Command, commit and machine", _header(runs, letters), origin_table(runs), "text"),
    }
    shown = {key: html for key, html in contents.items() if html}
    links = " · ".join(f'<a href="#{key}">{escape(SECTIONS[key])}</a>' for key in shown)
    sections = "".join(
        f'<section><h2 id="{key}">{escape(SECTIONS[key])}</h2>\n{html}</section>\n' for key, html in shown.items()
    )
    return document(title, f"<main><h1>{escape(heading)}</h1>\n<nav>{links}</nav>\n{sections}</main>")


def _runs(runs: Sequence[Run], letters: Sequence[str]) -> str:
    """Names in their colours, what each run is, and what it lacks."""
    names = "".join(
        f'<li><span class="swatch" style="background:{CYCLE[i]}"></span> {_name(letters[i], run)}</li>'
        for i, run in enumerate(runs)
    )
    legend = f'<ul aria-label="Colours of the runs">{names}</ul>\n' if len(runs) > 1 else ""
    notes = "".join(
        f'<p class="note">{escape(f"{letter}: " if letter else "")}{escape(note)}.</p>\n'
        for letter, run in zip(letters, runs, strict=True)
        for note in run.notes
    )
    return legend + notes + table("What was run", _header(runs, letters), runs_table(runs), "text")


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
        f'<div class="panels">{figures}</div>\n<p class="small">Dashed: the exact limit of the run in that colour. On a '
        f"logarithmic axis a limit far below the curve is rounding error, and is not drawn{held}.</p>\n"
    )


def _confusion(runs: Sequence[Run], letters: Sequence[str]) -> str:
    parts = []
    for letter, run in zip(letters, runs, strict=True):
        parts.append(_title(letter, run))
        if run.confusion is None:
            parts.append(_none(_why_not(run, "a confusion matrix is of a classifier with test or validation rows")))
            continue
        if len(run.confusion["names"]) <= CLASSES:
            drawn = matrix_of(run.confusion, run.rows)
            parts.append(image(drawn.alt, drawn.svg))
        if rows := confused_table(run.confusion):
            parts.append(table("Most frequent confusions", ("true class", "predicted class", "rows"), rows, "values"))
    return "".join(parts)


def _errors(runs: Sequence[Run], letters: Sequence[str]) -> str:
    parts = []
    for letter, run in zip(letters, runs, strict=True):
        parts.append(_title(letter, run))
        if run.worst_errors is None:
            parts.append(_none(_why_not(run, "there are neither test nor validation rows")))
            continue
        if not run.worst_errors:
            parts.append(_none(f"no {run.rows} row is misclassified"))
            continue
        if run.worst_images is not None:
            alt = f"the {len(run.worst_errors)} {run.rows} images with the largest margins, as in the table below"
            parts.append(picture(alt, run.worst_images))
        classes = isinstance(run.worst_errors[0]["true"], str)
        what = "margin f_predicted - f_true" if classes else "residual |f(x) - y|"
        header = (f"{run.rows} row", "true", "predicted", what)
        title = "Misclassified rows with the largest margins" if classes else "Rows with the largest residuals"
        parts.append(table(title, header, errors_table(run.worst_errors), "values"))
    return "".join(parts)


def _spectrum(runs: Sequence[Run], letters: Sequence[str]) -> str:
    drawn = spectra_of(runs, letters)
    lack = "".join(
        _none(f"{letter + ': ' if letter else ''}{_why_not(run, 'its solver estimates no eigenvalues', late=False)}")
        for letter, run in zip(letters, runs, strict=True)
        if run.spectrum is None
    )
    text = (
        '<p class="small">The eigenvalues of the subsample that the preconditioner was built from; dashed, as '
        "the preconditioner leaves the first q, which sets the step size.</p>\n"
    )
    return (image(drawn.alt, drawn.svg) + text if drawn is not None else "") + lack


def _features(letter: str, run: Run) -> str:
    if run.features is None:
        return ""
    return _title(letter, run) + picture("the learnt metric, its eigenvalues and the score of each round", run.features)


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


def _title(letter: str, run: Run) -> str:
    return f"<h3>{escape(letter)}: {escape(run.label)}</h3>\n" if letter else ""


def _none(why: str) -> str:
    return f'<p class="small">{escape(why[0].upper() + why[1:])}.</p>\n'
