"""Traces of the engine's work, made from its events: split, slice, batch, delivery.

A trace is one pass of one campaign: its id is the `trace.id` that the log lines have as well
(`engine.telemetry.events.trace_id`), derived from the campaign and the pass's `as_of`. The ids of spans are derived
too, from run, slice and attempt. So the processes need not tell each other anything, and a lost message breaks no
trace. The messages carry a W3C `traceparent` in addition: a slice's span links to the dispatch that enqueued it, which
shows how long it was queued. Nothing here runs unless `telemetry.traces` is set.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b
from typing import Final

from engine.telemetry.event_type import EventType
from engine.telemetry.events import Occurrence, Rows, subscribe, trace_id

_ENDS: Final = frozenset({"slice.closed", "slice.released", "slice.failed"})
_BATCHES: Final = frozenset({"batch.decided", "batch.delivered"})
_RUNS: Final = frozenset({"run.planned", "run.failed"})


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work; instants are ns since 1970. `link` is the `traceparent` of what led to it."""

    trace: str
    id: str
    parent: str | None
    name: str
    began: int
    ended: int
    attributes: Mapping[str, str | int | float]
    failed: bool = False
    link: str | None = None


Receiver = Callable[[Span], None]


def span_id(*parts: object) -> str:
    """Return the id of a span as 16 hex digits, derived from what the work is about."""
    return blake2b("\0".join(map(str, parts)).encode(), digest_size=8).hexdigest()


def traceparent(trace: str, span: str) -> str:
    """Return the W3C header of a span."""
    return f"00-{trace}-{span}-01"


def split_traceparent(text: str) -> tuple[str, str] | None:
    """Return trace and span of a W3C header; None if it cannot be read."""
    parts = text.split("-")
    if len(parts) != 4 or len(parts[1]) != 32 or len(parts[2]) != 16:
        return None
    return parts[1], parts[2]


class _Thread(threading.local):
    """What the current thread works on (no slots: all threads would share them)."""

    link: str | None = None
    slice: _Claimed | None = None


@dataclass(frozen=True, slots=True)
class _Claimed:
    trace: str
    id: str
    run: str | None
    began: int
    attributes: Mapping[str, str | int | float] = field(default_factory=dict)


class Tracer:
    """Makes spans from events and hands them to `receive`. `share` (0 to 1) of the passes are traced as a whole."""

    def __init__(self, receive: Receiver, share: float = 1.0) -> None:
        self._receive = receive
        self._share = share
        self._thread = _Thread()

    def start(self) -> Callable[[], None]:
        """Make spans of all events from now on; the returned function ends this."""
        return subscribe(self.hear, self.hear_all)

    def dispatched(self, name: str, messages: int) -> str:
        """Record that messages were enqueued; return the `traceparent` that they carry."""
        now = time.time_ns()
        span = Span(secrets.token_hex(16), secrets.token_hex(8), None, name, now, now, {"messages": messages})
        self._receive(span)
        return traceparent(span.trace, span.id)

    def begin_message(self, link: str | None) -> None:
        """Record which `traceparent` the message carries that this thread processes now."""
        self._thread.link, self._thread.slice = link, None

    def end_message(self) -> None:
        """Record that this thread processes no message."""
        self._thread.link = self._thread.slice = None

    def hear(self, occurrence: Occurrence) -> None:
        """Make the span of one event, if it has one."""
        name, fields = occurrence.name, occurrence.fields
        if name == "slice.claimed":
            self._claimed(fields)
        elif name in _ENDS:
            self._ended(name, fields)
        elif name in _BATCHES:
            self._batch(name, fields)
        elif name in _RUNS:
            self._planned(name, fields)
        elif name.startswith("delivery."):
            self._delivery(name, fields)

    def hear_all(self, kind: EventType, common: Mapping[str, object], rows: Rows) -> None:
        """Make the spans of many events of one kind."""
        if kind.name.startswith("delivery."):
            for row in rows:
                self._delivery(kind.name, {**common, **row})

    def _wanted(self, trace: str) -> bool:
        return self._share >= 1 or int(trace[:8], 16) < self._share * (1 << 32)

    def _claimed(self, fields: Mapping[str, object]) -> None:
        trace = _trace(fields, "as_of")
        if trace is None or not self._wanted(trace):
            return
        mark = span_id(fields["slice"], fields.get("attempt"))
        run = fields.get("run")
        self._thread.slice = _Claimed(trace, mark, str(run) if run else None, time.time_ns(), _attributes(fields))

    def _ended(self, name: str, fields: Mapping[str, object]) -> None:
        held, self._thread.slice = self._thread.slice, None
        if held is not None and held.attributes.get("slice") == fields.get("slice"):
            parent = span_id(held.run) if held.run else None
            told = {**held.attributes, **_attributes(fields), "end": name}
            failed = name == "slice.failed"
            self._receive(
                Span(held.trace, held.id, parent, "slice", held.began, time.time_ns(), told, failed, self._thread.link)
            )

    def _batch(self, name: str, fields: Mapping[str, object]) -> None:
        held = self._thread.slice
        if held is not None:
            now = time.time_ns()
            self._receive(
                Span(held.trace, secrets.token_hex(8), held.id, name, now - _took(fields), now, _attributes(fields))
            )

    def _planned(self, name: str, fields: Mapping[str, object]) -> None:
        trace = _trace(fields, "as_of")
        if trace is not None and self._wanted(trace):
            now, failed = time.time_ns(), name == "run.failed"
            began = now - _took(fields)
            mark = secrets.token_hex(8) if failed else span_id(fields["run"])
            told = _attributes(fields)
            self._receive(Span(trace, mark, None, "split", began, now, told, failed, self._thread.link))

    def _delivery(self, name: str, fields: Mapping[str, object]) -> None:
        trace = _trace(fields, "chosen_at") or _trace(fields, "as_of")
        if trace is None or not self._wanted(trace):
            return
        held = self._thread.slice
        link = None if held is None else traceparent(held.trace, held.id)
        run, now = fields.get("run"), time.time_ns()
        parent = span_id(run) if run else None
        failed = name in ("delivery.failed", "delivery.unknown")
        told = _attributes(fields)
        self._receive(Span(trace, secrets.token_hex(8), parent, name, now - _took(fields), now, told, failed, link))


def _trace(fields: Mapping[str, object], instant: str) -> str | None:
    campaign, at = fields.get("campaign_uid"), fields.get(instant)
    return trace_id(str(campaign), at) if campaign is not None and isinstance(at, int) else None


def _took(fields: Mapping[str, object]) -> int:
    took = fields.get("duration")
    return int(took.total_seconds() * 1e9) if isinstance(took, timedelta) else 0


_KEPT_BACK: Final = frozenset({"user", "key", "error", "text", "duration", "entry"})
"""Fields that say which person it is about, or that a span has of its own: traces often go to another company."""


def _attributes(fields: Mapping[str, object]) -> dict[str, str | int | float]:
    return {
        name: value if isinstance(value, int | float) else str(value)
        for name, value in fields.items()
        if name not in _KEPT_BACK and value is not None
    }
