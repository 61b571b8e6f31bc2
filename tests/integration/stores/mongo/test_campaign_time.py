"""Campaign time: one document, which moves only forward."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo.database import Database

from engine.errors import WrongCall
from engine.stores.mongo.campaign_time import CampaignTime, CampaignTimes, StoredClock
from tests.support.store_threads import together

SYSTEM = 1_796_083_200_000


@pytest.fixture
def times(database: Database[dict[str, Any]]) -> CampaignTimes:
    return CampaignTimes(database)


def test_without_a_document_campaign_time_is_system_time(times: CampaignTimes) -> None:
    assert times.read() == CampaignTime(None)


def test_campaign_time_can_be_set_to_any_moment_before_anything_ran(times: CampaignTimes) -> None:
    times.advance(1_000, SYSTEM)
    assert times.read() == CampaignTime(1_000, moved_at=SYSTEM)


def test_campaign_time_moves_forward_and_may_stand_still(times: CampaignTimes) -> None:
    for to in (1_000, 1_000, 2_000):
        times.advance(to, SYSTEM)
    assert times.read().set_at == 2_000


def test_campaign_time_never_goes_back(times: CampaignTimes) -> None:
    times.advance(2_000, SYSTEM)
    with pytest.raises(WrongCall, match=r"only forward: it is 1970-01-01T00:00:02\.000Z, requested .*01\.999Z"):
        times.advance(1_999, SYSTEM)
    assert times.read().set_at == 2_000


def test_campaign_time_cannot_go_back_behind_system_time(
    database: Database[dict[str, Any]], times: CampaignTimes
) -> None:
    database.runs.insert_one({"_id": "r1"})
    with pytest.raises(WrongCall, match="only forward"):
        times.advance(SYSTEM - 1, SYSTEM)
    times.advance(SYSTEM, SYSTEM)
    assert times.read().set_at == SYSTEM


def test_concurrent_advances_leave_the_latest_moment(times: CampaignTimes) -> None:
    def advance(i: int) -> bool:
        try:
            times.advance(1_000 + i, SYSTEM)
        except WrongCall:
            return False
        return True

    done = together(10, advance)
    assert done[9]
    assert times.read().set_at == 1_009


def test_a_clock_read_once_stands_where_campaign_time_stood(times: CampaignTimes) -> None:
    times.advance(1_000, SYSTEM)
    clock = StoredClock(times)
    campaign_now = clock.campaign_clock()
    times.advance(2_000, SYSTEM)
    assert (campaign_now(), clock.campaign_now(), clock.campaign_clock()()) == (1_000, 2_000, 2_000)


def test_a_clock_read_once_follows_the_system(times: CampaignTimes) -> None:
    clock = StoredClock(times)
    campaign_now, before = clock.campaign_clock(), clock.system_now()
    while campaign_now() == before:
        pass
    assert before < campaign_now() <= clock.system_now()
