"""The telemetry contract as a table: each event's name, level, labels, measurements with their units, and meaning.

Logs, metrics and the map subscribe to these events; a test checks `docs/logs.md` against this table.
"""

from __future__ import annotations

from typing import Final

from engine.telemetry.event_type import ALWAYS, EVENTS, INSTANTS, LABELS, EventType
from engine.telemetry.event_type import declare as _event

__all__ = ["ALWAYS", "EVENTS", "INSTANTS", "LABELS", "EventType"]

_CAMPAIGN: Final = "workspace campaign campaign_uid"
_RUN: Final = f"{_CAMPAIGN} run kind profile policy lane"
_SLICE: Final = f"{_RUN} slice attempt fleet actor workspace_set"
_DELIVERY: Final = f"{_CAMPAIGN} run slice lane message user entry key channel reason attempt"
_RANGE: Final = {"first": "user suffix, inclusive", "until": "user suffix, exclusive"}
_USERS: Final = ("users", "matched", "entered", "reentered", "exited", "waited", "missed", "unchanged", "conflicts")
_MESSAGES: Final = ("chosen", "holdout", "skipped", "sent", "failed", "unknown", "retried")
_COUNTS: Final = dict.fromkeys(_USERS, "users") | dict.fromkeys(_MESSAGES, "messages")
_RANGED: Final = _RANGE | _COUNTS

_event("worker.started", "A process is up and serves its lanes.", "process fleet lane", measures={"threads": "threads"})
_event("worker.stopped", "A process has ended its work.", "process fleet lane reason")
_event(
    "worker.stalled",
    "A thread or consumer died; the process ends itself.",
    "process fleet lane reason",
    level="error",
    outcome="failure",
)
_event("service.lost", "A service does not answer.", "service reason", level="warning", outcome="failure")
_event("service.back", "A service answers again.", "service")
_event("web.serving", "The pages are served at the address in `path`.", "process path")
_event("access.added", "An access to the pages was added; `kind` is its role.", "access workspace kind")
_event("access.removed", "An access to the pages was removed; its sessions and its token are void.", "access")
_event("access.granted", "Somebody logged in; the text is the address.", "access")
_event(
    "access.refused",
    "A log-in failed; the text is the address.",
    "access",
    level="warning",
    outcome="failure",
)
_event(
    "access.acted",
    "Somebody acted on the pages: `access` is who, `kind` is what.",
    f"access kind {_CAMPAIGN} lane message reason",
    measures={"messages": "messages"},
)
_event("clock.set", "Campaign time was moved forward.", instants="campaign_time")

for _verb, _meaning in {
    "applied": "A campaign file was applied.",
    "launched": "The campaign was launched.",
    "started": "The campaign's start has come: it is live.",
    "paused": "The campaign was paused by hand or by its error budget.",
    "resumed": "The campaign was resumed.",
    "stopped": "Intake was ended: the campaign is draining.",
    "draining": "The campaign drains: no user enters any more.",
    "cancelled": "The campaign was cancelled.",
    "finished": "Every enrolment has ended and every message is settled.",
    "closed": "The campaign's last goal window is over: conversions are no longer counted.",
}.items():
    _event(f"campaign.{_verb}", _meaning, f"{_CAMPAIGN} kind profile state reason", measures={"revision": "number"})
_event(
    "campaign.stuck",
    "The campaign cannot finish by itself; the reason says what to fix.",
    f"{_CAMPAIGN} reason slice",
    level="warning",
    outcome="failure",
    measures={"deliveries": "messages"},
)

_event(
    "campaign.late",
    "The campaign should have gone on by now and has not; the reason says what holds it back.",
    f"{_CAMPAIGN} reason",
    level="warning",
)
_event("campaign.on_time", "The campaign is not late any more.", f"{_CAMPAIGN} reason")
_event("campaign.unstuck", "The obstacle is gone: the campaign continues.", f"{_CAMPAIGN} reason")
_event(
    "campaign.slowed",
    "The campaign was measured as slow and moves to its slow lane.",
    f"{_CAMPAIGN} profile policy reason",
    level="warning",
)
_event(
    "campaign.recovered",
    "The campaign is quick again and moves back to its own lane.",
    f"{_CAMPAIGN} profile policy reason",
)
_event(
    "campaign.over_budget",
    "More of the campaign's deliveries failed than its profile allows.",
    f"{_CAMPAIGN} profile policy reason",
    level="error",
    outcome="failure",
    measures={"failed": "messages", "ended": "messages"},
)

_event(
    "run.planned",
    "A run was split into slices.",
    f"{_RUN} path",
    instants="as_of",
    measures={"slices": "slices", "users": "users"},
)
_event(
    "run.failed",
    "Planning or closing a run failed; the engine tries again after a back-off.",
    f"{_RUN} reason",
    level="error",
    outcome="failure",
    instants="as_of",
)
_event("run.decided", "No slice of the run is open.", _RUN, instants="as_of", measures={"slices": "slices"} | _COUNTS)
_event(
    "run.dropped", "A newer run replaced the run.", f"{_RUN} reason", instants="as_of", measures={"slices": "slices"}
)
_event(
    "pass.overlapped",
    "The time of a pass came while a run of its campaign was open; the profile's `overlap` says what becomes of it.",
    f"{_RUN} reason",
)
_event("slice.claimed", "A worker holds the slice under a lease.", _SLICE, instants="as_of", measures=_RANGE)
_event("slice.closed", "Every user in its range was handled.", f"{_SLICE} state", instants="as_of", measures=_RANGED)
_event(
    "slice.released",
    "The slice was given back before its end, at a checkpoint.",
    f"{_SLICE} reason",
    instants="as_of",
    measures=_RANGED,
)
_event(
    "slice.failed",
    "An attempt failed; the engine tries again.",
    f"{_SLICE} reason",
    level="error",
    outcome="failure",
    instants="as_of",
    measures=_RANGE,
)
_event(
    "slice.suspect",
    "A claim died before a checkpoint: the slice moves to the lane of suspects.",
    f"{_SLICE} reason",
    level="warning",
    outcome="failure",
    instants="as_of",
    measures={"deaths": "claims"} | _RANGE,
)
_event(
    "slice.split",
    "A suspect slice, or one that exceeded its time limit, was split into halves.",
    f"{_SLICE} reason",
    level="warning",
    outcome="failure",
    instants="as_of",
    measures=_RANGE,
)
_event(
    "slice.dead",
    "A slice of one user killed its worker three times.",
    f"{_SLICE} reason user",
    level="error",
    outcome="failure",
    instants="as_of",
    measures=_RANGE,
)
_event(
    "slice.moved", "The slice was enqueued on another lane after a policy edit.", f"{_SLICE} reason", instants="as_of"
)
_event(
    "batch.decided",
    "One batch of users was decided and its checkpoint written.",
    _SLICE,
    instants="as_of",
    measures=_RANGED,
)
_event(
    "looks.decided",
    "Changed users were evaluated in one campaign.",
    f"{_CAMPAIGN} slice policy",
    instants="as_of",
    measures=_COUNTS,
)
_event(
    "feed.handled",
    "A micro-batch of changes is in the cache and in the index, and its re-evaluations are requested.",
    measures={"users": "users", "looks": "users"},
)
_event(
    "feed.gap",
    "Changes are unknown, or did not reach the cache: everything cached before is invalid.",
    "reason",
    level="warning",
    outcome="failure",
    measures={"generation": "number"},
)
_event(
    "search.refilled",
    "The users of some workspaces are indexed in Elasticsearch, for the first time or again.",
    "reason",
    level="warning",
)
_event(
    "plan.fallback",
    "A pass reads MongoDB, because its access path was not up to date.",
    f"{_CAMPAIGN} run reason",
    level="warning",
    outcome="failure",
)
_event("batch.delivered", "One window of deliveries was settled.", _SLICE, instants="as_of", measures=_RANGED)

_event(
    "delivery.sent",
    "The provider accepted the message.",
    _DELIVERY,
    instants="chosen_at as_of",
    measures={"attempts": "attempts"},
)
_event(
    "delivery.failed",
    "The provider refused the message for good, or it could not be made.",
    _DELIVERY,
    level="warning",
    outcome="failure",
    instants="chosen_at as_of",
    measures={"attempts": "attempts"},
)
_event(
    "delivery.unknown",
    "It is not known whether the provider accepted the message.",
    _DELIVERY,
    level="warning",
    outcome="unknown",
    instants="chosen_at as_of",
    measures={"attempts": "attempts"},
)
_event(
    "delivery.skipped",
    "The message was settled without being sent.",
    _DELIVERY,
    instants="chosen_at as_of",
    measures={"attempts": "attempts"},
)
_event(
    "delivery.retried",
    "The message was not sent now: it is queued again.",
    _DELIVERY,
    outcome="unknown",
    instants="chosen_at as_of not_before",
    measures={"attempts": "attempts", "after": "seconds"},
)
_event(
    "delivery.recovered",
    "An attempt that a crash left open was settled or queued again.",
    f"{_DELIVERY} state",
    level="warning",
    outcome="unknown",
    instants="chosen_at as_of",
    measures={"attempts": "attempts"},
)
_event(
    "address.suppressed",
    "A mail to an address bounced for good: nothing more is sent to it until a person lifts the suppression.",
    f"{_CAMPAIGN} message user key reason",
    level="warning",
    outcome="failure",
)
_event(
    "address.restored", "A person lifted a suppression: mails to the address are sent again.", "workspace user reason"
)
_event(
    "lease.reconciled",
    "Expired leases were put back in their lanes.",
    "lane reason",
    measures={"slices": "slices", "deliveries": "messages"},
)

_event(
    "gate.changed",
    "The limit of a store's bulk work changed, for the reason given; without a limit the gate is open.",
    "service reason",
    measures={
        "limit": "operations at a time",
        "before": "operations at a time",
        "used": "operations at a time",
        "p50": "seconds",
        "p95": "seconds",
    },
)
_event("gate.held", "A person set the limit of a store's bulk work, or ended such a setting.", "service reason")
_event(
    "policy.swapped", "A complete valid set of policies is in force.", "policy path", measures={"profiles": "profiles"}
)
_event(
    "lane.left",
    "A process has left a lane to the fleets that serve it after a policy edit.",
    "process lane policy",
)
_event(
    "lane.swept",
    "Messages that waited in the queue of a removed lane were moved to the lanes of their campaigns.",
    "lane policy",
    measures={"messages": "messages", "expired": "messages"},
)
_event(
    "policy.refused",
    "An edit is invalid; the last good set stays in force.",
    "policy path",
    level="error",
    outcome="failure",
    measures={"faults": "faults"},
)
_event(
    "workspace.swapped",
    "A complete valid set of workspace files is in force; the text names those that changed.",
    "workspace_set path",
    measures={"workspaces": "workspaces"},
)
_event(
    "workspace.refused",
    "An edit of a workspace file is invalid; the last good set stays in force.",
    "workspace_set path",
    level="error",
    outcome="failure",
    measures={"faults": "faults"},
)
_event("import.started", "An import began or was resumed.", "workspace kind list path", measures={"resumed_at": "rows"})
_event(
    "import.finished",
    "An import ended.",
    "workspace kind list path reason",
    measures={
        "rows": "rows",
        "created": "rows",
        "updated": "rows",
        "unchanged": "rows",
        "repeated": "rows",
        "rejected": "rows",
    },
)
_event(
    "users.indexed",
    "Users were written into the search index.",
    "workspace",
    measures={"users": "users", "older": "users"},
)
_event(
    "cache.away",
    "The user cache does not answer; users are read from MongoDB.",
    "reason",
    level="warning",
    outcome="failure",
)
_event("cache.back", "The user cache answers again.")
_event(
    "cache.full",
    "The user cache's memory is too small for what is read; the rest is read from MongoDB.",
    "reason",
    level="warning",
    outcome="failure",
    measures={"used": "bytes", "limit": "bytes", "evicted": "keys"},
)
_event("cache.fits", "The user cache's memory is enough again.", measures={"used": "bytes", "limit": "bytes"})
_event("schema.migrated", "Indexes and templates were brought up to date.", "service", measures={"indexes": "indexes"})
_event(
    "ship.away",
    "The log search does not take lines; they wait in their files.",
    "service reason",
    level="warning",
    outcome="failure",
    measures={"waiting": "bytes"},
)
_event("ship.back", "The log search takes lines again.", "service")
_event(
    "ship.rejected",
    "The log search refused lines for good; they were put aside.",
    "reason",
    level="error",
    outcome="failure",
    measures={"lines": "lines"},
)
_event(
    "engine.failed",
    "An unexpected error was raised; the error says where.",
    f"{_SLICE} process message user entry key reason channel",
    level="error",
    outcome="failure",
    instants="as_of chosen_at",
)
