"""Fixtures of the pages' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.pipeline_world import World
from tests.support.web_pages import Pages


@pytest.fixture
def pages(world: World) -> Iterator[Pages]:
    """Yield the pages of a world; see `tests/support/web_pages.py`."""
    made = Pages(world)
    yield made
    made.close()
