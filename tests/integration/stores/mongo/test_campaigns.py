"""Campaigns on MongoDB: revisions one after another, states by compare-and-set."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo.database import Database

from engine.domain.campaign import CampaignRecord, Slowness
from engine.domain.lifecycle import CampaignState
from engine.domain.stuck import Stuck, StuckBy
from engine.errors import IllegalTransition
from engine.stores.mongo.campaigns import INDEXES, REVISION_INDEXES, Campaigns, upgrade
from tests.support.store_threads import together

SLOW = Slowness(since=9, batches=3, p50=0.002, p95=0.01, limit=0.001, query="users.scan")
C = CampaignState
DRAFT = CampaignRecord("uid1", "shop", "hello", "continuous", C.DRAFT, 1, {"campaign": "hello"}, ends_at=9)


@pytest.fixture
def campaigns(database: Database[dict[str, Any]]) -> Campaigns:
    database.campaigns.create_indexes(list(INDEXES))
    database.campaign_revisions.create_indexes(list(REVISION_INDEXES))
    return Campaigns(database)


@pytest.fixture
def draft(campaigns: Campaigns) -> CampaignRecord:
    assert campaigns.apply(DRAFT)
    return DRAFT


def test_a_campaign_is_read_back_as_it_was_applied(campaigns: Campaigns, draft: CampaignRecord) -> None:
    assert campaigns.get("uid1") == draft
    assert campaigns.state_of("uid1") == (C.DRAFT, 1, 0)
    assert campaigns.get("other") is None
    assert campaigns.state_of("other") is None


def test_a_campaign_name_is_unique_in_a_workspace(campaigns: Campaigns, draft: CampaignRecord) -> None:
    assert not campaigns.apply(replace(draft, uid="uid2"))
    assert campaigns.apply(replace(draft, uid="uid2", workspace="other"))
    assert [record.uid for record in campaigns.named("hello", "shop")] == ["uid1"]
    assert {record.uid for record in campaigns.named("hello")} == {"uid1", "uid2"}
    assert campaigns.named("bye") == []


def test_concurrent_first_applies_create_one_campaign(campaigns: Campaigns) -> None:
    assert sum(together(8, lambda i: campaigns.apply(replace(DRAFT, uid=f"uid{i}")))) == 1


def test_a_revision_follows_only_the_previous_one(campaigns: Campaigns, draft: CampaignRecord) -> None:
    second = replace(draft, revision=2, spec={"campaign": "hello", "v": 2}, ends_at=None, renamed={"b": ["a"]})
    assert not campaigns.apply(replace(second, revision=3))
    assert campaigns.apply(second)
    assert not campaigns.apply(second)
    assert campaigns.get("uid1") == second


def test_concurrent_edits_create_one_next_revision(campaigns: Campaigns, draft: CampaignRecord) -> None:
    assert sum(together(8, lambda i: campaigns.apply(replace(draft, revision=2, spec={"v": i})))) == 1


def test_every_revision_is_kept(campaigns: Campaigns, draft: CampaignRecord) -> None:
    campaigns.apply(replace(draft, revision=2, spec={"v": 2}))
    assert campaigns.revisions("uid1") == [(1, {"campaign": "hello"}), (2, {"v": 2})]


def test_an_edit_keeps_the_state(campaigns: Campaigns, draft: CampaignRecord) -> None:
    campaigns.move(draft, C.LIVE, launched_at=5)
    assert not campaigns.apply(replace(draft, revision=2)), "it was judged as a draft, and is live"
    assert campaigns.apply(replace(draft, state=C.LIVE, revision=2))
    stored = campaigns.get("uid1")
    assert stored is not None
    assert (stored.state, stored.launched_at, stored.revision) == (C.LIVE, 5, 2)


def test_an_edit_of_a_draft_may_change_its_kind(campaigns: Campaigns, draft: CampaignRecord) -> None:
    assert campaigns.apply(replace(draft, revision=2, kind="one_off"))
    assert [record.kind for record in campaigns.named("hello")] == ["one_off"]


def test_an_edit_requests_its_evaluation_in_the_same_write_under_a_new_number(
    campaigns: Campaigns, draft: CampaignRecord
) -> None:
    campaigns.move(draft, C.LIVE)
    live = replace(draft, state=C.LIVE)
    assert campaigns.apply(replace(live, revision=2, evaluation_wanted=1), evaluate=True)
    assert campaigns.state_of("uid1") == (C.LIVE, 2, 1)
    assert not campaigns.apply(replace(live, revision=3, evaluation_wanted=1), evaluate=True)
    assert campaigns.apply(replace(live, revision=3, evaluation_wanted=2), evaluate=True)


def test_an_exact_transition_fails_after_a_concurrent_command(campaigns: Campaigns, draft: CampaignRecord) -> None:
    campaigns.move(draft, C.LIVE)
    live = replace(draft, state=C.LIVE)
    campaigns.apply(replace(live, revision=2, evaluation_wanted=1), evaluate=True)
    assert not campaigns.move(live, C.FINISHED, exactly=True)
    assert campaigns.move(replace(live, evaluation_wanted=1), C.FINISHED, exactly=True)


def test_an_evaluation_is_owed_until_it_covers_everybody(campaigns: Campaigns, draft: CampaignRecord) -> None:
    def owed() -> tuple[bool, bool]:
        (record,) = campaigns.named("hello")
        return record.enrolled_owed, record.intake_owed

    campaigns.move(draft, C.LIVE)
    assert owed() == (False, False)
    campaigns.apply(replace(draft, state=C.LIVE, revision=2, evaluation_wanted=1), evaluate=True)
    assert owed() == (True, True)
    campaigns.evaluated("uid1", 1, enrolled=True, intake=False, left=False)
    assert owed() == (False, True)
    campaigns.evaluated("uid1", 1, enrolled=False, intake=True, left=False)
    assert owed() == (False, False)
    campaigns.evaluated("uid1", 0, enrolled=True, intake=True, left=True)
    assert owed() == (False, False), "what is done never goes back"


def test_a_cancel_by_an_older_engine_is_carried_out(campaigns: Campaigns, database: Database[dict[str, Any]]) -> None:
    campaigns.apply(DRAFT)
    database.campaigns.update_one({"_id": "uid1"}, {"$set": {"state": "cancelled", "pass_as_of": -1}})
    assert [upgrade(database), upgrade(database)] == [1, 0]
    (record,) = campaigns.named("hello")
    assert record.enrolled_owed
    assert record.pass_as_of == 0


def test_a_state_changes_once_from_the_state_read(campaigns: Campaigns, draft: CampaignRecord) -> None:
    assert sum(together(8, lambda _: campaigns.move(draft, C.SCHEDULED))) == 1
    assert not campaigns.move(draft, C.LIVE)
    assert campaigns.state_of("uid1") == (C.SCHEDULED, 1, 0)


def test_a_concurrent_pause_and_cancel_leave_one_of_them(campaigns: Campaigns, draft: CampaignRecord) -> None:
    campaigns.move(draft, C.LIVE)
    live = replace(draft, state=C.LIVE)
    ways = [C.PAUSED, C.CANCELLED, C.DRAINING]
    moved = together(9, lambda i: campaigns.move(live, ways[i % 3]))
    assert sum(moved) == 1
    assert campaigns.state_of("uid1") == (ways[moved.index(True) % 3], 1, 0)


def test_a_transition_outside_the_table_is_refused(campaigns: Campaigns, draft: CampaignRecord) -> None:
    with pytest.raises(IllegalTransition, match="draft does not lead to paused"):
        campaigns.move(draft, C.PAUSED)


def test_a_transition_sets_and_removes_fields(campaigns: Campaigns, draft: CampaignRecord) -> None:
    campaigns.move(draft, C.LIVE)
    live = replace(draft, state=C.LIVE)
    campaigns.move(live, C.PAUSED, resume_to="live")
    paused = campaigns.get("uid1")
    assert paused is not None
    assert paused.resume_to is C.LIVE
    campaigns.move(paused, C.LIVE, resume_to=None, resumed_at=7)
    stored = campaigns.get("uid1")
    assert stored is not None
    assert (stored.resume_to, stored.resumed_at) == (None, 7)


def test_the_last_pass_never_goes_back(campaigns: Campaigns, draft: CampaignRecord) -> None:
    for as_of in (5, 9, 7):
        campaigns.passed(["uid1"], as_of)
    stored = campaigns.get("uid1")
    assert stored is not None
    assert stored.pass_as_of == 9


def test_marks_are_set_and_removed(campaigns: Campaigns, draft: CampaignRecord) -> None:
    campaigns.set_stuck("uid1", StuckBy.SLICE, "a slice is dead")
    assert campaigns.set_slowed("uid1", slowed=True, verdict=SLOW)
    assert not campaigns.set_slowed("uid1", slowed=True, verdict=SLOW), "another process came first"
    marked = campaigns.get("uid1")
    assert marked is not None
    assert (marked.stuck, marked.slowed) == ("a slice is dead", True)
    campaigns.set_stuck("uid1", StuckBy.SLICE, None)
    assert campaigns.set_slowed("uid1", slowed=False, verdict=SLOW)
    assert campaigns.get("uid1") == replace(draft, slowness=SLOW)


def test_batch_times_of_all_processes_are_kept_up_to_a_number_and_dropped_by_a_verdict(
    campaigns: Campaigns, draft: CampaignRecord
) -> None:
    touched = campaigns.touched_since(datetime(2020, 1, 1, tzinfo=UTC))[1]
    assert campaigns.measured("uid1", [1.0, 2.0], 3) == [1.0, 2.0]
    assert campaigns.measured("uid1", [3.0, 4.0], 3) == [2.0, 3.0, 4.0]
    assert campaigns.touched_since(datetime(2020, 1, 1, tzinfo=UTC))[1] == touched, "no process reads it again"
    campaigns.set_slowed("uid1", slowed=True, verdict=SLOW)
    assert campaigns.measured("uid1", [5.0], 3) == [5.0]
    assert campaigns.measured("nobody", [5.0], 3) == []


def test_each_obstacle_keeps_its_own_mark_and_start_time(campaigns: Campaigns, draft: CampaignRecord) -> None:
    campaigns.set_stuck("uid1", StuckBy.SENDER, "553 to MAIL")
    since = _known(campaigns).stuck_by[StuckBy.SENDER].since
    campaigns.set_stuck("uid1", StuckBy.RUN, "run 1 cannot be planned")
    campaigns.set_stuck("uid1", StuckBy.SENDER, "550 to MAIL")
    marked = _known(campaigns)
    assert marked.stuck_by[StuckBy.SENDER] == Stuck("550 to MAIL", since)
    assert set((marked.stuck or "").split("; ")) == {"550 to MAIL", "run 1 cannot be planned"}
    campaigns.set_stuck("uid1", StuckBy.RUN, None)
    assert _known(campaigns).stuck == "550 to MAIL"


def test_a_repeated_reason_writes_nothing(campaigns: Campaigns, draft: CampaignRecord) -> None:
    campaigns.set_stuck("uid1", StuckBy.RUN, "why")
    touched = campaigns.touched_since(datetime(2020, 1, 1, tzinfo=UTC))[1]
    campaigns.set_stuck("uid1", StuckBy.RUN, "why")
    campaigns.set_stuck("uid1", StuckBy.SENDER, None)
    assert campaigns.touched_since(datetime(2020, 1, 1, tzinfo=UTC))[1] == touched


def test_a_mark_of_an_older_version_is_read_and_removed(
    campaigns: Campaigns, draft: CampaignRecord, database: Database[dict[str, Any]]
) -> None:
    database["campaigns"].update_one({"_id": "uid1"}, {"$set": {"stuck": "a slice is dead"}})
    assert _known(campaigns).stuck == "a slice is dead"
    campaigns.set_stuck("uid1", StuckBy.SLICE, None)
    assert _known(campaigns) == draft


def test_the_reason_of_a_pause_is_removed_with_it(campaigns: Campaigns, draft: CampaignRecord) -> None:
    campaigns.move(draft, C.SCHEDULED)
    campaigns.move(replace(draft, state=C.SCHEDULED), C.LIVE)
    live = replace(draft, state=C.LIVE)
    campaigns.move(live, C.PAUSED, resume_to="live", paused_reason="by hand")
    assert _known(campaigns).paused_reason == "by hand"
    campaigns.move(_known(campaigns), C.LIVE, resume_to=None)
    assert _known(campaigns).paused_reason is None


def _known(campaigns: Campaigns) -> CampaignRecord:
    stored = campaigns.get("uid1")
    assert stored is not None
    return stored


def test_campaigns_are_listed_by_state_without_files_and_all_by_name(campaigns: Campaigns) -> None:
    for uid, name in (("u1", "b"), ("u2", "a"), ("u3", "c")):
        campaigns.apply(replace(DRAFT, uid=uid, name=name))
    campaigns.move(replace(DRAFT, uid="u2"), C.LIVE)
    records = campaigns.in_states([C.LIVE, C.PAUSED])
    assert [(record.uid, record.spec) for record in records] == [("u2", None)]
    assert [record.name for record in campaigns.everything()] == ["a", "b", "c"]
