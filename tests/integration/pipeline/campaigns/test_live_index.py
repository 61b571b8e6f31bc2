"""The index of live campaigns reads campaigns once, then only changed ones; views follow the changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from bson.codec_options import CodecOptions
from pymongo.database import Database
from pymongo.errors import AutoReconnect

from engine.clock import SystemClock
from engine.domain.campaign import CampaignRecord
from engine.domain.lifecycle import CampaignState
from engine.pipeline.campaigns.live_index import MARKS_AGAIN, QUIET, LiveCampaigns
from engine.stores.mongo.campaigns import INDEXES, REVISION_INDEXES, Campaigns

C = CampaignState


class HandClock(SystemClock):
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at


def live(record: CampaignRecord) -> bool:
    return record.state is C.LIVE


def changed(index: LiveCampaigns) -> bool:
    """Return whether a refresh found a change that others must act on."""
    before = index.generation
    index.refresh()
    return index.generation > before


@pytest.fixture
def campaigns(database: Database[dict[str, Any]]) -> Campaigns:
    database = database.with_options(CodecOptions(tz_aware=True))
    database.campaigns.create_indexes(list(INDEXES))
    database.campaign_revisions.create_indexes(list(REVISION_INDEXES))
    stored = Campaigns(database)
    for number in range(3):
        record = CampaignRecord(
            f"c{number}", "shop", f"n{number}", "continuous", C.DRAFT, 1, {"campaign": f"n{number}"}
        )
        stored.apply(record)
        stored.move(record, C.LIVE, pass_as_of=10)
    return stored


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def index(campaigns: Campaigns, clock: HandClock) -> LiveCampaigns:
    made = LiveCampaigns(campaigns, clock)
    assert changed(made)
    return made


def test_the_index_follows_changes_by_others(index: LiveCampaigns, campaigns: Campaigns) -> None:
    before = index.where(live)
    assert set(before) == {"c0", "c1", "c2"}
    campaigns.move(before["c1"], C.PAUSED)
    assert changed(index)
    assert set(index.where(live)) == {"c0", "c2"}
    assert set(before) == {"c0", "c1", "c2"}, "what was given never changes"
    paused = campaigns.get("c1")
    assert paused is not None
    campaigns.move(paused, C.LIVE)
    assert changed(index)
    assert set(index.where(live)) == {"c0", "c1", "c2"}


def test_own_passes_are_known_at_once_and_are_no_change(index: LiveCampaigns, campaigns: Campaigns) -> None:
    generation = index.generation
    campaigns.passed(["c0"], 20, crossed=True)
    index.passed(["c0"], 20, crossed=True)
    known = index.where(live)["c0"]
    assert (known.pass_as_of, known.crossed_to) == (20, 20)
    assert not changed(index)
    assert index.generation == generation


def test_passes_of_another_clock_are_read_within_a_minute(
    index: LiveCampaigns, campaigns: Campaigns, clock: HandClock
) -> None:
    campaigns.passed(["c0", "c1"], 20)
    clock.at = MARKS_AGAIN + 1
    assert not changed(index), "no change that anybody must act on"
    assert {uid: record.pass_as_of for uid, record in index.where(live).items()} == {
        "c0": 20,
        "c1": 20,
        "c2": 10,
    }


def test_a_change_dated_too_early_is_found_too(
    index: LiveCampaigns, campaigns: Campaigns, clock: HandClock, database: Database[dict[str, Any]]
) -> None:
    """A new primary's clock may be behind, so its writes may be dated before what was read already."""
    campaigns.move(index.where(live)["c2"], C.PAUSED)
    database.campaigns.update_one({"_id": "c2"}, [{"$set": {"touched": {"$subtract": ["$touched", 86_400_000]}}}])
    new = CampaignRecord("c3", "shop", "n3", "continuous", C.DRAFT, 1, {"campaign": "n3"})
    campaigns.apply(new)
    database.campaigns.update_one({"_id": "c3"}, [{"$set": {"touched": {"$subtract": ["$touched", 86_400_000]}}}])
    clock.at = QUIET + 1
    assert not changed(index)
    clock.at += MARKS_AGAIN
    index.refresh()
    assert changed(index)
    assert set(index.where(live)) == {"c0", "c1"}
    assert index.where(_draft) == {"c3": replace(new, spec={"campaign": "n3"})}


def test_a_refresh_that_fails_half_way_loses_no_change(
    index: LiveCampaigns, campaigns: Campaigns, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise AutoReconnect("the primary steps down")

    before = index.generation
    campaigns.move(index.where(live)["c1"], C.PAUSED)
    clock.at = MARKS_AGAIN + 1
    with monkeypatch.context() as patched:
        patched.setattr(campaigns, "marks", away)
        with pytest.raises(AutoReconnect):
            index.refresh()
    index.refresh()
    assert index.generation > before, "who builds on the records does so anew"
    assert set(index.where(live)) == {"c0", "c2"}


def _draft(record: CampaignRecord) -> bool:
    return record.state is C.DRAFT
