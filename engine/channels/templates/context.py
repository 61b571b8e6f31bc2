"""The values that a template sees: the user's declared fields as people write them, and campaign and message names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.fields import Field
from engine.catalogue.values import FieldType, normaliser
from engine.clock import Instant, moment

_FOLDER: Final = {"attribute": "a", "aggregate": "g"}


class Moment(datetime):
    """A time that prints as ISO 8601 in UTC; `date` formats it."""

    def __str__(self) -> str:
        return self.strftime("%Y-%m-%dT%H:%M:%SZ")


class UserValues:
    """Read the declared fields with given names (None: all) from user documents, by name; missing fields are left out.

    Decimals are `Decimal` with their declared places, times are `Moment`, strings keep their case.
    """

    def __init__(self, catalogue: Catalogue, names: Collection[str] | None = None) -> None:
        fields = [field for name, field in catalogue.fields.items() if names is None or name in names]
        self._fields = [
            (field.name, field, _FOLDER.get(field.kind), _stored_as(field), normaliser(field)) for field in fields
        ]

    @property
    def paths(self) -> list[str]:
        """The paths of the fields in a user document, for a projection."""
        return [f"{folder}.{stored}" if folder else stored for _, _, folder, stored, _ in self._fields]

    def of(self, document: Mapping[str, object]) -> dict[str, object]:
        """Return the values of one user."""
        values: dict[str, object] = {}
        for name, declared, folder, stored, normalise in self._fields:
            # Use the stored value, not its folded copy: "Dear ANNA" is how Anna wrote it.
            inside = document if folder is None else document.get(folder)
            value = normalise(inside.get(stored)) if isinstance(inside, dict) else None
            if isinstance(value, tuple):
                values[name] = [_shown(item, declared) for item in value]
            elif value is not None:
                values[name] = _shown(value, declared)
        return values


def user_values(document: Mapping[str, object], catalogue: Catalogue) -> dict[str, object]:
    """Return every declared field that has a value in a user document, by name."""
    return UserValues(catalogue).of(document)


def context(
    document: Mapping[str, object], catalogue: Catalogue, *, campaign: str, message: str, as_of: Instant
) -> dict[str, object]:
    """Return the context for `templates.render`, with every field of the user."""
    return {"user": user_values(document, catalogue), **surroundings(catalogue, campaign, message, as_of)}


def surroundings(catalogue: Catalogue, campaign: str, message: str, as_of: Instant) -> dict[str, object]:
    """Return the values besides `user`: names, the workspace's zone, locale and currency, and `as_of`."""
    return {
        "campaign": {"name": campaign},
        "message": {"name": message},
        "workspace": {"name": catalogue.workspace},
        "as_of": _moment(as_of),
        "timezone": catalogue.timezone,
        "locale": catalogue.locale,
        "currency": catalogue.currency,
    }


def _stored_as(declared: Field) -> str:
    return "u" if declared.name == "user_id" else declared.name


def _shown(value: object, declared: Field) -> object:
    if declared.type is FieldType.DECIMAL and isinstance(value, int):
        return Decimal(value).scaleb(-declared.scale)
    if declared.type is FieldType.TIME and isinstance(value, int):
        return _moment(value)
    return value


def _moment(at: Instant) -> Moment:
    return Moment.fromtimestamp(0, UTC) + (moment(at) - moment(0))
