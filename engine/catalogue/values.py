"""Types of values: what is a value, what counts as missing, and how text is folded.

A *shape* is a type with its options. Every target must agree on one question: does this stored thing have that shape?
`normaliser` answers it for Python; `engine.predicate.compile_mongo` guards its filters with the same rules, and
`engine.predicate.compile_elastic` indexes only values that passed here. `engine.catalogue.value_parsing` reads raw
input.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

Value: TypeAlias = str | int | float | bool
Stored: TypeAlias = Value | tuple[Value, ...] | None
"""A normalised value: a scalar, a tuple that is not empty (`many`), or None for missing."""

INT64_LOWEST: Final = -(1 << 63)
INT64_HIGHEST: Final = (1 << 63) - 1
LARGEST_NUMBER: Final = 1.7976931348623157e308
"""The largest finite double: larger values are infinite, no target indexes them, so they count as missing."""

LONGEST_STRING: Final = 8_000
"""Maximum UTF-8 bytes in one string: even its folded form (at most three times as long) fits a Lucene term."""

MOST_ELEMENTS: Final = 1_000
"""Maximum elements of one array: each is an index entry in two stores."""


class FieldType(StrEnum):
    """The type of a field or an event property."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    DECIMAL = "decimal"
    BOOLEAN = "boolean"
    TIME = "time"


WHOLE_TYPES: Final = frozenset({FieldType.INTEGER, FieldType.DECIMAL, FieldType.TIME})
"""Stored as int64: a whole number, a scaled whole number, milliseconds."""

MANY_TYPES: Final = frozenset({FieldType.STRING, FieldType.INTEGER, FieldType.NUMBER})


@dataclass(frozen=True, slots=True)
class Shape:
    """A named value: its type, whether it is an array, decimal places (`scale`), whether case is ignored."""

    name: str
    type: FieldType
    many: bool = False
    scale: int = 0
    case_ignored: bool = False

    @property
    def title(self) -> str:
        """The name for messages, e.g. `decimal` or `array of string`."""
        return f"array of {self.type}" if self.many else str(self.type)


def fold(text: str) -> str:
    """Remove the case of `text`: canonical caseless matching of Unicode (section 3.13, D145), composed (NFC).

    `STRASSE` and `straße` fold to the same text, and so do a composed and a decomposed accent.
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def _string(value: object) -> str | None:
    return value if type(value) is str else None


def _folded(value: object) -> str | None:
    return fold(value) if type(value) is str else None


def _whole(value: object) -> int | None:
    # isinstance, because a driver's int64 is a subclass of int; a boolean is one too, but is never a number here.
    return int(value) if isinstance(value, int) and value is not True and value is not False else None


def _number(value: object) -> float | None:
    # A whole number in a field of doubles has another type; NaN and the infinities are not values.
    return value if type(value) is float and -LARGEST_NUMBER <= value <= LARGEST_NUMBER else None


def _boolean(value: object) -> bool | None:
    return value if value is True or value is False else None


def normaliser(shape: Shape, *, folding: bool = False) -> Callable[[object], Stored]:
    """Return a function that reads a stored thing as a value of `shape`; None if it is missing or of another type.

    The function leaves elements of another type out of an array; an array with none left is missing. `folding` folds
    strings whose case is ignored (events keep only the raw text; users have the folded one beside it).
    """
    normalise: Callable[[object], Value | None]
    if shape.type is FieldType.STRING:
        normalise = _folded if folding and shape.case_ignored else _string
    elif shape.type in WHOLE_TYPES:
        normalise = _whole
    elif shape.type is FieldType.NUMBER:
        normalise = _number
    else:
        normalise = _boolean
    if not shape.many:
        return normalise

    def many(value: object) -> Stored:
        if not isinstance(value, (list, tuple)):
            return None
        return tuple(read for item in value if (read := normalise(item)) is not None) or None

    return many


def is_finite(number: float) -> bool:
    """Whether `number` is neither NaN nor infinite."""
    return math.isfinite(number)


def successor(prefix: str) -> str | None:
    """Return the smallest text above every text that starts with `prefix`; None if there is none.

    Python, MongoDB and Lucene all order text by code point, so a prefix is a range on every target and no pattern needs
    escaping.
    """
    for end in range(len(prefix), 0, -1):
        code = ord(prefix[end - 1])
        if code < 0x10FFFF:
            # 0xD800 to 0xDFFF are surrogates, which no text contains.
            return prefix[: end - 1] + chr(0xE000 if code == 0xD7FF else code + 1)
    return None
