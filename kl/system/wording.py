"""Numbers and texts of users in sentences and tables."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number of things in words; `noun` is the singular, and its plural ends in s.

    Example:
        >>> counted(1, "training row"), counted(0, "epoch")
        ('1 training row', '0 epochs')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def short_line(text: str, length: int = 20) -> str:
    """A text on one line, blanks and line breaks as single blanks, cut to a length.

    Example:
        >>> short_line("New\\nYork"), short_line("Constantinople, Galata")
        ('New York', 'Constantinople, G...')
    """
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 3]}..."
