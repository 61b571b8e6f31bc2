"""Failed log-ins in the memory of a process."""

from __future__ import annotations

from datetime import timedelta

from engine.pipeline.control import failed_logins
from engine.pipeline.control.failed_logins import MemoryFailedLogins

MINUTE = timedelta(minutes=1)


def test_failures_in_a_row_count_until_they_are_forgotten_or_too_old() -> None:
    now = [0.0]
    failures = MemoryFailedLogins(lambda: now[0])
    assert [failures.failed("ann", MINUTE) for _ in range(3)] == [1, 2, 3]
    assert failures.failed("bob", MINUTE) == 1
    failures.forget("ann")
    assert failures.failed("ann", MINUTE) == 1
    now[0] = 61.0
    assert failures.failed("ann", MINUTE) == 1


def test_a_wait_ends_by_itself() -> None:
    now = [0.0]
    failures = MemoryFailedLogins(lambda: now[0])
    failures.delay("ann", timedelta(seconds=5))
    now[0] = 2.0
    assert failures.wait(["ann", "bob"]) == 3.0
    assert failures.wait(["bob"]) == 0.0
    now[0] = 9.0
    assert failures.wait(["ann"]) == 0.0


def test_memory_is_bounded() -> None:
    failures = MemoryFailedLogins(lambda: 0.0)
    for number in range(failed_logins.MOST + 5):
        failures.failed(f"name {number}", MINUTE)
    assert failures.failed("name 0", MINUTE) == 1, "the oldest is forgotten"
    assert failures.failed(f"name {failed_logins.MOST}", MINUTE) == 2
