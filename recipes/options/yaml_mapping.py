"""A YAML file of options, by the core schema of YAML 1.2: one flat mapping of names to numbers, texts, true and false.

PyYAML reads YAML 1.1, in which 0100 is 64, 1:00 is 60, 1_000 is 1000 and `no` is false, and it builds whatever tags and
aliases ask for. So only its parser is used, event by event, and a number that the two versions read differently is
refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import yaml

LONGEST = 1_000_000  # characters of a file of options
_NUMBER = re.compile(r"[-+]?(0[xob][0-9a-fA-F]+|\.?[0-9][0-9.]*([eE][-+]?[0-9]+)?)")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_NOT_FINITE = re.compile(r"([-+]?)\.(inf|Inf|INF|nan|NaN|NAN)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9][0-9.]*([eE][-+]?[0-9]+)?")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-9_]+)+(\.[0-9_]*)?")


class NotReadable(Exception):
    """A file cannot be read; the message says why, and in which line."""


class Value(NamedTuple):
    """The value of a key in a file."""

    value: str | bool | None
    """A number as on a command line, a text, true, false, or null."""
    line: int


def read_mapping(text: str) -> dict[str, Value]:
    """The values by key; numbers stay as they are written, except that 0o17 and 0x1F become 15 and 31.

    Raises:
        NotReadable: the text is not YAML or no such mapping, a key occurs twice, or a number is ambiguous.
    """
    import yaml

    if len(text) > LONGEST:
        raise NotReadable(f"has more than {LONGEST} characters, too many for options")
    try:
        return _mapping(text)
    except yaml.YAMLError as error:
        raise NotReadable(f"is not YAML: {' '.join(str(error).split())}") from error
    except (ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF"
        raise NotReadable(f"is not YAML: {error}") from error


def dump_mapping(values: dict[str, Any]) -> str:
    """Plain values as YAML that `read_mapping` reads back; texts that it would take for other values are quoted."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """SafeDumper itself quotes texts that YAML 1.1 takes for other values."""

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        try:
            same = _plain_value(text) == text
        except NotReadable:
            same = False
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if same else "'")

    Dumper.add_representer(str, represent)
    return yaml.dump(values, Dumper=Dumper, sort_keys=False)


def _mapping(text: str) -> dict[str, Value]:
    import yaml

    found: dict[str, Value] = {}
    key: str | None = None  # the key whose value comes next
    inside = False
    for event in yaml.parse(text, yaml.SafeLoader):
        assert event.start_mark is not None
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent) and line > 1 and (found or inside):
            raise NotReadable(f"line {line}: a second document begins; there must be one")
        if not isinstance(event, yaml.NodeEvent):  # the stream, a document or the mapping begins or ends
            continue
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise NotReadable(f"line {line}: anchors and aliases are not read: write the value out")
        if (tag := getattr(event, "tag", None)) is not None:
            raise NotReadable(f"line {line}: tags are not read; got {tag}: leave it out")
        if not inside:
            if isinstance(event, yaml.ScalarEvent) and event.value in ("", "null", "~"):
                continue  # an empty file
            if not isinstance(event, yaml.MappingStartEvent):
                raise NotReadable("must hold a mapping of options to values, as --print-config writes")
            inside = True
        elif not isinstance(event, yaml.ScalarEvent):
            raise NotReadable(
                f"line {line}: {'an option' if key is None else key} must be one number or text; got "
                f"{'a list' if isinstance(event, yaml.SequenceStartEvent) else 'a mapping'}"
            )
        elif key is None:
            key = event.value
            if key in found:
                raise NotReadable(f"line {line}: {key} stands in line {found[key].line} already: leave one of them out")
        else:
            try:
                value = _plain_value(event.value) if event.style is None else event.value
            except NotReadable as error:
                raise NotReadable(f"line {line}: {key} {error}") from error
            found[key], key = Value(value, line), None
    return found


def _plain_value(text: str) -> str | bool | None:
    """The value of a text without quotes."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text.lower() in ("true", "false") and text in (text.lower(), text.upper(), text.title()):
        return text.lower() == "true"
    for what, found in (
        ("leading zeros", _LEADING_ZERO.fullmatch(text)),
        ("colons", _SEXAGESIMAL.fullmatch(text)),
        ("underscores", "_" in text and _NUMBER.fullmatch(text.replace("_", ""))),
        ("the prefix 0b", text.lstrip("+-").startswith("0b") and _NUMBER.fullmatch(text)),
    ):
        if found:
            raise NotReadable(
                f"must be a number without {what}, which YAML 1.1 and 1.2 read differently; got {text}: write a plain "
                "number, or quotes around a text"
            )
    if _BASED.fullmatch(text):
        return str(int(text, 0))
    if special := _NOT_FINITE.fullmatch(text):
        return special[1] + special[2].lower()
    return text
