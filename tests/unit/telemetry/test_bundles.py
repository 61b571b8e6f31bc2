"""Bundles: every writer cuts them alike, and taking them apart returns the same lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.clock import parse_instant
from engine.domain.log_documents import unbundled
from engine.telemetry.bundles import LONGEST, Bundle, bundled
from engine.telemetry.ecs import ecs_line, ecs_lines
from engine.telemetry.redaction import Redactor

NOW = parse_instant("2026-11-23T08:00:00.123Z")
REDACTOR = Redactor(b"k" * 32)


def window(users: Sequence[str], first: int = 1, at: int = NOW) -> list[bytes]:
    """Return the lines of deliveries that settled together."""
    common: dict[str, object] = {"workspace": "grocer", "campaign_uid": "c-1", "chosen_at": NOW - 5, "attempts": 1}
    made = ecs_line("delivery.sent", "info", common, at=at, redactor=REDACTOR, process="deliver", outcome="success")
    rows = [{"user": user, "entry": "1", "key": f"grocer/c-1/00000000/{user}/0001/hello"} for user in users]
    return [
        orjson.dumps(line) + b"\n" for line in ecs_lines(made, rows, REDACTOR, iter(range(first, first + len(rows))))
    ]


def other(number: int) -> bytes:
    """Return a line of another event."""
    line = ecs_line("cache.back", "info", {}, at=NOW, redactor=REDACTOR, process="deliver", sequence=number)
    return orjson.dumps(line) + b"\n"


def apart(bundles: Sequence[Bundle | bytes]) -> list[Any]:
    """Return the lines of documents, in the order of the file."""
    documents = [orjson.loads(bundle.document()) for bundle in bundles if isinstance(bundle, Bundle)]
    return [line for document in documents for line in reversed(list(unbundled(document)))]


def test_a_window_is_one_document_that_expands_to_the_same_lines() -> None:
    lines = window([f"hh-{number}" for number in range(50)])
    (bundle,) = bundled(lines)
    assert isinstance(bundle, Bundle)
    assert bundle.lines == tuple(lines)
    assert bundle.open
    assert apart([bundle]) == [orjson.loads(line) for line in lines]
    assert len(bundle.document()) < sum(map(len, lines)) / 5


def test_a_bundle_ends_at_a_multiple_of_its_longest() -> None:
    lines = window([f"hh-{number}" for number in range(2 * LONGEST + 10)])
    bundles = [bundle for bundle in bundled(lines) if isinstance(bundle, Bundle)]
    assert [len(bundle.lines) for bundle in bundles] == [LONGEST - 1, LONGEST, 11]
    assert [bundle.open for bundle in bundles] == [False, False, True]
    (full,) = bundled(lines[: LONGEST - 1])
    assert isinstance(full, Bundle)
    assert not full.open, "no further line can belong to it"


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(window(["a"]) + window(["b"], first=3), id="a gap in the numbers"),
        pytest.param(window(["a"]) + window(["b"], first=2, at=NOW + 1), id="another moment"),
        pytest.param([*window(["a"]), other(2)], id="another event"),
        pytest.param(window(["a", 'b"c']), id="what JSON escapes"),
        pytest.param(window(["a", "b\\c"]), id="a backslash"),
    ],
)
def test_different_lines_are_not_bundled(lines: list[bytes]) -> None:
    bundles = list(bundled(lines))
    assert len(bundles) == 2
    assert apart(bundles) == [orjson.loads(line) for line in lines]


@pytest.mark.parametrize("torn", [b'{"@timestamp', b"no json\n", b"[1]\n", b"\n", b'{"message":"x"}\n'])
def test_an_invalid_line_ends_a_bundle(torn: bytes) -> None:
    assert list(bundled([*window(["a"]), torn, *window(["b"], first=2)]))[1] == torn


def test_a_truncated_or_altered_line_is_not_bundled() -> None:
    first, second = window(["a", "b"])
    for wrong in (
        second.replace(b'"user":"b"', b'"user":"b","evil":"x"'),
        second[:-3] + b"\n",
        second[:-1],
        b"\xff" * 9,
    ):
        assert len(list(bundled([first, wrong]))) == 2
    assert isinstance(list(bundled([first, second.replace(b'"user":"b"', b'"user":"\xff"')]))[1], bytes)


users = st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8), min_size=1, max_size=6)
files = st.lists(st.tuples(users, st.integers(0, 2), st.integers(0, 1)), max_size=6)


@settings(deadline=None)
@given(files)
def test_any_lines_round_trip_through_bundles(given: list[tuple[list[str], int, int]]) -> None:
    lines, number = [], LONGEST - 8
    for some, gap, moment in given:
        number += gap
        lines += window(some, number, NOW + moment)
        number += len(some)
    bundles = list(bundled(lines))
    assert apart(bundles) == [orjson.loads(line) for line in lines]
    assert [raw for bundle in bundles if isinstance(bundle, Bundle) for raw in bundle.lines] == lines
    for cut in range(len(lines)):
        before = list(bundled(lines[:cut]))
        whole = before[:-1] if before and isinstance(before[-1], Bundle) and before[-1].open else before
        assert [(batch.document(), batch.lines) for batch in whole if isinstance(batch, Bundle)] == [
            (bundle.document(), bundle.lines) for bundle in bundles[: len(whole)] if isinstance(bundle, Bundle)
        ], "whoever sees fewer lines cuts them alike, but for the last"
