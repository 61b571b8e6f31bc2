"""How the user cache lies in Redis: buckets, epochs, which fields are held, and how a user is packed.

A bucket holds the users whose layout hash begins with the same `depth` bits, about 64 of them. It is one hash:

    {prefix}u:{epoch}:{workspace}:{bucket}    field = user suffix, value = msgpack array of a `Row`
                                              field = "" with an empty value: the bucket is whole
                                              lives for 7 days after it was loaded

The epoch changes with the depth, with what is held and with the feed's generation, so buckets of another layout are
never looked at again; they end by their lifetime. Evicting removes whole keys, so a bucket is whole or absent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from math import log2
from typing import Any, Final, NamedTuple, cast

import msgspec

from engine.domain.keys import HASH_SPACE, hash_prefix, suffix_of_user
from engine.predicate.fields import Catalogue, Row

Document = dict[str, Any]  # a driver's edge: BSON values

USERS_PER_BUCKET: Final = 64
"""Large enough that a command costs little per user, small enough that a load or an eviction is a small thing
(`LIMITS.md`: HVALS of 16 such buckets)."""

DEEPEST: Final = 24
"""Bits of the deepest layout: 16.8 M buckets, a thousand million users."""

HELD_BY_DEFAULT: Final = 40
"""A workspace with at most so many fields has all of them held: about 350 bytes a user."""

_HASH_BITS: Final = 32
_LIST: Final = b"\xdd"  # msgpack: a list with four bytes of length, so that packed rows are joined, not copied into it


@dataclass(frozen=True, slots=True)
class Held:
    """The fields and events of a workspace that are in the cache, by name."""

    fields: frozenset[str]
    events: frozenset[str]

    def holds(self, fields: Collection[str], events: Collection[str]) -> bool:
        """Whether all of these are held."""
        return self.fields.issuperset(fields) and self.events.issuperset(events)


def extended(held: Held, fields: Collection[str], events: Collection[str]) -> Held:
    """`held` with more."""
    return Held(held.fields | set(fields), held.events | set(events))


def everything(catalogue: Catalogue) -> Held:
    """All that a workspace declares."""
    return Held(frozenset(catalogue.fields), frozenset(catalogue.events))


def held_at_first(catalogue: Catalogue, named: Held) -> Held:
    """What a fresh workspace holds: everything where that is little, else what its campaigns name."""
    return everything(catalogue) if len(catalogue.fields) <= HELD_BY_DEFAULT else named


def depth_for(users: int) -> int:
    """The bits of a bucket's number for about `users` users of a workspace."""
    return min(round(log2(max(users / USERS_PER_BUCKET, 1))), DEEPEST)


def shape_of(catalogue: Catalogue, held: Held) -> str:
    """A digest of what a packed row looks like: held fields with their types in order, and the places of events."""
    declared = [one for name, one in catalogue.fields.items() if name in held.fields]
    fields = [(one.slot, one.mongo_path, one.type.value, one.many) for one in declared]
    events = [(name, name in held.events) for name in catalogue.events]
    return blake2b(repr((fields, events)).encode(), digest_size=6).hexdigest()


class Span(NamedTuple):
    """Buckets [first, until) by number."""

    first: int
    until: int


class Head(msgspec.Struct, array_like=True, gc=False):
    """The beginning of a packed row: key and revision."""

    key: str
    rev: int


read_head: Final = msgspec.msgpack.Decoder(Head).decode


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the users of one workspace lie, for one generation of the feed; computed once, handed to every call.

    `prefix` is the installation's own. Rows that it unpacks have an attribute for every field of the catalogue, in an
    order of its own; what is not held is None, so ask `holds` first.
    """

    catalogue: Catalogue
    held: Held
    depth: int
    generation: int
    prefix: str

    @property
    def workspace(self) -> str:
        """The workspace's name."""
        return self.catalogue.workspace

    def holds(self, fields: Collection[str], events: Collection[str]) -> bool:
        """Whether all of these are held."""
        return self.held.holds(fields, events)

    @cached_property
    def shape(self) -> str:
        """What a packed row looks like; see `shape_of`."""
        return shape_of(self.catalogue, self.held)

    @cached_property
    def epoch(self) -> str:
        """Changes with the feed's generation, the depth and what a packed row looks like."""
        return f"{self.generation:x}.{self.depth}.{self.shape}"

    @cached_property
    def projection(self) -> dict[str, int]:
        """The MongoDB projection of what is held."""
        return self.catalogue.projection(self.held.fields, self.held.events)

    # -- keys

    @cached_property
    def buckets(self) -> int:
        """How many buckets there are."""
        return 1 << self.depth

    @cached_property
    def _digits(self) -> int:
        return max(1, (self.depth + 3) // 4)

    @cached_property
    def _bucket_key(self) -> bytes:
        return b"%bu:%b:%b:%%0%dx" % (self.prefix.encode(), self.epoch.encode(), self.workspace.encode(), self._digits)

    @cached_property
    def _lease_key(self) -> bytes:
        return b"%bl:%b:%b:%%0%dx" % (self.prefix.encode(), self.epoch.encode(), self.workspace.encode(), self._digits)

    @cached_property
    def changes_key(self) -> bytes:
        """The counter that every refreshed row raises; it outlives epochs."""
        return f"{self.prefix}changes:{self.workspace}".encode()

    def bucket_key(self, bucket: int) -> bytes:
        """The hash of one bucket."""
        return self._bucket_key % bucket

    def lease_key(self, bucket: int) -> bytes:
        """The load lease of one bucket."""
        return self._lease_key % bucket

    @cached_property
    def _values_command(self) -> bytes:
        length = len(self.bucket_key(0))
        return b"*2\r\n$5\r\nHVALS\r\n$%d\r\n%b\r\n" % (length, self._bucket_key)

    def values_commands(self, span: Span) -> bytes:
        """The commands, as Redis reads them, for the counter of changes and for all values of the buckets of `span`."""
        counter = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(self.changes_key), self.changes_key)
        one = self._values_command
        return counter + b"".join([one % bucket for bucket in range(*span)])

    # -- ranges

    def bucket_of(self, suffix: str) -> int:
        """The bucket of a user suffix, or of a bound that begins with up to eight digits."""
        return int(suffix[:8].ljust(8, "0"), 16) >> (_HASH_BITS - self.depth)

    def bound(self, bucket: int) -> str:
        """The suffix bound at which a bucket begins."""
        return hash_prefix(bucket * (HASH_SPACE >> self.depth))

    def span(self, first: str, until: str) -> Span:
        """The buckets that hold suffixes in [first, until); the outer ones may hold others too."""
        if first >= until or first >= "g":
            return Span(0, 0)
        end = self.buckets if until >= "g" else self.bucket_of(until) + (self.bound(self.bucket_of(until)) != until)
        return Span(self.bucket_of(first), end)

    def spans(self, first: str, until: str, limit: int) -> Iterator[Span]:
        """The span of [first, until) in pieces of about `limit` users, whole buckets, at least one each."""
        whole = self.span(first, until)
        step = max(1, limit // USERS_PER_BUCKET)
        for start in range(*whole, step):
            yield Span(start, min(start + step, whole.until))

    # -- rows

    @cached_property
    def _packed(self) -> Catalogue:
        """The catalogue of a packed row: the held fields only, the places of events unchanged."""
        held = {name: one for name, one in self.catalogue.fields.items() if name in self.held.fields}
        return replace(self.catalogue, fields=held)

    @cached_property
    def _unpack(self) -> Callable[[bytes], list[Row]]:
        """Reads a list of packed rows: the held fields come first, so what is not held is left at None."""
        fields = {**self._packed.fields, **self.catalogue.fields}
        row_type = replace(self.catalogue, fields=fields).row_type
        return cast("Callable[[bytes], list[Row]]", msgspec.msgpack.Decoder(list[row_type]).decode)  # type: ignore[valid-type]

    @cached_property
    def _read(self) -> Callable[[Mapping[str, object]], Row]:
        return self._packed.row

    def pack(self, document: Mapping[str, object]) -> tuple[Row, bytes]:
        """The row of a user document (of the held fields only) and its packed form."""
        if len(self.held.events) != len(self.catalogue.events) and isinstance(told := document.get("e"), Mapping):
            document = {**document, "e": {name: part for name, part in told.items() if name in self.held.events}}
        row = self._read(document)
        return row, msgspec.msgpack.encode(row)

    def unpack(self, values: Sequence[bytes], count: int) -> list[Row]:
        """The rows of packed values, in one call; sentinels among them are empty and vanish in the joining.

        `count` is how many there are without the sentinels. Raises `msgspec.MsgspecError` where one is no such row.
        """
        return self._unpack(b"".join((_LIST, count.to_bytes(4, "big"), *values)))

    def by_bucket(self, documents: Sequence[Document], span: Span) -> dict[int, dict[bytes, bytes]]:
        """The packed users of each bucket of `span`, by field; buckets without users are there and empty."""
        found: dict[int, dict[bytes, bytes]] = {bucket: {} for bucket in range(*span)}
        for document in documents:
            suffix = suffix_of_user(document["_id"])
            found[self.bucket_of(suffix)][suffix.encode()] = self.pack(document)[1]
        return found
