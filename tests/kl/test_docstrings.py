"""Every public name says what it is, takes, returns and raises, where it comes from, and shows an example that runs."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import kl

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = re.compile(r"^(Args|Attributes|Returns|Raises|Source|Example):", re.MULTILINE)
METHODS = ("kl.eigenpro", "kl.general", "kl.exact", "kl.kernels.radial", "kl.kernels.inner_product", "kl.kernels.relu")
"""Modules whose public names implement a paper or a textbook's formula."""
PUBLIC = [name for name in kl.__all__ if inspect.isroutine(getattr(kl, name)) or inspect.isclass(getattr(kl, name))]
TYPES = sorted(set(kl.__all__) - set(PUBLIC))
"""Names of types such as `float | str`, whose docstring stands below them in the source."""


def sections(name):
    """The text of each section of a public name's docstring."""
    text = inspect.cleandoc(getattr(kl, name).__doc__ or "")
    _, *parts = SECTIONS.split(text)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def parameters(name):
    """The names of the parameters, those that `**options` collects as one."""
    public = getattr(kl, name)
    if inspect.isclass(public) and (issubclass(public, Exception) or inspect.isabstract(public)):
        return []  # an exception takes a message; nobody calls an abstract class
    found = inspect.signature(public).parameters
    return [each.name for each in found.values() if each.kind is not each.VAR_POSITIONAL]


def modules_with_examples():
    paths = [path for package in ("kl", "callbacks", "datamodules") for path in sorted((ROOT / package).rglob("*.py"))]
    found = [path.relative_to(ROOT).with_suffix("") for path in paths if ">>> " in path.read_text(encoding="utf-8")]
    return [".".join(path.parts).removesuffix(".__init__") for path in found]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented(name):
    public, found = getattr(kl, name), sections(name)
    assert ">>> " in found.get("Example", ""), "give an example that runs"
    assert found["Example"].count("\n") <= 12, "an example has at most 12 lines"
    described = found.get("Args", "") + found.get("Attributes", "")
    for parameter in parameters(name):
        assert re.search(rf"^ +\*{{0,2}}{parameter}: ", described, re.MULTILINE), f"describe {parameter}"
    if inspect.isroutine(public):
        assert found.get("Returns"), "say what is returned"
    if public.__module__.startswith(METHODS) and not inspect.isabstract(public):
        assert re.search(r"\b(19|20)\d\d\b", found.get("Source", "")), "name the source with its year"


@pytest.mark.parametrize("name", TYPES)
def test_types_have_a_docstring_below_them(name):
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "kl").rglob("*.py"))
    assert re.search(rf'^{name} = .*\n"""', text, re.MULTILINE)


@pytest.mark.parametrize("name", PUBLIC)
def test_sources_are_named_and_not_by_keys_of_another_file(name):
    assert not re.search(r"\[[A-Z]+\d\d\]", getattr(kl, name).__doc__), "name authors and year"


@pytest.mark.parametrize("module", modules_with_examples())
def test_examples_run(module):
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, attempted = doctest.testmod(importlib.import_module(module), optionflags=options)
    assert attempted
    assert not failed
