"""What a template sees: the user's declared fields as people write them, and the names of campaign and message."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from engine.clock import Instant, moment
from engine.predicate.fields import Catalogue, Field
from engine.predicate.values import FieldType, normaliser

_FOLDER: Final = {"attribute": "a", "aggregate": "g"}


class Moment(datetime):
    """A time that prints as ISO 8601 in UTC; `date` formats it."""

    def __str__(self) -> str:
        return self.strftime("%Y-%m-%dT%H:%M:%SZ")


def user_values(document: Mapping[str, object], catalogue: Catalogue) -> dict[str, object]:
    """The declared fields that a user document has a value for, by name; what is missing is left out.

    Decimals are `Decimal` with their declared places, times are `Moment`, strings keep their case.
    """
    values: dict[str, object] = {}
    for name, declared in catalogue.fields.items():
        value = _value(document, declared)
        if value is not None:
            values[name] = value
    return values


def context(
    document: Mapping[str, object], catalogue: Catalogue, *, campaign: str, message: str, as_of: Instant
) -> dict[str, object]:
    """What `templates.render` wants: `user`, `campaign.name`, `message.name`, `workspace.name`, `as_of`, `timezone`."""
    return {
        "user": user_values(document, catalogue),
        "campaign": {"name": campaign},
        "message": {"name": message},
        "workspace": {"name": catalogue.workspace},
        "as_of": _moment(as_of),
        "timezone": catalogue.timezone,
    }


def _value(document: Mapping[str, object], declared: Field) -> object:
    # The stored value, not its folded copy: "Dear ANNA" is how Anna wrote it.
    folder = document if declared.kind == "builtin" else document.get(_FOLDER[declared.kind])
    if not isinstance(folder, Mapping):
        return None
    stored = folder.get("u" if declared.name == "user_id" else declared.name)
    value = normaliser(declared)(stored)
    if isinstance(value, tuple):
        return [_shown(item, declared) for item in value]
    return None if value is None else _shown(value, declared)


def _shown(value: object, declared: Field) -> object:
    if declared.type is FieldType.DECIMAL and isinstance(value, int):
        return Decimal(value).scaleb(-declared.scale)
    if declared.type is FieldType.TIME and isinstance(value, int):
        return _moment(value)
    return value


def _moment(at: Instant) -> Moment:
    return Moment.fromtimestamp(0, UTC) + (moment(at) - moment(0))
