"""Repeated failure lines: the first appears at once, then one now and then with the number held back."""

from __future__ import annotations

from engine.telemetry.repeats import WINDOW, Repeats


class Seconds:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def failure(kind: type[Exception] = ValueError) -> Exception:
    return kind("why")


def test_the_same_failure_is_written_once_in_a_window_and_then_with_the_count() -> None:
    clock = Seconds()
    repeats = Repeats(clock)
    fields = {"error": failure(), "campaign_uid": "c1", "reason": "ValueError"}
    assert [repeats.admit("slice.failed", "error", fields) for _ in range(100)] == [0, *([None] * 99)]
    clock.now = WINDOW
    assert repeats.admit("slice.failed", "error", fields) == 99
    assert repeats.admit("slice.failed", "error", fields) is None


def test_different_failures_are_written() -> None:
    repeats = Repeats(Seconds())
    error = failure()
    alike = {"error": error, "campaign_uid": "c1"}
    for name, fields in (
        ("slice.failed", alike),
        ("run.failed", alike),
        ("slice.failed", alike | {"campaign_uid": "c2"}),
        ("slice.failed", alike | {"error": failure(KeyError)}),
    ):
        assert repeats.admit(name, "error", fields) == 0


def test_delivery_lines_and_other_levels_are_never_suppressed() -> None:
    repeats = Repeats(Seconds())
    for name, level, fields in (
        ("delivery.failed", "warning", {"error": failure()}),
        ("library.logged", "info", {"error": failure()}),
        ("engine.failed", "error", {"reason": "store_away"}),
    ):
        assert [repeats.admit(name, level, fields) for _ in range(3)] == [0, 0, 0]
