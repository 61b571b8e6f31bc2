"""Hand spans over: to an OpenTelemetry collector (OTLP over HTTP, as JSON), or into a file, one such document a line.

A thread sends them in batches. If the collector is away, spans are dropped and counted: traces must delay nothing.
"""

from __future__ import annotations

import json
import queue
import threading
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from engine.telemetry.traces import Span, split_traceparent

MOST: Final = 20_000
"""Spans that wait at most: some 20 MB."""

BATCH: Final = 500
EVERY: Final = 2.0
"""Spans in one document, and the seconds after which a smaller one is sent."""

PATIENCE: Final = 5.0
"""Seconds that the collector gets to answer."""


class TraceExporter:
    """Sends spans to `target`: an address such as `http://localhost:4318/v1/traces`, or the path of a file."""

    def __init__(self, target: str, resource: dict[str, str]) -> None:
        self._target = target
        self._resource = resource
        self._waiting: queue.Queue[Span] = queue.Queue(MOST)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self.dropped = 0

    def receive(self, span: Span) -> None:
        """Take one span; drop it if too many wait. The first one begins the thread: a forked child has its own."""
        try:
            self._waiting.put_nowait(span)
        except queue.Full:
            self.dropped += 1
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._stop.is_set():
                    self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
                    self._thread.start()

    def stop(self) -> None:
        """Send what waits, and end. Safe to repeat, and before a start."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(PATIENCE * 2)

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        while spans := self._some():
            try:
                self._send(document(spans, self._resource))
            except OSError:
                self.dropped += len(spans)
                return

    def _some(self) -> list[Span]:
        spans: list[Span] = []
        while len(spans) < BATCH:
            try:
                spans.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return spans

    def _send(self, told: dict[str, Any]) -> None:
        text = json.dumps(told, separators=(",", ":"))
        if not self._target.startswith(("http://", "https://")):
            path = Path(self._target)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{text}\n")
            return
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._target, text.encode(), headers)  # noqa: S310 - http(s), checked above
        with urllib.request.urlopen(request, timeout=PATIENCE):  # noqa: S310 - as above
            return


def document(spans: Sequence[Span], resource: dict[str, str]) -> dict[str, Any]:
    """Return spans as an OTLP document (`ExportTraceServiceRequest` in its JSON form)."""
    scope = {"scope": {"name": "tidegate"}, "spans": [_span(span) for span in spans]}
    return {"resourceSpans": [{"resource": {"attributes": _pairs(resource)}, "scopeSpans": [scope]}]}


def _span(span: Span) -> dict[str, Any]:
    linked = None if span.link is None else split_traceparent(span.link)
    return {
        "traceId": span.trace,
        "spanId": span.id,
        **({"parentSpanId": span.parent} if span.parent else {}),
        "name": span.name,
        "kind": 1,
        "startTimeUnixNano": str(span.began),
        "endTimeUnixNano": str(max(span.began, span.ended)),
        "attributes": _pairs({f"tidegate.{name}": value for name, value in span.attributes.items()}),
        "status": {"code": 2 if span.failed else 1},
        **({"links": [{"traceId": linked[0], "spanId": linked[1]}]} if linked else {}),
    }


def _pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in attributes.items()]


def _value(value: object) -> dict[str, object]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": str(value)}
