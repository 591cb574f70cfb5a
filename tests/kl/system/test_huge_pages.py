"""Tensors on huge pages: they are the same tensors, and Linux is asked for those that are large."""

import re
from pathlib import Path

import pytest
import torch

from kl.products.kept import KernelMatrix
from kl.system.huge_pages import LEAST, on_huge_pages


def advised(tensor):
    """Whether Linux lists the memory of a tensor as advised to lie on huge pages; skips where it does not say."""
    maps = Path("/proc/self/smaps")
    if not maps.exists() or not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("only Linux with huge pages says so")
    middle, inside = tensor.data_ptr() + tensor.numel() * tensor.element_size() // 2, False
    for line in maps.read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(match[1], 16) <= middle < int(match[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return "hg" in line.split()
    raise AssertionError("the tensor's memory is not in the list")


def test_large_tensors_are_advised():
    large = torch.empty(LEAST // 4)
    assert on_huge_pages(large) is large
    assert advised(large)
    assert not advised(torch.empty(LEAST // 4))  # plain tensors are not


def test_small_tensors_and_those_of_other_devices_are_not(monkeypatch):
    monkeypatch.setattr("kl.system.huge_pages.ctypes.CDLL", lambda *_: pytest.fail("asked"))
    for one in (torch.ones(5), torch.empty(0), torch.empty(LEAST // 4 - 1), torch.empty(LEAST, device="meta")):
        assert on_huge_pages(one) is one
    with pytest.raises(pytest.fail.Exception, match="asked"):
        on_huge_pages(torch.empty(LEAST // 4))


def test_kept_rows_of_k_lie_there():
    import kl

    matrix = KernelMatrix(kl.Gaussian(1.0), kl.Rows.of(torch.randn(3000, 2)))
    matrix.keep(3000)
    assert advised(matrix.kept)
