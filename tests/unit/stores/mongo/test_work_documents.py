"""Enrolments and slices as MongoDB documents: they read back as written, and absent values are not stored as null."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from engine.domain.enrolment import Enrolment, Outgoing, Settled
from engine.domain.lifecycle import DeliveryState, ExitReason, SkipReason, SliceState
from engine.domain.work import Slice, SliceKind
from engine.stores.mongo.work_documents import (
    enrolment_document,
    outgoing_document,
    read_enrolment,
    read_outgoing,
    read_slice,
    settled_document,
    slice_document,
    without_none,
)
from tests.support.decision_cases import DAY, NOW, enrolment

FULL = replace(
    enrolment(settled=[("one", NOW - DAY)], holdout=True, converted_at=NOW, entry=3),
    outgoing=Outgoing("two", DeliveryState.QUEUED, NOW, NOW + 5, slice="s1"),
    due_at=NOW + 9,
)
STAYS = {
    "new": enrolment(),
    "full": FULL,
    "ended": replace(enrolment(ended=(ExitReason.FAILED, NOW)), detail="poison"),
    "skipped": replace(enrolment(), settled=(Settled("one", DeliveryState.SKIPPED, NOW, SkipReason.EXITED.value, 2),)),
}


@pytest.mark.parametrize("kind", sorted(STAYS))
def test_an_enrolment_round_trips_through_its_document(kind: str) -> None:
    person: Enrolment = STAYS[kind]
    read = read_enrolment(enrolment_document(person))
    assert replace(read, settled_at=person.settled_at) == person


@pytest.mark.parametrize("kind", sorted(STAYS))
def test_no_field_of_a_document_is_null(kind: str) -> None:
    document = enrolment_document(STAYS[kind])
    assert None not in document.values()
    assert None not in document.get("outgoing", {}).values()
    assert all(None not in row.values() for row in document["settled"])


def test_states_and_reasons_are_plain_texts() -> None:
    document = enrolment_document(STAYS["ended"])
    assert (type(document["state"]), document["reason"], document["detail"]) == (str, "failed", "poison")


def test_idle_since_is_stored_for_its_index_unless_a_delivery_is_unsettled() -> None:
    assert FULL.outgoing
    assert "idle_since" not in enrolment_document(FULL)
    idle = replace(FULL, outgoing=None)
    assert enrolment_document(idle)["idle_since"] == idle.idle_since


def test_dates_are_read_as_instants_with_or_without_their_zone() -> None:
    raw = outgoing_document(Outgoing("one", DeliveryState.QUEUED, NOW, NOW)) | {"state": "attempting", "token": "t"}
    for zone in (None, UTC):
        assert read_outgoing(raw | {"retry_at": datetime(1970, 1, 3, tzinfo=zone)}).retry_at == 2 * DAY


def test_a_settled_delivery_without_attempts_omits_the_field() -> None:
    assert settled_document(Settled("one", DeliveryState.SKIPPED, NOW, "holdout")) == {
        "message": "one",
        "state": "skipped",
        "at": NOW,
        "reason": "holdout",
    }


def test_a_slice_round_trips_through_its_document() -> None:
    slice_ = Slice("r/0001", "r", "shop", "c1", SliceKind.DUE, NOW, "00", "g", cursor="7f/x", attempt=2, suspect=True)
    assert read_slice(slice_document(slice_)) == slice_
    bare = Slice(
        "d/1", None, "shop", "c1", SliceKind.DELIVER, NOW, "00", "g", state=SliceState.DONE, results={"sent": 3}
    )
    assert read_slice(slice_document(bare)) == bare


def test_a_slice_under_a_lease_names_its_token() -> None:
    slice_ = Slice("r/0001", "r", "shop", "c1", SliceKind.CANDIDATES, NOW, "00", "g")
    assert read_slice(slice_document(slice_) | {"lease": {"token": "t"}}).token == "t"
    assert read_slice(slice_document(slice_) | {"lease": None}).token is None


def test_none_is_omitted_and_other_false_values_are_kept() -> None:
    assert without_none({"a": None, "b": 0, "c": False, "d": "", "e": []}) == {"b": 0, "c": False, "d": "", "e": []}
