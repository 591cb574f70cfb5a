"""The library names arguments of Python; the command line names its options."""

import logging
import re
from pathlib import Path

import pytest

from recipes.output.remedies import ARGUMENTS, PATCH_OPTIONS, OptionsFormatter, as_options

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "raise memory= to 3 GB, or use subsample=500 or less",
            "raise --memory to 3 GB, or use --subsample 500 or less",
        ),
        ("use step_size='auto' and", "use --step-size auto and"),
        ("(ridge=1e-6), or use solver='pcg'", "(--ridge 1e-6), or use --solver pcg"),
        ("use 99 rows or less", "use --train-size 99 or less"),
        ("raise memory=, or use fewer rows", "raise --memory, or use fewer rows (--train-size)"),
        (
            "patches: count must be at most 9; got 10: raise memory=, or give pool=15, a stride=, or a smaller count=",
            "--features patches:COUNT must be at most 9; got 10: raise --memory, or give --patch-pool 15, a "
            "--patch-stride, or a smaller --features patches:COUNT",
        ),
        (
            "patches: images must be larger: give a smaller size=",
            "images must be larger: give a smaller --patch-size",
        ),
        ("count must be at most 9: give a smaller size=", None),  # not of patches
        ("yourself with kernel=mine:K, where", "yourself with --kernel mine:K, where"),
        ("n=5 rows, max_rows=3, Laplacian(bandwidth=2.0), --memory 4GB", None),
        ("p=3 centres and a row where x holds 'a=b'", None),
    ],
)
def test_arguments_become_options(message, said):
    assert as_options(message) == (message if said is None else said)


def test_log_lines_are_translated():
    record = logging.LogRecord("kl", logging.WARNING, "", 0, "raise %s=, or give a ridge", ("memory",), None)
    assert OptionsFormatter("%(message)s").format(record) == "raise --memory, or give a ridge"


def test_the_library_names_no_options():
    """Its users may be Python's; `kl interpolate --save` is the name of a command."""
    for path in (ROOT / "kl").rglob("*.py"):
        texts = re.findall(
            r'f?"[^"\n]*--[a-z][^"\n]*"', re.sub(r'"""(.|\n)*?"""', "", path.read_text(encoding="utf-8"))
        )
        assert not [text for text in texts if "kl interpolate --save" not in text], path


def test_every_argument_is_an_option():
    from dataclasses import fields

    from recipes.options import groups

    known = {field.name for name, group in vars(groups).items() if name.endswith("Options") for field in fields(group)}
    assert set(ARGUMENTS) <= known
    assert {f"patch_{name}" for name in PATCH_OPTIONS} - {"patch_count"} == {
        name for name in known if name.startswith("patch_")
    }


def test_commands_say_options(kl, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # without solutions that other tests have kept
    found = kl("fit", "--data", "digits", "--memory", "1KB")
    assert re.search("raise --memory to ", found.err), found.err
    found = kl("interpolate", "--data", "digits", "--memory", "1MB", "--solver", "direct")
    assert "use --train-size" in found.err
    assert "=" not in found.err.split(": ")[-1]
