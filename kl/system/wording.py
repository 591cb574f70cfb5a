"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number of things in words; `noun` is the singular, and its plural ends in s.

    Example:
        >>> counted(1, "training row"), counted(0, "epoch")
        ('1 training row', '0 epochs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
