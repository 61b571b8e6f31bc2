"""Readers, loaders, writers, deletes and re-creations on the same few buckets, with a real change stream as feed.

They run for `TIDEGATE_RACE_SECONDS` (default 10).
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo.database import Database

from engine.domain.document import Document
from engine.domain.keys import HIGHEST, user_key
from engine.stores.user_cache.layout import Layout
from tests.support.cache_world import CacheWorld, slots_of

SECONDS = float(os.environ.get("TIDEGATE_RACE_SECONDS", "10"))
NAMES = [f"u{n}" for n in range(240)]
ERASED = [f"e{n}" for n in range(16)]
"""Users whose whole document comes and goes, beside tombstones: they have no revision that only rises."""


@pytest.fixture
def world(database: Database[Document], cache_url: str) -> Iterator[CacheWorld]:
    made = CacheWorld(database, cache_url)
    yield made
    made.close()


class Fight:
    """Users change until `over`, others read until the feed has `caught_up`; `faults` collects errors."""

    def __init__(self, world: CacheWorld, layout: Layout) -> None:
        self.world, self.layout = world, layout
        self.over = threading.Event()
        self.caught_up = threading.Event()
        self.faults: list[BaseException] = []
        self.did: Counter[str] = Counter()
        self.acknowledged: dict[str, int] = {}

    def run(self, seconds: float) -> None:
        feeding = self.started(self.feed)
        changing = [self.started(item, n) for n, item in enumerate((self.write, self.write, self.delete, self.erase))]
        readers = [self.started(item, n) for n, item in enumerate((self.read, self.read, self.scan, self.evict))]
        self.over.wait(seconds)
        self.over.set()
        for thread in changing:
            thread.join()
        self.world.add("last")
        for thread in (feeding, *readers):
            thread.join(120)
        assert self.faults == []
        assert self.caught_up.is_set()

    def started(self, what: Callable[..., None], *given: int) -> threading.Thread:
        def guarded() -> None:
            try:
                what(*(random.Random(item) for item in given))
            except BaseException as fault:  # noqa: BLE001 - told by the main thread
                self.faults.append(fault)
                self.over.set()
                self.caught_up.set()

        thread = threading.Thread(target=guarded)
        thread.start()
        return thread

    def feed(self) -> None:
        """Act as the feed, in micro-batches: refresh a document, drop a missing one."""
        last = user_key("shop", "last")
        with self.world.database.users.watch(full_document="updateLookup", max_await_time_ms=50) as stream:
            self.did["streams"] += 1
            while not self.caught_up.is_set():
                batch = list(iter(stream.try_next, None)) if self.over.is_set() else self.some(stream)
                documents = [change["fullDocument"] for change in batch if change.get("fullDocument")]
                removed = [change["documentKey"]["_id"] for change in batch if change["operationType"] == "delete"]
                done = self.world.cache.refresh(self.layout, documents)
                assert done.reached
                assert self.world.cache.drop(self.layout, removed).reached
                self.did.update(refreshed=len(documents), written=done.written, voided=done.voided, batches=1)
                for raw in documents:
                    self.acknowledged[raw["_id"]] = max(self.acknowledged.get(raw["_id"], 0), raw["rev"])
                if any(raw["_id"] == last for raw in documents):
                    self.caught_up.set()

    def some(self, stream: Any) -> list[Any]:
        first = stream.try_next()
        return [] if first is None else [first, *(item for item in (stream.try_next() for _ in range(5)) if item)]

    def write(self, rnd: random.Random) -> None:
        while not self.over.is_set():
            self.world.add(*rnd.sample(NAMES, rnd.randrange(1, 4)), age=rnd.randrange(1000), plan=rnd.choice("abc"))
            self.did["writes"] += 1

    def delete(self, rnd: random.Random) -> None:
        while not self.over.is_set():
            name = rnd.choice(NAMES)
            self.did["deletes"] += self.world.users.delete(user_key("shop", name))
            if rnd.random() < 0.5:
                self.world.add(name, plan="again")
                self.did["re-creations"] += 1

    def erase(self, rnd: random.Random) -> None:
        while not self.over.is_set():
            name = rnd.choice(ERASED)
            self.world.add(name, age=rnd.randrange(9))
            self.did["erased"] += self.world.database.users.delete_one({"_id": user_key("shop", name)}).deleted_count

    def read(self, rnd: random.Random) -> None:
        while not self.caught_up.is_set():
            bucket = rnd.randrange(self.layout.buckets)
            known = dict(self.acknowledged)
            first, until = self.layout.bound(bucket), self.layout.bound(bucket + 1)
            self.check(self.world.cache.read(self.layout, first, until).rows, known)

    def scan(self, rnd: random.Random) -> None:
        while not self.caught_up.is_set():
            known = dict(self.acknowledged)
            for rows in self.world.cache.scan(self.layout, "0", HIGHEST, rnd.choice([64, 128])):
                self.check(rows.rows, known)
            self.did["scans"] += 1

    def check(self, rows: list[Any], known: dict[str, int]) -> None:
        """Check that no row is older than the last refresh before the read began."""
        self.did.update(reads=1, users=len(rows))
        for row in rows:
            if "/e" not in row.key:
                assert row.rev >= known.get(row.key, 0), row.key
        assert len({row.key for row in rows}) == len(rows)

    def evict(self, rnd: random.Random) -> None:
        """Evict as memory pressure does, about ten times a second, and sometimes as a restart does."""
        while not self.caught_up.wait(0.05):
            bucket = rnd.randrange(self.layout.buckets)
            key = self.layout.bucket_key(bucket) if rnd.random() < 0.8 else self.layout.lease_key(bucket)
            self.did["evicted"] += int(self.world.redis.delete(key))  # type: ignore[arg-type]
            if rnd.random() < 0.02:
                self.world.redis.flushdb()
                self.did["flushes"] += 1


@pytest.mark.timeout(SECONDS + 240)
def test_concurrent_readers_and_writers_leave_no_stale_row(
    world: CacheWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.add(*NAMES)
    layout = world.adopt()
    assert layout.buckets == 4
    world.cache.warm(layout)
    fight = Fight(world, layout)
    fight.run(SECONDS)
    entries, wrong = compared(world, layout)
    with capsys.disabled():
        did = ", ".join(f"{count} {what}" for what, count in sorted(fight.did.items()))
        sys.stdout.write(f"\n{SECONDS:.0f} s: {did}; {world.cache.use}; {entries} entries, {wrong} wrong\n")
    assert wrong == 0
    assert fight.did["voided"] > 0
    assert world.cache.use.loads > 0
    assert world.read(layout) == world.stored()
    assert compared(world, layout) == (len(world.stored()), 0)


def compared(world: CacheWorld, layout: Layout) -> tuple[int, int]:
    """Return the number of users in the cache, and of those that differ from MongoDB or are absent."""
    entries = wrong = 0
    for bucket in range(layout.buckets):
        held: dict[bytes, bytes] = world.redis.hgetall(layout.bucket_key(bucket))  # type: ignore[assignment]
        if not held:
            continue
        assert held.pop(b"") == b""
        rows = {row.key: slots_of(world.catalogue, row) for row in layout.unpacker()(list(held.values()), len(held))}
        there = world.stored(layout.bound(bucket), layout.bound(bucket + 1))
        entries += len(rows)
        wrong += sum(rows[key] != there.get(key) for key in rows) + len(there.keys() - rows.keys())
    return entries, wrong
