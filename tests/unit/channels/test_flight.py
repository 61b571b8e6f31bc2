"""A window in flight: outcomes arrive from another thread, which wakes the waiting thread when it matters."""

from __future__ import annotations

from threading import Timer

from engine.channels.channel import Flight
from engine.domain.delivery import NotBegun, Sent

LONG = 30.0


def test_outcomes_are_taken_once() -> None:
    flight = Flight(3)
    flight.put([(2, Sent()), (0, NotBegun())], 1)
    assert (flight.outstanding, flight.waiting, flight.came) == (1, 1, True)
    assert flight.take() == [(2, Sent()), (0, NotBegun())]
    assert (flight.take(), flight.came) == ([], False)


def test_whoever_waits_for_few_to_be_waiting_goes_on_before_the_answers_come() -> None:
    flight = Flight(4)
    Timer(0.05, flight.put, ([], 1)).start()
    flight.wait(1, LONG)
    assert (flight.waiting, flight.outstanding) == (1, 4)


def test_whoever_waits_for_all_goes_on_with_the_last_answer() -> None:
    flight = Flight(2)
    flight.put([(0, Sent())], 0)
    Timer(0.05, flight.put, ([(1, Sent())], 0)).start()
    flight.wait_for_all(LONG)
    assert flight.outstanding == 0


def test_nobody_waits_for_an_empty_window() -> None:
    flight = Flight(0)
    flight.wait(0, LONG)
    flight.wait_for_all(LONG)
    assert flight.take() == []
