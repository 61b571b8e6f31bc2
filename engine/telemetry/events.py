"""Events: the engine emits each event once, and every interested part subscribes.

    emit("batch.decided", run=run.id, slice=slice.id, as_of=run.as_of, users=1000, duration=took)

`engine.telemetry.contract` defines names and fields. A subscriber runs in the emitting thread and must be quick; its
errors never break the work that emitted the event.
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
    """One event that happened: its row of the contract and its fields."""

    kind: EventType
    fields: Mapping[str, object]

    @property
    def name(self) -> str:
        """Return the event's dotted name."""
        return self.kind.name


Subscriber = Callable[[Occurrence], None]
Rows = Sequence[Mapping[str, object]]
AtOnce = Callable[[EventType, Mapping[str, object], Rows], None]
"""Receives many occurrences of one event in one call: its row of the contract, the shared fields, each one's labels."""

_subscribers: tuple[tuple[Subscriber, AtOnce | None], ...] = ()
_standing: tuple[tuple[str, Callable[[], str]], ...] = ()
_registering: Final = threading.Lock()
_strict = True
_misused: Final[set[str]] = set()


def strict(enabled: bool) -> None:
    """Choose the effect of a name or field outside the contract.

    It raises (tests, the default) or is dropped (running processes).
    """
    global _strict
    _strict = enabled


def subscribe(subscriber: Subscriber, at_once: AtOnce | None = None) -> Callable[[], None]:
    """Call `subscriber` with every occurrence from now on; the returned function unsubscribes.

    With `at_once`, the occurrences of one `emit_each` go there instead, in one call.
    """
    global _subscribers
    with _registering:
        _subscribers = (*_subscribers, (subscriber, at_once))

    def unsubscribe() -> None:
        global _subscribers
        with _registering:
            _subscribers = tuple(other for other in _subscribers if other[0] is not subscriber)

    return unsubscribe


def stand(label: str, value: Callable[[], str]) -> Callable[[], None]:
    """Let every `emit` whose event has this label carry `value()`, unless it gives the label itself.

    `emit_each` leaves it out: a label costs a line some 25 bytes, and there is one line for each delivery. The returned
    function ends this.
    """
    global _standing
    with _registering:
        _standing = (*_standing, (label, value))

    def end() -> None:
        global _standing
        with _registering:
            _standing = tuple(other for other in _standing if other[1] is not value)

    return end


def emit(event: str, /, **fields: object) -> None:
    """Call every subscriber with an occurrence of `event`; fields that are None count as absent.

    The labels of `stand` are added.

    Raises `ProgrammerError` for a name or a field that is not in the contract (only while `strict`).
    """
    allowed = _ALLOWED.get(event)
    if allowed is None or not allowed.issuperset(fields):
        fields = _outside(event, allowed, fields)
        if allowed is None:
            return
    for label, value in _standing:
        if label in EVENTS[event].labels and fields.get(label) is None:
            fields = {**fields, label: value()}
    occurrence = Occurrence(EVENTS[event], {name: value for name, value in fields.items() if value is not None})
    for subscriber, _ in _subscribers:
        _tell(partial(subscriber, occurrence))


def emit_each(event: str, common: Mapping[str, object], rows: Rows) -> None:
    """Emit `event` once for each of `rows`, which add labels of their own to the fields of `common`.

    Equals one `emit` per row; subscribers with `at_once` get all rows in one call. Raises `ProgrammerError` (only while
    `strict`) for a row whose names differ from the first row's or are not labels.
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
    except Exception:  # noqa: BLE001 - a subscriber's error must not stop a delivery; reported once, without its data
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
    """Return the trace id of one pass of one campaign, 32 hex digits (the size of a W3C trace id).

    It is derived from the campaign and the `as_of` of the run. A delivery's `chosen_at` is the same instant, so its
    line carries its run's trace although the delivery stores nothing about the run.
    """
    return blake2b(f"{campaign}\0{as_of}".encode(), digest_size=16).hexdigest()


class CollectedEvents:
    """Collects the emitted events; tests wait for these facts instead of seconds."""

    def __init__(self) -> None:
        self._all: list[Occurrence] = []
        self._changed = threading.Condition()

    def __call__(self, occurrence: Occurrence) -> None:
        """Store one occurrence; this is the subscriber."""
        with self._changed:
            self._all.append(occurrence)
            self._changed.notify_all()

    def of(self, event: str, **fields: object) -> list[Occurrence]:
        """Return the occurrences of `event` whose fields equal the given ones."""
        with self._changed:
            return self._matching(event, fields)

    def wait(self, event: str, *, timeout: float = 10.0, **fields: object) -> Occurrence:
        """Return the first occurrence of `event` with these fields; raises `TimeoutError` after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._matching(event, fields), timeout):
                raise TimeoutError(f"{event} {fields} was not heard within {timeout} s")
            return self._matching(event, fields)[0]

    def _matching(self, event: str, fields: Mapping[str, object]) -> list[Occurrence]:
        items = fields.items()
        return [
            occurrence
            for occurrence in self._all
            if occurrence.name == event and all(occurrence.fields.get(k) == v for k, v in items)
        ]


@contextmanager
def listening() -> Iterator[CollectedEvents]:
    """Collect every event that this process emits while the block runs."""
    collected = CollectedEvents()
    unsubscribe = subscribe(collected)
    try:
        yield collected
    finally:
        unsubscribe()
