"""Types of events: name, level, labels, measurements with their units, and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Level = Literal["debug", "info", "warning", "error"]
Result = Literal["success", "failure", "unknown"]

LABELS: Final = frozenset(
    {"workspace", "campaign", "campaign_uid", "run", "slice", "message", "user", "entry", "key", "lane", "fleet"}
    | {"actor", "process", "profile", "policy", "channel", "kind", "reason", "state", "service", "list", "attempt"}
    | {"path", "workspace_set", "access"}
)
"""Names that become `labels.NAME`: identities and short codes, always text, that searches use."""

INSTANTS: Final = frozenset({"as_of", "chosen_at", "not_before", "campaign_time"})
"""Campaign times (`engine.clock.Instant`), shown as ISO 8601 under `tidegate.NAME`."""

ALWAYS: Final = frozenset({"trace", "duration", "error", "outcome", "text"})
"""Fields that every event may carry.

They are an explicit trace id, a `timedelta`, an exception, an outcome, and an operator's text.
"""


@dataclass(frozen=True, slots=True)
class EventType:
    """One row of the contract.

    `labels` are identities (text), `measurements` map a name to its unit, `instants` are campaign times. `meaning` is
    one sentence. `allowed` holds every field name that `emit` accepts for this event.
    """

    name: str
    level: Level
    outcome: Result
    meaning: str
    labels: frozenset[str] = frozenset()
    measurements: Mapping[str, str] = field(default_factory=dict)
    instants: frozenset[str] = frozenset()

    @property
    def allowed(self) -> frozenset[str]:
        """Return every field name that this event may carry."""
        return self.labels | frozenset(self.measurements) | self.instants | ALWAYS


EVENTS: Final[dict[str, EventType]] = {}


def declare(
    name: str,
    meaning: str,
    labels: str = "",
    *,
    level: Level = "info",
    outcome: Result = "success",
    instants: str = "",
    measures: Mapping[str, str] | None = None,
) -> None:
    """Add one row to the contract; `labels` and `instants` are names separated by spaces."""
    known = frozenset(labels.split())
    EVENTS[name] = EventType(name, level, outcome, meaning, known, measures or {}, frozenset(instants.split()))
