"""The faults of `make mutants` can still be planted: their text stands exactly once, and their tests are there."""

import shlex

import pytest
from mutants import ROOT
from mutants.areas import AREAS

EACH = [pytest.param(mutant, id=f"{area}: {mutant.name}") for area, mutants in AREAS.items() for mutant in mutants]


@pytest.mark.parametrize("mutant", EACH)
def test_each_fault_can_be_planted(mutant):
    planted = mutant.planted()
    compile(planted, mutant.file, "exec")
    assert planted != (ROOT / mutant.file).read_text(encoding="utf-8")
    files = [word.split("::")[0] for word in shlex.split(mutant.tests) if word.startswith("tests/")]
    assert files
    assert all((ROOT / file).is_file() for file in files)


def test_no_two_faults_have_one_name():
    names = [mutant.name for mutants in AREAS.values() for mutant in mutants]
    assert len(set(names)) == len(names)
