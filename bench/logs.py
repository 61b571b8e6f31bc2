"""`python -m bench.logs`: measure the cost of a delivery's log line, from writing to search, into `docs/benchmarks.md`.

A process writes lines like a deliver worker, window by window at a steady pace; `tidegate logs ship` follows them into
a fresh local Elasticsearch. Processor time comes from the kernel: of the writing, of the shipper, and of Elasticsearch
until it is quiet again, so merges and refreshes count. The bench also measures what it costs `tidegate up` to show the
lines.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil
from elasticsearch import Elasticsearch, NotFoundError

from bench import report
from bench.measure import machine
from bench.termination import end_on_term
from engine.clock import SystemClock
from engine.domain.enrolment import Settled
from engine.domain.keys import enrolment_id, user_key, user_suffix
from engine.domain.lifecycle import DeliveryState
from engine.local.processes.output import Output
from engine.local.services.elastic_distribution import VERSION
from engine.local.services.local_services import LocalServices
from engine.pipeline.campaigns.event_labels import EndedDelivery, tell_ends
from engine.stores.search.log_index import STREAM
from engine.telemetry.logging import LogOptions, configure

_UID: Final = "spring-5f0c2a1b"
_SLICE: Final = 5_000
"""Deliveries that one slice has chosen: they share its labels."""
_QUIET: Final = 0.04
"""Share of a core that a working Elasticsearch exceeds."""
_PATIENCE: Final = 120.0
_PIPE: Final = 64 * 1024
"""Bytes that a pipe holds."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor microseconds a line, and bytes of a line in the file and in the index."""

    write: float
    ship: float
    index: float
    show: float
    written: float
    stored: float

    @property
    def total(self) -> float:
        """The sum of all processor costs."""
        return self.write + self.ship + self.index + self.show


def measured(lines: int, window: int, rate: int, heap: str) -> Cost:
    """Measure one round: start services of its own, and write `lines` at `rate` a second in windows."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as name:
        folder = Path(name)
        services = LocalServices(folder / "services", say=_say, heap=heap)
        try:
            url = services.start(["elastic"]).elastic_url
            assert url is not None, services.notes
            with Elasticsearch(url, request_timeout=30) as client, _shipper(folder / "logs", url) as shipper:
                (node,) = client.nodes.info(metric="process")["nodes"].values()
                server = psutil.Process(int(node["process"]["id"]))
                _quiet(server)
                ship, index = _cpu(shipper), _cpu(server)
                write = _written(folder / "logs", lines, window, rate)
                _shipped(client, lines)
                _quiet(server)
                ship, index = _cpu(shipper) - ship, _cpu(server) - index
                stored = client.indices.stats(index=STREAM, metric="store")["_all"]["primaries"]["store"]
            raw = b"".join(path.read_bytes() for path in (folder / "logs").glob("deliver-*.ndjson"))
        finally:
            services.stop(discard=True)
    each = 1e6 / lines
    return Cost(
        write * each, ship * each, index * each, _shown(raw) * each, len(raw) / lines, stored["size_in_bytes"] / lines
    )


def _written(folder: Path, lines: int, window: int, rate: int) -> float:
    """Write the lines; return the processor seconds that this process used."""
    logs = configure(LogOptions("deliver", folder, console=False), clock=SystemClock())
    now = SystemClock().system_now()
    began, spent = time.monotonic(), 0.0
    try:
        for first in range(0, lines, window):
            ended = [_ended(number, now) for number in range(first, min(first + window, lines))]
            before = time.process_time()
            tell_ends("grocer", "spring", _UID, ended)
            spent += time.process_time() - before
            time.sleep(max(0.0, began + (first + window) / rate - time.monotonic()))
    finally:
        logs.close()
    return spent


def _shown(raw: bytes) -> float:
    """Show lines to people as the supervisor of `tidegate up` does; return the processor seconds."""
    with Path(os.devnull).open("w", encoding="utf-8") as nobody:
        output = Output(nobody, ["deliver"], now=lambda: datetime.now(UTC))
        began = time.process_time()
        for first in range(0, len(raw), _PIPE):
            output.feed("deliver", raw[first : first + _PIPE])
        return time.process_time() - began


def _ended(number: int, now: int) -> EndedDelivery:
    user = f"hh-{number:07d}"
    enrolment = enrolment_id("grocer", _UID, user_suffix(user), 1)
    settled = Settled("hello", DeliveryState.SENT, now, attempts=1)
    chosen_by = f"grocer/{_UID}/launch/1/{number // _SLICE:04d}"
    return EndedDelivery(enrolment, user_key("grocer", user), settled, now - 2_000, chosen_by)


@contextmanager
def _shipper(folder: Path, url: str) -> Iterator[psutil.Process]:
    """Run `tidegate logs ship` as the Procfile does."""
    program = Path(sys.executable).with_name("tidegate")
    environment = {**os.environ, "TIDEGATE_SERVICES__ELASTIC_URL": url, "TIDEGATE_LOGS__FOLDER": str(folder)}
    folder.mkdir()
    with subprocess.Popen([program, "logs", "ship"], env=environment, stdout=subprocess.DEVNULL) as child:
        try:
            _until(lambda: next(folder.glob("ship-*.ndjson"), None))  # it has logged that it is up
            yield psutil.Process(child.pid)
        finally:
            child.terminate()


def _shipped(client: Elasticsearch, lines: int) -> None:
    """Wait until every line can be found."""
    of_delivery = {"term": {"event.action": "delivery.sent"}}
    counted = {"lines": {"sum": {"field": "bundle.lines", "missing": 1}}}

    def found() -> int | None:
        with suppress(NotFoundError):
            client.indices.refresh(index=STREAM)
            answer = client.search(index=STREAM, query=of_delivery, aggs=counted, size=0)
            count = int(answer["aggregations"]["lines"]["value"])
            assert count <= lines, f"{count} lines of {lines}"
            return count if count == lines else None
        return None

    _until(found)


def _until(known: Callable[[], object | None]) -> None:
    end = time.monotonic() + _PATIENCE
    while known() is None:
        if time.monotonic() > end:
            raise TimeoutError("the lines do not come")
        time.sleep(0.5)


def _quiet(server: psutil.Process) -> None:
    """Wait until Elasticsearch has been nearly idle for three seconds in a row."""
    calm, end = 0, time.monotonic() + _PATIENCE
    while calm < 3 and time.monotonic() < end:
        before = _cpu(server)
        time.sleep(1.0)
        calm = calm + 1 if _cpu(server) - before < _QUIET else 0


def _cpu(process: psutil.Process) -> float:
    """Return the processor seconds of a process and its children."""
    return sum(sum(each.cpu_times()[:2]) for each in [process, *process.children(recursive=True)])


def table(results: Sequence[Cost]) -> str:
    """Return the rounds as a Markdown table."""
    rows = [
        "| a line | write | ship | Elasticsearch | show | together | bytes in the file | in the index |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, choose in (("median", statistics.median), ("least", min), ("most", max)):
        values = [
            choose([getattr(result, part) for result in results])
            for part in ("write", "ship", "index", "show", "total")
        ]
        sizes = [choose([getattr(result, part) for result in results]) for part in ("written", "stored")]
        shown = [f"{value:.1f} µs" for value in values] + [f"{size:.0f}" for size in sizes]
        rows.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; return 0 when it is done."""
    parser = argparse.ArgumentParser(prog="python -m bench.logs", description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000, help="lines of a round (default 100,000)")
    parser.add_argument("--window", type=int, default=50, help="deliveries settled at once (default 50)")
    parser.add_argument("--rate", type=int, default=4_000, help="lines written in a second (default 4,000)")
    parser.add_argument("--heap", default="512m", help="of Elasticsearch (default 512m, the setting's)")
    parser.add_argument("--rounds", type=int, default=3, help="each with a fresh Elasticsearch (default 3)")
    parser.add_argument("--print-only", action="store_true", help="leave docs/benchmarks.md as it is")
    given = parser.parse_args(argv)
    end_on_term()
    load = os.getloadavg()[0]
    results = [measured(given.lines, given.window, given.rate, given.heap) for _ in range(given.rounds)]
    for result in results:
        _say(json.dumps({name: round(getattr(result, name), 1) for name in result.__slots__}))
    command = f"python -m bench.logs {' '.join(sys.argv[1:] if argv is None else argv)}".rstrip()
    where = machine(f"not used, Elasticsearch {VERSION}", load)
    text = (
        f"Measured with `{command}` on {where}. {given.rounds} rounds of {given.lines:,} lines, "
        f"written {given.window} at once and {given.rate:,} a second; each round has a fresh Elasticsearch."
        f"\n\n{table(results)}"
    )
    report.publish("bench.logs", text, print_only=given.print_only)
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
