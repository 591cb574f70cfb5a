"""Imports without garbage collection: the collector is as before afterwards, and leaves out what the last ones left."""

import subprocess
import sys

import pytest

from recipes.run.imports import quick_imports


def test_the_collector_is_as_before_afterwards():
    import gc

    with quick_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), quick_imports():
        import kl.none  # noqa: F401
    assert gc.isenabled()
    gc.disable()
    with quick_imports():
        pass
    assert not gc.isenabled()
    gc.enable()


def test_the_collector_leaves_out_what_the_last_imports_left_once():
    program = """
import gc
from recipes.run.imports import quick_imports
with quick_imports():
    pass
counts = [gc.get_freeze_count()]
for _ in range(2):
    more = [[] for _ in range(1000)]
    with quick_imports(last=True):
        pass
    counts.append(gc.get_freeze_count())
print(counts[0] == 0, counts[1] > 1000, counts[2] < counts[1])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout == "True True True\n", found.stderr
