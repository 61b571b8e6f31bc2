"""The generated table reader reads each cell as the single-value reader does, the first time and every further time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.catalogue.workspace_file import read_workspace
from engine.domain.keys import user_key
from engine.pipeline.importing.columns import Layout, RowFaultError, identifier
from engine.pipeline.importing.row_codegen import MOST_REMEMBERED, PLAIN_ID, putter
from engine.pipeline.importing.rows import UserRows

SHOP = read_workspace(Path(__file__).parents[3] / "integration" / "pipeline" / "importing" / "shop.yaml")
NAMES = [
    "email",
    "timezone",
    "unsubscribed",
    "created_at",
    "age",
    "score",
    "spent",
    "vip",
    "joined",
    "plan",
    "tags",
    "note",
]
TEXTS = st.text(max_size=12) | st.sampled_from(
    [
        "",
        "7",
        "7.0",
        "Ann@Shop.EXAMPLE",
        "ann@shop.example",
        "info@faß.de",
        "1.25",
        "true",
        "Gold",
        "GOLD",
        "a|b",
        "[]",
        '["x"]',
        "2026-12-01",
        "Europe/Berlin",
        "x" * 8_001,
        "\0",
    ]
)
CELLS = TEXTS | st.none() | st.integers() | st.booleans() | st.floats() | st.lists(st.text(max_size=3), max_size=2)


def one_by_one(cells: list[Any]) -> dict[str, Any] | str:
    """Return the fields of a row, each read as a single value, or the fault of the first wrong one."""
    fields: dict[str, Any] = {}
    try:
        for name, raw in zip(NAMES, cells, strict=True):
            if raw is not None and raw != "":
                putter(SHOP.fields[name], Layout(), [])(fields, SHOP.fields[name], raw)
    except RowFaultError as error:
        return str(error)
    return fields


def read(rows: UserRows, cells: list[Any]) -> dict[str, Any] | str:
    try:
        return dict(rows.read(["u", *cells]).fields)
    except RowFaultError as error:
        return str(error)


@given(st.lists(st.tuples(*[CELLS for _ in NAMES]), min_size=1, max_size=4))
def test_generated_row_readers_agree_with_reading_each_value(table: list[tuple[Any, ...]]) -> None:
    rows = UserRows(SHOP, ["user_id", *NAMES], Layout())
    for cells in [*table, *table]:
        expected = one_by_one(list(cells))
        generated = read(rows, list(cells))
        assert repr(generated) == repr(expected)


def test_columns_of_many_and_few_distinct_values_are_read_alike() -> None:
    rows = UserRows(SHOP, ["user_id", "age", "plan"], Layout())
    for number in [*range(MOST_REMEMBERED + 50), *range(MOST_REMEMBERED + 50)]:
        change = rows.read(["u", str(number), f"Plan-{number}"])
        assert change.fields == {"a.age": number, "a.plan": f"Plan-{number}", "k.plan": f"plan-{number}"}


@given(st.text(max_size=20) | st.text("ab -_~\x7f\n", max_size=8) | st.sampled_from(["a" * 500, "a" * 501, "é" * 251]))
def test_a_plain_id_is_taken_unchanged(text: str) -> None:
    if PLAIN_ID(text):
        assert identifier(text, "user_id") == text
    elif text.isascii() and text.isprintable():
        with pytest.raises(RowFaultError):
            identifier(text, "user_id")


def test_other_ids_are_read_or_refused() -> None:
    rows = UserRows(SHOP, ["user_id"], Layout())
    assert rows.read(["ü 1"]).key == user_key("shop", "ü 1")
    assert rows.read([7]).key == user_key("shop", "7")
    for wrong in ("", None, " a", "a\n", "a" * 501, 1.5):
        with pytest.raises(RowFaultError, match="user_id"):
            rows.read([wrong])
