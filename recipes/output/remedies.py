"""Messages of the library for users of the command line: what names Python arguments there names options here.

The library writes an argument that a remedy sets as `memory=` or `ridge=1e-6`, and rows as "use 500 rows or less".
Messages about the argument `patches` of a data module begin with "patches: ", and name its entries.

Nothing here imports torch.
"""

from __future__ import annotations

import logging
import re

ARGUMENTS = (
    *("memory", "solver", "ridge", "centers", "subsample", "batch_size", "step_size", "metric", "devices", "kernel"),
    *("categorical", "numeric", "drop"),
)
"""Arguments that are options of the same name. Parameters of kernels are none, because kernels are shown with them."""
_ARGUMENT = re.compile(rf"(?<![\w.-])({'|'.join(ARGUMENTS)})=(?:'([^']*)'|([^\s,;:()]+))?")

PATCHES = "patches: "  # before messages of `kl.Patches`
_OF_PATCHES = ("size", "whitening", "dictionary", "mirrored", "encoding", "active", "threshold", "pool", "stride")
PATCH_OPTIONS = {"count": "--features patches:COUNT", **{name: f"--patch-{name}" for name in _OF_PATCHES}}
"""Entries of `patches`, and the options that they are."""
_PATCH_FIRST = re.compile(rf"^{PATCHES}({'|'.join(PATCH_OPTIONS)})(?: and ({'|'.join(PATCH_OPTIONS)}))?(?= )")
_PATCH_ARGUMENT = re.compile(rf"(?<![\w.-])({'|'.join(PATCH_OPTIONS)})=([^\s,;:()]+)?")


def as_options(message: str) -> str:
    """The message with options in place of Python arguments.

    Example:
        >>> as_options("raise memory=, give a ridge (ridge=1e-6), use solver='pcg', or use 500 rows or less")
        'raise --memory, give a ridge (--ridge 1e-6), use --solver pcg, or use --train-size 500 or less'
        >>> as_options("patches: pool must be at most 3; got 4: give a smaller pool= or size=, or larger images")
        '--patch-pool must be at most 3; got 4: give a smaller --patch-pool or --patch-size, or larger images'
    """
    if message.startswith(PATCHES):
        message = _PATCH_FIRST.sub(lambda m: " and ".join(PATCH_OPTIONS[name] for name in m.groups() if name), message)
        message = _PATCH_ARGUMENT.sub(lambda m: " ".join(filter(None, [PATCH_OPTIONS[m[1]], m[2]])), message)
        message = message.removeprefix(PATCHES)
    message = re.sub(r"use (\d+) rows or less", r"use --train-size \1 or less", message)
    message = re.sub(r"\b(use|or) fewer rows\b", r"\1 fewer rows (--train-size)", message)
    return _ARGUMENT.sub(lambda m: " ".join(filter(None, ["--" + m[1].replace("_", "-"), m[2] or m[3]])), message)


class OptionsFormatter(logging.Formatter):
    """Formats log lines with options in place of Python arguments."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return as_options(super().format(record))
