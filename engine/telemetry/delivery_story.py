"""The story of one delivery: every line of its user in its campaign, and of the pass that chose it.

A delivery's line has its pass's `trace.id` (`engine.telemetry.events.trace_id`), and so do the lines of that pass's
run, slices and batches. Of those, the story keeps the run's, the choosing slice's, and those of other slices whose user
range contains this user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from engine.domain.keys import HIGHEST, escape
from engine.telemetry.log_query import value_of

Line: TypeAlias = Mapping[str, object]

LONGEST: Final = 5_000
"""Lines of one story: a pass over a million users has about a thousand batches, few of which contain this user."""


HIDDEN: Final = "~"
"""Replaces the hash in a bound that is the key of a pseudonymised user (`Redactor.key`)."""


@dataclass(frozen=True, slots=True)
class Focus:
    """The subject of a story: one user in one campaign, and the passes and choosing slices that the hits name."""

    user: str
    campaign: str
    user_hash: str
    traces: frozenset[str]
    slices: frozenset[str]

    def elastic(self) -> dict[str, object]:
        """Return the Elasticsearch query of a superset.

        It excludes other users' lines, of which a pass may have a million.
        """
        mine = {"term": {"labels.user": self.user}}
        nobody = {"bool": {"must_not": [{"exists": {"field": "labels.user"}}]}}
        carried = [
            {"terms": {"trace.id": sorted(self.traces)}},
            {"bool": {"filter": [mine, {"term": {"labels.campaign": self.campaign}}]}},
        ]
        return {"bool": {"filter": [{"bool": {"should": carried}}, {"bool": {"should": [mine, nobody]}}]}}

    def holds(self, line: Line) -> bool:
        """Return whether `line` belongs to the story."""
        user = value_of(line, "labels.user")
        if user is not None:
            return user == self.user and value_of(line, "labels.campaign") == self.campaign
        if value_of(line, "trace.id") not in self.traces:
            return False
        part = value_of(line, "labels.slice")
        mine = part is None or part in self.slices
        first, until = value_of(line, "tidegate.first"), value_of(line, "tidegate.until")
        if not isinstance(first, str) or not isinstance(until, str):
            return mine
        # For a batch or a slice that was cut, the user must be in its range. A pseudonymised bound does not show that:
        # keep such a line inside the user's own slice, and drop it in another one.
        if HIDDEN in (first[:1], until[:1]):
            return mine
        return self._within(first, until)

    def _within(self, first: str, until: str) -> bool:
        if len(self.user_hash) == 8:
            return first <= f"{self.user_hash}/{escape(self.user)}" < until
        # Half of a pseudonymised user's hash is known: better one batch too many than one too few.
        digits = len(self.user_hash)
        return first[:digits] <= self.user_hash and (until == HIGHEST or self.user_hash <= until[:digits])


def story(hits: Iterable[Line], about: Callable[[Focus], Iterable[Line]]) -> list[Line]:
    """Return the lines of the story of the newest delivery among `hits`, oldest first; empty if no hit names a user.

    `about` searches a superset of the lines that a focus `holds` (see `Focus.elastic`).
    """
    named = [line for line in hits if value_of(line, "labels.user") and value_of(line, "labels.campaign")]
    if not named:
        return []
    newest = max(named, key=order_of)
    user, campaign = str(value_of(newest, "labels.user")), str(value_of(newest, "labels.campaign"))
    mine = [
        line for line in named if (value_of(line, "labels.user"), value_of(line, "labels.campaign")) == (user, campaign)
    ]
    focus = Focus(
        user,
        campaign,
        str(value_of(newest, "tidegate.user_hash") or ""),
        frozenset(str(trace) for line in mine if (trace := value_of(line, "trace.id")) is not None),
        frozenset(str(part) for line in mine if (part := value_of(line, "labels.slice")) is not None),
    )
    return sorted((line for line in about(focus) if focus.holds(line)), key=order_of)


def order_of(line: Line) -> tuple[str, int, int]:
    """Return the sort key of lines in writing order: time, then process id and the process's own count."""
    pid, sequence = value_of(line, "process.pid"), value_of(line, "event.sequence")
    return str(line.get("@timestamp", "")), int(str(pid or 0)), int(str(sequence or 0))
