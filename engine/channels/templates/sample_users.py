"""Sample users made from a workspace's fields: the cases that a template must handle before anybody gets a mail."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from typing import Final

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.fields import Field
from engine.catalogue.values import FieldType
from engine.channels.templates.context import Moment
from engine.clock import Instant

_MOST_WORDS: Final = 20
"""Maximum words of a template's comparisons for which sample users are made."""
_DAY: Final = 86_400_000
_LONG: Final = "Ω<b>\"'&amp;\r\n{{ x }} " * 12
_KNOWN: Final = {"user_id": "sample-1", "email": "sample@example.org", "first_name": "Anna", "last_name": "Example"}


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample user: a description of its kind, and its values as templates see them."""

    kind: str
    values: Mapping[str, object]


def sample_users(catalogue: Catalogue, as_of: Instant, words: Collection[str] = ()) -> Iterator[Sample]:
    """Yield users with every field, with none and with extremes, and for each of `words` one with this text."""
    makers: list[tuple[str, Callable[[Field], object]]] = [
        ("a user with every field", lambda field: _usual(field, catalogue, as_of)),
        ("a user with the largest values", lambda field: _large(field, as_of)),
        ("a user with zeros and empty texts", _small),
        ("a user with negative values", _negative),
    ]
    fields = catalogue.fields.values()
    yield Sample(makers[0][0], {field.name: _many(field, makers[0][1](field)) for field in fields})
    yield Sample("a user without any field", {name: _KNOWN[name] for name in ("user_id", "email")})
    for kind, make in makers[1:]:
        made = {field.name: _many(field, make(field)) for field in fields}
        yield Sample(kind, {**made, **{name: _KNOWN[name] for name in ("user_id", "email")}})
    for word in sorted(words)[:_MOST_WORDS]:
        own = {field.name: word for field in fields if field.type is FieldType.STRING and field.name not in _KNOWN}
        usual = {field.name: _usual(field, catalogue, as_of) for field in fields}
        yield Sample(
            f'a user whose fields are "{word}"', {f.name: _many(f, own.get(f.name, usual[f.name])) for f in fields}
        )


def _many(field: Field, value: object) -> object:
    if not field.many:
        return value
    return [] if value in ("", None) else [value, value]


def _moment(at: Instant) -> Moment:
    return Moment.fromtimestamp(at / 1000, UTC)


def _usual(field: Field, catalogue: Catalogue, as_of: Instant) -> object:
    known = {**_KNOWN, "timezone": catalogue.timezone, "locale": catalogue.locale}
    match field.type:
        case FieldType.STRING:
            return known.get(field.name, "sample")
        case FieldType.INTEGER:
            return 3
        case FieldType.DECIMAL:
            return Decimal(1250).scaleb(-field.scale)
        case FieldType.NUMBER:
            return 2.5
        case FieldType.BOOLEAN:
            return True
        case FieldType.TIME:
            return _moment(max(as_of - 3 * _DAY, 0))


def _large(field: Field, as_of: Instant) -> object:
    match field.type:
        case FieldType.STRING:
            return _LONG
        case FieldType.INTEGER:
            return 10**15
        case FieldType.DECIMAL:
            return Decimal(10**15 + 1).scaleb(-field.scale)
        case FieldType.NUMBER:
            return 1e15
        case FieldType.BOOLEAN:
            return True
        case FieldType.TIME:
            return _moment(as_of + 36_500 * _DAY)


def _small(field: Field) -> object:
    match field.type:
        case FieldType.STRING:
            return ""
        case FieldType.INTEGER:
            return 0
        case FieldType.DECIMAL:
            return Decimal(0).scaleb(-field.scale)
        case FieldType.NUMBER:
            return 0.0
        case FieldType.BOOLEAN:
            return False
        case FieldType.TIME:
            return _moment(0)


def _negative(field: Field) -> object:
    match field.type:
        case FieldType.STRING:
            return " "
        case FieldType.INTEGER:
            return -1
        case FieldType.DECIMAL:
            return Decimal(-1).scaleb(-field.scale)
        case FieldType.NUMBER:
            return -0.5
        case FieldType.BOOLEAN:
            return False
        case FieldType.TIME:
            return _moment(-_DAY)
