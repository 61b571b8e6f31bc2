"""Turns an event into a log line: fields of the Elastic Common Schema, in this order, with ours under `tidegate`.

`labels.*` are identities, `event.*` the action and its duration (nanoseconds), `trace.id` the pass, and `tidegate.*`
measurements and campaign times. Instants are ISO 8601.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from engine import __version__
from engine.clock import Instant, format_instant
from engine.domain.keys import is_user_key, layout_hash, user_id_of
from engine.telemetry.contract import INSTANTS, LABELS
from engine.telemetry.events import trace_id
from engine.telemetry.redaction import Redactor

ECS_VERSION: Final = "8.11.0"
_DIFFERS: Final = 1_000
"""Milliseconds between system time and campaign time from which a line carries both; below, the two count as equal."""

_SUFFIXES: Final = frozenset({"first", "until"})


def ecs_line(
    name: str,
    level: str,
    fields: Mapping[str, object],
    *,
    at: Instant,
    redactor: Redactor,
    process: str,
    outcome: str | None = None,
    campaign_time: Instant | None = None,
    logger: str = "engine",
    sequence: int | None = None,
) -> dict[str, object]:
    """Return the line of one event as nested values, redacted and ready for JSON.

    `at` is system time; `sequence` orders the lines of a process. A `user` may be a raw user id or a user key. In both
    cases the line shows the id (or its pseudonym) and its layout hash, by which a story finds the user's batches. For a
    pseudonymised user it shows only the first half of the hash, which identifies nobody.
    """
    event: dict[str, object] = {"action": name, "dataset": "tidegate"}
    line: dict[str, object] = {
        "@timestamp": format_instant(at),
        "log.level": level,
        "message": name,
        "ecs.version": ECS_VERSION,
        "event": event,
        "service": {"name": "tidegate", "version": __version__, "type": "tidegate"},
        "process": {"pid": os.getpid(), "name": process},
        "log.logger": logger,
    }
    labels: dict[str, str] = {}
    own: dict[str, object] = {}
    for field, value in fields.items():
        if value is None:
            continue
        if field in LABELS:
            _label(field, value, labels, own, redactor)
        elif field == "outcome":
            outcome = str(value)
        elif not _of_ecs(field, value, line, event, redactor):
            own[field] = _measured(field, value, redactor)
    if sequence is not None:
        event["sequence"] = sequence
    if outcome is not None:
        event["outcome"] = outcome
    passed = fields.get("chosen_at", fields.get("as_of"))
    campaign = fields.get("campaign_uid") or fields.get("campaign")
    if "trace" not in line and campaign is not None and isinstance(passed, int):
        line["trace"] = {"id": trace_id(str(campaign), passed)}
    if campaign_time is not None and abs(campaign_time - at) >= _DIFFERS:
        own.setdefault("campaign_time", format_instant(campaign_time))
    if labels:
        line["labels"] = labels
    if own:
        line["tidegate"] = own
    return line


def _of_ecs(field: str, value: object, line: dict[str, object], event: dict[str, object], redactor: Redactor) -> bool:
    """Write a field to its place in ECS; return False if ECS has none."""
    if field == "duration" and isinstance(value, timedelta):
        event["duration"] = value // timedelta(microseconds=1) * 1_000
    elif field == "trace":
        line["trace"] = {"id": str(value)}
    elif field == "text":
        line["message"] = f"{line['message']}: {redactor.text(str(value))}"
    elif field == "error" and isinstance(value, BaseException):
        kind, text, stack = redactor.error(value)
        line["error"] = {"type": kind, "message": text, "stack_trace": stack}
    else:
        return False
    return True


def _measured(field: str, value: object, redactor: Redactor) -> object:
    """Return the logged form of a `tidegate.*` field."""
    if field in INSTANTS and isinstance(value, int):
        return format_instant(value)
    return redactor.key(str(value)) if field in _SUFFIXES else redactor.values(value)


def ecs_lines(
    made: Mapping[str, Any], rows: Iterable[Mapping[str, object]], redactor: Redactor, sequence: Iterator[int]
) -> Iterator[dict[str, Any]]:
    """Yield the lines of occurrences that share the line `made`, each with its row's labels and its own sequence."""
    event, shared, measured = made["event"], made.get("labels", {}), made.get("tidegate", {})
    for row in rows:
        labels, own = {**shared}, {**measured}
        for field, value in row.items():
            if value is not None:
                _label(field, value, labels, own, redactor)
        yield {**made, "event": {**event, "sequence": next(sequence)}, "labels": labels, "tidegate": own}


def _label(field: str, value: object, labels: dict[str, str], own: dict[str, object], redactor: Redactor) -> None:
    text = str(value)
    if field == "user":
        user_id = user_id_of(text) if "/" in text and is_user_key(text) else text
        labels["user"] = shown = redactor.user(user_id)
        digits = layout_hash(user_id)
        own["user_hash"] = digits if shown == user_id else digits[:4]
    elif field in ("key", "slice"):
        labels[field] = redactor.key(text)
    else:
        labels[field] = redactor.text(text)
