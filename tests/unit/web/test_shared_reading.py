"""One reading for all who watch."""

from __future__ import annotations

import threading

import pytest

from engine.web import shared_reading
from engine.web.shared_reading import SharedReading


def test_many_who_ask_share_one_reading() -> None:
    calls: list[int] = []
    reading = SharedReading("test", lambda: calls.append(1) or len(calls), 60.0)
    threads = [threading.Thread(target=reading.latest) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reading.latest().value == 1
    assert len(calls) == 1
    reading.stop()


def test_a_failure_is_told_and_the_last_value_stays() -> None:
    answers = iter([lambda: 7, lambda: 1 / 0])
    reading = SharedReading("test", lambda: next(answers)(), 0.01)
    first = reading.latest()
    assert (first.value, first.error) == (7, "")
    failed = first
    while not failed.error:
        failed = reading.latest()
    assert failed.value == 7
    assert failed.at == first.at, "the age is that of the value"
    assert "ZeroDivisionError" in failed.error
    reading.stop()


def test_nobody_watching_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_reading, "IDLE", 0.0)
    read = threading.Event()
    reading = SharedReading("test", read.set, 0.01)
    reading.latest()
    threads = [thread for thread in threading.enumerate() if thread.name == "web-test"]
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    read.clear()
    reading.latest()
    assert read.wait(5), "the next viewer starts it again"
    reading.stop()
