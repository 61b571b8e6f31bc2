"""`python examples/hillstrom/experiment.py FILE`: the MineThatData e-mail experiment through the real engine.

Three arms, two of them mailed. All campaigns are `finished` within minutes of the mail; the visits and purchases of the
two weeks after it come in then, and `campaign report` counts them. Exit code 1 where its figures are not the file's.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn, Protocol

from rich.console import Console
from rich.table import Table

if __name__ == "__main__" and not __package__:  # called as a file: the project's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.errors import EngineError
from examples.grocer.engine_side import EngineSide
from examples.grocer.stage import ROOT, Mode, Plan, Stage
from examples.hillstrom.data import ARMS, DAY, SENT, WORKSPACE, Figures, figures, write_files

HERE: Final = Path(__file__).resolve().parent
PATIENCE: Final = timedelta(minutes=10)
"""How long one day may take: 42,694 mails on the first one, some hundred events on the others."""

CAMPAIGNS: Final = tuple(f"{arm}-{what}" for arm in ARMS for what in ("visits", "purchases"))
"""One campaign for each arm and goal, for a campaign has one goal; that of the visits mails the arm, if any does."""


class Engine(Protocol):
    """What the experiment asks of the engine."""

    def import_users(self, file: Path) -> int:
        """Import users from NDJSON; the number of rows. Raises where a row is rejected."""

    def import_events(self, file: Path) -> int:
        """Import events from NDJSON; the number of rows. Raises where a row is rejected."""

    def apply(self, file: Path) -> None:
        """Apply a campaign file."""

    def launch(self, campaign: str) -> None:
        """Launch a campaign."""

    def advance(self, to: int) -> None:
        """Set campaign time to `to`, milliseconds since the epoch."""

    def wait_until_nothing_is_open(self, patience: timedelta) -> None:
        """Wait for the fact. Raises `TimeoutError`, with what is open, after `patience`."""

    def report(self, campaign: str) -> Mapping[str, Any]:
        """What `campaign report --json` prints."""


def perform(engine: Engine, file: Path, folder: Path, say: Callable[[str], None]) -> dict[str, Figures]:
    """The experiment on the public CSV `file`; what is imported is written into `folder`. Gives the table by arm.

    Raises `WrongCall` for another file, `EngineError` where a campaign is not `finished` before the first event.
    """
    days = write_files(file, folder)
    engine.advance(SENT)
    say(f"{engine.import_users(folder / 'users.ndjson'):,} users are imported")
    for name in CAMPAIGNS:
        engine.apply(HERE / "campaigns" / f"{name}.yaml")
        engine.launch(name)
    engine.wait_until_nothing_is_open(PATIENCE)
    states = {name: engine.report(name)["state"] for name in CAMPAIGNS}
    if set(states.values()) != {"finished"}:
        raise EngineError(f"not every campaign is finished: {states}", remedy="tidegate campaign report NAME shows why")
    say("all campaigns are finished; now the visits and purchases come in, day by day")
    for number, events in enumerate(days, start=1):
        count = engine.import_events(events) if events.stat().st_size else 0
        engine.advance(SENT + number * DAY)
        engine.wait_until_nothing_is_open(PATIENCE)
        say(f"day {number} of {len(days)}: {count:,} events")
    return {arm: table_row(engine.report(f"{arm}-visits"), engine.report(f"{arm}-purchases")) for arm in ARMS}


def table_row(visits: Mapping[str, Any], purchases: Mapping[str, Any]) -> Figures:
    """One arm, from the reports of its two campaigns. Raises `EngineError` where they tell of different users."""
    if visits["entered"] != purchases["entered"]:
        raise EngineError(f"{visits['campaign']} and {purchases['campaign']} do not have the same users")
    return Figures(visits["entered"], visits["converted"], purchases["converted"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment; 0 where the reports say what the file says, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="experiment.py", description=__doc__)
    parser.add_argument("file", type=Path, help="the public CSV file, 64,000 rows")
    parser.add_argument("--var", type=Path, default=Path("var/hillstrom"), help="the folder, emptied first")
    given = parser.parse_args(argv)
    folder = (given.var if given.var.is_absolute() else Path.cwd() / given.var).resolve()
    if folder in (ROOT, *ROOT.parents):
        parser.error("--var: this folder would be emptied")
    signal.signal(signal.SIGTERM, _end)
    console = Console(stderr=True)

    def say(text: str) -> None:
        console.print(text, markup=False)

    try:
        expected = figures(given.file)
        plan = Plan(folder, Mode.RUN, home=HERE, without=frozenset({"elastic"}))
        with Stage(plan, say) as stage, EngineSide(stage.settings, WORKSPACE) as engine:
            stage.start_processes()
            outcomes = perform(engine, given.file, folder / "imports", say)
    except (EngineError, TimeoutError) as error:
        say(f"{error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; everything is stopped")
        return 130
    (folder / "table.json").write_text(
        json.dumps({arm: asdict(outcome) for arm, outcome in outcomes.items()}), encoding="utf-8"
    )
    _show(outcomes)
    if outcomes != expected:
        say(f"the file says otherwise: {expected}")
    return 0 if outcomes == expected else 1


def _show(outcomes: Mapping[str, Figures]) -> None:
    table = Table("arm", "entered", "visits", "", "conversions", "", box=None)
    for arm, result in outcomes.items():
        rates = (
            f"{count / result.entered:.2%}" if result.entered else "-" for count in (result.visits, result.conversions)
        )
        visits, conversions = rates
        table.add_row(
            ARMS[arm], f"{result.entered:,}", f"{result.visits:,}", visits, f"{result.conversions:,}", conversions
        )
    Console().print(table)


def _end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - a handler's signature
    """End as on Ctrl-C: processes and services are stopped on the way out."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
