"""Layout of the user cache in Redis: buckets, epochs, the cached fields, and the packed form of a user.

A bucket contains the users whose layout hash begins with the same `depth` bits, about 64 of them. It is one hash:

    {prefix}u:{epoch}:{workspace}:{bucket}    field = user suffix, value = msgpack array of a `Row`
                                              field = "" with an empty value: the bucket is complete
                                              expires 7 days after it was loaded

Each layout that comes into force gets a new epoch. A layout that was in force before also gets a new one, because
nobody refreshed it in between. The epoch also changes with the feed's generation. Readers therefore never read the
buckets of another layout; those expire. Redis evicts whole keys, so a bucket is complete or absent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from math import log2
from typing import Final, NamedTuple, TypeAlias, cast

import msgspec

from engine.catalogue.catalogue import BUILTINS, Catalogue
from engine.catalogue.fields import Row
from engine.domain.document import Document
from engine.domain.keys import HASH_SPACE, hash_prefix, suffix_of_user
from engine.errors import ProgrammerError

USERS_PER_BUCKET: Final = 64
"""Large enough that a command costs little per user, small enough that one load or eviction is cheap
(`docs/architecture.md`: HVALS of 16 such buckets)."""

DEEPEST: Final = 24
"""Bits of the deepest layout: 16.8 M buckets, a thousand million users."""

HELD_BY_DEFAULT: Final = 40
"""The cache holds all fields of a workspace that has at most so many (182 bytes a user with 18 fields:
`bench/cache.py`)."""

_HASH_BITS: Final = 32
_LIST: Final = b"\xdd"  # msgpack list header with a four-byte length: packed rows are joined, not copied into a list


@dataclass(frozen=True, slots=True)
class Held:
    """The cached fields of a workspace, by name and in packing order, and the cached events.

    A reader decodes a row up to the last field that it needs, so the fields that predicates name come first.
    """

    fields: tuple[str, ...]
    events: frozenset[str]

    def holds(self, fields: Collection[str], events: Collection[str]) -> bool:
        """Whether the cache holds all of these fields and events."""
        return set(fields).issubset(self.fields) and self.events.issuperset(events)


def extended(held: Held, fields: Collection[str], events: Collection[str]) -> Held:
    """Return `held` with more fields, packed after the others, and more events."""
    more = sorted(set(fields) - set(held.fields))
    return Held((*held.fields, *more), held.events | set(events))


def everything(catalogue: Catalogue) -> Held:
    """Return all that a workspace declares: its own fields, then the built-in ones, which predicates use less."""
    own = [name for name in catalogue.fields if name not in BUILTINS]
    built_in = [name for name in reversed(list(catalogue.fields)) if name in BUILTINS]
    return Held((*own, *built_in), frozenset(catalogue.events))


def held_at_first(catalogue: Catalogue, named: Held) -> Held:
    """Return what a new workspace holds: what its campaigns name, and all other fields too if there are few."""
    if len(catalogue.fields) > HELD_BY_DEFAULT:
        return named
    whole = everything(catalogue)
    return Held((*named.fields, *(name for name in whole.fields if name not in named.fields)), whole.events)


def reach(held: Held, fields: Collection[str]) -> int:
    """Return how many fields of a row a reader must decode to get these (all held)."""
    return max((held.fields.index(name) + 1 for name in fields), default=0)


def in_front(held: Held, fields: Collection[str]) -> Held:
    """Return `held` with these fields (all held) packed first."""
    first = [name for name in held.fields if name in fields]
    return Held((*first, *(name for name in held.fields if name not in fields)), held.events)


def depth_for(users: int) -> int:
    """Return the number of bits of a bucket number for a workspace of about `users` users."""
    return min(round(log2(max(users / USERS_PER_BUCKET, 1))), DEEPEST)


def shape_of(catalogue: Catalogue, held: Held) -> str:
    """Return a digest of a packed row's form: held fields with their types in order, and event positions."""
    declared = [catalogue.fields[name] for name in held.fields if name in catalogue.fields]
    fields = [(field.slot, field.mongo_path, field.type.value, field.many) for field in declared]
    events = [(name, name in held.events) for name in catalogue.events]
    return blake2b(repr((fields, events)).encode(), digest_size=6).hexdigest()


class Span(NamedTuple):
    """Bucket numbers [first, until)."""

    first: int
    until: int


class Head(msgspec.Struct, array_like=True, gc=False):
    """The beginning of a packed row: key and revision."""

    key: str
    rev: int


read_head: Final = msgspec.msgpack.Decoder(Head).decode


Unpack: TypeAlias = Callable[[Sequence[bytes], int], list[Row]]
"""Decodes packed values in one call. Sentinels among them are empty and vanish when the values are joined; the count
excludes them. Raises `msgspec.MsgspecError` if a value is not such a row."""


@dataclass(frozen=True, eq=False)
class Layout:
    """The location of one workspace's users for one generation of the feed; computed once and passed to every call.

    `number` counts the layouts put into force; `prefix` belongs to the installation.
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
        """Whether the cache holds all of these fields and events."""
        return self.held.holds(fields, events)

    @cached_property
    def shape(self) -> str:
        """The digest of a packed row's form; see `shape_of`."""
        return shape_of(self.catalogue, self.held)

    @cached_property
    def epoch(self) -> str:
        """Changes with the feed's generation, with every layout put into force, and with the form of a packed row."""
        return f"{self.generation:x}.{self.number}.{self.shape}"

    @cached_property
    def projection(self) -> dict[str, int]:
        """The MongoDB projection of the held fields and events."""
        return self.catalogue.projection(self.held.fields, self.held.events)

    # -- keys

    @cached_property
    def buckets(self) -> int:
        """The number of buckets."""
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
        """Key of the counter that every refreshed row raises; it outlives epochs."""
        return f"{self.prefix}changes:{self.workspace}".encode()

    def bucket_key(self, bucket: int) -> bytes:
        """Key of the hash of one bucket."""
        return self._bucket_key % bucket

    def lease_key(self, bucket: int) -> bytes:
        """Key of the load lease of one bucket."""
        return self._lease_key % bucket

    @cached_property
    def _values_command(self) -> bytes:
        length = len(self.bucket_key(0))
        return b"*2\r\n$5\r\nHVALS\r\n$%d\r\n%b\r\n" % (length, self._bucket_key)

    def values_commands(self, span: Span) -> bytes:
        """Return packed Redis commands that read the change counter and all values of the buckets of `span`."""
        counter = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(self.changes_key), self.changes_key)
        command = self._values_command
        return counter + b"".join([command % bucket for bucket in range(*span)])

    # -- ranges

    def bucket_of(self, suffix: str) -> int:
        """Return the bucket of a user suffix, or of a bound that begins with up to eight digits."""
        return int(suffix[:8].ljust(8, "0"), 16) >> (_HASH_BITS - self.depth)

    def bound(self, bucket: int) -> str:
        """Return the suffix bound at which a bucket begins."""
        return hash_prefix(bucket * (HASH_SPACE >> self.depth))

    def span(self, first: str, until: str) -> Span:
        """Return the buckets that hold suffixes in [first, until); the first and last may hold other suffixes too."""
        if first >= until or first >= "g":
            return Span(0, 0)
        end = self.buckets if until >= "g" else self.bucket_of(until) + (self.bound(self.bucket_of(until)) != until)
        return Span(self.bucket_of(first), end)

    def spans(self, first: str, until: str, limit: int) -> Iterator[Span]:
        """Cut the span of [first, until) into pieces of about `limit` users, of at least one whole bucket each."""
        whole = self.span(first, until)
        step = max(1, limit // USERS_PER_BUCKET)
        for start in range(*whole, step):
            yield Span(start, min(start + step, whole.until))

    # -- rows

    @cached_property
    def _packed(self) -> Catalogue:
        """The catalogue of a packed row: the held fields in their order, the positions of events unchanged."""
        return replace(self.catalogue, fields={name: self.catalogue.fields[name] for name in self.held.fields})

    @cached_property
    def _unpackers(self) -> dict[int, Unpack]:
        return {}

    def unpacker(self, fields: Collection[str] | None = None) -> Unpack:
        """Return a decoder of packed rows that stops after the last of `fields`: half of a row takes half the time.

        Its rows have no attributes for fields beyond that point, so nobody can decide on a value that was not read.
        Without `fields`, the rows have an attribute for every field of the catalogue, None if the field is not held.
        Raises `ProgrammerError` if one of `fields` is not held.
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
        """Return the row of a user document (only the held fields) and its packed form."""
        if len(self.held.events) != len(self.catalogue.events) and isinstance(summaries := document.get("e"), Mapping):
            document = {**document, "e": {name: part for name, part in summaries.items() if name in self.held.events}}
        row = self._read(document)
        return row, msgspec.msgpack.encode(row)

    def by_bucket(self, documents: Sequence[Document], span: Span) -> dict[int, dict[bytes, bytes]]:
        """Return the packed users of each bucket of `span`, by hash field; a bucket without users maps to {}."""
        by_bucket: dict[int, dict[bytes, bytes]] = {bucket: {} for bucket in range(*span)}
        for document in documents:
            suffix = suffix_of_user(document["_id"])
            by_bucket[self.bucket_of(suffix)][suffix.encode()] = self.pack(document)[1]
        return by_bucket


def _unpacker(catalogue: Catalogue, held: Sequence[str], place: int) -> Unpack:
    """Return a decoder of the first `place` held fields; -1: all held fields, then None for fields not held."""
    names = dict.fromkeys(held[:place]) if place >= 0 else dict.fromkeys((*held, *catalogue.fields))
    row_type = replace(catalogue, fields={name: catalogue.fields[name] for name in names}).row_type
    decode = cast("Callable[[bytes], list[Row]]", msgspec.msgpack.Decoder(list[row_type]).decode)  # type: ignore[valid-type]

    def unpack(values: Sequence[bytes], count: int) -> list[Row]:
        return decode(b"".join((_LIST, count.to_bytes(4, "big"), *values)))

    return unpack
