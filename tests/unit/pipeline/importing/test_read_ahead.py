"""Items made ahead keep their order, stay a bounded number in front, and raise their errors in their place."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from engine.pipeline.importing.read_ahead import made_ahead, rarely_collected


def test_items_are_yielded_in_order() -> None:
    with made_ahead(range(1_000)) as items:
        assert list(items) == list(range(1_000))
    nothing: list[int] = []
    with made_ahead(nothing) as none:
        assert list(none) == []


def test_exactly_one_item_is_read_ahead() -> None:
    calls: list[int] = []
    at = threading.Condition()

    def make() -> Iterator[int]:
        for number in range(5):
            with at:
                calls.append(number)
                at.notify_all()
            yield number

    with made_ahead(make()) as items:
        for number in items:
            with at:
                assert at.wait_for(lambda n=number: len(calls) >= min(n + 2, 5), timeout=30)  # type: ignore[misc]
                assert len(calls) <= number + 2


def test_an_error_is_raised_after_the_items_before_it() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise ValueError("the second")

    taken: list[int] = []
    with pytest.raises(ValueError, match="the second"), made_ahead(make()) as items:
        taken.extend(items)
    assert taken == [1]


def test_an_abandoned_iteration_leaves_no_thread() -> None:
    before = threading.active_count()
    with made_ahead(iter(range(1_000_000))) as items:
        assert next(items) == 0
    assert threading.active_count() == before


def test_garbage_collection_is_restored_after_the_import() -> None:
    before = gc.get_threshold()
    with rarely_collected():
        assert gc.isenabled()
        assert gc.get_threshold()[0] > before[0]
    assert gc.get_threshold() == before
