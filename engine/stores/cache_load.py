"""Loading buckets of the user cache from MongoDB under a lease, so that nothing older than a refresh ever lands.

A loader takes a lease on each bucket, then reads, then stores only where its lease is still there. A refresh removes
the lease of the bucket that it touches, even of one that is absent. So what was read before a change is not stored
after it; what was stored before is refreshed in place (Nishtala et al., Scaling Memcache at Facebook, section 3.2.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import uuid4

from engine.domain.document import Document
from engine.stores.cache_layout import Layout, Span
from engine.stores.cache_scripts import BUCKET_MS, LEASE, LEASE_MS, STORE
from engine.stores.cache_server import Away, CacheServer
from engine.stores.cache_stats import MemoryWatch

Contents = dict[int, dict[bytes, bytes]]
"""Packed users by field, of each bucket."""

_SENTINEL: Final = (b"", b"")


class UserRanges(Protocol):
    """What a loader needs of the users."""

    def read_whole(self, workspace: str, first: str, until: str, projection: Mapping[str, int]) -> list[Document]:
        """All users of a range as a majority has them."""


@dataclass(frozen=True, slots=True)
class Leased:
    """The buckets that a loader may store, and the token that says so."""

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
        """Take the leases that nobody has; without Redis there are none."""
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
        """What MongoDB has of these buckets (ascending): one range scan for each row of neighbours."""
        contents: Contents = {}
        for span in neighbours(buckets):
            first, until = layout.bound(span.first), layout.bound(span.until)
            documents = self._users.read_whole(layout.workspace, first, until, layout.projection)
            contents |= layout.by_bucket(documents, span)
        return contents

    def store(self, layout: Layout, leased: Leased, contents: Contents) -> int:
        """Store the leased ones of the buckets that were fetched, where the lease still holds; gives how many."""
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
    """Ascending numbers as spans without gaps."""
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
