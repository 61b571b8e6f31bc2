"""The events of one campaign in order: from the log search if it answers, else from what the records remember."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from engine.clock import Instant, format_instant
from engine.domain.campaign import CampaignRecord
from engine.telemetry.people import details

SHOWN: Final = 60
"""Events of a timeline, the latest."""
_PREFIXES: Final = ("campaign.", "run.planned", "run.decided", "run.failed", "run.dropped", "access.acted")
_SLICES: Final = ("slice.suspect", "slice.split", "slice.dead", "slice.failed", "slice.moved")
_HIDDEN: Final = frozenset(
    {
        "workspace",
        "campaign",
        "campaign_uid",
        "run",
        "slice",
        "policy",
        "kind",
        "profile",
        "message_id",
        "as_of",
        "trace",
    }
)


class LogReads(Protocol):
    """The log search (`engine.stores.search.log_index`)."""

    def search(self, query: Mapping[str, object], limit: int) -> list[Mapping[str, Any]] | None:
        """Return the newest lines of a query, oldest first; None if nothing was shipped yet."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One event: when (ISO 8601, UTC), its name, and in words what is known of it."""

    at: str
    event: str
    text: str


def timeline(logs: LogReads, uid: str) -> list[Moment] | None:
    """Return the latest events of a campaign, the latest first; None if the log search holds nothing yet.

    Raises `ServiceUnreachable` while it is away, `OperatorError` if it refuses.
    """
    actions: list[dict[str, object]] = [{"prefix": {"event.action": prefix}} for prefix in (*_PREFIXES, *_SLICES)]
    query = {
        "bool": {
            "filter": [{"term": {"labels.campaign_uid": uid}}],
            "should": actions,
            "minimum_should_match": 1,
        }
    }
    lines = logs.search(query, SHOWN)
    return None if lines is None else [_moment(line) for line in reversed(lines)]


def remembered(record: CampaignRecord) -> list[Moment]:
    """Return what the campaign's own record remembers, the latest first; in campaign time unless it says otherwise."""
    known: list[tuple[Instant | None, str, str]] = [
        (record.launched_at, "campaign.started", "the campaign went live"),
        (record.resumed_at or None, "campaign.resumed", "the latest resume"),
        (record.finished_at, "campaign.finished", "every enrolment ended"),
        *((stuck.since, "campaign.stuck", stuck.reason) for stuck in record.stuck_by.values()),
    ]
    if record.slowness is not None:
        name = "campaign.slowed" if record.slowed else "campaign.recovered"
        known.append((record.slowness.since, name, record.slowness.text))
    dated = sorted(((at, name, text) for at, name, text in known if at is not None), reverse=True)
    return [Moment(format_instant(at), name, text) for at, name, text in dated]


def _moment(line: Mapping[str, Any]) -> Moment:
    event = line.get("event")
    action = event.get("action", "") if isinstance(event, Mapping) else ""
    shown: Iterable[tuple[str, object]] = (item for item in details(line).items() if item[0] not in _HIDDEN)
    labels = line.get("labels")
    who: Sequence[str] = ()
    if isinstance(labels, Mapping) and action == "access.acted":
        who = (f"{labels.get('access')}: {labels.get('kind')}",)
    kind = labels.get("kind") if isinstance(labels, Mapping) and str(action).startswith("run.") else None
    words = [*who, *([str(kind)] if kind else []), *(f"{name} {value}" for name, value in shown if name != "access")]
    return Moment(str(line.get("@timestamp", "")), str(action), ", ".join(words))
