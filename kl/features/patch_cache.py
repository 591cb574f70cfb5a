"""Features of image patches on disk, so that nothing is learnt or computed twice from the same images."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kl.errors import CheckpointError, InputError
from kl.features.patch_images import check_images
from kl.features.patch_options import PatchOptions
from kl.features.patches import Patches
from kl.rows.workspace import rows_at_a_time, spans
from kl.system.files import cache_folder, written_whole
from kl.system.memory import format_memory
from kl.system.saved import load_values, save_values

log = logging.getLogger(__name__)

VERSION = 2  # raise it whenever the same images and options give other dictionaries or features
LIMIT = 20 * 10**9  # bytes of all files
DIGEST = 16  # bytes of a digest


def features_folder() -> Path | None:
    """Where results are kept, $XDG_CACHE_HOME/kl/patches or ~/.cache/kl/patches; None if there is no home folder."""
    try:
        return cache_folder() / "patches"
    except InputError:
        return None


def fit_once(patches: Patches, images: Tensor, progress: Callable[[str], object] | None = None) -> Patches:
    """`patches.fit(images)`, or what an earlier call with equal images and options has learnt.

    Args:
        patches: the options; what is learnt goes there.
        images: the training images, as `Patches.fit` takes them.
        progress: see `Patches.fit`.

    Returns:
        `patches`.

    Raises:
        InputError: see `Patches.fit`.
        MemoryBudgetError: see `Patches.fit`.
    """
    if (folder := features_folder()) is None:
        return patches.fit(images, progress)
    images = check_images(images, patches.size)
    options = {each.name: getattr(patches, each.name) for each in fields(PatchOptions) if each.name != "memory"}
    key = _digest("fit", options, images)
    path = folder / f"dictionary-{key}.pt"
    with _alone(path):
        if path.is_file():
            try:
                state = load_values(path)
                if state.pop("key", None) != key:
                    raise CheckpointError("it is of other images or options")
                found = Patches.from_state(state, patches.memory)
            except (CheckpointError, InputError) as error:
                log.warning("the dictionary of patches in %s cannot be used (%s): learning it again", path, error)
            else:
                patches.image, patches.learnt = found.image, found.learnt
                _touch(path)
                log.info("the dictionary of patches is read from %s", path)
                return patches
        patches.fit(images, progress)
        state = patches.state_dict()
        size = sum(each.numel() * each.element_size() for each in state.values() if isinstance(each, Tensor))
        _keep(path, size, lambda: save_values(path, {"key": key, **state}))
    return patches


def transform_once(patches: Patches, images: Tensor, progress: Callable[[str], object] | None = None) -> Tensor:
    """`patches.transform(images)`, or the same features from the file that an earlier call has written.

    A file is believed only if its checksum is right; else its features are computed again. A disk that refuses a file
    is a log line.

    Args:
        patches: fitted patches.
        images: images, as `Patches.transform` takes them.
        progress: see `Patches.transform`.

    Returns:
        Features, uint8, shape (n, columns), perhaps a memory map of the file; writing to it does not change the file.

    Raises:
        InputError: see `Patches.transform`.
        MemoryBudgetError: see `Patches.transform`.
    """
    if (folder := features_folder()) is None:
        return patches.transform(images, progress)
    images = check_images(images, patches.size)
    state, shape = patches.state_dict(), (len(images), patches.columns)
    key = _digest("transform", state, images)
    with _alone(folder / key):
        for path in sorted(folder.glob(f"features-{key}-*.npy")):
            if (found := _read(path, key, shape)) is not None:
                log.info("the patch features of %d images are read from %s", len(images), path)
                return found.to(images.device)
        features = patches.transform(images, progress)
        array = features.cpu().numpy()
        path = folder / f"features-{key}-{_checksum(key, array)}.npy"
        _keep(path, array.nbytes, lambda: _write(path, array))
    return features


def _digest(what: str, state: dict[str, Any], images: Tensor) -> str:
    """A digest of what determines a result: the format, the state or options, the kind of device, and all images."""
    plain = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    about = f"{VERSION} {what} {sorted(plain.items())} {sorted(tensors)} {images.device.type}"
    digest = hashlib.blake2b(about.encode(), digest_size=DIGEST)
    for tensor in (*(tensors[name] for name in sorted(tensors)), images):
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        for rows in spans(len(tensor), rows_at_a_time(max(1, tensor[:1].numel()))):
            digest.update(tensor[rows].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _checksum(key: str, array: np.ndarray) -> str:
    """A digest of features and of the key that they belong to."""
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=DIGEST, key=key.encode()).hexdigest()


def _write(path: Path, array: np.ndarray) -> None:
    with written_whole(path) as file:
        np.save(file, array, allow_pickle=False)


def _read(path: Path, key: str, shape: tuple[int, int]) -> Tensor | None:
    """The features in a file; None, with a log line, if it is damaged."""
    try:
        array = np.lib.format.open_memmap(path, mode="c")  # pages that are written to are copied, the file stays
        if array.dtype != np.uint8 or array.shape != shape:
            raise ValueError(f"it holds {array.dtype} of shape {array.shape}")
        if not path.stem.endswith(_checksum(key, array)):
            raise ValueError("its checksum is wrong")
    except Exception as error:  # a damaged header can raise anything
        reason = str(error).split("\n")[0] or type(error).__name__
        log.warning("the patch features in %s cannot be used (%s): computing them again", path, reason)
        with suppress(OSError):
            path.unlink()
        return None
    _touch(path)
    return torch.from_numpy(array)


def _keep(path: Path, size: int, write: Callable[[], None]) -> None:
    """Write a file if the cache has room for its bytes, or can make it; else a log line says why not."""
    try:
        room = _make_room(path.parent, size)
        if size > room:
            log.info(
                "what was computed of image patches takes %s, and %s has room for %s: it is not kept",
                format_memory(size),
                path.parent,
                format_memory(room),
            )
            return
        write()
    except OSError as error:
        log.warning("what was computed of image patches could not be kept in %s (%s)", path.parent, error)


def _make_room(folder: Path, size: int) -> int:
    """The bytes that all files may take, after the files longest unused have made way for `size` more.

    They may take LIMIT, or half of the disk's free space and what they take now if that is less.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for path in folder.glob("[df]*-*"):  # no hidden files, which are locks and what is being written
        with suppress(OSError):  # another process may have removed it
            stat = path.stat()
            found.append((stat.st_mtime, stat.st_size, path))
    held = sum(each for _, each, _ in found)
    room = min(LIMIT, held + shutil.disk_usage(folder).free // 2)
    for _, each, path in sorted(found):
        if held + size <= room or size > room:
            break
        path.unlink(missing_ok=True)
        held -= each
    return room


def _touch(path: Path) -> None:
    """Mark a file as used now, because those that are longest unused are removed first."""
    with suppress(OSError):
        os.utime(path)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Make other processes wait that want the same result, such as the ranks of a run: they then read what is kept.

    On a folder that cannot be written or a file system without locks nobody waits.
    """
    lock, file = path.with_name(f".{path.name}.lock"), None
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        pass
    try:
        yield
    finally:
        if file is not None:
            with suppress(OSError):
                lock.unlink(missing_ok=True)
            file.close()
