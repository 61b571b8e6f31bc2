"""Values that an import passes to the stores and gets back; stores and use cases share them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from engine.clock import Instant

Stored: TypeAlias = "str | int | float | bool | list[str] | list[int] | list[float]"
"""A catalogued value in its stored form: decimals as scaled integers, times as instants."""


class RowOutcome(StrEnum):
    """The outcome of one imported row; the five counts add up to the number of rows read."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REPEATED = "repeated"
    REJECTED = "rejected"


class UserChange(NamedTuple):
    """New values for some fields of one user.

    `fields` maps a document path (`email`, `a.plan`) to its new value. None removes the field; a path that is not in
    `fields` keeps its value.
    """

    key: str
    fields: Mapping[str, Stored | None]


class NewEvent(NamedTuple):
    """One event. `user` is the user key, `id` identifies the event within that user, `at` is campaign time."""

    user: str
    id: str
    name: str
    at: Instant
    properties: Mapping[str, Stored]


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of one batch: an outcome per row, in order, and the keys of the users that were written.

    `reasons` maps the row number (from 0 within the batch) to the reason why the store rejected that row (`REJECTED`).
    """

    outcomes: list[RowOutcome]
    touched: set[str]
    reasons: Mapping[int, str]
