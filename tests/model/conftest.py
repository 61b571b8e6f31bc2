"""Fixtures of the model's tests: a database in memory instead of a real one."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.model.memory_mongo import MemoryDatabase


@pytest.fixture
def database() -> MemoryDatabase:
    """Return an empty database in memory, on the machine's clock."""
    return MemoryDatabase("memory", lambda: datetime.now(UTC))
