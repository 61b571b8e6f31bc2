"""What an import asks of the stores, and what came of it; values only, so that stores and use cases share them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from engine.clock import Instant

Stored: TypeAlias = "str | int | float | bool | list[str] | list[int] | list[float]"
"""A catalogued value as it is stored: decimals as scaled whole numbers, times as instants."""


class RowOutcome(StrEnum):
    """What became of one row; the five add up to the rows read."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REPEATED = "repeated"
    REJECTED = "rejected"


class UserChange(NamedTuple):
    """New values for some fields of one user.

    `fields` goes from document path (`email`, `a.plan`) to value; None removes the field, a path that is not named
    stays as it is.
    """

    key: str
    fields: Mapping[str, Stored | None]


class NewEvent(NamedTuple):
    """Something a user did. `user` is the user key, `id` the event's id inside that user, `at` campaign time."""

    user: str
    id: str
    name: str
    at: Instant
    properties: Mapping[str, Stored]


@dataclass(frozen=True, slots=True)
class Applied:
    """The end of one batch: an outcome per row, in order, and the keys of the users that were written.

    `reasons` tells by row number (from 0 inside the batch) why a row was `REJECTED` by the store.
    """

    outcomes: list[RowOutcome]
    touched: set[str]
    reasons: Mapping[int, str]
