"""What other processes, older documents and people's files name stays as it is: renaming code renames nothing there."""

from __future__ import annotations

from tests.unit.wire_names import FILE, text

REWRITE = ".venv/bin/python -m tests.unit.wire_names"


def test_wire_names_are_unchanged() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), f"a name was added on purpose? write them anew: {REWRITE}"
