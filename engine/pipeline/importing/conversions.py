"""Convert values from the file's notation to the catalogue's: mapped texts, other dates, decimal commas.

A conversion runs before the strict reading and never replaces it: its result is checked like any other value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, TypeAlias

from engine.catalogue.value_parsing import Odd, parse_scalar
from engine.catalogue.values import FieldType, Shape
from engine.catalogue.workspace_file import closest
from engine.errors import WrongCall
from engine.pipeline.importing.columns import NOTHING, Layout, RowFaultError

Conversion: TypeAlias = Callable[[object], object]
"""Converts a raw value for the strict reading; `NOTHING` means no value. Raises `RowFaultError`."""

_NUMBERS: Final = frozenset({FieldType.INTEGER, FieldType.NUMBER, FieldType.DECIMAL})
_COMMA: Final = re.compile(
    r"([-+]?)([0-9]{1,3}(?:([. '\u00a0\u202f])[0-9]{3})(?:\3[0-9]{3})*|[0-9]+)(?:,([0-9]+))?((?:[eE][-+]?[0-9]{1,3})?)"
)
_EPOCHS: Final = {"unix": 1_000, "unix-ms": 1}
"""Words that replace a format for numbers since 1970, with the milliseconds in one unit: seconds or milliseconds."""

_REMEMBERED: Final = 1_000
"""Dates remembered per column: most columns of days hold fewer."""


def conversion(shape: Shape, layout: Layout) -> Conversion | None:
    """Return the conversion of a field's or property's values; None if they are read as they are."""
    steps: list[Conversion] = []
    texts = layout.values.get(shape.name)
    if texts:
        steps.append(_mapped(texts))
    date_format = layout.date_formats.get(shape.name, layout.date_formats.get(""))
    if shape.type is FieldType.TIME and date_format and date_format != "iso":
        steps.append(_dated(shape.name, date_format))
    if layout.decimal_comma and shape.type in _NUMBERS:
        steps.append(lambda raw: _with_point(shape.name, raw))
    if not steps:
        return None
    if shape.many:
        return lambda raw: _each(raw, steps)
    return lambda raw: _through(raw, steps)


def _through(raw: object, steps: Sequence[Conversion]) -> object:
    for step in steps:
        raw = step(raw)
        if raw is NOTHING:
            break
    return raw


def _each(raw: object, steps: Sequence[Conversion]) -> object:
    """Convert an array element by element, leaving out elements without a value."""
    if isinstance(raw, str) and raw and not raw.startswith("["):
        raw = raw.split("|")
    if isinstance(raw, (list, tuple)):
        return [item for item in (_through(item, steps) for item in raw) if item is not NOTHING]
    return raw


def _mapped(texts: Mapping[str, str]) -> Conversion:
    """`--values`: replace a text by its meaning; match it as it is written first, then ignoring case."""
    folded: dict[str, str] = {}
    for text, meaning in texts.items():
        folded.setdefault(text.casefold(), meaning)

    def convert(raw: object) -> object:
        text = _text_of(raw)
        meaning = None if text is None else texts.get(text, folded.get(text.casefold()))
        return raw if meaning is None else meaning or NOTHING

    return convert


def _text_of(raw: object) -> str | None:
    """Return a scalar as JSON writes it: `true`, `1`, `yes`; null is the empty text, like an empty cell."""
    if raw is None:
        return ""
    if isinstance(raw, bool):
        return "true" if raw else "false"
    return str(raw) if isinstance(raw, (str, int, float)) else None


def _dated(name: str, date_format: str) -> Conversion:
    """`--date-format`: read a text by strptime, or a number since 1970; a time without a zone is UTC."""
    unit = _EPOCHS.get(date_format)

    @lru_cache(_REMEMBERED)
    def read(raw: str) -> datetime:
        time = datetime.strptime(raw, date_format)  # noqa: DTZ007 - the next line checks its zone
        return time if time.tzinfo else time.replace(tzinfo=UTC)

    def convert(raw: object) -> object:
        if raw is None or raw == "" or isinstance(raw, (datetime, Odd)):
            return raw
        try:
            if unit is not None:
                return datetime.fromtimestamp(_number(raw) * unit / 1_000, UTC)
            if isinstance(raw, str):
                return read(raw)
        except (ValueError, OverflowError, OSError):
            pass
        shown = f'"{raw}"' if isinstance(raw, str) else raw
        raise RowFaultError(f"{name}: expected a time by --date-format {date_format}, got {str(shown)[:60]}")

    return convert


def _number(raw: object) -> float:
    if isinstance(raw, str) and re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,9})?", raw):
        return float(raw)
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        return raw
    raise ValueError


def _with_point(name: str, raw: object) -> object:
    """`--decimal-comma`: `1.234,50` is 1234.50; groups of three may be separated by a point, space or apostrophe."""
    if not isinstance(raw, str) or raw == "":
        return raw
    match = _COMMA.fullmatch(raw)
    if match is None:
        raise RowFaultError(f'{name}: expected a number by --decimal-comma such as 1.234,50, got "{raw[:60]}"')
    sign, digits, _, fraction, exponent = match.groups()
    whole = re.sub(r"[^0-9]", "", digits)
    return f"{sign}{whole}.{fraction}{exponent}" if fraction else f"{sign}{whole}{exponent}"


def check_conversions(layout: Layout, shapes: Mapping[str, Sequence[Shape]], events: Sequence[str] | None) -> None:
    """Refuse options that name no field, and meanings that are no valid values.

    `shapes` holds the shapes by field name, `events` the names of events. Raises `WrongCall`.
    """
    for option, names in (("--values", layout.values), ("--date-format", layout.date_formats)):
        for name in names:
            if name and name not in shapes:
                hint = closest(name, shapes) or f"fields: {', '.join(sorted(shapes))[:200]}"
                raise WrongCall(f"{option} {name}: there is no such field", remedy=hint)
    for name, date_format in layout.date_formats.items():
        if name and all(shape.type is not FieldType.TIME for shape in shapes[name]):
            raise WrongCall(f"--date-format {name}: it is of type {shapes[name][0].type}, not a time")
        _check_format(date_format)
    for name, texts in layout.values.items():
        for text, meaning in texts.items():
            if meaning:
                _check_meaning(f"--values {name}={text}:{meaning}", name, meaning, shapes[name], events)


def _check_meaning(text: str, name: str, meaning: str, shapes: Sequence[Shape], events: Sequence[str] | None) -> None:
    if events is not None and name == "name":
        if meaning not in events:
            raise WrongCall(f"{text}: no event is called {meaning!r}", remedy=closest(meaning, events))
        return
    for shape in shapes:
        if shape.type is FieldType.TIME:
            continue  # the date format reads it
        try:
            parse_scalar(shape, meaning)
        except ValueError as error:
            raise WrongCall(f"{text}: {error}") from error


def _check_format(date_format: str) -> None:
    if date_format in ("iso", *_EPOCHS):
        return
    remedy = "such as %d.%m.%Y, '%m/%d/%Y %H:%M', iso, unix (seconds since 1970) or unix-ms"
    if "%" not in date_format:
        raise WrongCall(f"--date-format {date_format}: expected a format", remedy=remedy)
    try:
        datetime.strptime("", date_format)  # noqa: DTZ007 - only the format is checked
    except ValueError as error:
        if "bad directive" in str(error) or "stray" in str(error) or "redefinition" in str(error):
            raise WrongCall(f"--date-format {date_format}: {error}", remedy=remedy) from error
    except re.error as error:
        raise WrongCall(f"--date-format {date_format}: {error}", remedy=remedy) from error
    if not any(part in date_format for part in ("%Y", "%y", "%c", "%x", "%G")):
        raise WrongCall(f"--date-format {date_format}: it has no year", remedy=remedy)
