"""A million rows in constant memory."""

from __future__ import annotations

import sys
from typing import Any

import pytest

ROWS = 1_000_000
MOST_MIB = 300


@pytest.mark.long(seconds=60)
@pytest.mark.timeout(900)  # a minute alone, more with other tests beside it
def test_a_csv_file_of_a_million_rows_is_imported_in_less_than_300_mib(importer: Any, program: Any) -> None:
    path = importer.folder / "users.csv"
    with path.open("w") as file:
        file.write("user_id,email,age,plan\n")
        for first in range(0, ROWS, 10_000):
            file.write("".join(f"user-{n},u{n}@example.org,{n % 90},Gold\n" for n in range(first, first + 10_000)))
    result = program.run_alone(importer, "users", path)
    sys.stdout.write(f"peak {result['mib']:.0f} MiB, {result['rate']:.0f} rows/s\n")
    assert result["created"] == ROWS
    assert result["rows"] == ROWS
    assert result["mib"] < MOST_MIB
    estimate = importer.users.estimate("shop")
    assert 0.9 * ROWS < estimate < 1.1 * ROWS
