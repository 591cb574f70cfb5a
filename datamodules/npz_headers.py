"""The shapes and dtypes of the arrays of a .npz file, from their headers, before anything large is read."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kl.errors import InputError, MemoryBudgetError
from kl.system.memory import format_memory, parse_memory

READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Member:
    """An array of a .npz file."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def needed(self) -> int:
        """Bytes that reading takes: those of the array, and of its float32 copy if it has another dtype."""
        return self.size + (0 if self.dtype == np.float32 else 4 * math.prod(self.shape))


def check_members(
    path: str | os.PathLike[str], archive: zipfile.ZipFile | None, names: Iterable[str], memory: str | int = "auto"
) -> None:
    """Check the headers of the named arrays, all of which must be in the file.

    Args:
        path: path of the file, for messages.
        archive: the opened file.
        names: names of the arrays, without .npy.
        memory: budget for all of them: bytes, "8GB", or "auto" (half of the free memory).

    Raises:
        InputError: a member is no array, occurs twice, holds Python objects, or does not have as many bytes as its
            header says.
        MemoryBudgetError: the arrays together need more than the budget.
    """
    assert archive is not None  # it is None only after the file has been closed
    members = [read_member(path, archive, name) for name in names]
    need, budget = sum(member.needed for member in members), parse_memory(memory)
    if need > budget:
        sizes = ", ".join(f"{member.name} {member.shape} {member.dtype}" for member in members)
        raise MemoryBudgetError(
            f"{path} holds {sizes}, which take {format_memory(need)} in memory, more than the budget of "
            f"{format_memory(budget)}: raise --memory, or store fewer rows"
        )


def read_member(path: str | os.PathLike[str], archive: zipfile.ZipFile, name: str) -> Member:
    """The header of one array, compared with the bytes in the file.

    Raises:
        InputError: as in `check_members`.
    """
    infos = [info for info in archive.infolist() if info.filename in (name, f"{name}.npy")]
    if len(infos) > 1:
        raise InputError(f"{path} must hold {name} once; it stands there {len(infos)} times: write it again")
    try:
        with archive.open(infos[0]) as file:
            version = np.lib.format.read_magic(file)
            shape, _, dtype = READERS[version](file)
            found = Member(name, shape, dtype)
            there = infos[0].file_size - file.tell()
    except (OSError, KeyError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        raise InputError(
            f"{name} in {path} is damaged, empty, or no array of numbers: write it again with numpy.savez"
        ) from None
    if dtype.hasobject:
        raise InputError(f"{name} in {path} holds Python objects, which are not loaded: store numbers of one shape")
    if min(shape, default=0) < 0 or found.size != there:
        raise InputError(
            f"{name} in {path} is damaged: its header says {shape} {dtype}, {format_memory(found.size)}, and "
            f"{format_memory(there)} are there: write it again with numpy.savez"
        )
    return found
