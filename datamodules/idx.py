"""IDX files, the format of MNIST: unpacked or as .gz, under torchvision's names or the same names with a dot."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kl.errors import InputError

_UNSIGNED_BYTES = 8  # the type code of unsigned bytes, in the third byte of the file


def find_idx(folder: Path, name: str) -> Path | None:
    """The file of a folder that has this name, or its form with a dot (train-images.idx3-ubyte), or either as .gz."""
    dotted = name.replace("-idx", ".idx")
    files = (folder / each for each in (name, dotted, f"{name}.gz", f"{dotted}.gz"))
    return next((file for file in files if file.is_file()), None)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of unsigned bytes that an IDX file holds.

    Args:
        path: the file; .gz is unpacked.
        dimensions: number of dimensions that the array must have.

    Raises:
        InputError: the file is damaged, or holds another kind of array; the message has no remedy.

    Source: the format as stated with the MNIST database: two zero bytes, the type, the number of dimensions, the size
    of each dimension as a big-endian integer of 4 bytes, and the values.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _read(file, dimensions)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise InputError(" ".join(str(error).split())) from error


def _read(file: BinaryIO, dimensions: int) -> np.ndarray:
    zeros, kind, count = struct.unpack(">HBB", file.read(4))
    if (zeros, kind, count) != (0, _UNSIGNED_BYTES, dimensions):
        raise InputError(
            f"it must be an IDX file of unsigned bytes of {dimensions} dimensions; its header is another's"
        )
    shape = struct.unpack(f">{count}I", file.read(4 * count))
    # Read in parts, because a header may claim any size.
    content = bytearray()
    while part := file.read(min(1 << 24, math.prod(shape) + 1 - len(content))):
        content += part
    if len(content) != math.prod(shape):
        more = "more" if len(content) > math.prod(shape) else str(len(content))
        raise InputError(f"its header declares {' x '.join(map(str, shape))} values, and it holds {more}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
