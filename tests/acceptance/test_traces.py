"""Traces on the real system: the spans of four processes are one trace, joined by derived ids and by `traceparent`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.installation import Installation, Told

Tidegate = Callable[..., Told]


def spans(file: Path) -> list[dict[str, Any]]:
    """Return the spans of a file, each with the process that made it."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        for resource in json.loads(line)["resourceSpans"]:
            named = {pair["key"]: pair["value"]["stringValue"] for pair in resource["resource"]["attributes"]}
            of_it = (span for scope in resource["scopeSpans"] for span in scope["spans"])
            found += [{**span, "pid": named["process.pid"], "process": named["tidegate.process"]} for span in of_it]
    return found


def test_a_launch_is_one_trace_from_the_split_to_each_delivery(installation: Installation, tidegate: Tidegate) -> None:
    world, file = installation.world, installation.folder / "var" / "traces.jsonl"
    more = {"TIDEGATE_TELEMETRY__TRACES": str(file)}
    processes = [
        installation.start(*words, **more) for words in (("clock", "run"), ("worker", "all"), ("worker", "all"))
    ]
    world.users([f"u{n}" for n in range(12)], plan="free")
    world.apply({"campaign": "one", "kind": "one_off"})
    world.launch("one")
    installation.until(lambda: world.state("one") == "finished", "the end", processes[0])
    for process in processes:
        installation.end(process)
    made = spans(file)
    deliveries = [span for span in made if span["name"] == "delivery.sent"]
    assert len(deliveries) == 12
    (trace,) = {span["traceId"] for span in deliveries}
    (split,) = [span for span in made if span["name"] == "split" and span["traceId"] == trace]
    slices = [span for span in made if span["name"] == "slice" and span["traceId"] == trace]
    batches = [span for span in made if span["name"] == "batch.decided" and span["traceId"] == trace]
    deciding = [span for span in slices if "parentSpanId" in span]  # a delivering slice belongs to no run
    assert deciding
    assert {span["parentSpanId"] for span in deciding} == {split["spanId"]}
    assert {span["parentSpanId"] for span in batches} <= {span["spanId"] for span in slices}
    assert len({span["pid"] for span in made}) >= 2, "the clock dispatched, a worker worked"
    dispatches = {(span["traceId"], span["spanId"]): span for span in made if span["name"].startswith("enqueue ")}
    links = [(link["traceId"], link["spanId"]) for span in deciding for link in span["links"]]
    assert links
    assert set(links) <= dispatches.keys()
    assert {dispatches[link]["name"] for link in links} == {"enqueue process_slice"}
    line = installation.lines("delivery.sent")[0]
    assert line["trace"]["id"] == trace, "the log lines have the same id"
    assert "u1" not in {pair["value"].get("stringValue") for span in made for pair in span["attributes"]}


def test_without_the_setting_messages_carry_nothing_and_no_file_is_written(installation: Installation) -> None:
    world = installation.world
    process = installation.start("clock", "run")
    world.apply({"campaign": "one"})
    world.launch("one")
    broker = world.app.stores.broker_client
    keys = f"tidegate:{world.database.name}:*.msgs"

    def messages() -> list[bytes]:
        return [data for key in broker.scan_iter(match=keys) for data in broker.hvals(key)]

    waiting = installation.until(messages, "a message", process)
    assert all(b"traceparent" not in data for data in waiting)
    assert not list(installation.folder.rglob("*traces*"))
    installation.end(process)
