"""Events keep their contract, and a listener cannot harm the emitter."""

from __future__ import annotations

import re

import pytest

from engine.errors import ProgrammerError
from engine.telemetry import events
from engine.telemetry.contract import ALWAYS, EVENTS, INSTANTS, LABELS
from engine.telemetry.events import Occurrence, emit, emit_each, listening, stand, subscribe, trace_id


@pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS)
def test_every_event_is_a_noun_and_a_verb_with_a_meaning(kind: events.EventType) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", kind.name)
    assert kind.meaning.endswith(".")
    assert kind.labels <= LABELS
    assert kind.instants <= INSTANTS
    assert not set(kind.measurements) & (LABELS | INSTANTS | ALWAYS)
    assert all(kind.measurements.values()), "a measurement names its unit"


def test_a_subscriber_gets_events_until_it_unsubscribes() -> None:
    occurrences: list[Occurrence] = []
    leave = subscribe(occurrences.append)
    emit("batch.decided", run="r", users=3, reason=None, lane=None) if False else emit(
        "batch.decided", run="r", users=3
    )
    leave()
    emit("batch.decided", run="r", users=4)
    assert [(line.name, line.fields) for line in occurrences] == [("batch.decided", {"run": "r", "users": 3})]


def test_fields_that_are_none_count_as_absent() -> None:
    with listening() as emitted:
        emit("batch.decided", run="r", lane=None)
    assert emitted.of("batch.decided")[0].fields == {"run": "r"}


@pytest.mark.parametrize(("name", "fields"), [("batch.eaten", {}), ("batch.decided", {"body": "x"})])
def test_a_name_outside_the_contract_is_refused(name: str, fields: dict[str, object]) -> None:
    with pytest.raises(ProgrammerError):
        emit(name, **fields)


def test_a_production_process_omits_fields_outside_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    events.strict(False)
    try:
        with listening() as emitted:
            emit("batch.eaten", users=1)
            emit("batch.decided", users=1, body="x")
            emit("batch.decided", users=2, body="x")
    finally:
        events.strict(True)
    assert [occurrence.fields for occurrence in emitted.of("batch.decided")] == [{"users": 1}, {"users": 2}]
    assert capsys.readouterr().err.count("no field") <= 1


def test_a_raising_subscriber_stops_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    secret = "s3cr3t"

    def broken(_: Occurrence) -> None:
        raise RuntimeError(secret)

    leave = subscribe(broken)
    try:
        with listening() as emitted:
            emit("clock.set", campaign_time=5)
    finally:
        leave()
    assert emitted.wait("clock.set", campaign_time=5)
    assert "s3cr3t" not in capsys.readouterr().err


def test_a_wait_for_an_event_times_out() -> None:
    with listening() as emitted, pytest.raises(TimeoutError):
        emitted.wait("clock.set", timeout=0.01)


def test_a_delivery_has_the_trace_of_its_choosing_run() -> None:
    assert trace_id("winback", 5) == trace_id("winback", 5)
    assert len({trace_id("winback", 5), trace_id("winback", 6), trace_id("other", 5)}) == 3
    assert re.fullmatch("[0-9a-f]{32}", trace_id("winback", 5))


def test_a_standing_label_is_on_every_event_that_has_it_and_on_no_delivery() -> None:
    version = ["v1"]
    end = stand("policy", lambda: version[0])
    try:
        with listening() as emitted:
            emit("batch.decided", run="r")
            version[0] = "v2"
            emit("slice.closed", slice="s")
            emit("run.decided", run="r", policy="given")
            emit("clock.set", campaign_time=5)
            emit_each("delivery.sent", {"workspace": "shop"}, [{"user": "a"}])
    finally:
        end()
    with listening() as afterwards:
        emit("batch.decided", run="r")
    carried = [emitted.of(name)[0].fields.get("policy") for name in ("batch.decided", "slice.closed", "run.decided")]
    assert carried == ["v1", "v2", "given"]
    assert "policy" not in {**emitted.of("clock.set")[0].fields, **emitted.of("delivery.sent")[0].fields}
    assert "policy" not in afterwards.of("batch.decided")[0].fields
