"""A window in flight: outcomes arrive from another thread, which wakes the waiting thread when it matters."""

from __future__ import annotations

from threading import Timer

from engine.channels.channel import Flight
from engine.domain.delivery import NotBegun, Sent

LONG = 30.0


def test_take_returns_each_outcome_once() -> None:
    flight = Flight(3)
    flight.put([(2, Sent()), (0, NotBegun())], 1)
    assert (flight.outstanding, flight.waiting, flight.came) == (1, 1, True)
    assert flight.take() == [(2, Sent()), (0, NotBegun())]
    assert (flight.take(), flight.came) == ([], False)


def test_wait_returns_once_few_enough_are_waiting() -> None:
    flight = Flight(4)
    Timer(0.05, flight.put, ([], 1)).start()
    flight.wait(1, LONG)
    assert (flight.waiting, flight.outstanding) == (1, 4)


def test_wait_for_all_returns_with_the_last_answer() -> None:
    flight = Flight(2)
    flight.put([(0, Sent())], 0)
    Timer(0.05, flight.put, ([(1, Sent())], 0)).start()
    flight.wait_for_all(LONG)
    assert flight.outstanding == 0


def test_waiting_for_an_empty_window_returns_at_once() -> None:
    flight = Flight(0)
    flight.wait(0, LONG)
    flight.wait_for_all(LONG)
    assert flight.take() == []
