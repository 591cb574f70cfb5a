"""The predictions of `kl predict`, and the files that it writes: CSV, JSON or NumPy's .npz."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from torch import Tensor

STANDARD_OUTPUT = Path("-")

# A spreadsheet takes a cell that begins with one of these for a formula; the last four are full-width =, +, - and @.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Predictions:
    """Scores of rows, with the names of rows and outputs.

    Args:
        names: the names of the rows.
        scores: the scores, shape (m, c).
        far: whether a row is far from all centres, shape (m,), bool.
        classes: names of the outputs; None for regression.
        probabilities: of the classes, shape (m, c); None if the file of the model holds no temperature.
        targets: names of the outputs of a regression; None numbers them from 0.
    """

    names: list[str]
    scores: Tensor
    far: Tensor
    classes: list[str] | None
    probabilities: Tensor | None = None
    targets: list[str] | None = None

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs, or their numbers."""
        return self.classes or self.targets or [str(k) for k in range(self.scores.shape[1])]

    @property
    def columns(self) -> list[str]:
        """The names of a table's columns."""
        if self.classes is None:
            return ["row", "far", *(f"output_{name}" for name in self.outputs)]
        parts = ("score",) if self.probabilities is None else ("score", "probability")
        return ["row", "class", "margin", "far", *(f"{part}_{name}" for part in parts for name in self.classes)]

    def rows(self) -> Iterator[list[Any]]:
        """The rows of the table: texts, numbers, and true or false."""
        far, scores = self.far.tolist(), self.scores.tolist()
        if self.classes is None:
            yield from ([n, f, *s] for n, f, s in zip(self.names, far, scores, strict=True))
            return
        best, margin = self._best()
        p = [[]] * len(scores) if self.probabilities is None else self.probabilities.tolist()
        for name, k, gap, f, s, q in zip(self.names, best.tolist(), margin.tolist(), far, scores, p, strict=True):
            yield [name, self.classes[k], gap, f, *s, *q]

    def arrays(self) -> dict[str, Any]:
        """The predictions as NumPy arrays by name; the scores are one array, shape (m, c)."""
        import numpy as np

        arrays = {"row": np.array(self.names), "far": self.far.numpy(), "scores": self.scores.numpy()}
        if self.classes is None:
            return {**arrays, "output_names": np.array(self.outputs)}
        best, margin = self._best()
        classes = np.array(self.classes)
        if self.probabilities is not None:
            arrays["probabilities"] = self.probabilities.numpy()
        return {**arrays, "class": classes[best.numpy()], "margin": margin.numpy(), "class_names": classes}

    def _best(self) -> tuple[Tensor, Tensor]:
        """The class of the largest score, shape (m,), and its margin over the second largest, shape (m,)."""
        top = self.scores.topk(min(2, self.scores.shape[1]), dim=1)
        return top.indices[:, 0], top.values[:, 0] - top.values[:, -1]


def check_output(path: Path) -> None:
    """Check the path of the predictions before they are computed.

    Raises:
        InputError: the extension is of no known format, the folder is missing, or something else is there.
    """
    from kl import InputError
    from recipes.run.build import check_new_file

    if path == STANDARD_OUTPUT:
        return
    if path.suffix.lower() not in WRITERS:
        raise InputError(f"output must be a {known_formats()} file, or - for standard output; got {str(path)!r}")
    check_new_file("output", path)


def write(path: Path, predictions: Predictions) -> None:
    """Write the file in the format of its extension, whole or not at all; on standard output, write CSV.

    Raises:
        InputError: the file cannot be written.
    """
    from kl import InputError
    from kl.system.files import written_whole

    if path == STANDARD_OUTPUT:
        sys.stdout.flush()
        write_csv(sys.stdout.buffer, predictions)
        sys.stdout.buffer.flush()
        return
    try:
        with written_whole(path) as file:
            WRITERS[path.suffix.lower()](file, predictions)
    except OSError as error:
        raise InputError(f"output {path} cannot be written: {error.strerror}: give another --output") from error


def write_csv(file: BinaryIO, predictions: Predictions) -> None:
    """Write a table; an apostrophe precedes each text that a spreadsheet would take for a formula."""
    # Names of files may hold bytes that are no UTF-8.
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    try:
        table = csv.writer(text)
        table.writerow(_cell(name) for name in predictions.columns)
        table.writerows([_cell(value) for value in row] for row in predictions.rows())
    finally:
        text.detach()  # flushes, and leaves the file open


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        return "'" + value
    return value


def write_json(file: BinaryIO, predictions: Predictions) -> None:
    """Write an array of one object per row, with the columns as keys."""
    columns = predictions.columns
    lines = (json.dumps(dict(zip(columns, row, strict=True))) for row in predictions.rows())
    file.write(("[" + ",\n ".join(lines) + "]\n").encode())


def write_npz(file: BinaryIO, predictions: Predictions) -> None:
    """Write NumPy arrays; see `Predictions.arrays`."""
    import numpy as np

    np.savez(file, **predictions.arrays())


WRITERS: dict[str, Callable[[BinaryIO, Predictions], None]] = {
    ".csv": write_csv,
    ".json": write_json,
    ".npz": write_npz,
}


def known_formats() -> str:
    """The known extensions, as text for a sentence."""
    *others, last = WRITERS
    return f"{', '.join(others)} or {last}"
