"""`make demo`: a season of a real grocer's campaigns through the real system, and the proof that it was right.

Everything starts from nothing in `var/demo/`: services, processes, users, campaigns. Days pass as fast as the engine is
done with them. Then the mails are read from the Maildir and compared with an oracle that shares no code with the
engine. Exit code 1 where one mail is missing, extra or doubled.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

if __name__ == "__main__" and not __package__:  # called as a file: the project's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.clock import format_duration, parse_duration
from engine.errors import EngineError
from engine.pipeline.insight.statistics import CacheStatistics
from engine.stores.user_cache.stats import CacheMemory
from examples.grocer import data, mails, oracle, summary
from examples.grocer.chaos import Killer, kept, supervised
from examples.grocer.engine_side import EngineSide
from examples.grocer.replay import Progress, replay
from examples.grocer.stage import ROOT, Mode, Plan, Stage
from examples.grocer.wiper import Wiper

WINDOWS = {"weeks": data.THIRTEEN_WEEKS, "year": data.YEAR, "fortnight": data.FORTNIGHT}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a replay proved: the summary, and the seconds from nothing to the last mail.

    `kills` is how many workers were killed, `wiped` which stores were emptied, `cache` and `memory` what came from the
    user cache and what it holds at the end.
    """

    summary: summary.Summary
    seconds: float
    kills: int
    wiped: tuple[str, ...]
    cache: CacheStatistics
    memory: CacheMemory | None


def perform(
    plan: Plan,
    window: data.Window,
    kill_every: timedelta | None,
    report: Callable[[Progress], None],
    say: Callable[[str], None],
    wipe_every: timedelta | None = None,
    *,
    then: Callable[[Outcome, Stage], None] = lambda _outcome, _stage: None,
) -> Outcome:
    """Replay `window` on a stage of its own, and compare what came out.

    A worker is killed `kill_every` so often, user cache and Elasticsearch are emptied about `wipe_every` so often. In
    the middle of the window the map is drawn into `map.svg`. `then` is called while everything still runs.

    Raises `EngineError`, `TimeoutError` where a day does not end, `StrangeMail` for a mail that is none of ours.
    """
    began = time.monotonic()
    with Stage(plan, say) as stage, EngineSide(stage.settings) as engine:
        stage.start_processes()
        victims = supervised if plan.mode is Mode.PROCFILE else kept
        killer = Killer(lambda: victims(stage.supervisor), kill_every) if kill_every else None
        wiper = Wiper(stage.settings, wipe_every) if wipe_every else None
        with killer or nullcontext(), wiper or nullcontext():
            replay(engine, window, plan.folder, _with_map(report, engine, plan.folder / "map.svg"))
        seconds = time.monotonic() - began
        cache, memory = engine.cache()
        sent = mails.read_maildir(stage.maildir)
        expected = oracle.expected(window.first, window.last, launch_earlier=window.launch_earlier)
        kills, wiped = len(killer.kills) if killer else 0, tuple(wiper.wiped) if wiper else ()
        outcome = Outcome(summary.compare(expected, sent), seconds, kills, wiped, cache, memory)
        then(outcome, stage)
    return outcome


def _with_map(report: Callable[[Progress], None], engine: EngineSide, file: Path) -> Callable[[Progress], None]:
    """Draw the map in the middle of the window, beside what `report` does."""

    def reported(progress: Progress) -> None:
        if progress.number == progress.days // 2:
            engine.draw_map(file)
        report(progress)

    return reported


def _kept(console: Console) -> Callable[[Outcome, Stage], None]:
    """Say where the pages are, and keep everything running until Ctrl-C."""

    def keep(_: Outcome, stage: Stage) -> None:
        console.print(f"the pages: {stage.pages()}  (Ctrl-C ends everything)", markup=False)
        while True:
            time.sleep(60)

    return keep


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0 where everybody got exactly what they should have, 1 otherwise."""
    given = _arguments(argv)
    window = WINDOWS[given.window]
    kill_every = parse_duration(given.kill_every) if given.kill_every else None
    lease = parse_duration(given.lease) if given.lease else None
    wipe_every = parse_duration(given.wipe_every) if given.wipe_every else None
    plan = Plan(
        given.var.resolve(),
        Mode(given.mode),
        lease,
        chaotic=kill_every is not None,
        any_path=given.any_path,
        without=frozenset(given.without or ()),
        cache_memory=given.cache_memory,
    )
    signal.signal(signal.SIGTERM, _end)
    console = Console(stderr=True)
    console.print(f"{window.first} to {window.last}, everything from nothing in {given.var}")
    try:
        outcome = perform(
            plan,
            window,
            kill_every,
            _teller(console),
            lambda text: console.print(text, markup=False),
            wipe_every,
            then=_kept(console) if given.web else lambda _outcome, _stage: None,
        )
    except (EngineError, TimeoutError, mails.StrangeMail) as error:
        console.print(f"{error}", markup=False, style="red")
        console.print(f"see {given.var}/processes.log and {given.var}/logs/", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped")
        return 130
    comparison = outcome.summary
    summary.write(comparison, plan.folder / "summary.json")
    killed = f", {outcome.kills} workers killed" if kill_every else ""
    shown = Console()
    emptied = f", {len(outcome.wiped)} times user cache or Elasticsearch emptied" if wipe_every else ""
    summary.show(comparison, shown, f"{window.first} to {window.last}, in {outcome.seconds:.0f} s{killed}{emptied}")
    if outcome.cache.hit_rate is not None and outcome.memory is not None:
        shown.print(
            f"{outcome.cache.hit_rate:.2%} of {outcome.cache.read:,} users came from the user cache, which holds "
            f"{outcome.memory.used / 2**20:.1f} MiB and evicted {outcome.memory.evicted:,} keys"
        )
    verdict = (
        "everybody got exactly what they should have" if comparison.right else "that is not what should have come out"
    )
    shown.print(f"{verdict}; look at {given.var}/maildir/, {given.var}/logs/, {given.var}/map.svg")
    shown.print("`make demo-web` keeps it running and shows it in a browser")
    return 0 if comparison.right else 1


def _end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - a handler's signature
    """End as on Ctrl-C: processes and services are stopped on the way out."""
    raise KeyboardInterrupt


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--year", dest="window", action="store_const", const="year", help="2016-11-14 to 2017-12-31")
    parser.add_argument(
        "--fortnight", dest="window", action="store_const", const="fortnight", help="two weeks of March"
    )
    parser.add_argument("--chaos", action="store_true", help="kill a worker every 5 s, leases of 3 s (year by default)")
    parser.add_argument("--kill-every", metavar="5s", help="kill a random worker so often")
    parser.add_argument("--lease", metavar="3s", help="how long a killed worker's slice stays its own")
    parser.add_argument("--mode", choices=[mode.value for mode in Mode], default="procfile", help="how the actors run")
    parser.add_argument(
        "--any-path", action="store_true", help="let the planner choose; by default so few users are simply scanned"
    )
    parser.add_argument("--without", action="append", choices=["cache", "elastic"], help="a service that is not there")
    parser.add_argument("--wipe-every", metavar="5s", help="empty user cache and Elasticsearch about so often")
    parser.add_argument("--web", action="store_true", help="keep everything running, with its pages, until Ctrl-C")
    parser.add_argument("--cache-memory", metavar="4mb", help="what the user cache may use")
    parser.add_argument("--var", type=Path, default=Path("var/demo"), help="the folder, emptied first")
    given = parser.parse_args(argv)
    if given.chaos:
        given.kill_every = given.kill_every or "5s"
        given.lease = given.lease or "3s"
    given.window = given.window or ("year" if given.chaos else "weeks")
    given.var = given.var if given.var.is_absolute() else Path.cwd() / given.var
    if given.var.resolve() in (ROOT, *ROOT.parents):
        parser.error("--var: this folder would be emptied")
    return given


def _teller(console: Console) -> Callable[[Progress], None]:
    """A line for each week of campaign time, with the time that is left."""

    def tell(progress: Progress) -> None:
        if progress.number % 7 == 0 or progress.number == progress.days:
            left = progress.seconds / progress.number * (progress.days - progress.number)
            rest = format_duration(timedelta(seconds=round(left)))
            console.print(f"{progress.day}  day {progress.number} of {progress.days}, about {rest} left", markup=False)

    return tell


if __name__ == "__main__":
    sys.exit(main())
