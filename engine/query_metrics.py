"""Measure named queries while they run: how often, how long at each quantile, and the worst with its campaign.

    with working_on(campaign.uid, campaign.name):
        with measured("cache.read") as call:
            rows = ...
            call.documents = len(rows)

A store's methods are measured by their names (`@named_queries("users")` gives `users.read_range` and so on), so no
query is forgotten. `MEASUREMENTS` holds the measurements of a process; code that stores them takes a `Figure` of each
query. Durations are kept in an HDR histogram: two significant digits at every scale, mergeable between processes, never
only an average (`docs/decisions/0008-named-queries-are-measured-where-they-are-called.md`).
"""

from __future__ import annotations

import inspect
import os
import secrets
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from threading import Lock
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar

from hdrh.histogram import HdrHistogram

from engine.clock import Instant, SystemClock
from engine.decisions.batch_size import Evidence

LONGEST: Final = 3_600_000_000
"""The largest duration that is distinguished, in microseconds: an hour. Drivers give up after half a minute."""

DIGITS: Final = 2
"""Significant digits kept of a duration: within 1 %, in some hundred bytes a query."""

_BITS: Final = 8
"""Bits kept of a duration while counting: finer than two digits, and 3 us cheaper than the histogram."""

GATED: Final = frozenset({"users", "lists", "enrolments", "events", "deliveries", "counts"})
"""Stores (the first word of a query's name) whose calls pass the gate in bulk work: those that read and write users."""

Kind = TypeVar("Kind", bound=type)


class CallGate(Protocol):
    """What bulk work passes before each call of a store that others use too (`engine.pipeline.gate.bulk_gate`)."""

    def enter(self) -> None:
        """Wait until the call may begin."""

    def leave(self, seconds: float) -> None:
        """Report that the call has ended and how long it took."""


STORES: Final = {"cache": "cache", "elastic": "elasticsearch"}
"""The store of a query by the first word of its name, where that is not MongoDB."""


def store_of(query: str) -> str:
    """Return the store that a named query asks: `mongodb`, `cache` or `elasticsearch`."""
    return STORES.get(query.partition(".")[0], "mongodb")


@dataclass(frozen=True, slots=True)
class Work:
    """The campaign that this thread works on: its uid and its name (empty: none), and the gate that it passes."""

    uid: str
    name: str
    gate: CallGate | None = None


_WORK: Final[ContextVar[Work | None]] = ContextVar("work", default=None)


@contextmanager
def working_on(uid: str, name: str, gate: CallGate | None = None) -> Iterator[None]:
    """Attribute all store calls in this block to a campaign, and let them pass `gate` if they are among `GATED`.

    A thread started inside needs its own call.
    """
    before = _WORK.set(Work(uid, name, gate))
    try:
        yield
    finally:
        _WORK.reset(before)


def _gate_of(prefix: str) -> CallGate | None:
    """Return the gate that this thread's calls of a store pass; None outside of bulk work."""
    if prefix not in GATED:
        return None
    work = _WORK.get()
    return None if work is None else work.gate


@dataclass(frozen=True, slots=True)
class Worst:
    """The longest call: seconds, documents returned, system time of its end, and its campaign."""

    seconds: float
    documents: int
    at: Instant
    campaign: str | None = None
    campaign_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """The measurements of one query: calls, how many of them raised, documents, the worst, and the durations.

    `durations` is an encoded HDR histogram of microseconds (its own compressed format, version 2).
    """

    name: str
    calls: int
    failed: int
    documents: int
    worst: Worst
    durations: bytes


@dataclass(frozen=True, slots=True)
class Stretch:
    """The measurements of one process from `began` to `until` (system time).

    `id` names process and stretch (`host:pid:random/0000`), `process` is the process type (`fast`), and `tuned` is the
    evidence of its batch tuner for each query.
    """

    id: str
    process: str
    began: Instant
    until: Instant
    figures: Sequence[Figure]
    tuned: Mapping[str, Sequence[Evidence]]

    @property
    def writer(self) -> str:
        """The process that wrote the stretch (`host:pid:random`)."""
        return self.id.rpartition("/")[0]


class _Query:
    """One query of this process, protected by the lock of its measurements."""

    __slots__ = ("calls", "documents", "durations", "failed", "worst")

    def __init__(self) -> None:
        self.calls = self.failed = self.documents = 0
        self.durations: dict[int, int] = {}
        self.worst = Worst(-1.0, 0, 0)

    def figure(self, name: str) -> Figure:
        histogram = HdrHistogram(1, LONGEST, DIGITS)
        for micros, count in self.durations.items():
            histogram.record_value(micros, count)
        return Figure(name, self.calls, self.failed, self.documents, self.worst, histogram.encode())


class Measurements:
    """The measurements of one process since the last reset; threads may share it."""

    def __init__(self) -> None:
        self._queries: dict[str, _Query] = {}
        self._lock = Lock()
        self._calls = 0
        self._before: dict[str, tuple[int, int]] = {}

    @property
    def calls(self) -> int:
        """The number of calls measured so far, including those before a reset; it shows whether anything is new."""
        return self._calls

    def record(self, name: str, seconds: float, documents: int, *, failed: bool = False) -> None:
        """Record one call of the query `name`; takes about 2 us."""
        micros = min(max(1, int(seconds * 1e6)), LONGEST)
        spare = max(0, micros.bit_length() - _BITS)
        micros = micros >> spare << spare
        with self._lock:
            query = self._queries.get(name)
            if query is None:
                query = self._queries[name] = _Query()
            self._calls += 1
            query.calls += 1
            query.documents += documents
            query.failed += failed
            query.durations[micros] = query.durations.get(micros, 0) + 1
            if seconds > query.worst.seconds:
                work = _WORK.get()
                query.worst = Worst(
                    seconds,
                    documents,
                    SystemClock().system_now(),
                    None if work is None else work.name or None,
                    None if work is None else work.uid or None,
                )

    def figures(self, *, anew: bool = False) -> list[Figure]:
        """Return the figures by name; with `anew`, reset all counts."""
        with self._lock:
            queries = self._queries
            if anew:
                self._reset()
            return [query.figure(name) for name, query in sorted(queries.items())]

    def forget(self, calls: int) -> bool:
        """Reset all counts if `calls` is still the number of measured calls; return whether it was."""
        with self._lock:
            if self._calls != calls:
                return False
            self._reset()
            return True

    def by_store(self) -> dict[str, tuple[int, int]]:
        """Return the calls of each store so far, and how many of them failed; resets do not count."""
        with self._lock:
            return self._by_store()

    def _by_store(self) -> dict[str, tuple[int, int]]:
        sums = dict(self._before)
        for name, query in self._queries.items():
            store = store_of(name)
            calls, failed = sums.get(store, (0, 0))
            sums[store] = (calls + query.calls, failed + query.failed)
        return sums

    def _reset(self) -> None:
        self._before = self._by_store()
        self._queries = {}


MEASUREMENTS: Final = Measurements()
"""The measurements of this process."""


def new_process_id() -> str:
    """Return a unique name of this process: host, process id, and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class measured:  # noqa: N801 - reads as a verb where it is used
    """Measures the block as one call of the query `name`; the block may set the number of `documents` it got."""

    __slots__ = ("_began", "_gate", "_name", "documents")

    def __init__(self, name: str) -> None:
        self._name = name
        self._gate = _gate_of(name.partition(".")[0])
        self.documents = 0

    def __enter__(self) -> measured:
        if self._gate is not None:
            self._gate.enter()
        self._began = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took = perf_counter() - self._began
        if self._gate is not None:
            self._gate.leave(took)
        MEASUREMENTS.record(self._name, took, self.documents, failed=kind is not None)


def named_queries(prefix: str, *, apart: Collection[str] = ()) -> Callable[[Kind], Kind]:
    """Measure every public method of a store as the query `prefix.method`, except generators.

    `apart` names methods that measure their own parts by name.
    """

    def decorate(store: Kind) -> Kind:
        for name, method in list(vars(store).items()):
            if name.startswith("_") or name in apart or not inspect.isfunction(method):
                continue
            if not inspect.isgeneratorfunction(method):
                setattr(store, name, _measuring(f"{prefix}.{name}", method))
        return store

    return decorate


def documents_of(answer: object) -> int:
    """Count the documents in an answer: the length of a list, set or mapping by key, 0 for a number or None, else 1.

    A mapping with an `_id` is itself a document.
    """
    if isinstance(answer, list | set | frozenset):
        return len(answer)
    if isinstance(answer, dict):
        return 1 if "_id" in answer else len(answer)
    return 0 if answer is None or isinstance(answer, int | float) else 1


def _measuring(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    record = MEASUREMENTS.record
    prefix = name.partition(".")[0]

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        gate = _gate_of(prefix)
        if gate is not None:
            gate.enter()
        began = perf_counter()
        try:
            answer = method(*args, **kwargs)
        except BaseException:  # an interrupted call (a time limit, a stop) has taken its time too
            record(name, perf_counter() - began, 0, failed=True)
            raise
        finally:
            if gate is not None:
                gate.leave(perf_counter() - began)
        record(name, perf_counter() - began, documents_of(answer))
        return answer

    return call
