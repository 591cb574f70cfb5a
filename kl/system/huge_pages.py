"""Memory on huge pages, for large matrices whose rows are read here and there."""

from __future__ import annotations

import ctypes
import mmap

from torch import Tensor

LEAST = 2**25  # bytes; the pages of smaller tensors a processor remembers


def on_huge_pages(new: Tensor) -> Tensor:
    """Ask Linux to put a new tensor of a CPU on pages of 2 MB, before anything is written to it; returns the tensor.

    A processor remembers where a few thousand pages lie. On pages of 4 KB that is a small part of a kernel matrix, and
    reading a row of it waits for the address of each page. Where there are no huge pages, the tensor stays as it is.
    """
    size, advice = new.numel() * new.element_size(), getattr(mmap, "MADV_HUGEPAGE", None)  # Linux alone has it
    if new.device.type == "cpu" and size >= LEAST and advice is not None:
        skipped = -new.data_ptr() % mmap.PAGESIZE
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        madvise(new.data_ptr() + skipped, size - skipped, advice)  # a refusal changes nothing but the speed
    return new
