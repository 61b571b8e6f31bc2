"""Events: the engine tells what happened once, and whoever wants to know subscribes.

    emit("batch.decided", run=run.id, slice=slice.id, as_of=run.as_of, users=1000, duration=took)

Names and fields are those of `engine.telemetry.contract`. A subscriber is called in the emitting thread, must be quick
and can never break the work that it hears about.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Final

from engine.clock import Instant
from engine.errors import ProgrammerError
from engine.telemetry.contract import EVENTS, LABELS, EventType

_ALLOWED: Final = {name: kind.allowed for name, kind in EVENTS.items()}


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One event that happened: its row of the contract and the fields it carries."""

    kind: EventType
    fields: Mapping[str, object]

    @property
    def name(self) -> str:
        """The event's dotted name."""
        return self.kind.name


Subscriber = Callable[[Occurrence], None]
Rows = Sequence[Mapping[str, object]]
AtOnce = Callable[[EventType, Mapping[str, object], Rows], None]
"""Hears many occurrences of one event at once: its row of the contract, the fields they share, each one's labels."""

_subscribers: tuple[tuple[Subscriber, AtOnce | None], ...] = ()
_registering: Final = threading.Lock()
_strict = True
_misused: Final[set[str]] = set()


def strict(wanted: bool) -> None:
    """Whether a name or field outside the contract raises (tests, the default) or is left out (running processes)."""
    global _strict
    _strict = wanted


def subscribe(subscriber: Subscriber, at_once: AtOnce | None = None) -> Callable[[], None]:
    """Call `subscriber` with every occurrence from now on; the returned function ends that.

    With `at_once` it hears there, in one call, what `emit_each` tells.
    """
    global _subscribers
    with _registering:
        _subscribers = (*_subscribers, (subscriber, at_once))

    def unsubscribe() -> None:
        global _subscribers
        with _registering:
            _subscribers = tuple(other for other in _subscribers if other[0] is not subscriber)

    return unsubscribe


def emit(event: str, /, **fields: object) -> None:
    """Tell every subscriber that `event` happened; fields that are None count as absent.

    Raises `ProgrammerError` for a name or a field that is not in the contract (only while `strict`).
    """
    allowed = _ALLOWED.get(event)
    if allowed is None or not allowed.issuperset(fields):
        fields = _outside(event, allowed, fields)
        if allowed is None:
            return
    occurrence = Occurrence(EVENTS[event], {name: value for name, value in fields.items() if value is not None})
    for subscriber, _ in _subscribers:
        _tell(partial(subscriber, occurrence))


def emit_each(event: str, common: Mapping[str, object], rows: Rows) -> None:
    """Tell that `event` happened once for each of `rows`, which add labels of their own to the fields of `common`.

    As `emit` for each of them, in one go for subscribers that can. Raises `ProgrammerError` (only while `strict`) for a
    row that has other names than the first, or other things than labels.
    """
    if not rows:
        return
    names = rows[0].keys()
    alike = names <= LABELS and all(row.keys() == names for row in rows)
    if not alike and _strict:
        raise ProgrammerError(f"{event}: rows of different labels", remedy="give them alike, the rest as common fields")
    allowed = _ALLOWED.get(event)
    if not alike or allowed is None or not allowed.issuperset({*common, *names}):
        for row in rows:
            emit(event, **common, **row)
        return
    kind = EVENTS[event]
    fields = {name: value for name, value in common.items() if value is not None}
    for subscriber, at_once in _subscribers:
        if at_once is not None:
            _tell(partial(at_once, kind, fields, rows))
            continue
        for row in rows:
            _tell(partial(subscriber, Occurrence(kind, {**fields, **row})))


def _tell(call: partial[None]) -> None:
    try:
        call()
    except Exception:  # noqa: BLE001 - a listener's fault must not stop a delivery; said once, without its data
        _once(f"subscriber {call.func!r}", traceback.format_tb(sys.exc_info()[2])[-1])


def _outside(event: str, allowed: frozenset[str] | None, fields: dict[str, object]) -> dict[str, object]:
    unknown = sorted(fields) if allowed is None else sorted(set(fields) - allowed)
    problem = f"event {event!r} is not in the contract" if allowed is None else f"{event} has no field {unknown}"
    if _strict:
        raise ProgrammerError(problem, remedy="add it to engine/telemetry/contract.py")
    _once(problem, "")
    return {name: value for name, value in fields.items() if name not in unknown}


def _once(problem: str, where: str) -> None:
    if problem not in _misused:
        _misused.add(problem)
        print(f"telemetry: {problem}\n{where}".rstrip(), file=sys.stderr)  # noqa: T201 - the logs are what failed


def trace_id(campaign: str, as_of: Instant) -> str:
    """The trace of one pass of one campaign, 32 hex digits (the size of a W3C trace id).

    It is made from the campaign and the `as_of` of the run. A delivery was chosen at that same moment (`chosen_at`),
    so its line carries its run's trace although nothing about the run is stored with the delivery.
    """
    return blake2b(f"{campaign}\0{as_of}".encode(), digest_size=16).hexdigest()


class Heard:
    """What was emitted while listening; for tests, which wait for facts instead of seconds."""

    def __init__(self) -> None:
        self._all: list[Occurrence] = []
        self._changed = threading.Condition()

    def __call__(self, occurrence: Occurrence) -> None:
        """Take one occurrence (the subscriber)."""
        with self._changed:
            self._all.append(occurrence)
            self._changed.notify_all()

    def of(self, event: str, **fields: object) -> list[Occurrence]:
        """The occurrences of `event` whose fields equal the given ones."""
        with self._changed:
            return self._matching(event, fields)

    def wait(self, event: str, *, timeout: float = 10.0, **fields: object) -> Occurrence:
        """The first occurrence of `event` with these fields; waits up to `timeout` seconds, then `TimeoutError`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._matching(event, fields), timeout):
                raise TimeoutError(f"{event} {fields} was not heard within {timeout} s")
            return self._matching(event, fields)[0]

    def _matching(self, event: str, fields: Mapping[str, object]) -> list[Occurrence]:
        wanted = fields.items()
        return [one for one in self._all if one.name == event and all(one.fields.get(k) == v for k, v in wanted)]


@contextmanager
def listening() -> Iterator[Heard]:
    """Hear every event emitted in this process while the block runs."""
    heard = Heard()
    unsubscribe = subscribe(heard)
    try:
        yield heard
    finally:
        unsubscribe()
