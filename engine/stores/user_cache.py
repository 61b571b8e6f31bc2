"""The user cache: users of a key range as rows, from Redis where they are there and from MongoDB where not.

A reader never sees a Redis error: what the cache cannot give is read from MongoDB. It sees every user of the range, as
new as the refreshes that were acknowledged before it began, or newer. So read the feed's watermark first, then take
the layout (`cache_layouts`): a layout taken earlier may be one that the feed no longer refreshes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import msgspec

from engine.domain.keys import HIGHEST, suffix_of_user
from engine.measuring import measured
from engine.predicate.fields import Row
from engine.stores.cache_layout import Layout, Span, Unpack, read_head
from engine.stores.cache_load import BucketLoader, UserRanges
from engine.stores.cache_scripts import DROP, REFRESH
from engine.stores.cache_server import Asked, Away, CacheServer, Reply, Tell, unheard
from engine.stores.cache_stats import BETWEEN_LOOKS, CacheCounts, CacheMemory, CacheUse, MemoryWatch, cache_memory

BATCH: Final = 1_000
"""Users of one read: 16 buckets. Larger ones are slower, for what was decoded leaves the processor's cache
(measured: 64 buckets take half as long again per user)."""

LOADED: Final = "cache.load"
"""What readers found absent and read from MongoDB, as it is measured; `cache.read` counts all that they were given."""

CALLS_AT_ONCE: Final = 1_000
"""Script calls in one round trip, so that no answer waits for a whole burst of changes."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One batch: all users, tombstones too, with a suffix below `until` and from where the batch began.

    The rows are in no order; `until` is the bound behind the last whole bucket, where the next batch begins. `hits` of
    them came from the cache. `changes` counts the refreshed rows of the workspace: while it stays the same, no cached
    row has changed (None: Redis is away).
    """

    rows: list[Row]
    until: str
    hits: int
    changes: int | None


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh did: whether Redis took all of it, how many rows were written, how many loads were voided.

    Where it was not `reached`, buckets may be stale: the feed must raise its generation.
    """

    reached: bool
    written: int = 0
    voided: int = 0


class UserCache:
    """The user cache of one installation, shared by the threads of a process."""

    def __init__(
        self, server: CacheServer, users: UserRanges, tell: Tell = unheard, looks: timedelta = BETWEEN_LOOKS
    ) -> None:
        """`tell` hears when the memory is too small; `looks` is the time between two looks at it."""
        self._server = server
        self._loader = BucketLoader(server, users, MemoryWatch(server, tell, looks))
        self._counts = CacheCounts()

    # -- reading

    def read(
        self, layout: Layout, first: str, until: str, limit: int = BATCH, fields: Collection[str] | None = None
    ) -> Rows:
        """About `limit` users with a suffix from `first` on and below `until`, by whole buckets; see `Rows`.

        Their rows reach to the last of `fields` (`Layout.unpacker`).
        """
        span = next(layout.spans(first, until, limit), None)
        if span is None:
            return Rows([], until, 0, None)
        ((_, answers),) = self._server.ahead([_asked(layout, span)])
        return self._rows(layout, span, answers, first, until, layout.unpacker(fields))

    def scan(
        self, layout: Layout, first: str, until: str, limit: int = BATCH, fields: Collection[str] | None = None
    ) -> Iterator[Rows]:
        """All users with a suffix in [first, until), in batches of about `limit`; the next one is read ahead.

        Let go of a batch before you ask for the next: decoding into memory that is still in the processor's cache takes
        a fifth less time (measured).
        """
        unpack = layout.unpacker(fields)
        asked = (_asked(layout, span) for span in layout.spans(first, until, limit))
        for span, answers in self._server.ahead(asked):
            yield self._rows(layout, span, answers, first, until, unpack)

    def _rows(
        self, layout: Layout, span: Span, answers: list[Reply] | None, first: str, until: str, unpack: Unpack
    ) -> Rows:
        """The rows of `span` below `until` and from `first` on; what the answers do not hold is loaded."""
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
        """The packed users of absent buckets, stored where nobody else is at it and nothing changed meanwhile."""
        with measured(LOADED) as call:
            leased = self._loader.lease(layout, buckets)
            contents = self._loader.fetch(layout, buckets)
            stored = self._loader.store(layout, leased, contents)
            call.documents = sum(map(len, contents.values()))
        self._counts.add(loads=stored, unstored=len(buckets) - stored)
        return [value for users in contents.values() for value in users.values()]

    def _forget(self, layout: Layout, span: Span) -> None:
        """Remove buckets that hold what is no row of this layout: nothing of ours wrote it."""
        keys = [key for bucket in range(*span) for key in (layout.bucket_key(bucket), layout.lease_key(bucket))]
        with suppress(Away):
            self._server.ask([(b"DEL", *keys)])

    def warm(self, layout: Layout, first: str = "0", until: str = HIGHEST) -> int:
        """Load all absent buckets of a range; gives how many were stored. Ends early where Redis is away."""
        stored = 0
        for span in layout.spans(first, until, BATCH):
            buckets = range(*span)
            try:
                there = self._server.ask([(b"EXISTS", layout.bucket_key(bucket)) for bucket in buckets])
            except Away:
                return stored
            absent = [bucket for bucket, found in zip(buckets, there, strict=True) if not found]
            if absent:
                leased = self._loader.lease(layout, absent)
                ours = [bucket for bucket in absent if bucket in leased.buckets]
                stored += self._loader.store(layout, leased, self._loader.fetch(layout, ours))
        return stored

    def revisions(self, layout: Layout, keys: Collection[str]) -> dict[str, int | None]:
        """The cached revision of each user; 0 where its bucket knows of none, None where the bucket is absent."""
        asked: dict[int, list[str]] = {}
        for key in keys:
            asked.setdefault(layout.bucket_of(suffix_of_user(key)), []).append(key)
        calls = [
            (b"HMGET", layout.bucket_key(bucket), b"", *(suffix_of_user(key).encode() for key in there))
            for bucket, there in asked.items()
        ]
        found: dict[str, int | None] = dict.fromkeys(keys)
        try:
            answers = self._server.ask(calls)
        except Away:
            return found
        for there, (sentinel, *values) in zip(asked.values(), answers, strict=True):
            if sentinel is not None:
                found |= {
                    key: 0 if value is None else read_head(value).rev for key, value in zip(there, values, strict=True)
                }
        return found

    def present(self, layout: Layout, buckets: Collection[int]) -> int:
        """How many of these buckets are cached; 0 where Redis is away."""
        try:
            return sum(bool(one) for one in self._server.ask([(b"EXISTS", layout.bucket_key(b)) for b in buckets]))
        except Away:
            return 0

    def changes(self, layout: Layout) -> int | None:
        """The workspace's counter of refreshed rows; None where Redis is away."""
        try:
            return int(self._server.ask([(b"GET", layout.changes_key)])[0] or 0)
        except Away:
            return None

    # -- writing, by the feed

    def refresh(self, layout: Layout, documents: Sequence[Mapping[str, Any]]) -> Refreshed:
        """Bring cached users in line with these documents (tombstones too), where those are newer."""
        calls = []
        for document in documents:
            row, packed = layout.pack(document)
            suffix = suffix_of_user(row.key)
            calls.append(REFRESH.call(_touched(layout, suffix), [suffix.encode(), packed, b"%d" % row.rev]))
        return self._written(calls)

    def drop(self, layout: Layout, keys: Iterable[str]) -> Refreshed:
        """Drop the buckets of users whose documents are gone: they left no revision to compare."""
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
        """What this process's readers found so far."""
        return self._counts.read()

    def memory(self) -> CacheMemory | None:
        """The server's memory and evictions; None where it is away."""
        return cache_memory(self._server)

    def close(self) -> None:
        """Let go of the connections."""
        self._server.close()


def _asked(layout: Layout, span: Span) -> Asked[Span]:
    return Asked(span, layout.values_commands(span), 1 + span.until - span.first)


def _sorted_out(span: Span, answers: list[Reply] | None) -> tuple[list[int], list[bytes], int]:
    """The absent buckets, the values of the others, and how many users those are."""
    if answers is None:
        return list(range(*span)), [], 0
    missing: list[int] = []
    values: list[bytes] = []
    for bucket, found in zip(range(*span), answers[1:], strict=True):
        if found:
            values += found
        else:
            missing.append(bucket)
    whole = span.until - span.first - len(missing)
    return missing, values, len(values) - whole  # a sentinel each


def _between(rows: Sequence[Row], first: str, until: str) -> list[Row]:
    return [row for row in rows if first <= row.key < until]


def _touched(layout: Layout, suffix: str) -> list[bytes]:
    bucket = layout.bucket_of(suffix)
    return [layout.bucket_key(bucket), layout.lease_key(bucket), layout.changes_key]
