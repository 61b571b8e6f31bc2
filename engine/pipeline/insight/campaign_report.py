"""The parts of a report beside the counts: the messages in order, and until when conversions count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from engine.clock import Instant
from engine.domain.campaign import CONTINUOUS, FOR_EVER, LATE, CampaignRecord
from engine.domain.counts import CampaignCounts, FailureCount, MessageCounts
from engine.domain.lifecycle import CampaignState
from engine.domain.work import RunSummary, WindowCost
from engine.pipeline.scheduler.conversion_window import goal_window, window_end


@dataclass(frozen=True, slots=True)
class MessageLine:
    """The counts of one message; if the file has no message of that name, `note` says what happened to it."""

    name: str
    counts: MessageCounts
    note: str = ""


@dataclass(frozen=True, slots=True)
class Conversions:
    """Until when conversions count, in campaign time.

    `until` is when the last goal window closes of the users who have entered so far (None: the goal has no window, or
    nobody has entered). `open` says whether that is still to come, `entering` whether anybody may still enter.
    `late_until` is until when an event from before the end still counts when it arrives (None: as long as the campaign
    runs, or not at all any more).
    """

    within: timedelta | None
    until: Instant | None
    open: bool
    entering: bool
    late_until: Instant | None


@dataclass(frozen=True, slots=True)
class Report:
    """A campaign with its counts, whether they add up, and its latest runs.

    `messages` are in the order of the file; those that the file no longer has come after them. `conversions` is None if
    the campaign has no goal; `failures` holds the failed deliveries by reason, `windows` what the latest runs
    cost under each inactivity window. `faults` says in words what does not add up.
    """

    record: CampaignRecord
    counts: CampaignCounts
    adds_up: bool
    runs: tuple[RunSummary, ...]
    messages: tuple[MessageLine, ...]
    conversions: Conversions | None
    failures: tuple[FailureCount, ...] = ()
    windows: tuple[WindowCost, ...] = ()
    faults: tuple[str, ...] = ()


def messages(record: CampaignRecord, counts: CampaignCounts) -> tuple[MessageLine, ...]:
    """Return the messages in the order of the file, then those that it renamed, then those that it no longer has."""
    spec = record.spec if isinstance(record.spec, Mapping) else {}
    written = spec.get("messages") or []
    names = (
        [str(message["name"]) for message in written if isinstance(message, Mapping)]
        if isinstance(written, list)
        else []
    )
    notes = {old: f"now {name}" for name in names for old in record.renamed.get(name, ()) if old not in names}
    gone = [name for name in sorted(counts.messages) if name not in notes and name not in names]
    notes |= dict.fromkeys(gone, "no longer in the file")
    nobody = MessageCounts(0, {})
    present = [MessageLine(name, counts.messages.get(name, nobody)) for name in names]
    return (
        *present,
        *(MessageLine(name, counts.messages[name], notes[name]) for name in notes if name in counts.messages),
    )


def conversions(record: CampaignRecord, counts: CampaignCounts, now: Instant) -> Conversions | None:
    """Return until when a campaign with these counts counts conversions; None if it has no goal."""
    window = goal_window(record)
    if window is None:
        return None
    end = window_end(record, counts.last_entered)
    state = record.resume_to if record.state is CampaignState.PAUSED and record.resume_to else record.state
    ended = state in (CampaignState.FINISHED, CampaignState.CANCELLED)
    may_enter = not ended and state is not CampaignState.DRAINING
    entering = may_enter and (record.kind == CONTINUOUS or counts.last_entered is None)
    return Conversions(
        within=None if window == FOR_EVER else timedelta(milliseconds=window),
        until=None if end == FOR_EVER else end,
        open=entering or (end is not None and now <= end),
        entering=entering,
        late_until=end + LATE if end is not None and end != FOR_EVER and record.converting else None,
    )
