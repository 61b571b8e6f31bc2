"""The bench of the send path measures what it claims: every mail arrives once, and costs are those of the processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pymongo.database import Database

from bench import report
from bench.launches import BODY, Launch, Phase, Setup
from bench.marks import Marks, measure
from bench.population import documents
from bench.send import late_table, marks_table, parts_table, processor_table
from bench.sink_process import sink
from engine.stores.migrations import migrate_mongo


def test_a_launch_reaches_everybody_once_and_settles_all(
    database: Database[dict[str, Any]], services: Any, tmp_path: Path
) -> None:
    population = list(documents(60))
    database["users"].insert_many(population)
    count = sum(not user["unsubscribed"] for user in population)
    addresses = {
        "services.mongo_url": services.mongo_url,
        "services.broker_url": services.broker_url,
        "services.mongo_database": database.name,
    }
    with sink(late=1) as server:
        launch = Launch(addresses, tmp_path, Setup(threads=2, window=20, connections=3), server.port)
        try:
            launch.prepare()
            launch.enter()
            launch.deliver()
            assert launch.ends() == {"sent": count}
            launch.end()
            assert database["enrolments"].count_documents({"state": "ended"}) == count
        finally:
            launch.close()
        taken = server.taken()
    assert (taken["mails"], taken["recipients"], taken["repeated"]) == (count, count, 0)
    assert 1_600 < taken["bytes"] / count < 2_000, "a mail has about 1.8 kB"
    assert "{{ user.first_name }}" in BODY


def test_both_ways_of_marking_settle_everybody(database: Database[dict[str, Any]]) -> None:
    migrate_mongo(database)
    measured = measure(database, 40, 15)
    assert measured.mark >= 0
    assert database["enrolments"].count_documents({"settled.state": "sent", "outgoing": {"$exists": False}}) == 40


def test_the_tables_give_medians() -> None:
    enter, deliver, end = Phase(1, 0.04, 0.02, 0), Phase(1, 0.05, 0.06, 0.001), Phase(1, 0.1, 0.02, 0)
    assert "| one | 1,000 | 40 µs, 20 µs | 50 µs, 60 µs | 1.0 µs | 171 µs | 5,848 (5,848 to 5,848) | 120 µs |" in (
        processor_table([("one", 1_000, [(enter, deliver, end)])])
    )
    assert "| two | 7,890 (3,945 to 9,000) | 90 µs |" in late_table([("two", [9_000, 3_945, 7_890], [90.0])])
    assert "| per window, with its ids | 0.5 µs | 30.0 µs | 30.5 µs |" in marks_table([Marks(25, 35, 0.5, 30)])
    spent = {"read what is queued": 4.0, "read the users": 3.0, "compose": 15.0, "send": 30.0}
    table = parts_table({**spent, "settle and mark": 2.0, "tell": 10.0, "all": 68.0})
    assert "| tell | 8.0 µs |" in table
    assert "| the rest: slices, leases, keys | 6.0 µs |" in table


def test_the_page_has_the_marks_of_the_bench() -> None:
    assert report.put(report.PAGE.read_text(encoding="utf-8"), "bench.send", "new")
