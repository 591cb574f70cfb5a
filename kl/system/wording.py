"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number of things; `noun` is their singular, whose plural ends in s.

    >>> counted(1, "training row"), counted(0, "epoch")
    ('1 training row', '0 epochs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
