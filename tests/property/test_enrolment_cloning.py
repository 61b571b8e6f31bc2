"""Copies of an enrolment are, byte for byte, the documents that each enrolment would have had by itself."""

from __future__ import annotations

from dataclasses import replace

import bson
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.enrolment import Enrolment, Outgoing, Settled
from engine.domain.keys import enrolment_id, user_suffix
from engine.domain.lifecycle import DeliveryState, EnrolmentState, ExitReason
from engine.stores.mongo.enrolment_cloning import Copies
from engine.stores.mongo.work_documents import enrolment_document

INSTANTS = st.integers(0, 1 << 42)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=12)
USERS = st.lists(st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable()), min_size=1, max_size=8)
OUTGOING = st.builds(Outgoing, NAMES, st.just(DeliveryState.QUEUED), INSTANTS, INSTANTS, slice=st.none() | NAMES)
SETTLED = st.builds(Settled, NAMES, st.just(DeliveryState.SKIPPED), INSTANTS, st.none() | NAMES)
MODELS = st.builds(
    Enrolment,
    id=st.just(""),
    workspace=NAMES,
    campaign=NAMES,
    user=st.just(""),
    entry=st.integers(1, 9_999),
    state=st.sampled_from(EnrolmentState),
    entered_at=INSTANTS,
    revision=st.integers(1, 1 << 31),
    version=st.integers(1, 9),
    settled_at=st.none() | INSTANTS,
    ended_at=st.none() | INSTANTS,
    reason=st.none() | st.sampled_from(ExitReason),
    detail=st.none() | NAMES,
    due_at=st.none() | INSTANTS,
    holdout=st.booleans(),
    outgoing=st.none() | OUTGOING,
    settled=st.lists(SETTLED, max_size=2).map(tuple),
)


@given(MODELS, USERS)
def test_a_copy_has_the_bytes_of_the_document(model: Enrolment, names: list[str]) -> None:
    enrolments = []
    for name in names:
        suffix = user_suffix(name)
        key = enrolment_id(model.workspace, model.campaign, suffix, model.entry)
        enrolments.append(replace(model, id=key, user=f"{model.workspace}/{suffix}"))
    copies = Copies(model).of((enrolment.id, enrolment.user) for enrolment in enrolments)
    assert [copy.raw for copy in copies] == [bson.encode(enrolment_document(enrolment)) for enrolment in enrolments]
