"""Say which campaigns are late, by how much, and why. Pure.

A campaign is late when something of it could have gone on for longer than its profile's `late_after` and has not: its
launch, a pass, an evaluation, a message, a slice. What waits for its own time (a `wait:`, a start in the future, a
quiet window) is not late. The reason is the most certain one of those that were seen, in the order of `reason`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from engine.clock import format_duration, format_instant
from engine.domain.campaign import CampaignRecord
from engine.domain.gate import GateView, Hold, limit_in_force
from engine.domain.lifecycle import CampaignState
from engine.domain.stuck import StuckBy
from engine.domain.system_view import Late, Level, ProcessNode, SystemView

FEED_BEHIND: Final = 60.0
"""Seconds by which the feed must be behind to be the reason."""

NEAR_LIMIT: Final = 0.8
"""Share of a channel's rate from which the rate is what holds a delivery back."""


class Owed(StrEnum):
    """What a campaign owes, in the words that people read."""

    LAUNCH = "its launch"
    PASS = "a pass"  # noqa: S105 - a word
    EVALUATION = "evaluations"
    DELIVERY = "messages"
    SLICE = "slices"
    RUN = "a run"
    PROGRESS = "progress"


@dataclass(frozen=True, slots=True)
class Overdue:
    """Something of a campaign that could have gone on `by` seconds ago, and the lane that it would take."""

    owed: Owed
    by: float
    lane: str


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What may hold a campaign back: the picture of the installation, and the clocks that lead.

    `gate_floor` is the gate's `at_least` (None: no gate).
    """

    view: SystemView
    gate_floor: float | None = None


def late(record: CampaignRecord, overdue: Overdue, around: Circumstances) -> Late:
    """Return the campaign as late, with the most certain reason."""
    word, why, remedy = reason(record, overdue, around)
    return Late(
        workspace=record.workspace,
        campaign=record.name,
        uid=record.uid,
        by=overdue.by,
        reason=word,
        why=f"{overdue.owed.value} for {_time(overdue.by)}: {why}",
        remedy=remedy,
    )


def reason(record: CampaignRecord, overdue: Overdue, around: Circumstances) -> tuple[str, str, str]:
    """Return why the campaign does not go on: a word for metrics, a sentence, and what to do."""
    view = around.view
    lane = next((one for one in view.lanes if one.name == overdue.lane), None)
    producers = {one.name: one for one in view.producers}
    if record.state is CampaignState.PAUSED:
        return (
            "paused",
            f"it is paused ({record.paused_reason or 'no reason'})",
            f"tidegate campaign resume {record.name}",
        )
    if "broker" in view.missing:
        return "store", "the broker's Redis does not answer", "tidegate check"
    clock = producers.get("clock")
    if clock is not None and clock.verdict.level is Level.FAILING:
        return "no_clock", "no clock works", clock.verdict.remedy
    if StuckBy.SENDER in record.stuck_by:
        return "provider", f"the provider refuses: {record.stuck_by[StuckBy.SENDER].reason}", "tidegate check"
    if record.stuck_by:
        return "stuck", f"it is stuck: {record.stuck}", f"tidegate campaign show {record.name}"
    if lane is not None and not any(lane.name in process.lanes for process in _processes(view)):
        return "no_fleet", f"no living process serves the lane {lane.name}", lane.verdict.remedy or "tidegate status"
    held = _gate(view.gate, around.gate_floor)
    if held is not None:
        return "gate", held, "tidegate gate show"
    if overdue.owed in (Owed.DELIVERY, Owed.SLICE) and (limited := _rate(view)) is not None:
        return "rate", limited, "rates: in policies/lanes.yaml"
    refused = _refused(view)
    if overdue.owed is Owed.DELIVERY and refused is not None:
        return "provider", refused, "tidegate logs search event:delivery.retried"
    feed = producers.get("feed")
    if overdue.owed is Owed.EVALUATION and feed is not None and (feed.lag or 0) > FEED_BEHIND:
        return "feed", f"the feed is {_time(feed.lag or 0)} behind the changes", "tidegate check"
    if lane is not None and ((lane.slices or 0) > 0 or (lane.held or 0) > 0):
        busy = f"{lane.slices or 0:,} slices wait in the lane {lane.name}, {lane.held or 0:,} are in work"
        return "queue", busy, f"more threads or processes for {', '.join(lane.fleets)}, or another lane"
    return "late", "nothing that was seen holds it back", f"tidegate logs search campaign:{record.name}"


def _processes(view: SystemView) -> list[ProcessNode]:
    return [
        *(process for fleet in view.fleets for process in fleet.processes),
        *(process for producer in view.producers for process in producer.processes),
    ]


def _gate(gate: GateView | None, floor: float | None) -> str | None:
    """Return how the gate holds bulk work back: by a person, closed, or at its floor; None if it does not."""
    if gate is None or gate.state is None:
        return None
    override = gate.override
    limit = limit_in_force(gate.state, override)
    if override is not None and override.hold is not Hold.OPEN:
        until = f"until {format_instant(override.until)[:19]} UTC"
        word = "closed" if limit == 0 else f"limited to {limit:g}"
        return f"MongoDB's gate is {word} by a person {until}" + (f" ({override.why})" if override.why else "")
    if override is None and limit is not None and floor is not None and limit <= floor:
        return f"MongoDB is slow for others, its gate lets {limit:g} bulk operations run at a time"
    return None


def _rate(view: SystemView) -> str | None:
    for channel in view.channels:
        sent = sum(channel.rates.values())
        if channel.limit is not None and sent >= NEAR_LIMIT * channel.limit:
            return f"{channel.name} is limited to {channel.limit:g} a second"
    return None


def _refused(view: SystemView) -> str | None:
    for channel in view.channels:
        if channel.verdict.level in (Level.STRAINED, Level.FAILING):
            return f"{channel.name}: {channel.verdict.why}"
    return None


def _time(seconds: float) -> str:
    return format_duration(timedelta(seconds=max(1, round(seconds))))
