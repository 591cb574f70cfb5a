"""The scalars of a run's event files, read record by record.

TensorBoard's own reader takes a damaged file for one that is still being written, and says nothing.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

from kl.errors import InputError
from recipes.report.folders import EVENTS, read_file

Scalars = dict[str, list[tuple[int, float]]]
"""By tag: (step, value) in the order in which they were written."""
Curves = dict[str, list[tuple[int, float]]]
"""By tag: (epochs trained, value), one for each epoch, in ascending order."""

PICTURE = 65536  # bytes from which a record is one of a figure, whose content is not read here
LONGEST = 2**31  # bytes of a file of scalars and figures, by far


def read_curves(folder: Path) -> Curves:
    """The values of each epoch from all event files of a run; of an epoch that was trained twice, the later ones.

    Values that are not finite are left out.

    Raises:
        InputError: a file cannot be read, or is damaged before its end.
    """
    curves: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob(EVENTS), key=lambda path: (path.stat().st_mtime, path.name)):
        scalars = read_scalars(path)
        epochs = {step: int(value) + 1 for step, value in reversed(scalars.get("epoch", []))}
        for tag, points in scalars.items():
            if tag == "epoch":
                continue
            found = {epochs[step]: value for step, value in points if step in epochs and math.isfinite(value)}
            curves.setdefault(tag, {}).update(found)
    return {tag: sorted(values.items()) for tag, values in curves.items() if values}


def read_scalars(path: Path) -> Scalars:
    """The scalars of a file; a last record that was cut short, as when a run is killed, is left out.

    Raises:
        InputError: the file cannot be read, or is damaged before its end.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    found: Scalars = {}
    try:
        for record in _records(read_file(path, LONGEST)):
            event = Event.FromString(record)
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
    except (DecodeError, _Damaged, OverflowError) as error:
        raise InputError(
            f"the event file {path} is damaged ({error}): move it out of the folder, or give another run"
        ) from error
    return found


class _Damaged(Exception):
    """A record is not as it was written."""


def _records(data: bytes) -> Iterator[bytes]:
    """The records that are not of figures; each is its length, a checksum of that, its content, a checksum of that."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    at = 0
    while at + 12 <= len(data):
        length, check = struct.unpack_from("<QI", data, at)
        if masked_crc32c(data[at : at + 8]) != check:
            raise _Damaged(f"the length of a record, {at} bytes from its start, has another checksum")
        end = at + 12 + length
        if end + 4 > len(data):
            return
        content = data[at + 12 : end]
        if length < PICTURE:
            if masked_crc32c(content) != struct.unpack_from("<I", data, end)[0]:
                raise _Damaged(f"a record, {at} bytes from its start, has another checksum")
            yield content
        at = end + 4
