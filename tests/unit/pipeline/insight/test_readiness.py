"""`/livez` and `/readyz`: the texts that Kubernetes' own servers print, and checks that hang."""

from __future__ import annotations

import threading

from engine.pipeline.insight.readiness import Check, Readiness, answer, livez


def fail() -> None:
    raise OSError


def test_a_ready_process_says_ok_and_names_its_checks_if_asked() -> None:
    checks = [Check("mongodb", passed=True), Check("cache", passed=False, needed=False)]
    assert answer("readyz", checks) == (200, "ok")
    status, text = answer("readyz", checks, verbose=True)
    assert status == 200
    assert text.splitlines() == [
        "[+]mongodb ok",
        "[-]cache failed: it does not answer (not needed to serve)",
        "readyz check passed",
    ]


def test_a_failed_check_is_named_without_being_asked_for() -> None:
    status, text = answer("readyz", [Check("mongodb", passed=False), Check("broker", passed=True)])
    assert status == 503
    assert text.splitlines() == [
        "[-]mongodb failed: it does not answer",
        "[+]broker ok",
        "readyz check failed",
    ]


def test_the_probes_run_at_once_and_a_hanging_one_has_failed() -> None:
    release = threading.Event()
    both = threading.Barrier(2, timeout=5)
    probes = {"mongodb": both.wait, "broker": both.wait, "cache": fail, "elasticsearch": release.wait}
    readiness = Readiness(probes, ("mongodb", "broker"))
    checks = readiness.checks()
    release.set()
    assert [(check.name, check.passed, check.needed) for check in checks] == [
        ("mongodb", True, True),
        ("broker", True, True),
        ("cache", False, False),
        ("elasticsearch", False, False),
    ]


def test_a_process_lives_whatever_its_stores_do() -> None:
    assert livez() == (200, "ok")
    assert livez(verbose=True)[1].splitlines() == ["[+]ping ok", "livez check passed"]
