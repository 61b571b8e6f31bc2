"""`python -m bench.cache`: measure the user cache against the floor of its parts (`docs/benchmarks.md`).

Every way reads and decodes all users once per round, batch by batch; the ways take turns. The floor is the sum of the
two parts: taking the bytes of 15 buckets from the socket, and turning those bytes into rows.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import psutil
import redis
from pymongo import MongoClient

from bench.measure import machine
from bench.population import SEED, WORKSPACE
from bench.run import DATABASE, fill
from bench.termination import end_on_term
from engine.catalogue.workspace_file import read_workspace
from engine.domain.document import Document
from engine.domain.keys import HIGHEST
from engine.local.services.local_services import LocalServices
from engine.stores.mongo.users import Users
from engine.stores.user_cache.active_layouts import CacheLayouts
from engine.stores.user_cache.buckets import UserCache
from engine.stores.user_cache.connection import CacheServer, cache_client
from engine.stores.user_cache.layout import Held, Layout

CATALOGUE: Final = read_workspace(Path(__file__).resolve().parent / "conf" / "workspaces" / f"{WORKSPACE}.yaml")
BUCKETS: Final = 15
"""Buckets of one batch of 1000 users."""

NAMED: Final = ("orders_count", "orders_value", "last_order_at", "first_order_at", "age", "unsubscribed")
"""The fields that the audience of P1 names (`bench/audiences.py`)."""

LISTPACK: Final = {"hash-max-listpack-entries": 512, "hash-max-listpack-value": 1024}
HASHTABLE: Final = {"hash-max-listpack-entries": 0}


@dataclass(frozen=True, slots=True)
class Ground:
    """Users in MongoDB and an empty cache."""

    users: Users
    cache: UserCache
    layouts: CacheLayouts
    client: redis.Redis
    mongodb: str


@contextmanager
def ground(users: int) -> Iterator[Ground]:
    """Start services for this run only, and fill MongoDB with users."""
    end_on_term()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as name:
        services = LocalServices(
            Path(name), say=lambda text: print(text, file=sys.stderr), cache_memory=f"{users // 2000 + 64}mb"
        )
        try:
            urls = services.start(["mongo", "cache"])
            with MongoClient[Document](urls.mongo_url) as client:
                database = client[DATABASE]
                fill(database, users)
                store = Users(database)
                yield Ground(
                    store,
                    UserCache(CacheServer(cache_client(urls.cache_url)), store),
                    CacheLayouts(database, store, f"{DATABASE}:"),
                    cache_client(urls.cache_url),
                    str(client.server_info()["version"]),
                )
        finally:
            services.stop(discard=True)


Way = Callable[[], int]
"""One pass over all users; returns how many it read."""


def ways(place: Ground, layout: Layout) -> dict[str, Way]:
    """Return the ways of reading all users; those named "part: ..." measure one part of the work."""
    keys = [
        [layout.bucket_key(n) for n in range(start, min(start + BUCKETS, layout.buckets))]
        for start in range(0, layout.buckets, BUCKETS)
    ]
    decoder = msgspec.msgpack.Decoder(
        replace(CATALOGUE, fields={n: CATALOGUE.fields[n] for n in layout.held.fields}).row_type
    )

    def answers(part: Sequence[bytes]) -> list[list[bytes]]:
        pipe = place.client.pipeline(transaction=False)
        for key in part:
            pipe.hvals(key)  # type: ignore[arg-type]
        return pipe.execute()

    joined = [b"".join(value for values in answers(part) for value in values) for part in keys]
    counts = [sum(len(values) - 1 for values in answers(part)) for part in keys]

    def bytes_only() -> int:
        line = place.client.connection_pool.get_connection()
        total = 0
        for part in keys:
            line.send_packed_command([b"".join(b"*2\r\n$5\r\nHVALS\r\n$%d\r\n%b\r\n" % (len(k), k) for k in part)])
            total += sum(len(line.read_response()) - 1 for _ in part)
        place.client.connection_pool.release(line)
        return total

    def decode_only(fields: Collection[str] | None) -> int:
        unpack = layout.unpacker(fields)
        return sum(len(unpack((values,), n)) for n, values in zip(counts, joined, strict=True))

    def usual() -> int:
        return sum(len([decoder.decode(v) for values in answers(part) for v in values if v]) for part in keys)

    def batches(fields: Collection[str] | None) -> int:
        first, total = "0", 0
        while first < HIGHEST:
            rows = place.cache.read(layout, first, HIGHEST, fields=fields)
            first, total = rows.until, total + len(rows.rows)
            del rows
        return total

    def scan(fields: Collection[str] | None, limit: int = 1_000) -> int:
        total = 0
        for rows in place.cache.scan(layout, "0", HIGHEST, limit, fields):
            total += len(rows.rows)
            del rows
        return total

    return {
        "part: the bytes of 15 buckets, nothing decoded": bytes_only,
        "part: decoding them, 6 fields": lambda: decode_only(NAMED),
        "`UserCache.read`, 1000 a batch, 6 fields": lambda: batches(NAMED),
        "`UserCache.scan` (one read ahead), 1000 a batch, 6 fields": lambda: scan(NAMED),
        "part: decoding them, all 18 fields": lambda: decode_only(None),
        "usual: redis-py pipeline of 15 HVALS, each value decoded, all fields": usual,
        "`UserCache.read`, 1000 a batch, all fields": lambda: batches(None),
        **{f"`UserCache.scan`, {n} a batch, all fields": lambda n=n: scan(None, n) for n in (500, 1_000, 5_000)},
    }


@dataclass(slots=True)
class Result:
    """Users per second of each round, and microseconds of our and of Valkey's processor time per user."""

    rates: list[float]
    own: list[float]
    server: list[float]


def in_turns(place: Ground, layout: Layout, users: int, rounds: int) -> dict[str, Result]:
    """Run each way `rounds` times, in turns, after one warm-up. Raises `AssertionError` if users are missing."""
    valkey = psutil.Process(int(place.client.info("server")["process_id"]))
    results: dict[str, Result] = {}
    todo = ways(place, layout)
    for number in range(rounds + 1):
        for name, way in todo.items():
            cpu, server, began = time.process_time(), sum(valkey.cpu_times()[:2]), time.perf_counter()
            assert way() == users, name
            took = time.perf_counter() - began
            own = time.process_time() - cpu
            if number:
                result = results.setdefault(name, Result([], [], []))
                result.rates.append(users / took)
                result.own.append(own * 1e6 / users)
                result.server.append((sum(valkey.cpu_times()[:2]) - server) * 1e6 / users)
    return results


def table(results: Mapping[str, Result]) -> str:
    """Return the results as a Markdown table; ratios are to the floor, the sum of the two parts listed before a way."""
    rows = ["| way | users/s, median (slowest to fastest) | of its floor | processor a user: ours, Valkey |"]
    rows += ["|---|--:|--:|--:|"]
    taking = statistics.median(next(iter(results.values())).rates)
    floor = taking
    for name, result in results.items():
        rate = statistics.median(result.rates)
        if "decoding" in name:
            floor = 1 / (1 / taking + 1 / rate)
            rows.append(f"| **floor: both parts one after the other** | {floor:,.0f} | 1.00 | |")
        share = "" if name.startswith("part") else f"{rate / floor:.2f}"
        rows.append(
            f"| {name} | {rate:,.0f} ({min(result.rates):,.0f} to {max(result.rates):,.0f}) | {share} "
            f"| {statistics.median(result.own):.2f} µs, {statistics.median(result.server):.2f} µs |"
        )
    return "\n".join(rows)


def filled(place: Ground, layout: Layout, users: int) -> str:
    """Load everything, refresh some of it; return the measured speeds and memory as a sentence."""
    place.client.execute_command("FLUSHDB", "SYNC")  # type: ignore[no-untyped-call]
    empty = int(place.client.info("memory")["used_memory"])
    began = time.perf_counter()
    assert place.cache.warm(layout) == layout.buckets
    loading = users / (time.perf_counter() - began)
    memory = (int(place.client.info("memory")["used_memory"]) - empty) / users
    some = place.users.read_range(WORKSPACE, "0", HIGHEST, 20_000)
    changed = [{**raw, "rev": int(time.time() * 1000) + n} for n, raw in enumerate(some)]
    began = time.perf_counter()
    assert place.cache.refresh(layout, changed).written == len(changed)
    refreshing = len(changed) / (time.perf_counter() - began)
    kind = place.client.object("encoding", layout.bucket_key(0)).decode()  # type: ignore[union-attr, arg-type]
    return (
        f"As {kind}: {memory:.0f} bytes a user, loaded from MongoDB at {loading:,.0f} users/s, refreshed at "
        f"{refreshing:,.0f} users/s."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; return 0 when it is done."""
    parser = argparse.ArgumentParser(prog="python -m bench.cache", description=__doc__)
    parser.add_argument("--users", type=int, default=200_000, help="the population (default 200,000)")
    parser.add_argument("--rounds", type=int, default=5, help="measured passes of each way (default 5)")
    given = parser.parse_args(argv)
    load = os.getloadavg()[0]
    with ground(given.users) as place:
        layout = place.layouts.adopt(CATALOGUE, 1, Held(NAMED, frozenset()))
        print(
            f"{given.users:,} users (seed {SEED}, `bench/population.py`), {len(CATALOGUE.fields)} fields and an event "
            f"each, in {layout.buckets:,} buckets; medians of {given.rounds} rounds, in turns; "
            f"{machine(place.mongodb, load)}."
        )
        for settings in (HASHTABLE, LISTPACK):
            for name, value in settings.items():
                place.client.config_set(name, value)
            print(f"\n{filled(place, layout, given.users)}\n")
            print(table(in_turns(place, layout, given.users, given.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
