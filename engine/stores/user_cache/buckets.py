"""The user cache: reads the users of a key range as rows, from Redis if they are cached and otherwise from MongoDB.

A reader never sees a Redis error, because it reads from MongoDB what the cache cannot provide. It sees every user of
the range, at least as new as the refreshes that were acknowledged before it began. For that, read the feed's watermark
first and then take the layout (`cache_layouts`): the feed may no longer refresh a layout that was taken earlier.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import msgspec

from engine.catalogue.fields import Row
from engine.domain.keys import HIGHEST, suffix_of_user
from engine.query_metrics import measured
from engine.stores.user_cache.connection import Away, CacheServer, Reply, Round, Tell, unheard
from engine.stores.user_cache.layout import Layout, Span, Unpack, read_head
from engine.stores.user_cache.loader import BucketLoader, UserRanges
from engine.stores.user_cache.lua_scripts import DROP, REFRESH
from engine.stores.user_cache.stats import BETWEEN_CHECKS, CacheCounts, CacheMemory, CacheUse, MemoryWatch, cache_memory

BATCH: Final = 1_000
"""Users of one read: 16 buckets. Larger reads are slower, because decoded data no longer fits the processor's cache
(measured: 64 buckets take half as long again per user)."""

LOADED: Final = "cache.load"
"""Name of the measurement of users that readers had to read from MongoDB; `cache.read` counts all users read."""

CALLS_AT_ONCE: Final = 1_000
"""Script calls in one round trip, so that no answer waits for a whole burst of changes."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One batch: all users, with tombstones, whose suffix lies between the start of the batch and `until`.

    The rows are in no order. `until` is the bound after the last whole bucket, where the next batch begins. `hits` of
    the rows came from the cache. `changes` counts the refreshed rows of the workspace: while it stays the same, no
    cached row has changed (None: Redis is away).
    """

    rows: list[Row]
    until: str
    hits: int
    changes: int | None


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The result of a refresh: whether Redis accepted all of it, how many rows it wrote, how many loads it voided.

    If `reached` is False, buckets may be stale, and the feed must raise its generation.
    """

    reached: bool
    written: int = 0
    voided: int = 0


class UserCache:
    """The user cache of one installation, shared by the threads of a process."""

    def __init__(
        self, server: CacheServer, users: UserRanges, tell: Tell = unheard, between_checks: timedelta = BETWEEN_CHECKS
    ) -> None:
        """`tell` receives an event if the memory is too small; `between_checks` passes between two checks of it."""
        self._server = server
        self._loader = BucketLoader(server, users, MemoryWatch(server, tell, between_checks))
        self._counts = CacheCounts()

    # -- reading

    def read(
        self, layout: Layout, first: str, until: str, limit: int = BATCH, fields: Collection[str] | None = None
    ) -> Rows:
        """Return about `limit` users with a suffix in [first, until), by whole buckets; see `Rows`.

        Their rows are decoded up to the last of `fields` (`Layout.unpacker`).
        """
        span = next(layout.spans(first, until, limit), None)
        if span is None:
            return Rows([], until, 0, None)
        ((_, answers),) = self._server.ahead([_round(layout, span)])
        return self._rows(layout, span, answers, first, until, layout.unpacker(fields))

    def scan(
        self, layout: Layout, first: str, until: str, limit: int = BATCH, fields: Collection[str] | None = None
    ) -> Iterator[Rows]:
        """Yield all users with a suffix in [first, until), in batches of about `limit`; the next batch is read ahead.

        Release a batch before asking for the next: decoding into memory that is still in the processor's cache takes a
        fifth less time (measured).
        """
        unpack = layout.unpacker(fields)
        rounds = (_round(layout, span) for span in layout.spans(first, until, limit))
        for span, answers in self._server.ahead(rounds):
            yield self._rows(layout, span, answers, first, until, unpack)

    def _rows(
        self, layout: Layout, span: Span, answers: list[Reply] | None, first: str, until: str, unpack: Unpack
    ) -> Rows:
        """Return the rows of `span` in [first, until); load those that the answers do not contain."""
        changes = None if answers is None else int(answers[0] or 0)
        missing, values, hits = _sorted_out(span, answers)
        try:
            rows = unpack(values, hits) if hits else []
        except msgspec.MsgspecError:
            self._forget(layout, span)
            missing, rows, hits = list(range(*span)), [], 0
        if missing:
            loaded = self._load(layout, missing)
            rows += unpack(loaded, len(loaded))
        self._counts.add(hits=hits, misses=len(rows) - hits)
        reached = layout.bound(span.until)
        if layout.bound(span.first) < first or reached > until:
            rows = _between(rows, f"{layout.workspace}/{first}", f"{layout.workspace}/{until}")
        return Rows(rows, min(reached, until), hits, changes)

    def _load(self, layout: Layout, buckets: Sequence[int]) -> list[bytes]:
        """Load the packed users of absent buckets; store those that we lease and that did not change meanwhile."""
        with measured(LOADED) as call:
            leased = self._loader.lease(layout, buckets)
            contents = self._loader.fetch(layout, buckets)
            stored = self._loader.store(layout, leased, contents)
            call.documents = sum(map(len, contents.values()))
        self._counts.add(loads=stored, unstored=len(buckets) - stored)
        return [value for users in contents.values() for value in users.values()]

    def _forget(self, layout: Layout, span: Span) -> None:
        """Delete buckets with values that are not rows of this layout; the engine did not write them."""
        keys = [key for bucket in range(*span) for key in (layout.bucket_key(bucket), layout.lease_key(bucket))]
        with suppress(Away):
            self._server.ask([(b"DEL", *keys)])

    def warm(self, layout: Layout, first: str = "0", until: str = HIGHEST) -> int:
        """Load all absent buckets of a range; return how many were stored. Stop early if Redis is away."""
        stored = 0
        for span in layout.spans(first, until, BATCH):
            buckets = range(*span)
            try:
                there = self._server.ask([(b"EXISTS", layout.bucket_key(bucket)) for bucket in buckets])
            except Away:
                return stored
            absent = [bucket for bucket, held in zip(buckets, there, strict=True) if not held]
            if absent:
                leased = self._loader.lease(layout, absent)
                ours = [bucket for bucket in absent if bucket in leased.buckets]
                stored += self._loader.store(layout, leased, self._loader.fetch(layout, ours))
        return stored

    def revisions(self, layout: Layout, keys: Collection[str]) -> dict[str, int | None]:
        """Return each user's cached revision; 0 if its bucket has no such user, None if the bucket is absent."""
        by_bucket: dict[int, list[str]] = {}
        for key in keys:
            by_bucket.setdefault(layout.bucket_of(suffix_of_user(key)), []).append(key)
        calls = [
            (b"HMGET", layout.bucket_key(bucket), b"", *(suffix_of_user(key).encode() for key in there))
            for bucket, there in by_bucket.items()
        ]
        revisions: dict[str, int | None] = dict.fromkeys(keys)
        try:
            answers = self._server.ask(calls)
        except Away:
            return revisions
        for there, (sentinel, *values) in zip(by_bucket.values(), answers, strict=True):
            if sentinel is not None:
                revisions |= {
                    key: 0 if value is None else read_head(value).rev for key, value in zip(there, values, strict=True)
                }
        return revisions

    def present(self, layout: Layout, buckets: Collection[int]) -> int:
        """Return how many of these buckets are cached; 0 if Redis is away."""
        try:
            return sum(
                bool(answer) for answer in self._server.ask([(b"EXISTS", layout.bucket_key(b)) for b in buckets])
            )
        except Away:
            return 0

    def changes(self, layout: Layout) -> int | None:
        """Return the workspace's counter of refreshed rows; None if Redis is away."""
        try:
            return int(self._server.ask([(b"GET", layout.changes_key)])[0] or 0)
        except Away:
            return None

    # -- writing, by the feed

    def refresh(self, layout: Layout, documents: Sequence[Mapping[str, Any]]) -> Refreshed:
        """Update cached users from these documents (tombstones too), if the documents are newer."""
        calls = []
        for document in documents:
            row, packed = layout.pack(document)
            suffix = suffix_of_user(row.key)
            calls.append(REFRESH.call(_touched(layout, suffix), [suffix.encode(), packed, b"%d" % row.rev]))
        return self._written(calls)

    def drop(self, layout: Layout, keys: Iterable[str]) -> Refreshed:
        """Drop the buckets of users whose documents are gone, because there is no revision to compare."""
        return self._written([DROP.call(_touched(layout, suffix_of_user(key)), []) for key in keys])

    def _written(self, calls: Sequence[Sequence[bytes]]) -> Refreshed:
        written = voided = 0
        for start in range(0, len(calls), CALLS_AT_ONCE):
            try:
                answers = self._server.ask(calls[start : start + CALLS_AT_ONCE])
            except Away:
                return Refreshed(False, written, voided)
            written += sum(code == 2 for code, _ in answers)
            voided += sum(lease for _, lease in answers)
        return Refreshed(True, written, voided)

    # -- figures

    @property
    def use(self) -> CacheUse:
        """The cache reads of this process so far."""
        return self._counts.read()

    def memory(self) -> CacheMemory | None:
        """Return the server's memory and evictions; None if it is away."""
        return cache_memory(self._server)

    def close(self) -> None:
        """Close the connections."""
        self._server.close()


def _round(layout: Layout, span: Span) -> Round[Span]:
    return Round(span, layout.values_commands(span), 1 + span.until - span.first)


def _sorted_out(span: Span, answers: list[Reply] | None) -> tuple[list[int], list[bytes], int]:
    """Return the absent buckets, the values of the others, and the number of users in those values."""
    if answers is None:
        return list(range(*span)), [], 0
    missing: list[int] = []
    values: list[bytes] = []
    for bucket, held in zip(range(*span), answers[1:], strict=True):
        if held:
            values += held
        else:
            missing.append(bucket)
    whole = span.until - span.first - len(missing)
    return missing, values, len(values) - whole  # minus one sentinel per bucket


def _between(rows: Sequence[Row], first: str, until: str) -> list[Row]:
    return [row for row in rows if first <= row.key < until]


def _touched(layout: Layout, suffix: str) -> list[bytes]:
    bucket = layout.bucket_of(suffix)
    return [layout.bucket_key(bucket), layout.lease_key(bucket), layout.changes_key]
