"""The meaning of a file's columns: renamings, defaults, omissions; and the checks that all kinds of rows share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NoReturn
from zoneinfo import available_timezones

from engine.catalogue.value_parsing import parse_value
from engine.catalogue.values import LONGEST_STRING, FieldType, Shape
from engine.catalogue.workspace_file import closest
from engine.domain.changes import Stored
from engine.errors import WrongCall

LONGEST_ID: Final = 500
"""Bytes in the id of a user, an event or a list: it is part of many keys."""


class RowFaultError(ValueError):
    """One row is wrong; the text says what is wrong and what to do."""


NOTHING: Final = object()
"""The value of a cell that `--values` maps to nothing: the field keeps its value."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read a file's columns.

    `mapping` leads from the file's names to ours. `defaults` are by our name, `ignored` holds the file's names.
    `values` maps texts to their meanings, by our name. `date_formats` are by our name; the one under `""` is for all
    other fields. `ignore_unknown` leaves out columns that the workspace does not declare. `row_id` numbers rows that
    have no id. `omit_addresses` imports users with a bad address without that address.
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    date_formats: Mapping[str, str] = field(default_factory=dict)
    decimal_comma: bool = False
    ignore_unknown: bool = False
    row_id: bool = False
    omit_addresses: bool = False

    @property
    def identity(self) -> tuple[object, ...]:
        """Return what distinguishes one layout from another, in a fixed order."""
        return (
            sorted(self.mapping.items()), sorted(self.defaults.items()), sorted(self.ignored),
            sorted((name, sorted(texts.items())) for name, texts in self.values.items()),
            sorted(self.date_formats.items()), self.decimal_comma, self.ignore_unknown, self.row_id,
            self.omit_addresses,
        )  # fmt: skip

    def targets(self, columns: Sequence[str], aliases: Mapping[str, str]) -> list[str | None]:
        """Return our name for each column of a file, None for a column to leave out.

        An alias counts only if the file has no column with the real name. Raises `WrongCall` if a column has no name or
        is there twice, or if an option names a missing column.
        """
        for option, names in (("--map", self.mapping), ("--ignore", self.ignored)):
            for name in names:
                if name not in columns:
                    raise no_column(option, name, columns)
        if "" in columns and not self.ignore_unknown:
            place = columns.index("") + 1
            raise WrongCall(
                f"column {place} of the header has no name",
                remedy="name it, remove an extra delimiter, or pass --ignore-unknown",
            )
        taken = {self.mapping.get(column, column) for column in columns}
        targets: list[str | None] = []
        for column in columns:
            name = self.mapping.get(column, column)
            if column not in self.mapping and name in aliases and aliases[name] not in taken:
                name = aliases[name]
            targets.append(None if column in self.ignored or not column else name)
        named = [name for name in targets if name is not None]
        for name in named:
            if named.count(name) > 1:
                raise WrongCall(f"the column {name} appears twice", remedy="remove one, or pass --ignore or --map")
        return targets


def no_column(option: str, name: str, columns: Iterable[str]) -> WrongCall:
    """Return the error for an option that names a column or key that the file does not have."""
    known = list(columns)
    hint = closest(name, known) or f"it has {', '.join(known)[:200]}"
    return WrongCall(f"{option} {name}: the file has no such column", remedy=hint)


def absent(raw: object) -> bool:
    """Return whether a cell of a table holds no value: empty, null in Parquet, or mapped to nothing."""
    return raw is None or raw is NOTHING or raw == ""


def identifier(raw: object, what: str) -> str:
    """Return an id as text; whole numbers are accepted too. Raises `RowFaultError`."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        return str(raw)
    if absent(raw):
        raise RowFaultError(f"{what} is missing")
    if not isinstance(raw, str):
        raise RowFaultError(f"{what}: expected a text, got {str(raw)[:60]}")
    if not raw.isascii() or not raw.isprintable() or len(raw) > LONGEST_ID:
        try:
            size = len(raw.encode())
        except UnicodeEncodeError as error:
            raise RowFaultError(f"{what} is not valid Unicode: half of a surrogate pair") from error
        if size > LONGEST_ID:
            raise RowFaultError(f"{what} is {size} bytes long; an id has at most {LONGEST_ID}")
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in raw):
            raise RowFaultError(f"{what} has a control character (remove it)")
    if raw != raw.strip():
        raise RowFaultError(f"{what} begins or ends with a space (remove it)")
    return raw


def read_value(name: str, shape: Shape, raw: object) -> Stored | None:
    """Return a value of the catalogue, ready to store; None if it is missing. Raises `RowFaultError`."""
    zone = name == "timezone" and getattr(shape, "kind", "") == "builtin"
    # The most common cell by far is a short enough ASCII text, which is stored unchanged.
    if type(raw) is str and shape.type is FieldType.STRING and not shape.many and not zone:
        plain = len(raw) <= LONGEST_STRING and raw.isascii() and "\0" not in raw
        if plain:
            return raw
    try:
        value = parse_value(shape, raw)
    except ValueError as error:
        raise RowFaultError(f"{name}: {error}{advice(name, shape, raw)}") from error
    if isinstance(value, str):
        if "\0" in value:
            raise RowFaultError(f"{name}: has a NUL character (remove it)")
        if zone and value not in _zones():
            raise RowFaultError(
                f'timezone: "{value[:60]}" is not a time zone ({closest(value, _zones()) or "e.g. Europe/Berlin"})'
            )
    elif isinstance(value, list) and any(isinstance(item, str) and "\0" in item for item in value):
        raise RowFaultError(f"{name}: has a NUL character (remove it)")
    return value  # type: ignore[return-value] # the catalogue's arrays have one element type


def advice(name: str, shape: Shape, raw: object) -> str:
    """Return the option that would read a value that the strict reading has refused, or an empty text."""
    text = raw.strip() if isinstance(raw, str) else str(raw) if type(raw) in (int, float) else ""
    if not text or shape.many:
        return ""
    match shape.type:
        case FieldType.BOOLEAN:
            pair = next((pair for pair in _PAIRS if text.casefold() in pair), None)
            example = f"{pair[0]}:true,{pair[1]}:false" if pair else "TEXT:true,TEXT:false"
            return f"; pass --values {name}={example}"
        case FieldType.NUMBER | FieldType.DECIMAL:
            comma = "," in text and text[-1:].isdigit() and len(text.partition(",")[2]) != 3
            dotted = "." in text and "," in text and text.index(".") < text.index(",")
            ambiguous = len(text.partition(",")[2]) == 3 and text.count(",") == 1 and text.replace(",", "").isdigit()
            if dotted or (comma and text.count(",") == 1 and "." not in text):
                return "; pass --decimal-comma"
            return "; pass --decimal-comma if the comma begins the fraction" if ambiguous else ""
        case FieldType.TIME:
            return next((f"; pass --date-format {date_format}" for test, date_format in _DATES if test(text)), "")
        case FieldType.STRING | FieldType.INTEGER:
            return ""


_PAIRS: Final = (("1", "0"), ("yes", "no"), ("y", "n"), ("on", "off"), ("t", "f"), ("ja", "nein"), ("oui", "non"))
_DATES: Final[Sequence[tuple[Callable[[str], Any], str]]] = (
    (re.compile(r"[0-9]{9,10}(\.[0-9]+)?").fullmatch, "unix"),
    (re.compile(r"[0-9]{12,13}").fullmatch, "unix-ms"),
    (re.compile(r"[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{4}").fullmatch, "%d.%m.%Y"),
    (re.compile(r"(1[3-9]|2[0-9]|3[01])/[0-9]{1,2}/[0-9]{4}").fullmatch, "%d/%m/%Y"),
    (re.compile(r"[0-9]{1,2}/(1[3-9]|2[0-9]|3[01])/[0-9]{4}").fullmatch, "%m/%d/%Y"),
    (re.compile(r"[0-9]{1,2}/[0-9]{1,2}/[0-9]{4}").fullmatch, "%d/%m/%Y or %m/%d/%Y"),
    (re.compile(r"[0-9]{1,2}[./-].*").fullmatch, "FORMAT, such as '%d.%m.%Y %H:%M'"),
)
"""Texts that some people write as times, and the format that reads them."""


def refuse_key(key: object, known: Iterable[str], what: str, path: str = "") -> NoReturn:
    """Raise the reason why a key of a row is not read; `path` is its place if it is nested. Raises `RowFaultError`."""
    text = str(key)[:60]
    if path and not any(sign in text for sign in "$.\0"):
        raise RowFaultError(f'{what} "{path[:120]}" (pass --map {path[:120]}=FIELD, --ignore or --ignore-unknown)')
    if "$" in text:
        raise RowFaultError(f'the key "{text}" has a "$", which no name may have (rename it)')
    if "." in text:
        raise RowFaultError(f'the key "{text}" has a dot, which no name may have (rename it)')
    if "\0" in text:
        raise RowFaultError("a key has a NUL character (remove it)")
    raise RowFaultError(
        f'{what} "{text}" ({closest(text, known) or "declare it in the workspace file, or leave it out"})'
    )


def required(targets: Sequence[str | None], defaults: Mapping[str, Any], name: str, columns: Sequence[str]) -> None:
    """Refuse a file that lacks a required column. Raises `WrongCall`."""
    if name in targets or name in defaults:
        return
    listed = ", ".join(columns)[:200]
    near = closest(name, columns) or closest(name.replace("_", ""), columns)
    column = near.removeprefix("did you mean ").removesuffix("?") or "COLUMN"
    raise WrongCall(f"the file has no column {name} (its columns are {listed})", remedy=f"pass --map {column}={name}")


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
