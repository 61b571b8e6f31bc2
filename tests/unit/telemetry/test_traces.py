"""Traces: spans of one pass are joined without any process telling another, and messages carry a `traceparent`."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from engine.telemetry.events import emit, emit_each, trace_id
from engine.telemetry.trace_export import TraceExporter, document
from engine.telemetry.traces import Span, Tracer, span_id, split_traceparent

AS_OF = 1_700_000_000_000
RUN = "shop/c1/launch/1"
SLICE = f"{RUN}/0001"
OF_SLICE = {"workspace": "shop", "campaign": "winback", "campaign_uid": "c1", "run": RUN, "slice": SLICE}


@contextmanager
def process(spans: list[Span], share: float = 1.0) -> Iterator[Tracer]:
    tracer = Tracer(spans.append, share)
    end = tracer.start()
    try:
        yield tracer
    finally:
        end()


def decide(tracer: Tracer, link: str | None = None) -> None:
    tracer.begin_message(link)
    emit("slice.claimed", **OF_SLICE, attempt="1", as_of=AS_OF)
    emit("batch.decided", **OF_SLICE, as_of=AS_OF, users=10, duration=timedelta(milliseconds=20))
    emit("slice.closed", **OF_SLICE, as_of=AS_OF, users=10)
    tracer.end_message()


def test_split_slice_batch_and_delivery_of_three_processes_are_one_trace() -> None:
    spans: list[Span] = []
    with process(spans):
        emit("run.planned", **{name: OF_SLICE[name] for name in ("campaign_uid", "run")}, as_of=AS_OF, slices=1)
    with process(spans) as tracer:
        decide(tracer)
    with process(spans):
        common = {"campaign_uid": "c1", "run": RUN, "chosen_at": AS_OF, "channel": "email"}
        emit_each("delivery.sent", common, [{"user": "u1", "key": "k1"}, {"user": "u2", "key": "k2"}])
    assert {span.trace for span in spans} == {trace_id("c1", AS_OF)}
    by_name = {span.name: span for span in spans}
    assert by_name["split"].id == span_id(RUN)
    assert by_name["slice"].parent == by_name["delivery.sent"].parent == by_name["split"].id
    assert by_name["batch.decided"].parent == by_name["slice"].id
    assert len([span for span in spans if span.name == "delivery.sent"]) == 2
    took = by_name["batch.decided"].ended - by_name["batch.decided"].began
    assert took == 20_000_000
    assert by_name["slice"].attributes["users"] == 10


def test_no_span_says_which_person_it_is_about() -> None:
    spans: list[Span] = []
    with process(spans):
        emit("delivery.failed", campaign_uid="c1", chosen_at=AS_OF, user="anna@x.org", key="anna", reason="smtp_550")
    assert "anna" not in json.dumps(document(spans, {}))
    assert spans[0].failed
    assert spans[0].attributes["reason"] == "smtp_550"


def test_a_slice_links_to_the_dispatch_that_enqueued_it() -> None:
    spans: list[Span] = []
    with process(spans) as clock:
        carried = clock.dispatched("enqueue process_slice", 1)
    with process(spans) as worker:
        decide(worker, carried)
    dispatch, (piece,) = spans[0], [span for span in spans if span.name == "slice"]
    assert piece.link == carried
    assert split_traceparent(carried) == (dispatch.trace, dispatch.id)
    assert document([piece], {})["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["links"] == [
        {"traceId": dispatch.trace, "spanId": dispatch.id}
    ]


def test_a_header_that_cannot_be_read_is_no_link() -> None:
    assert split_traceparent("") is None
    assert split_traceparent("00-abc-def-01") is None


def test_a_pass_is_traced_as_a_whole_or_not_at_all() -> None:
    spans: list[Span] = []
    with process(spans, share=0.5):
        for n in range(400):
            emit("run.planned", campaign_uid="c1", run=f"r{n}", as_of=n)
            emit("delivery.sent", campaign_uid="c1", run=f"r{n}", chosen_at=n)
    traces = {span.trace for span in spans}
    assert 120 < len(traces) < 280
    assert len(spans) == 2 * len(traces)
    with process(spans := [], share=0.0):
        emit("run.planned", campaign_uid="c1", run="r", as_of=1)
    assert spans == []


def test_spans_are_written_to_a_file_as_otlp_documents(tmp_path: Path) -> None:
    file = tmp_path / "traces" / "all.jsonl"
    exporter = TraceExporter(str(file), {"service.name": "tidegate"})
    with process([]) as tracer:
        tracer._receive = exporter.receive
        decide(tracer)
    exporter.stop()
    (line,) = file.read_text(encoding="utf-8").splitlines()
    (resource,) = json.loads(line)["resourceSpans"]
    assert resource["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "tidegate"}}]
    spans = resource["scopeSpans"][0]["spans"]
    assert [span["name"] for span in spans] == ["batch.decided", "slice"]
    assert {len(span["traceId"]) for span in spans} == {32}
    assert {"key": "tidegate.users", "value": {"intValue": "10"}} in spans[0]["attributes"]


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    got: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:  # silent
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_spans_are_posted_to_a_collector(collector: tuple[str, list[bytes]]) -> None:
    address, got = collector
    exporter = TraceExporter(address, {})
    exporter.receive(Span("0" * 32, "1" * 16, None, "split", 1, 2, {}))
    exporter.stop()
    assert json.loads(got[0])["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] == "split"
    assert exporter.dropped == 0


def test_a_collector_that_is_away_costs_spans_and_nothing_else() -> None:
    exporter = TraceExporter("http://127.0.0.1:9/v1/traces", {})
    for n in range(3):
        exporter.receive(Span("0" * 32, f"{n:016x}", None, "split", 1, 2, {}))
    exporter.stop()
    assert exporter.dropped == 3
