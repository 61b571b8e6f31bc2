from __future__ import annotations

from typing import Any

import pytest

from engine.catalogue.catalogue import BUILTINS, Catalogue, EventType
from engine.catalogue.fields import Field
from engine.catalogue.value_parsing import parse_value
from engine.catalogue.values import FieldType, Shape, fold, normaliser, successor

TEXT = Shape("s", FieldType.STRING)
WHOLE = Shape("i", FieldType.INTEGER)
NUMBER = Shape("n", FieldType.NUMBER)
MONEY = Shape("d", FieldType.DECIMAL, scale=2)
FLAG = Shape("b", FieldType.BOOLEAN)
TIME = Shape("t", FieldType.TIME)
TAGS = Shape("ss", FieldType.STRING, many=True)
SIZES = Shape("is", FieldType.INTEGER, many=True)


@pytest.mark.parametrize(
    ("shape", "raw", "value"),
    [
        (TEXT, "", ""),
        (TEXT, None, None),
        (WHOLE, "007", 7),
        (WHOLE, "-9223372036854775808", -(2**63)),
        (NUMBER, "1e3", 1000.0),
        (NUMBER, 3, 3.0),
        (NUMBER, "-0.0", 0.0),
        (MONEY, "12.5", 1250),
        (MONEY, 0.1, 10),
        (MONEY, 200, 20_000),
        (MONEY, "-0.01", -1),
        (FLAG, "TRUE", True),
        (FLAG, False, False),
        (TIME, "2026-12-01T08:00+01:00", 1_796_108_400_000),
        (TIME, "1970-01-01", 0),
        (TAGS, "a|b", ["a", "b"]),
        (TAGS, '["a", "b|c"]', ["a", "b|c"]),
        (TAGS, "", None),
        (TAGS, [], None),
        (SIZES, "1|2", [1, 2]),
        (SIZES, (1, 2), [1, 2]),
    ],
)
def test_raw_input_reads_as_its_type(shape: Shape, raw: object, value: object) -> None:
    read = parse_value(shape, raw)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("shape", "raw", "said"),
    [
        (TEXT, 5, 'did you mean "5"?'),
        (TEXT, "x" * 8_001, "at most 8000 are kept"),
        (TEXT, "\ud800", "not valid Unicode"),
        (WHOLE, "", "expected a whole number"),
        (WHOLE, "1,000", "did you mean 1000?"),
        (WHOLE, "1k", "did you mean 1000?"),
        (WHOLE, 1.0, "did you mean 1?"),
        (WHOLE, True, "expected a whole number, got true"),
        (WHOLE, "9223372036854775808", "does not fit into 64 bits"),
        (NUMBER, "nan", "expected a number"),
        (NUMBER, float("inf"), "expected a finite number"),
        (NUMBER, "1e400", "finite"),
        (NUMBER, "9007199254740993", "not exact"),
        (MONEY, "1.005", "more than 2 decimal places"),
        (MONEY, "1e2", "expected an amount such as 12.50"),
        (MONEY, float("nan"), "finite"),
        (MONEY, True, "expected an amount"),
        (FLAG, 1, "did you mean true?"),
        (FLAG, "no", "did you mean false?"),
        (TIME, 1_796_083_200, "expected a time"),
        (TIME, "01/12/2026", "expected a time"),
        (TAGS, 5, "expected an array of string"),
        (TAGS, '["a"', "starts like a JSON array"),
        (TAGS, ["a", None], "null"),
        (TAGS, ["a"] * 1_001, "at most 1000"),
        (SIZES, '["1", true]', "expected a whole number, got true"),
    ],
)
def test_raw_input_of_another_type_is_refused_with_a_remedy(shape: Shape, raw: object, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        parse_value(shape, raw)


@pytest.mark.parametrize(
    ("prefix", "beyond"),
    [("a", "b"), ("az", "a{"), ("", None), ("\U0010ffff", None), ("a\U0010ffff", "b"), ("\ud7ff", "\ue000")],
)
def test_the_successor_of_a_prefix_skips_surrogates_and_the_last_code_point(prefix: str, beyond: str | None) -> None:
    assert successor(prefix) == beyond


def test_folding_ignores_case_and_composition() -> None:
    assert fold("STRASSE") == fold("straße")
    assert fold("CAFÉ") == fold("cafe\u0301")
    assert fold("ΣΊΣΥΦΟΣ") == fold("σίσυφος")
    assert fold(fold("İStanbul")) == fold("İStanbul")


@pytest.mark.parametrize(
    ("shape", "stored", "value"),
    [
        (WHOLE, True, None),
        (WHOLE, 1.0, None),
        (NUMBER, 1, None),
        (NUMBER, float("nan"), None),
        (FLAG, 1, None),
        (TAGS, "a", None),
        (TAGS, [1, "a", None], ("a",)),
        (TAGS, [1], None),
        (TEXT, "", ""),
    ],
)
def test_another_type_than_declared_is_missing(shape: Shape, stored: object, value: object) -> None:
    assert normaliser(shape)(stored) == value


def catalogue(**fields: Field) -> Catalogue:
    return Catalogue("w", "UTC", None, {**BUILTINS, **fields}, {"Order": EventType("Order", {})})


def test_a_row_omits_values_of_another_type() -> None:
    held = catalogue(
        plan=Field("plan", FieldType.STRING, case_ignored=True),
        **{"class": Field("class", FieldType.INTEGER)},
    )
    document: dict[str, Any] = {
        "_id": "w/00000000/u",
        "u": "u",
        "rev": 7,
        "a": {"plan": "Pro", "class": "x"},
        "k": {"plan": "pro"},
        "g": 5,
        "e": {"Order": {"n": 2, "first": 10, "last": 20}},
        "lists": ["vip", 3],
    }
    row: Any = held.row(document)
    assert (row.key, row.rev, row.deleted, row.lists, row.e) == ("w/00000000/u", 7, False, ("vip",), ((2, 10, 20),))
    assert (row.user_id, row.plan, row.class_) == ("u", "pro", None)


def test_a_projection_names_the_requested_fields() -> None:
    held = catalogue(plan=Field("plan", FieldType.STRING))
    assert held.projection(["plan"], []) == {"rev": 1, "deleted": 1, "lists": 1, "a.plan": 1}
    assert held.projection()["e.Order"] == 1


def test_folded_copies_are_made_of_strings_whose_case_is_ignored() -> None:
    held = catalogue(
        plan=Field("plan", FieldType.STRING, case_ignored=True),
        tags=Field("tags", FieldType.STRING, many=True, case_ignored=True),
        age=Field("age", FieldType.STRING),
    )
    assert held.folded({"plan": "Pro", "tags": ["A", "b"], "age": "X", "other": "Y"}) == {
        "plan": "pro",
        "tags": ["a", "b"],
    }
