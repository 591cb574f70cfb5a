"""Finished points on disk: one JSON file each, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kl.system.files import written_whole
from recipes.output.report import plain_values
from recipes.reproduce.sweep.point import Point, Result


class Store:
    """The results in a folder, by the keys of their points.

    Args:
        folder: the folder of the files; it is made when the first file is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, point: Point) -> Result | None:
        """The result of a point; None if its file is missing, damaged or of another point."""
        record = self.record(point)
        return None if record is None else record["result"]

    def record(self, point: Point) -> dict[str, Any] | None:
        """The record that `write` wrote: settings, result, seconds and origin; None as for `read`."""
        try:
            record = json.loads(self._path(point).read_text())
            whole = isinstance(record["result"], dict) and record["result"] and float(record["seconds"]) >= 0
            return record if whole and record["point"] == point.settings() else None
        except (OSError, ValueError, KeyError, TypeError):  # treated as if it had never been written
            return None

    def write(self, point: Point, result: Result, **origin: Any) -> Result:
        """Keep a result, and return it as `read` will."""
        record = plain_values({"point": point.settings(), "result": result, **origin})
        with written_whole(self._path(point)) as file:
            file.write(json.dumps(record).encode() + b"\n")
        return json.loads(json.dumps(record["result"]))

    def _path(self, point: Point) -> Path:
        return self.folder / f"{point.key}.json"
