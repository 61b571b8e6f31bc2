"""Read raw input into values, strictly: an imported value or a literal must be exactly of its type, or is refused.

Every refusal is a `RefusedValueError` (a `ValueError`). Its text says what was expected, what came, and, if that helps,
what to write.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

from engine.catalogue.values import (
    INT64_HIGHEST,
    INT64_LOWEST,
    LONGEST_STRING,
    MOST_ELEMENTS,
    FieldType,
    Shape,
    Value,
    is_finite,
)
from engine.clock import parse_instant

_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,30}")
_NUMBER: Final = re.compile(r"[-+]?[0-9]{1,400}(\.[0-9]{1,400})?([eE][-+]?[0-9]{1,3})?")
_DECIMAL: Final = re.compile(r"[-+]?[0-9]{1,30}(\.[0-9]{1,30})?")
_FIRST: Final = -62_135_596_800_000
"""The first millisecond of the year 1 in UTC: a text of that year with a zone may mean an earlier one."""
_LAST: Final = 253_402_300_799_999
"""The last millisecond of the year 9999 in UTC."""
_GROUPED: Final = re.compile(
    r"([-+]?)([0-9]{1,3}(?:([.,' \u00a0\u202f])[0-9]{3}(?:\3[0-9]{3})*)?|[0-9]+)(?:([.,])([0-9]+))?"
)
"""A number as people write it: digits, perhaps in groups of three, perhaps with a fraction."""
_LONGEST_WHOLE: Final = 30
"""Maximum decimal exponent of a whole number; a larger one is never built: 1E+999999 would fill a megabyte."""
_LARGEST_EXACT: Final = 1 << 53
"""Doubles represent every whole number up to this one; beyond it, a float may differ from the written number."""


class Odd:
    """A value in a file that the catalogue has no counterpart for: it is refused under its description."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        """Store a description of the value, e.g. `binary data`."""
        self._what = what

    def __repr__(self) -> str:
        return self._what


class RefusedValueError(ValueError):
    """A raw value does not fit its shape; the text says why and what to write."""


def parse_value(shape: Shape, raw: object) -> Value | list[Value] | None:
    """Read `raw` (text of a CSV cell, or a value of JSON or Parquet) as a value of `shape`, ready to store.

    Scalars become `str | int | float | bool` by type; a decimal becomes a scaled whole number, a time milliseconds.
    Arrays (`many`) come as a list, text that is a JSON array, or texts separated by `|`. None and an empty array count
    as missing: None. Raises `RefusedValueError` with a text that tells the author what to do.
    """
    if raw is None:
        return None
    if not shape.many:
        return parse_scalar(shape, raw)
    if isinstance(raw, str):
        raw = _elements(raw)
    if not isinstance(raw, (list, tuple)):
        raise RefusedValueError(f"expected an array of {shape.type}, got {_show(raw)}")
    if len(raw) > MOST_ELEMENTS:
        raise RefusedValueError(f"has {len(raw)} elements; at most {MOST_ELEMENTS} are kept")
    if any(item is None for item in raw):
        raise RefusedValueError("has an element that is null; leave it out")
    return [parse_scalar(shape, item) for item in raw] or None


def _elements(text: str) -> list[object]:
    if not text:
        return []
    if not text.startswith("["):
        return list(text.split("|"))
    try:
        read = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise RefusedValueError(f"starts like a JSON array but is not one: {error}") from error
    return list(read) if isinstance(read, list) else [read]


def parse_scalar(shape: Shape, raw: object) -> Value:
    """Read one element or scalar of `shape`. Raises `RefusedValueError`."""
    match shape.type:
        case FieldType.STRING:
            return _string(raw)
        case FieldType.INTEGER:
            return _integer(raw)
        case FieldType.NUMBER:
            return _number(raw)
        case FieldType.DECIMAL:
            return _decimal(raw, shape.scale)
        case FieldType.BOOLEAN:
            return _boolean(raw)
        case FieldType.TIME:
            return _time(raw)


def _string(raw: object) -> str:
    if not isinstance(raw, str):
        hint = f' (did you mean "{_show(raw)}"?)' if isinstance(raw, (bool, int, float)) else ""
        raise RefusedValueError(f"expected text, got {_show(raw)}{hint}")
    try:
        size = len(raw.encode())
    except UnicodeEncodeError as error:
        raise RefusedValueError("is not valid Unicode: half of a surrogate pair") from error
    if size > LONGEST_STRING:
        raise RefusedValueError(f"is {size} bytes long; at most {LONGEST_STRING} are kept")
    return raw


def _integer(raw: object) -> int:
    if isinstance(raw, Decimal):
        raw = str(raw)
    if isinstance(raw, str) and _WHOLE.fullmatch(raw):
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int):
        if isinstance(raw, float) and is_finite(raw) and raw.is_integer():
            raise RefusedValueError(f"expected a whole number, got {raw} (did you mean {int(raw)}?)")
        raise RefusedValueError(f"expected a whole number, got {_show(raw)}{_meant(raw, whole=True)}")
    return _fits(int(raw))


def _number(raw: object) -> float:
    if isinstance(raw, Decimal):
        raw = str(raw)
    if isinstance(raw, str) and _NUMBER.fullmatch(raw):
        raw = float(raw) if not _WHOLE.fullmatch(raw) else int(raw)
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        raise RefusedValueError(f"expected a number, got {_show(raw)}{_meant(raw)}")
    if isinstance(raw, int):
        if abs(raw) > _LARGEST_EXACT and int(float(raw)) != raw:
            raise RefusedValueError(f"{raw} is not exact as a number (declare the field as integer)")
        return float(raw)
    if not is_finite(raw):
        raise RefusedValueError(f"expected a finite number, got {raw}")
    return raw + 0.0  # -0.0 becomes 0.0: only Lucene distinguishes them


def _decimal(raw: object, scale: int) -> int:
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float, Decimal)):
        raise RefusedValueError(f"expected an amount such as {_sample(scale)}, got {_show(raw)}")
    if isinstance(raw, float):
        if not is_finite(raw):
            raise RefusedValueError(f"expected a finite amount, got {raw}")
        if abs(raw) * 10**scale >= _LARGEST_EXACT:
            raise RefusedValueError(f"{raw} is not exact (write it as a text)")
    text = repr(raw) if isinstance(raw, float) else str(raw)
    if isinstance(raw, str) and not _DECIMAL.fullmatch(raw):
        raise RefusedValueError(f"expected an amount such as {_sample(scale)}, got {_show(raw)}{_meant(raw)}")
    try:
        scaled = Decimal(text).scaleb(scale)
        whole = None if scaled.is_finite() and scaled.adjusted() > _LONGEST_WHOLE else int(scaled)
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise RefusedValueError(f"expected an amount such as {_sample(scale)}, got {_show(raw)}") from error
    if whole is None:
        raise RefusedValueError(f"{_show(raw)} does not fit into 64 bits")
    if scaled != whole:
        raise RefusedValueError(f"{text} has more than {scale} decimal places")
    return _fits(whole)


def _boolean(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in ("true", "false"):
        return raw.lower() == "true"
    hint = ""
    if str(raw).lower() in ("1", "yes", "y", "on", "t", "0", "no", "n", "off", "f"):
        hint = f" (did you mean {'true' if str(raw).lower() in ('1', 'yes', 'y', 'on', 't') else 'false'}?)"
    raise RefusedValueError(f"expected true or false, got {_show(raw)}{hint}")


def _time(raw: object) -> int:
    if isinstance(raw, datetime):
        raw = raw.isoformat()
    if not isinstance(raw, str):
        raise RefusedValueError(f"expected a time such as 2026-12-01T08:00:00Z, got {_show(raw)}")
    try:
        at = parse_instant(raw)
    except (ValueError, OverflowError) as error:
        raise RefusedValueError(f"expected a time such as 2026-12-01T08:00:00Z, got {_show(raw)}") from error
    if not _FIRST <= at <= _LAST:
        raise RefusedValueError(f"{_show(raw)} is outside the years 1 to 9999 UTC")
    return at


def _fits(whole: int) -> int:
    if not INT64_LOWEST <= whole <= INT64_HIGHEST:
        raise RefusedValueError(f"{whole} does not fit into 64 bits")
    return whole


def _sample(scale: int) -> str:
    return f"12.{'5'.ljust(scale, '0')}" if scale else "12"


def _show(raw: object) -> str:
    if isinstance(raw, (bytes, bytearray)):
        return "binary data"
    text = f'"{raw}"' if isinstance(raw, str) else str(raw).lower() if isinstance(raw, bool) else repr(raw)
    return text if len(text) <= 60 else text[:57] + "..."


def _meant(raw: object, *, whole: bool = False) -> str:
    """Suggest what a number-like text may mean: both readings if its only separator may be either."""
    if not isinstance(raw, str):
        return ""
    text = raw.strip().strip("$€£¥").strip()
    if re.fullmatch(r"[0-9]+k", text):
        return f" (did you mean {text[:-1]}000?)"
    readings = [
        reading for reading in readings_of(text.replace("_", "")) if reading != raw and not (whole and "." in reading)
    ]
    return f" (did you mean {' or '.join(readings)}?)" if readings else ""


def readings_of(text: str) -> list[str]:
    """Return the numbers that a text may mean: `12,50` is 12.50, `1.234,5` is 1234.5, `1,234` is 1234 or 1.234."""
    match = _GROUPED.fullmatch(text)
    if match is None:
        return []
    sign, digits, group, mark, fraction = match.groups()
    if mark is not None and mark == group:
        return []
    plain = re.sub(r"[^0-9]", "", digits)
    if mark is not None:
        return [f"{sign}{plain}.{fraction}"]
    readings = [f"{sign}{plain}"]
    if group in (".", ",") and digits.count(group) == 1:
        readings.append(f"{sign}{digits.replace(group, '.')}")
    return readings
