"""Faults planted by hand, each of which some test must find: `make mutants` plants them one by one.

A module of this folder is an area; its `MUTANTS` lists the faults.
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """A fault: `old`, which stands exactly once in `file`, becomes `new`, and one of `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str
    """Arguments of pytest, such as "tests/kl/products/test_kept.py -k same"."""

    def planted(self) -> str:
        """The file's text with the fault."""
        text = (ROOT / self.file).read_text(encoding="utf-8")
        assert text.count(self.old) == 1, (
            f"{self.name}: {self.old!r} stands {text.count(self.old)} times in {self.file}"
        )
        return text.replace(self.old, self.new)
