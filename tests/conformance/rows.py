"""The notation of the conformance table: groups of people, and rows of predicates with the people that match."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.conformance.population import COUPON, ORDER, Person

BIG = 2**53
NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Group:
    people: dict[str, Person]
    rows: tuple[tuple[str, str], ...]


def having(field: str, **values: Any) -> dict[str, Person]:
    """Return people whose attribute `field` holds these values."""
    return {name: Person({field: value}) for name, value in values.items()}


def orders(*times: int, **properties: Any) -> list[tuple[str, int, dict[str, Any]]]:
    return [(ORDER, t, properties) for t in times]


def coupons(*times: int) -> list[tuple[str, int, dict[str, Any]]]:
    return [(COUPON, t, {}) for t in times]
