"""The compiled libraries that this machine can run; a test that needs another is skipped."""

import pytest

from kl.compiled import LIBRARIES, best, load, processor_flags


def library(name):
    """A library by its name."""
    if not processor_flags() >= {*LIBRARIES[name][0]} or (code := load(name)) is None:
        pytest.skip(f"this processor cannot run {name}, or kl was installed without it")
    return code


def best_library():
    """The library that kl takes."""
    if (code := best()) is None:
        pytest.skip("kl was installed without compiled code for this processor, or ATEN_CPU_CAPABILITY forbids it")
    return code
