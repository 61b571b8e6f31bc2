"""Read MongoDB's Extended JSON, as `mongoexport` writes it: v2 canonical and relaxed, and the remains of v1.

A wrapped value becomes its content: `{"$oid": "65…"}` a text, `{"$numberLong": "7"}` a whole number, `{"$date": …}` a
time as ISO 8601. A value without a counterpart in the catalogue becomes `Odd`, which says what it is; the row is
rejected only if a field would hold that value.
"""

from __future__ import annotations

import binascii
import re
import uuid
from base64 import b64decode
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from engine.catalogue.value_parsing import Odd
from engine.clock import format_instant

MARK: Final = b'"$'
"""Bytes that occur in every line with a wrapped value."""

_OID: Final = re.compile(r"[0-9a-fA-F]{24}")
_UUIDS: Final = ("03", "3", "04", "4")
"""Subtypes of binary data that are UUIDs."""


def plain(value: Any) -> Any:  # Any: a decoded JSON value
    """Return `value` without the wrappers, at any depth."""
    if isinstance(value, dict):
        if len(value) <= 2 and (key := next(iter(value), "")).startswith("$"):
            unwrap = _WRAPPERS.get(key)
            if unwrap is not None and (len(value) == 1 or _is_pair(value)):
                return unwrap(value[key], value)
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def _is_pair(value: Mapping[str, Any]) -> bool:
    return set(value) in ({"$binary", "$type"}, {"$regex", "$options"}, {"$code", "$scope"}, {"$ref", "$id"})


def _time(inner: Any, _: Any) -> object:
    """`$date`: read a text, milliseconds, or milliseconds that are wrapped once more."""
    inner = plain(inner)
    if isinstance(inner, str):
        return inner
    if isinstance(inner, bool) or not isinstance(inner, int):
        return Odd("an invalid date")
    try:
        return format_instant(inner)
    except (OverflowError, ValueError):
        return Odd("a time outside the years 1 to 9999")


def _whole(inner: Any, _: Any) -> object:
    if isinstance(inner, int) and not isinstance(inner, bool):
        return inner
    return (
        int(inner)
        if isinstance(inner, str) and re.fullmatch(r"[-+]?[0-9]{1,30}", inner)
        else Odd("an invalid whole number")
    )


def _double(inner: Any, _: Any) -> object:
    if isinstance(inner, (int, float)) and not isinstance(inner, bool):
        return float(inner)
    try:
        return float(inner)
    except (TypeError, ValueError, OverflowError):
        return Odd("an invalid number")


def _decimal(inner: Any, _: Any) -> object:
    try:
        read = Decimal(inner)
    except (InvalidOperation, TypeError, ValueError):
        return Odd("an invalid decimal")
    return read if read.is_finite() else Odd(f"a decimal that is {inner}")


def _binary(inner: Any, whole: Mapping[str, Any]) -> object:
    """Return a UUID as its text; other bytes are `Odd`."""
    payload, kind = (
        (inner.get("base64"), inner.get("subType")) if isinstance(inner, dict) else (inner, whole.get("$type"))
    )
    try:
        content = b64decode(payload, validate=True) if isinstance(payload, str) else b""
    except binascii.Error:
        content = b""
    if str(kind) in _UUIDS and len(content) == 16:
        return str(uuid.UUID(bytes=content))
    return Odd("binary data")


def _uuid(inner: Any, _: Any) -> object:
    try:
        return str(uuid.UUID(inner))
    except (AttributeError, TypeError, ValueError):
        return Odd("an invalid UUID")


def _oid(inner: Any, _: Any) -> object:
    return inner if isinstance(inner, str) and _OID.fullmatch(inner) else Odd("an invalid ObjectId")


def _timestamp(inner: Any, _: Any) -> object:
    """Read MongoDB's own timestamp: seconds and a counter."""
    seconds = plain(inner.get("t")) if isinstance(inner, dict) else None
    return _time(seconds * 1_000, None) if type(seconds) is int else Odd("an invalid timestamp")


def _text(inner: Any, _: Any) -> object:
    return inner if isinstance(inner, str) else Odd("an invalid text")


def _odd(what: str) -> Callable[[Any, Any], object]:
    return lambda _, __: Odd(what)


_WRAPPERS: Final[Mapping[str, Callable[[Any, Any], object]]] = {
    "$oid": _oid,
    "$date": _time,
    "$numberInt": _whole,
    "$numberLong": _whole,
    "$numberDouble": _double,
    "$numberDecimal": _decimal,
    "$binary": _binary,
    "$uuid": _uuid,
    "$timestamp": _timestamp,
    "$symbol": _text,
    "$undefined": lambda _, __: None,
    "$regularExpression": _odd("a regular expression"),
    "$regex": _odd("a regular expression"),
    "$code": _odd("JavaScript code"),
    "$ref": _odd("a reference to another document"),
    "$dbPointer": _odd("a reference to another document"),
    "$minKey": _odd("MongoDB's MinKey"),
    "$maxKey": _odd("MongoDB's MaxKey"),
}
