"""`python -m bench.run`: a full pass the naive way and our way, side by side, into `docs/benchmarks.md`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

from pymongo import MongoClient
from pymongo.database import Database

from bench import report
from bench.audiences import AUDIENCES
from bench.measure import Rounds, Way, machine, side_by_side
from bench.naive import NaiveWay
from bench.ours import OursWay
from bench.population import AS_OF, SEED, documents
from engine.local.services import LocalServices

Documents: TypeAlias = "Database[dict[str, Any]]"
DATABASE: Final = "tidegate_bench"
_BATCH: Final = 5_000


@dataclass(frozen=True, slots=True)
class Ground:
    """Where the bench runs: the database with the population, and the settings that lead an `App` to it."""

    database: Documents
    addresses: dict[str, str]
    folder: Path


def compare(ground: Ground, sample: Sequence[str], audience: str, rounds: int) -> list[Rounds]:
    """Both ways over one audience. Raises `AssertionError` where they do not find the same users of the sample."""
    ours = OursWay(ground.addresses, ground.folder, audience)
    try:
        sides: list[Way] = [NaiveWay(ground.database, sample, audience, AS_OF), ours]
        results = side_by_side(ground.database, sides, rounds)
        naive, engine = (side.entered() for side in sides)
        assert engine & set(sample) == naive, "the two ways found different users"
    finally:
        ours.close()
    return results


def fill(database: Documents, users: int) -> None:
    """Put the population into `users`."""
    population = documents(users)
    while batch := list(islice(population, _BATCH)):
        database["users"].insert_many(batch, ordered=False)


@contextmanager
def ground(users: int) -> Iterator[Ground]:
    """Services of our own for the run, with the population in a database of its own."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as name:
        folder = Path(name)
        services = LocalServices(folder / "services", say=lambda text: print(text, file=sys.stderr))
        try:
            urls = services.start(["mongo", "broker"])
            addresses = {
                "services.mongo_url": urls.mongo_url,
                "services.broker_url": urls.broker_url,
                "services.mongo_database": DATABASE,
            }
            with MongoClient[dict[str, Any]](urls.mongo_url) as client:
                fill(client[DATABASE], users)
                yield Ground(client[DATABASE], addresses, folder)
        finally:
            services.stop(discard=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; 0 when it is done."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--users", type=int, default=200_000, help="the population (default 200,000)")
    parser.add_argument("--sample", type=int, default=20_000, help="users of a naive pass (default 20,000)")
    parser.add_argument("--rounds", type=int, default=5, help="measured passes of each way (default 5)")
    parser.add_argument("--print-only", action="store_true", help="leave docs/benchmarks.md as it is")
    given = parser.parse_args(argv)
    load = os.getloadavg()[0]
    with ground(given.users) as place:
        users = place.database["users"]
        keys = [str(one["_id"]) for one in users.find({}, {"_id": 1}).sort("u", 1).limit(given.sample)]
        tables = {
            name: report.table(compare(place, keys, audience, given.rounds)) for name, audience in AUDIENCES.items()
        }
        version = str(place.database.client.server_info()["version"])
    sizes = f"--users {given.users} --sample {given.sample} --rounds {given.rounds}"
    command = f"python -m bench.run {sizes}"
    population = (
        f"{given.users:,} users resampled from the grocer's households (seed {SEED}, `bench/population.py`); "
        f"the naive way looks at {given.sample:,} of them."
    )
    text = report.section(command, machine(version, load), population, given.rounds, tables)
    print(text)
    if not given.print_only:
        report.PAGE.write_text(report.put(report.PAGE.read_text(encoding="utf-8"), "bench.run", text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
