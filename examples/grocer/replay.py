"""The replay driver: campaign time day by day, each day's events, and on when nothing is open.

Everything else (deciding, sending, starting what is due) happens in the engine's own processes. The driver waits for
facts: a day is over when the engine says that nothing is open, however long that takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final, Protocol

from examples.grocer import data
from examples.grocer.campaign_files import write_campaigns

PATIENCE: Final = timedelta(minutes=5)
"""How long one day may take before the replay gives up: a day takes about a second, a killed worker 3 s more."""


class Engine(Protocol):
    """What the driver asks of the engine; `examples.grocer.engine_side` answers with the engine's own use cases."""

    def import_users(self, file: Path) -> int:
        """Import users from NDJSON; the number of rows. Raises where a row is rejected."""

    def import_events(self, file: Path) -> int:
        """Import events from NDJSON; the number of rows. Raises where a row is rejected."""

    def import_list(self, file: Path, name: str) -> int:
        """Import the members of list `name` from CSV; the number of rows. Raises where a row is rejected."""

    def apply(self, file: Path) -> None:
        """Apply a campaign file."""

    def launch(self, campaign: str) -> None:
        """Launch a campaign; one that starts later is scheduled, and starts by itself."""

    def advance(self, to: int) -> None:
        """Set campaign time to `to`, milliseconds since the epoch."""

    def wait_until_nothing_is_open(self, patience: timedelta) -> None:
        """Wait for the fact. Raises `TimeoutError`, with what is open, after `patience`."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One day that is over: its number of `days`, the events it brought, and the seconds since the first began."""

    day: date
    number: int
    days: int
    events: int
    seconds: float


def replay(engine: Engine, window: data.Window, folder: Path, report: Callable[[Progress], None]) -> None:
    """Replay `window`; what is imported and applied is written into `folder` (created) to look at.

    Users and lists are there before the first day, and so is the history of a window that begins later than the data.
    The campaigns are launched when campaign time has reached the first day's `as_of`; list campaigns that begin later
    are scheduled by that. Raises what the engine raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    campaigns = prepare(engine, window, folder)
    began = time.monotonic()
    days = list(window.days())
    for number, day in enumerate(days, start=1):
        brought = bring_in(engine, day, folder)
        engine.advance(data.as_of(day))
        if number == 1:
            for campaign in campaigns:
                engine.launch(campaign)
        engine.wait_until_nothing_is_open(PATIENCE)
        report(Progress(day, number, len(days), brought, time.monotonic() - began))


def prepare(engine: Engine, window: data.Window, folder: Path) -> list[str]:
    """Bring in what is there before the first day, and apply the campaigns; their names."""
    users = folder / "users.ndjson"
    data.write_ndjson(users, data.users())
    engine.import_users(users)
    for campaign in data.list_campaigns():
        if window.launch_day(campaign):
            members = folder / f"{campaign.list}.csv"
            data.write_list(members, campaign)
            engine.import_list(members, campaign.list)
    history = folder / "history.ndjson"
    if data.write_ndjson(history, data.events_before(window.first)):
        engine.import_events(history)
    files = write_campaigns(folder / "campaigns", window)
    for file in files:
        engine.apply(file)
    return [file.stem for file in files]


def bring_in(engine: Engine, day: date, folder: Path) -> int:
    """Import the events of `day`, while campaign time is still the day before; their number."""
    events = data.events_of(day)
    if not events:
        return 0
    (folder / "events").mkdir(exist_ok=True)
    file = folder / "events" / f"{day}.ndjson"
    data.write_ndjson(file, events)
    return engine.import_events(file)
