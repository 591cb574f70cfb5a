"""Figures: one style for all of them, and where they are written."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytorch_lightning as pl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from callbacks.common import tensorboard_loggers
from kl.system.files import written_whole

# The colours of Okabe and Ito, which people with any colour vision can tell apart; in grey they differ in lightness.
BLUE, ORANGE, GREEN, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#000000", "#777777"
# In an order that also differs in grey.
CYCLE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", BLACK, GREY, "#B8A800")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<")

_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
}
SCREEN_DPI, PRINT_DPI = 110, 200
LETTERS = 24  # of a name


@contextmanager
def figure_style(names: bool = False) -> Iterator[None]:
    """Use this module's matplotlib settings within the block, and restore the caller's after it.

    Args:
        names: texts are names that the data gives, in which a $ begins no formula.
    """
    with matplotlib.rc_context({**_STYLE, "text.parse_math": not names}):
        yield


def short_name(name: str) -> str:
    """A name of the data on one line, cut in its middle if it is long; characters that cannot be drawn are spaces.

    Example:
        >>> short_name("a line\\nand another one, which is long")
        'a line and a…ich is long'
    """
    line = " ".join("".join(each if each.isprintable() else " " for each in name).split())
    return line if len(line) <= LETTERS else f"{line[: LETTERS // 2]}…{line[-LETTERS // 2 + 1 :]}"


def new_figure(
    width: float,  # inches
    height: float,  # inches
) -> Figure:
    """A figure on an Agg canvas, unknown to pyplot, so that it opens no window and need not be closed."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def log_figure(trainer: pl.Trainer, tag: str, figure: Figure, svg: bool = False) -> Path | None:
    """Add the figure to TensorBoard at the current step, write log_dir/figures/<tag>.png, and clear the figure.

    A "/" in the tag becomes "_" in the file's name. Without a logger, and under fast_dev_run, nothing is written. Call
    it on every rank; only rank 0 writes.

    Args:
        trainer: of the run.
        tag: the figure's name.
        figure: what is written.
        svg: write <tag>.svg, too.

    Returns:
        The PNG file; None if this process has written none.
    """
    # `log_dir` is a collective. Without a logger it is the default root folder, where the user asked for no files.
    log_dir = trainer.log_dir if trainer.loggers else None
    with any_script():
        path = _write(trainer, tag, figure, svg, log_dir) if trainer.is_global_zero else None
    figure.clear()
    return path


@contextmanager
def any_script() -> Iterator[None]:
    """Draw a name in a script that the font lacks as boxes, which is no reason to interrupt a report."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _write(trainer: pl.Trainer, tag: str, figure: Figure, svg: bool, log_dir: str | None) -> Path | None:
    """Write the figure to TensorBoard and, in a folder, to files; it is drawn once, which takes most of the time."""
    printed = Image.fromarray(pixels(figure, PRINT_DPI))
    for logger in tensorboard_loggers(trainer):
        shown = printed.resize([side * SCREEN_DPI // PRINT_DPI for side in printed.size], Image.Resampling.LANCZOS)
        logger.experiment.add_image(tag, np.asarray(shown), trainer.global_step, dataformats="HWC")
    if log_dir is None:
        return None
    path = Path(log_dir) / "figures" / f"{tag.replace('/', '_')}.png"
    with written_whole(path) as file:
        printed.save(file, format="png", dpi=(PRINT_DPI, PRINT_DPI))
    if svg:
        with written_whole(path.with_suffix(".svg")) as file:
            file.write(as_svg(figure).encode())
    return path


def pixels(figure: Figure, dpi: int = SCREEN_DPI) -> np.ndarray:
    """The figure as an image, shape (height, width, 3), uint8."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def as_svg(figure: Figure) -> str:
    """The figure as SVG, with text as letters; equal figures give equal files."""
    with matplotlib.rc_context({"svg.hashsalt": "kl", "svg.fonttype": "none"}):
        data = io.StringIO()
        figure.savefig(data, format="svg", metadata={"Date": None})
    return data.getvalue()
