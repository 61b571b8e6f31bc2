"""How the user cache lies in Redis: buckets, epochs, which fields are held, and how a user is packed.

A bucket holds the users whose layout hash begins with the same `depth` bits, about 64 of them. It is one hash:

    {prefix}u:{epoch}:{workspace}:{bucket}    field = user suffix, value = msgpack array of a `Row`
                                              field = "" with an empty value: the bucket is whole
                                              lives for 7 days after it was loaded

The epoch changes with every layout that is put into force (one that was in force before comes back as a new one, for
nobody refreshed it meanwhile) and with the feed's generation, so buckets of another layout are never looked at again;
they end by their lifetime. Evicting removes whole keys, so a bucket is whole or absent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from math import log2
from typing import Final, NamedTuple, TypeAlias, cast

import msgspec

from engine.domain.document import Document
from engine.domain.keys import HASH_SPACE, hash_prefix, suffix_of_user
from engine.errors import ProgrammerError
from engine.predicate.fields import BUILTINS, Catalogue, Row

USERS_PER_BUCKET: Final = 64
"""Large enough that a command costs little per user, small enough that a load or an eviction is a small thing
(`docs/architecture.md`: HVALS of 16 such buckets)."""

DEEPEST: Final = 24
"""Bits of the deepest layout: 16.8 M buckets, a thousand million users."""

HELD_BY_DEFAULT: Final = 40
"""A workspace with at most so many fields has all of them held (182 bytes a user with 18 fields: `bench/cache.py`)."""

_HASH_BITS: Final = 32
_LIST: Final = b"\xdd"  # msgpack: a list with four bytes of length, so that packed rows are joined, not copied into it


@dataclass(frozen=True, slots=True)
class Held:
    """The fields of a workspace that are in the cache, by name and in the order in which they are packed, and events.

    A reader decodes a row up to the last field that it needs, so those that predicates name come first.
    """

    fields: tuple[str, ...]
    events: frozenset[str]

    def holds(self, fields: Collection[str], events: Collection[str]) -> bool:
        """Whether all of these are held."""
        return set(fields).issubset(self.fields) and self.events.issuperset(events)


def extended(held: Held, fields: Collection[str], events: Collection[str]) -> Held:
    """`held` with more, packed behind the others."""
    more = sorted(set(fields) - set(held.fields))
    return Held((*held.fields, *more), held.events | set(events))


def everything(catalogue: Catalogue) -> Held:
    """All that a workspace declares: what it says itself before the built-in fields, which predicates name less."""
    own = [name for name in catalogue.fields if name not in BUILTINS]
    built_in = [name for name in reversed(list(catalogue.fields)) if name in BUILTINS]
    return Held((*own, *built_in), frozenset(catalogue.events))


def held_at_first(catalogue: Catalogue, named: Held) -> Held:
    """What a fresh workspace holds: what its campaigns name, and the rest too where that is little."""
    if len(catalogue.fields) > HELD_BY_DEFAULT:
        return named
    whole = everything(catalogue)
    return Held((*named.fields, *(name for name in whole.fields if name not in named.fields)), whole.events)


def reach(held: Held, fields: Collection[str]) -> int:
    """How many fields of a row are decoded for the sake of these (all held)."""
    return max((held.fields.index(name) + 1 for name in fields), default=0)


def in_front(held: Held, fields: Collection[str]) -> Held:
    """`held` with these (all held) packed first."""
    first = [name for name in held.fields if name in fields]
    return Held((*first, *(name for name in held.fields if name not in fields)), held.events)


def depth_for(users: int) -> int:
    """The bits of a bucket's number for about `users` users of a workspace."""
    return min(round(log2(max(users / USERS_PER_BUCKET, 1))), DEEPEST)


def shape_of(catalogue: Catalogue, held: Held) -> str:
    """A digest of what a packed row looks like: held fields with their types in order, and the places of events."""
    declared = [catalogue.fields[name] for name in held.fields if name in catalogue.fields]
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


Unpack: TypeAlias = Callable[[Sequence[bytes], int], list[Row]]
"""Reads packed values in one call; sentinels among them are empty and vanish in the joining, and the number is that of
the values without them. Raises `msgspec.MsgspecError` where one is no such row."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the users of one workspace lie, for one generation of the feed; computed once, handed to every call.

    `number` is that of its putting into force, `prefix` the installation's own.
    """

    catalogue: Catalogue
    held: Held
    depth: int
    number: int
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
        """Changes with the feed's generation, with every layout put into force and with the form of a packed row."""
        return f"{self.generation:x}.{self.number}.{self.shape}"

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
        """The catalogue of a packed row: the held fields in their order, the places of events unchanged."""
        return replace(self.catalogue, fields={name: self.catalogue.fields[name] for name in self.held.fields})

    @cached_property
    def _unpackers(self) -> dict[int, Unpack]:
        return {}

    def unpacker(self, fields: Collection[str] | None = None) -> Unpack:
        """What reads packed rows up to the last of `fields`: half of a row takes half the time.

        Its rows have no attribute for what lies behind, so that nobody decides on a value that was not read. Without
        `fields` they have one for every field of the catalogue, None where it is not held. Raises `ProgrammerError`
        where one is not held.
        """
        if fields is not None and not self.holds(fields, ()):
            raise ProgrammerError(f"{sorted(set(fields) - set(self.held.fields))} are not held")
        place = -1 if fields is None else reach(self.held, fields)
        if place not in self._unpackers:
            self._unpackers[place] = _unpacker(self.catalogue, self.held.fields, place)
        return self._unpackers[place]

    @cached_property
    def _read(self) -> Callable[[Mapping[str, object]], Row]:
        return self._packed.row

    def pack(self, document: Mapping[str, object]) -> tuple[Row, bytes]:
        """The row of a user document (of the held fields only) and its packed form."""
        if len(self.held.events) != len(self.catalogue.events) and isinstance(told := document.get("e"), Mapping):
            document = {**document, "e": {name: part for name, part in told.items() if name in self.held.events}}
        row = self._read(document)
        return row, msgspec.msgpack.encode(row)

    def by_bucket(self, documents: Sequence[Document], span: Span) -> dict[int, dict[bytes, bytes]]:
        """The packed users of each bucket of `span`, by field; buckets without users are there and empty."""
        found: dict[int, dict[bytes, bytes]] = {bucket: {} for bucket in range(*span)}
        for document in documents:
            suffix = suffix_of_user(document["_id"])
            found[self.bucket_of(suffix)][suffix.encode()] = self.pack(document)[1]
        return found


def _unpacker(catalogue: Catalogue, held: Sequence[str], place: int) -> Unpack:
    """Reads the first `place` held fields of a row; -1: all, and the fields that are not held as None behind them."""
    names = dict.fromkeys(held[:place]) if place >= 0 else dict.fromkeys((*held, *catalogue.fields))
    row_type = replace(catalogue, fields={name: catalogue.fields[name] for name in names}).row_type
    decode = cast("Callable[[bytes], list[Row]]", msgspec.msgpack.Decoder(list[row_type]).decode)  # type: ignore[valid-type]

    def unpack(values: Sequence[bytes], count: int) -> list[Row]:
        return decode(b"".join((_LIST, count.to_bytes(4, "big"), *values)))

    return unpack
