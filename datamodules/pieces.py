"""Training rows on disk in pieces, each of which fits memory: .npz shards, or spans of memory-mapped .npy arrays."""

from __future__ import annotations

import queue
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from datamodules.samples import read_npz
from kl.errors import InputError

PIECE_BYTES = 64 * 2**20  # bytes of features in a span of a memory-mapped array
T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """Some training rows on disk."""

    path: Path
    rows: int
    start: int | None = None
    """The first row of a span of x_train.npy; None for a shard, which is read whole."""

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y.

        Raises:
            InputError: the file is damaged, or has another number of rows than before; the message names it.
        """
        if self.start is None:
            arrays = read_npz(self.path, ("x", "y"))
            x, y = arrays["x"], arrays["y"]
        else:
            span = slice(self.start, self.start + self.rows)
            x, y = (np.array(opened(path)[span]) for path in (self.path, target_path(self.path)))
        if len(x) != len(y):
            raise InputError(f"{self.path} must have one row per sample; x has {len(x)} and y {len(y)}: write it again")
        if len(x) != self.rows:
            raise InputError(
                f"{self.path} must hold {self.rows} rows of x and y, as when the run began; got {len(x)}: "
                "write it again, then go on with --resume last"
            )
        return x, y


def find_pieces(folder: Path) -> list[Piece]:
    """The pieces of a folder: train/*.npz, else train*.npz, else spans of x_train.npy and y_train.npy.

    Shards without rows are left out.

    Raises:
        InputError: there are no pieces, or a file is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"stream {folder} must be a folder; there is none")
    shards = sorted(folder.glob("train/*.npz")) or sorted(folder.glob("train*.npz"))
    if shards:
        pieces = [piece for piece in (Piece(path, rows_of_shard(path)) for path in shards) if piece.rows]
        if not pieces:
            raise InputError(f"the shards of stream {folder} must have at least one row; all {len(shards)} are empty")
        return pieces
    path = folder / "x_train.npy"
    if not path.is_file() or not target_path(path).is_file():
        raise InputError(
            f"stream {folder} must hold shards train/*.npz with x and y, or x_train.npy and y_train.npy; it holds "
            "neither"
        )
    x, y = opened(path), opened(target_path(path))
    if len(x) != len(y):
        raise InputError(f"{path} and {target_path(path)} must have one row per sample; got {len(x)} and {len(y)}")
    if len(x) == 0:
        raise InputError(f"{path} must have at least one row; got none")
    size = max(1, PIECE_BYTES // max(1, x[:1].nbytes))
    return [Piece(path, min(size, len(x) - start), start) for start in range(0, len(x), size)]


def target_path(path: Path) -> Path:
    """y_train.npy beside x_train.npy."""
    return path.with_name(path.name.replace("x_", "y_", 1))


def opened(path: Path) -> np.ndarray:
    """A memory-mapped .npy array.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no .npy array or is damaged ({error}): write it again with numpy.save") from error


def rows_of_shard(path: Path) -> int:
    """The rows of x and y in a .npz file, from their headers alone.

    Raises:
        InputError: the file is damaged, has no x or no y, or their numbers of rows differ.
    """
    rows = []
    for name in ("x", "y"):
        try:
            with zipfile.ZipFile(path) as file, file.open(f"{name}.npy") as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape = read(member)[0]
        except KeyError as error:
            raise InputError(f"{path} must hold x and y; {name} not found") from error
        except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path} is not a .npz file or is damaged: write it again with numpy.savez") from error
        if not shape:
            raise InputError(f"{name} in {path} must have a row per sample; it is a single number")
        rows.append(shape[0])
    if rows[0] != rows[1]:
        raise InputError(f"{path} must have one row per sample; x has {rows[0]} and y {rows[1]}: write it again")
    return rows[0]


def read_ahead(items: Iterable[T], depth: int = 1) -> Iterator[T]:
    """The items; while the current item is used, a thread makes the next ones and queues up to `depth` of them."""
    made: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: T | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            try:
                made.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                put(item, None)
                if stopped.is_set():
                    return
        except BaseException as error:
            put(None, error)
        else:
            put(None, StopIteration())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
