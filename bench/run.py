"""`python -m bench.run`: measure a pass and everything around it, into `docs/benchmarks.md`.

One run has one population and services of its own; the ways of a table take turns. `--only` picks tables by name.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

from pymongo import MongoClient
from pymongo.database import Database

from bench import changes, enrolled, passes, paths, pictures, report, small_campaigns, tables
from bench.audiences import AUDIENCES
from bench.measure import machine
from bench.ours import Engine
from bench.population import SEED, documents
from bench.termination import end_on_term
from engine.local.services.local_services import LocalServices, ServiceName

Documents: TypeAlias = "Database[dict[str, Any]]"
DATABASE: Final = "tidegate_bench"
_BATCH: Final = 5_000
TABLES: Final = ("passes", "search", "paths", "enrolled", "changes", "small", "pictures")


@dataclass(frozen=True, slots=True)
class Ground:
    """The environment of the bench: the database with the population, and the settings with which an `App` uses it."""

    database: Documents
    addresses: dict[str, str]
    folder: Path


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of the tables."""

    users: int
    sample: int
    rounds: int
    enrolled: tuple[int, ...]
    campaigns: int
    seconds: int


def fill(database: Documents, users: int) -> None:
    """Insert the population into `users`."""
    population = documents(users)
    while batch := list(islice(population, _BATCH)):
        database["users"].insert_many(batch, ordered=False)


@contextmanager
def ground(users: int, names: Sequence[ServiceName] = ("mongo", "broker")) -> Iterator[Ground]:
    """Start services for this run only, with the population in a database of its own."""
    end_on_term()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as name:
        folder = Path(name)
        services = LocalServices(folder / "services", say=_say, cache_memory="1gb", heap="2g")
        try:
            urls = services.start(names)
            given = {"mongo": urls.mongo_url, "broker": urls.broker_url}
            given |= {"cache": urls.cache_url, "elastic": urls.elastic_url or ""}
            addresses = {f"services.{service}_url": given[service] for service in names}
            addresses["services.mongo_database"] = DATABASE
            with MongoClient[dict[str, Any]](urls.mongo_url) as client:
                fill(client[DATABASE], users)
                gc.collect()
                gc.freeze()  # the population was made in this process: a worker's collector would not walk over it
                yield Ground(client[DATABASE], addresses, folder)
        finally:
            services.stop(discard=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; return 0 when it is done."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--users", type=int, default=200_000, help="the population (default 200,000)")
    parser.add_argument("--sample", type=int, default=20_000, help="users of a naive pass (default 20,000)")
    parser.add_argument("--rounds", type=int, default=5, help="measured passes of each way (default 5)")
    parser.add_argument(
        "--enrolled", default="10000,100000,300000", help="enrolled users of the passes with nobody due"
    )
    parser.add_argument("--campaigns", type=int, default=1_000, help="live campaigns of the idle and the change tables")
    parser.add_argument("--seconds", type=int, default=20, help="how long those two go on")
    parser.add_argument("--only", default=",".join(TABLES), help=f"tables, of {', '.join(TABLES)}")
    parser.add_argument("--print-only", action="store_true", help="leave docs/ as it is")
    given = parser.parse_args(argv)
    sizes = Sizes(
        given.users,
        given.sample,
        given.rounds,
        tuple(int(number) for number in given.enrolled.split(",")),
        given.campaigns,
        given.seconds,
    )
    picked = given.only.split(",")
    load = os.getloadavg()[0]
    command = f"python -m bench.run {' '.join(sys.argv[1:] if argv is None else argv)}".rstrip()
    population = f"{sizes.users:,} users resampled from the grocer's households (seed {SEED}, `bench/population.py`)."
    services: list[ServiceName] = ["mongo", "broker", "cache"]
    if {"search", "paths"}.intersection(picked):
        services.append("elastic")
    with ground(sizes.users, services) as place:
        version = str(place.database.client.server_info()["version"])
        head = f"Measured with `{command}` on {machine(version, load)}. {population}"
        engine = Engine(place.addresses, place.folder)
        try:
            for name in TABLES:
                if name in picked:
                    began = time.monotonic()
                    text = f"{head}\n\n{SECTIONS[name](engine, sizes)}"
                    _say(f"{name}: {time.monotonic() - began:.0f} s")
                    report.publish(f"bench.run {name}", text, print_only=given.print_only)
        finally:
            engine.close()
    return 0


def _passes(engine: Engine, sizes: Sizes) -> str:
    firsts = engine.database["users"].find({}, {"_id": 1}).sort("u", 1).limit(sizes.sample)
    sample = [str(document["_id"]) for document in firsts]
    comparisons = {name: passes.compare(engine, sample, name, sizes.rounds) for name in AUDIENCES}
    return tables.passes(comparisons, sizes.rounds)


def _search(engine: Engine, sizes: Sizes) -> str:
    engine.indexed()
    engine.warm()
    return tables.search(*paths.selective(engine, sizes.rounds))


def _paths(engine: Engine, sizes: Sizes) -> str:
    engine.indexed()
    engine.database["users"].create_index(paths.INDEXED, name="bench")
    paths.learn(engine)
    tried = paths.planner(engine, sizes.rounds)
    engine.database["users"].drop_index("bench")
    return tables.paths(tried, sizes.rounds)


def _enrolled(engine: Engine, sizes: Sizes) -> str:
    nobody = enrolled.measure(engine, list(sizes.enrolled), sizes.rounds, due=0)
    some = enrolled.measure(engine, list(sizes.enrolled), sizes.rounds, due=enrolled.DUE)
    return tables.enrolled(nobody, some)


def _changes(engine: Engine, sizes: Sizes) -> str:
    engine.warm()
    arrivals = changes.change_to_delivery(engine, 100)
    many = changes.many_changes(engine, sizes.campaigns, 500, sizes.seconds)
    return tables.changes(arrivals, many, sizes.campaigns, changes.NAMED)


def _small(engine: Engine, sizes: Sizes) -> str:
    return tables.small(*small_campaigns.idle(engine, sizes.campaigns * 5, sizes.seconds))


def _pictures(engine: Engine, sizes: Sizes) -> str:
    return pictures.draw(engine, sizes.users, sizes.enrolled, sizes.rounds)


SECTIONS: Final[dict[str, Callable[[Engine, Sizes], str]]] = {
    "passes": _passes,
    "search": _search,
    "paths": _paths,
    "enrolled": _enrolled,
    "changes": _changes,
    "small": _small,
    "pictures": _pictures,
}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
