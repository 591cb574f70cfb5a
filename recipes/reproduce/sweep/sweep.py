"""Running points: finished points are read, the others are computed, and each is kept at once."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kl.errors import KLError, MemoryBudgetError
from kl.exact.equations import duration
from recipes.options.groups import RunOptions
from recipes.output.hardware import commit, machine
from recipes.reproduce.sweep.point import Context, Point, Result
from recipes.reproduce.sweep.store import Store
from recipes.run.processes import device_of

log = logging.getLogger(__name__)


class Sweep:
    """Computes points, each at most once, and logs the progress.

    Args:
        store: where finished points are kept.
        context: where points are computed.
    """

    def __init__(self, store: Store, context: Context) -> None:
        self.store, self.context = store, context
        self._guessed = self._spent = 0.0  # seconds of the points computed so far
        self._origin: dict[str, Any] | None = None  # commit and machine of the points computed now

    def run(self, points: Sequence[Point]) -> dict[Point, Result]:
        """The results of the points, in their order.

        Raises:
            KLError: a point cannot be computed; those before it are kept.
        """
        points = list(dict.fromkeys(points))
        found = {point: self.store.read(point) for point in points}
        # Short points first, so that most of a sweep is done before its longest points.
        missing = sorted((point for point, result in found.items() if result is None), key=lambda point: point.seconds)
        if missing and len(missing) < len(points):
            log.info("%d of %d points are in %s already", len(points) - len(missing), len(points), self.store.folder)
        import callbacks  # noqa: F401  imports torch and Lightning, whose seconds no point should count

        for i, point in enumerate(missing):
            left = self._left(missing[i:])
            log.info("[%d/%d] %s; about %s left", i + 1, len(missing), point.describe(), duration(left))
            try:
                found[point] = self._compute(point)
            except KeyboardInterrupt:
                kept = sum(self.store.read(each) is not None for each in points)
                log.warning("%d of %d points are kept; the same command goes on from there", kept, len(points))
                raise
        return {point: result for point, result in found.items() if result is not None}

    def _left(self, points: Sequence[Point]) -> float:
        pace = self._spent / self._guessed if self._guessed else 1.0
        return pace * sum(point.seconds for point in points)

    def _compute(self, point: Point) -> Result:
        start = time.perf_counter()
        try:
            with _only_progress():
                result = point.run(self.context)
        except MemoryBudgetError as error:
            need = str(error).split(": ")[0]  # the rest names options of other commands
            raise MemoryBudgetError(f"{point.describe()}: {need}: raise --memory") from error
        except KLError as error:
            raise type(error)(f"{point.describe()}: {error}") from error
        seconds = time.perf_counter() - start
        gc.collect()  # a Trainer and its module refer to each other, which would keep a kernel matrix alive
        self._guessed, self._spent = self._guessed + point.seconds, self._spent + seconds
        if self._origin is None:
            here = machine(device_of(RunOptions(accelerator=self.context.accelerator)))
            kept = {name: here[name] for name in ("cpu", "cores", "threads", "gpu", "torch")}
            self._origin = {"commit": commit(), "machine": kept}
        return self.store.write(point, result, seconds=seconds, **self._origin)


@contextmanager
def _only_progress() -> Iterator[None]:
    """Hide the log lines of a computation, except the progress of long ones."""
    levels = dict.fromkeys(("kl", "datamodules", "callbacks"), logging.ERROR)
    levels |= dict.fromkeys(("kl.exact", "callbacks.epoch_lines"), logging.INFO)
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
