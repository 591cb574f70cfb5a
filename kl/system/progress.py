"""Reports of long work: to whoever listens, or else to the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

LOG_SECONDS = 5.0  # seconds between two log lines of progress

Report = TypeVar("Report")


class Reports(Generic[Report]):
    """Passes every report to a listener; without one, logs a report every few seconds.

    Args:
        listener: is called with each report; None logs.
        log: the logger.
    """

    def __init__(self, listener: Callable[[Report], object] | None, log: logging.Logger) -> None:
        self._listener, self._log, self._logged = listener, log, time.monotonic()

    def __call__(self, report: Report) -> None:
        """Pass a report on."""
        if self._listener is not None:
            self._listener(report)
        elif time.monotonic() - self._logged >= LOG_SECONDS:
            self._log.info("%s", report)
            self._logged = time.monotonic()
