"""Describe a failure in one sentence: actionable, and without a user's data."""

from __future__ import annotations

import pytest
from pymongo.errors import BulkWriteError, OperationFailure

from engine.errors import BrokenFile, Fault, InvalidSource, Mark, NotFound, OperatorError, ProgrammerError
from engine.failure_text import LONGEST, is_about_data, reason_of

PLACE = Mark("campaign c", 1, 1)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as one:
        return one


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotFound("workspace shop has no file", remedy="add it"), "workspace shop has no file; add it"),
        (InvalidSource([Fault(PLACE, "audience", "no field plan")]), "audience: no field plan"),
        (
            InvalidSource([Fault(PLACE, f"m[{i}]", "no") for i in range(5)]),
            "m[0]: no; m[1]: no; m[2]: no (and 2 more)",
        ),
        (BrokenFile([Fault(Mark("shop.yaml", 2, 9), "age", "no type")]), "shop.yaml:2:9: age: no type"),
        (OSError(28, "No space left on device", "/var/mail"), "No space left on device: /var/mail"),
        (OperationFailure("not authorized: secret@example.org", 13), "OperationFailure 13"),
        (ValueError("secret@example.org"), "ValueError"),
    ],
)
def test_a_reason_names_what_to_mend_and_no_data(error: Exception, expected: str) -> None:
    assert reason_of(error) == expected


def test_an_unexpected_error_names_its_place_and_a_long_reason_is_cut() -> None:
    assert reason_of(raised(KeyError("secret"))).startswith("KeyError at test_failure_text.py:")
    assert len(reason_of(OperatorError("x" * 2_000))) == LONGEST


@pytest.mark.parametrize(
    ("error", "blamed"),
    [
        (ValueError(), True),
        (ProgrammerError("odd"), True),
        (BulkWriteError({}), True),
        (OperatorError("full"), False),
        (OSError(28, "full"), False),
        (OperationFailure("no right", 13), False),
    ],
)
def test_only_errors_that_user_data_can_cause_are_blamed_on_it(error: Exception, blamed: bool) -> None:
    assert is_about_data(error) is blamed
