"""Follow a campaign on stderr until nothing of it goes on: bars on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from engine.cli.context import say

if TYPE_CHECKING:
    from engine.app.app import App
    from engine.domain.campaign import CampaignRecord
    from engine.domain.campaign_progress import Progress
    from engine.domain.system_view import Late

EVERY: Final = 0.5
"""Seconds between two readings."""
LINES_EVERY: Final = 5.0
"""Seconds between two lines where there is no terminal."""
CALM: Final = 2.0
"""Seconds for which nothing must go on before the end is believed: between two steps nothing is open for a moment."""
LATE_EVERY: Final = 5.0
DONE: Final = 0
STANDS: Final = 1
"""Exit code of a campaign that does not go on: paused, stuck or late."""


def follow(app: App, record: CampaignRecord) -> int:
    """Follow a campaign; return 0 once nothing of it goes on, 1 if it is paused or late. Ctrl-C ends the following."""
    shown = _Bars(record) if sys.stderr.isatty() else _Lines(record)
    try:
        with shown:
            return _followed(app, record, shown.show)
    except KeyboardInterrupt:
        name = record.name
        say(f"the campaign goes on; tidegate campaign report {name} --watch follows it again")
        raise


def _followed(app: App, record: CampaignRecord, show: Callable[[Progress], None]) -> int:
    calm_since = asked = time.monotonic()
    while True:
        now = time.monotonic()
        record = app.stores.campaigns.get(record.uid) or record
        progress = app.progress.of(record)
        show(progress)
        if progress.phase == "paused":
            say(f"{record.name} is paused: {record.paused_reason or 'no reason'}")
            return STANDS
        if progress.phase == "ended":
            return DONE
        if progress.phase in ("deciding", "sending") or _waits_for_its_launch(app, record, progress):
            calm_since = now
        if now - calm_since > CALM:
            return _rested(app, record)
        if now - asked > LATE_EVERY:
            asked = now
            found = app.lateness.late(uid=record.uid)
            if found or record.stuck:
                _tell_late(record, found)
                return STANDS
        time.sleep(EVERY)


def _waits_for_its_launch(app: App, record: CampaignRecord, progress: Progress) -> bool:
    return progress.phase == "waiting" and (record.starts_at or 0) <= app.clock.campaign_now()


def _rested(app: App, record: CampaignRecord) -> int:
    from engine.domain.lifecycle import CampaignState

    if record.state is CampaignState.SCHEDULED:
        say(f"{record.name} waits for its start")
    elif app.stores.deliveries.has_outgoing([record.uid], None):
        say(f"{record.name} has messages that wait for their time")
    else:
        say(f"{record.name}: nothing goes on now; it is {record.state.value}")
    return DONE


def _tell_late(record: CampaignRecord, late: list[Late]) -> None:
    for one in late:
        say(f"{record.name} is late: {one.why}\n  {one.remedy}")
    if record.stuck and not late:
        say(f"{record.name} is stuck: {record.stuck}")


def sentence(progress: Progress) -> str:
    """Return the progress as one line."""
    parts = [progress.phase]
    if progress.share is not None:
        parts.append(f"{progress.share:.0%} decided")
    if progress.evaluated:
        parts.append(f"{progress.evaluated:,} users evaluated")
    if progress.chosen or progress.sent:
        parts.append(f"{progress.sent:,} of {max(progress.chosen, progress.sent):,} messages sent")
    if progress.failed:
        parts.append(f"{progress.failed:,} not sent")
    if progress.rate:
        parts.append(f"{progress.rate:,.0f}/s")
    if progress.left is not None:
        parts.append(f"{_time(progress.left)} left")
    return ", ".join(parts)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest} s"


class _Lines:
    """Shows progress as lines: the first at once, another when the phase changes, else one every few seconds."""

    def __init__(self, record: CampaignRecord) -> None:
        self._name = record.name
        self._told_at = float("-inf")
        self._latest = ""
        self._told = ""
        self._phase = ""

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        if self._latest != self._told:
            say(self._latest)

    def show(self, progress: Progress) -> None:
        """Show a reading, if it is time for it."""
        self._latest = f"{self._name}: {sentence(progress)}"
        if progress.phase != self._phase or time.monotonic() - self._told_at >= LINES_EVERY:
            self._told_at, self._told, self._phase = time.monotonic(), self._latest, progress.phase
            say(self._latest)


class _Bars:
    """Shows progress as two bars on a terminal: users decided, and messages sent."""

    def __init__(self, record: CampaignRecord) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[says]}"),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._deciding = self._progress.add_task(f"{record.name}: deciding", total=1.0, says="")
        self._sending = self._progress.add_task(f"{record.name}: sending", total=None, says="")

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, progress: Progress) -> None:
        """Show a reading."""
        done = 1.0 if progress.phase in ("sending", "resting", "ended") else progress.share or 0.0
        self._progress.update(self._deciding, completed=done, says=f"{progress.evaluated:,} users")
        rate = f", {progress.rate:,.0f}/s" if progress.rate else ""
        left = "" if progress.left is None else f", {_time(progress.left)} left"
        total = max(progress.chosen, progress.sent + progress.failed)
        self._progress.update(
            self._sending,
            completed=progress.sent + progress.failed,
            total=total or None,
            says=f"{progress.sent:,} of {total:,} messages{rate}{left}",
        )
