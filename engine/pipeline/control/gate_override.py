"""A person's own setting of a gate, for a while."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Protocol

from engine.clock import format_duration, millis
from engine.domain.gate import GateView, Hold, Override
from engine.errors import ServiceUnreachable, WrongCall

LONGEST: Final = timedelta(days=7)
"""The longest time for which a person's setting may hold: longer than any incident, shorter than forgetting it."""
MOST: Final = 1_000
"""The highest limit that a person may set, in operations at a time."""


class GateStore(Protocol):
    """Where the gate is kept (`engine.stores.redis.gate`)."""

    def view(self) -> GateView | None:
        """Return the gate; None if its store does not answer."""

    def override(self, override: Override | None) -> bool:
        """Set a person's setting, or end it (None); return False if the store does not answer."""


def override_gate(store: GateStore, hold: Hold, lasts: timedelta, why: str, limit: float | None = None) -> Override:
    """Set the gate by hand for `lasts`; every process follows within a second. Return the setting.

    `limit` belongs to `Hold.LIMIT`. Raises `WrongCall` for a limit or a time that cannot be, `ServiceUnreachable`.
    """
    if hold is Hold.LIMIT and (limit is None or not 0 < limit <= MOST):
        given = "none" if limit is None else f"{limit:g}"
        raise WrongCall(f"limit: expected a number above 0 and at most {MOST}, got {given}", remedy="or close the gate")
    if not timedelta(0) < lasts <= LONGEST:
        raise WrongCall(f"for: expected at most {format_duration(LONGEST)}, got {format_duration(lasts)}")
    made = Override(hold, gate_view(store).now + millis(lasts), why, limit if hold is Hold.LIMIT else None)
    if not store.override(made):
        raise _away()
    return made


def release_gate(store: GateStore) -> None:
    """End a person's setting: the automatic limit is in force again. Raises `ServiceUnreachable`."""
    if not store.override(None):
        raise _away()


def gate_view(store: GateStore) -> GateView:
    """Return the gate. Raises `ServiceUnreachable`."""
    view = store.view()
    if view is None:
        raise _away()
    return view


def _away() -> ServiceUnreachable:
    return ServiceUnreachable(
        "the broker's Redis, which holds the gate, does not answer", remedy="tidegate status shows the services"
    )
