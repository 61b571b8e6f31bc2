"""The gate of a store: what its processes share, and what is measured of the store."""

from __future__ import annotations

from typing import Protocol

from engine.domain.gate import GateState, GateView, Gauge, Member, Override


class GateStore(Protocol):
    """Share a gate among all processes; each method returns None or False while the store of the gate is away."""

    def beat(self, member: Member, *, may_control: bool) -> GateView | None:
        """Report this process and return the gate; one of those that may controls it."""

    def view(self) -> GateView | None:
        """Return the gate without taking part."""

    def decide(self, member: str, state: GateState, gauge: Gauge) -> bool:
        """Record the controller's decision; return False if another process controls the gate by now."""

    def override(self, override: Override | None) -> bool:
        """Record a person's setting, or end it (None)."""

    def gone(self, member: str) -> None:
        """Record that a process has ended."""


class StoreProbe(Protocol):
    """Measure a store as its other users see it."""

    def read(self) -> None:
        """Read one document by its key."""

    def write(self) -> None:
        """Write one document durably."""

    def health(self) -> tuple[float | None, int | None]:
        """Return the replication lag (s) and the operations that wait in the server's queue; None: not readable."""
