"""`python -m bench.run`: a full pass the naive way and our way, side by side, into `docs/benchmarks.md`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

from pymongo import MongoClient
from pymongo.database import Database

from bench import report
from bench.audiences import AUDIENCES
from bench.measure import Rounds, Way, machine, side_by_side
from bench.naive import NaiveWay
from bench.population import AS_OF, SEED, documents
from engine.local.services import LocalServices

Documents: TypeAlias = "Database[dict[str, Any]]"
MakeWays: TypeAlias = Callable[[Documents, Sequence[str], str], Sequence[Way]]

_BATCH: Final = 5_000


def ways(database: Documents, sample: Sequence[str], audience: str) -> Sequence[Way]:
    """The ways that are compared, the one that ratios refer to first."""
    return [NaiveWay(database, sample, audience, AS_OF)]


def compare(database: Documents, sample: Sequence[str], audience: str, rounds: int) -> list[Rounds]:
    """All ways over one audience. Raises `AssertionError` where they do not find the same users of the sample."""
    sides = ways(database, sample, audience)
    results = side_by_side(database, sides, rounds)
    wanted = sides[0].entered()
    for side in sides[1:]:
        assert side.entered() & set(sample) == wanted, f"{side.name} found other users than {sides[0].name}"
    return results


def fill(database: Documents, users: int) -> None:
    """Put the population into `users`."""
    population = documents(users)
    while batch := list(islice(population, _BATCH)):
        database["users"].insert_many(batch, ordered=False)


@contextmanager
def mongod() -> Iterator[str]:
    """A mongod of our own for the run; yields its address."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        services = LocalServices(Path(folder), say=lambda text: print(text, file=sys.stderr))
        try:
            yield services.url("mongo")
        finally:
            services.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; 0 when it is done."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--users", type=int, default=200_000, help="the population (default 200,000)")
    parser.add_argument("--sample", type=int, default=20_000, help="users of a naive pass (default 20,000)")
    parser.add_argument("--rounds", type=int, default=5, help="measured passes of each way (default 5)")
    parser.add_argument("--mongo", help="the address of another MongoDB on this machine")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    given = parser.parse_args(argv)
    if given.mongo:
        return bench(given.mongo, given)
    with mongod() as address:
        return bench(address, given)


def bench(address: str, given: argparse.Namespace) -> int:
    """Fill a database of its own, measure, print, and write where asked; the database is dropped afterwards."""
    with MongoClient[dict[str, Any]](address) as client:
        database = client["tidegate_bench"]
        client.drop_database(database)
        try:
            fill(database, given.users)
            keys = [str(one["_id"]) for one in database["users"].find({}, {"_id": 1}).sort("u", 1).limit(given.sample)]
            tables = {
                name: report.table(compare(database, keys, audience, given.rounds))
                for name, audience in AUDIENCES.items()
            }
            version = str(client.server_info()["version"])
        finally:
            client.drop_database(database)
    command = "python -m bench.run"
    population = (
        f"{given.users:,} users resampled from the grocer's households (seed {SEED}, `bench/population.py`); "
        f"the naive way looks at {given.sample:,} of them."
    )
    text = report.section(command, machine(version), population, given.rounds, tables)
    print(text)
    if given.write:
        report.PAGE.write_text(report.put(report.PAGE.read_text(encoding="utf-8"), "bench.run", text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
