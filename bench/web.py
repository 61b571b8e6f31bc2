"""`python -m bench.web`: how quickly the pages answer and what their viewers cost, into `docs/benchmarks.md`.

It fills an installation of its own with campaigns, their tallies and enrolments, starts `tidegate web` on it, loads
each page again and again, and then lets 1 and many viewers keep the overview open: each holds a stream and loads the
page every five seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import psutil
from pymongo import MongoClient

from bench import report
from bench.measure import machine
from bench.termination import end_on_term
from engine.domain.campaign_progress import Tally
from engine.domain.counts import CampaignCounts, MessageCounts
from engine.domain.keys import user_key
from engine.local.services.local_services import LocalServices
from engine.stores.migrations import migrate_mongo
from engine.stores.mongo.campaign_tallies import Tallies

PAGES: Final = (
    "/",
    "/campaigns",
    "/campaigns?state=live&q=99",
    "/campaigns?after=example/campaign-04000",
    "/w/example/campaigns/campaign-00042",
    "/lanes",
    "/lanes/fast",
    "/queries",
    "/policies",
    "/gate",
    "/logs?q=event:campaign.started&since=1h",
    "/w/example/users?q=nobody",
    "/w/example/user?id=u7",
)
LOADS: Final = 40
AGAIN: Final = 5.0
"""Seconds between two loads of a viewer."""
_COUNTS: Final = CampaignCounts(200, 150, {"completed": 50}, 20, 10, 1, {"one": MessageCounts(200, {"sent": 200})})


@contextmanager
def served(folder: Path, services: LocalServices) -> Iterator[tuple[str, psutil.Process]]:
    """Run `tidegate web` in a folder; yield its address and its process."""
    env = {**os.environ, **services.running().environment()}
    command = [sys.executable, "-m", "engine.cli", "web", "--port", "0"]
    with (folder / "web.log").open("w+", encoding="utf-8") as log:
        web = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
        try:
            while not (found := re.search(r"tidegate web: (\S+)", (folder / "web.log").read_text(encoding="utf-8"))):
                if web.poll() is not None:
                    raise RuntimeError((folder / "web.log").read_text(encoding="utf-8"))
                time.sleep(0.1)
            yield found[1], psutil.Process(web.pid)
        finally:
            web.terminate()
            web.wait()


def fill(database: Any, campaigns: int, enrolments: int) -> None:
    """Copy the applied campaign `campaigns` times, as live ones with tallies, and write enrolments of them."""
    (applied,) = database["campaigns"].find({})
    copies = [
        {**applied, "_id": f"{number:012x}", "name": f"campaign-{number:05}", "state": "live", "launched_at": 1}
        for number in range(campaigns)
    ]
    database["campaigns"].insert_many(copies)
    database["users"].insert_one(
        {"_id": user_key("example", "u7"), "w": "example", "u": "u7", "email": "u7@example.org", "rev": 1}
    )
    tallies, at = Tallies(database), time.time_ns() // 1_000_000
    for copy in copies:
        tallies.write(copy["_id"], "example", copy["name"], Tally(_COUNTS, at, 0.01), {"one": "email"}, unfit=False)
    for first in range(0, enrolments, 10_000):
        database["enrolments"].insert_many(
            [
                {
                    "_id": f"example/{number % campaigns:012x}/{number:08x}/u{number}/0",
                    "campaign": f"{number % campaigns:012x}",
                    "user": f"example/{number:08x}/u{number}",
                    "state": "active",
                    "due_at": 1 << 50,
                }
                for number in range(first, min(first + 10_000, enrolments))
            ],
            ordered=False,
        )


def loads(url: str) -> list[str]:
    """Load each page `LOADS` times; return a row for each: first, median and slowest (ms)."""
    rows = []
    with httpx2.Client(base_url=url, timeout=30) as client:
        for path in PAGES:
            took = []
            for _ in range(LOADS):
                began = time.perf_counter()
                client.get(path).raise_for_status()
                took.append((time.perf_counter() - began) * 1e3)
            rows.append(f"| `{path}` | {took[0]:.0f} | {statistics.median(took[1:]):.1f} | {max(took[1:]):.0f} |")
    return rows


async def watched(url: str, viewers: int, seconds: float) -> list[float]:
    """Let viewers hold a stream of the overview each and load it every `AGAIN` seconds; return the loads' ms."""
    took: list[float] = []

    async def stream(client: httpx2.AsyncClient) -> None:
        async with client.stream("GET", url, headers={"Accept": "text/event-stream"}) as answer:
            async for _ in answer.aiter_lines():
                pass

    async def load(client: httpx2.AsyncClient, number: int) -> None:
        await asyncio.sleep(AGAIN * number / viewers)
        while True:
            began = time.perf_counter()
            (await client.get(url)).raise_for_status()
            took.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(AGAIN)

    async with httpx2.AsyncClient(timeout=60, limits=httpx2.Limits(max_connections=2 * viewers)) as client:
        tasks = [asyncio.create_task(stream(client)) for _ in range(viewers)]
        tasks += [asyncio.create_task(load(client, number)) for number in range(viewers)]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return took


def viewed(url: str, web: psutil.Process, mongo: MongoClient[Any], viewers: int, seconds: float) -> str:
    """Return a row about `viewers`: how quickly they are served, and what they cost."""
    before, cpu, began = _operations(mongo), _cpu(web), time.perf_counter()
    took = sorted(asyncio.run(watched(url, viewers, seconds)))
    lasted = time.perf_counter() - began
    p95 = took[int(len(took) * 0.95)]
    return (
        f"| {viewers} | {len(took)} | {statistics.median(took):.0f} | {p95:.0f} "
        f"| {(_cpu(web) - cpu) / lasted:.2f} | {(_operations(mongo) - before) / lasted:.1f} |"
    )


def _operations(mongo: MongoClient[Any]) -> int:
    counted = mongo.admin.command("serverStatus")["opcounters"]
    return int(counted["query"] + counted["getmore"] + counted["command"])


def _cpu(process: psutil.Process) -> float:
    return float(sum(sum(each.cpu_times()[:2]) for each in [process, *process.children(recursive=True)]))


def measured(campaigns: int, enrolments: int, viewers: int, seconds: float) -> str:
    """Return the tables of one round, with services of its own."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as name:
        folder = Path(name) / "installation"
        tidegate = [sys.executable, "-m", "engine.cli"]
        subprocess.run([*tidegate, "init", str(folder)], check=True, capture_output=True)
        services = LocalServices(folder / "var", say=lambda text: print(text, file=sys.stderr))
        try:
            urls = services.start(["mongo", "broker", "cache"])
            env = {**os.environ, **urls.environment()}
            with MongoClient[Any](urls.mongo_url) as mongo:
                migrate_mongo(mongo["tidegate"])
                apply = [*tidegate, "campaign", "apply", "campaigns/welcome-back.yaml"]
                subprocess.run(apply, cwd=folder, env=env, check=True, capture_output=True)
                fill(mongo["tidegate"], campaigns, enrolments)
                with served(folder, services) as (url, web):
                    pages = ["| page | first (ms) | median (ms) | slowest (ms) |", "|---|--:|--:|--:|", *loads(url)]
                    rows = [viewed(url, web, mongo, number, seconds) for number in (1, viewers)]
        finally:
            services.stop(everything=True, discard=True)
    head = (
        "| viewers of the overview | loads | median (ms) | p95 (ms) | cores of `web` | MongoDB's operations a second |"
    )
    return "\n".join([*pages, "", head, "|--:|--:|--:|--:|--:|--:|", *rows])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; return 0 when it is done."""
    parser = argparse.ArgumentParser(prog="python -m bench.web", description=__doc__)
    parser.add_argument("--campaigns", type=int, default=5_000, help="live campaigns (default 5,000)")
    parser.add_argument("--enrolments", type=int, default=1_000_000, help="of all of them (default 1,000,000)")
    parser.add_argument("--viewers", type=int, default=50, help="browsers on the overview (default 50)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they watch (default 60)")
    parser.add_argument("--print-only", action="store_true", help="leave docs/benchmarks.md as it is")
    given = parser.parse_args(argv)
    end_on_term()
    load = os.getloadavg()[0]
    tables = measured(given.campaigns, given.enrolments, given.viewers, given.seconds)
    command = f"python -m bench.web {' '.join(sys.argv[1:] if argv is None else argv)}".rstrip()
    text = (
        f"Measured with `{command}` on {machine('of the extra `local`', load)}. {given.campaigns:,} live campaigns, "
        f"{given.enrolments:,} enrolments, no other process of the engine.\n\n{tables}"
    )
    report.publish("bench.web", text, print_only=given.print_only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
