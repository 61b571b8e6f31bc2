"""Load buckets of the user cache from MongoDB under a lease, so that a load never overwrites a newer refresh.

A loader takes a lease on each bucket, then reads, then stores only the buckets whose lease it still holds. A refresh
deletes the lease of its bucket, even if the bucket is absent. Data read before a change is therefore never stored after
it; data stored before the change is refreshed in place (Nishtala et al., Scaling Memcache at Facebook, section 3.2.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import uuid4

from engine.domain.document import Document
from engine.stores.user_cache.connection import Away, CacheServer
from engine.stores.user_cache.layout import Layout, Span
from engine.stores.user_cache.lua_scripts import BUCKET_MS, LEASE, LEASE_MS, STORE
from engine.stores.user_cache.stats import MemoryWatch

Contents = dict[int, dict[bytes, bytes]]
"""The packed users of each bucket, by hash field."""

_SENTINEL: Final = (b"", b"")


class UserRanges(Protocol):
    """The part of the users store that a loader needs."""

    def read_whole(self, workspace: str, first: str, until: str, projection: Mapping[str, int]) -> list[Document]:
        """Return all users of a range, read with majority read concern."""


@dataclass(frozen=True, slots=True)
class Leased:
    """The buckets that a loader may store, and the token of its leases."""

    token: bytes
    buckets: frozenset[int]


NOTHING_LEASED: Final = Leased(b"", frozenset())


class BucketLoader:
    """Loads buckets: `lease`, then `fetch`, then `store`."""

    def __init__(self, server: CacheServer, users: UserRanges, watch: MemoryWatch) -> None:
        self._server = server
        self._users = users
        self._watch = watch

    def lease(self, layout: Layout, buckets: Sequence[int]) -> Leased:
        """Take the leases that nobody else holds; none if Redis is away."""
        token = uuid4().hex.encode()
        keys = [layout.lease_key(bucket) for bucket in buckets]
        try:
            taken = self._server.ask([LEASE.call(keys, [token, LEASE_MS])])[0]
        except Away:
            return NOTHING_LEASED
        if not isinstance(taken, list):
            self._watch.loaded(refused=True)
            return NOTHING_LEASED
        return Leased(token, frozenset(bucket for bucket, mine in zip(buckets, taken, strict=True) if mine))

    def fetch(self, layout: Layout, buckets: Sequence[int]) -> Contents:
        """Read these buckets (ascending) from MongoDB, with one range scan per group of adjacent buckets."""
        contents: Contents = {}
        for span in neighbours(buckets):
            first, until = layout.bound(span.first), layout.bound(span.until)
            documents = self._users.read_whole(layout.workspace, first, until, layout.projection)
            contents |= layout.by_bucket(documents, span)
        return contents

    def store(self, layout: Layout, leased: Leased, contents: Contents) -> int:
        """Store the fetched buckets whose lease still holds; return how many were stored."""
        if not leased.buckets:
            return 0
        calls = [
            STORE.call(
                [layout.bucket_key(bucket), layout.lease_key(bucket)],
                [leased.token, BUCKET_MS, *_SENTINEL, *(part for item in contents[bucket].items() for part in item)],
            )
            for bucket in sorted(leased.buckets)
        ]
        try:
            answers = self._server.ask(calls)
        except Away:
            return 0
        self._watch.loaded(refused=any(isinstance(answer, Exception) for answer in answers))
        return sum(answer == 1 for answer in answers)


def neighbours(buckets: Iterable[int]) -> Iterator[Span]:
    """Group ascending numbers into spans without gaps."""
    first: int | None = None
    last = 0
    for bucket in buckets:
        if first is None:
            first = bucket
        elif bucket != last + 1:
            yield Span(first, last + 1)
            first = bucket
        last = bucket
    if first is not None:
        yield Span(first, last + 1)
