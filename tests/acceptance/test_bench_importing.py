"""The bench of imports measures what it claims: every row ends as its way promises, and the table shows medians."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from bench.importing import compare, open_app, table, write_files
from bench.measure import Measured, Rounds
from engine.app.app import App


@pytest.fixture
def app(database: Database[dict[str, Any]], services: Any, tmp_path: Path) -> Iterator[App]:
    addresses = {
        "services.mongo_url": services.mongo_url,
        "services.broker_url": services.broker_url,
        "services.mongo_database": database.name,
    }
    made = open_app(addresses, tmp_path)
    yield made
    made.close()


def test_every_row_of_every_way_ends_with_the_stated_outcome(app: App, tmp_path: Path) -> None:
    results = compare(app, write_files(tmp_path, 300), rounds=1)
    assert [result.passes[0].matched for result in results] == [300] * 5
    assert all(result.passes[0].mongod_cpu >= 0 and result.rate() > 0 for result in results)


def test_the_files_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first, other = tmp_path / "one", tmp_path / "other"
    for folder in (first, other):
        folder.mkdir()
        write_files(folder, 50)
    assert {path.name: path.read_bytes() for path in first.iterdir()} == {
        path.name: path.read_bytes() for path in other.iterdir()
    }


def test_the_table_shows_medians() -> None:
    rounds = Rounds("new users", [Measured(4_300, 4_300, seconds, 0.043, 0.086, 9, 0) for seconds in (0.1, 0.2, 0.4)])
    assert table([rounds]).splitlines()[-1] == "| new users | 4,300 | 21,500 (10,750 to 43,000) | 10.0 µs, 20.0 µs |"
