"""The feed passes each change on once, to the cache, the index and re-evaluation requests, despite outages."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from engine.domain.keys import user_key
from engine.domain.looks import EVERYTHING
from engine.pipeline.evaluation import recheck_users
from engine.pipeline.feed import change_feed
from engine.stores.mongo.change_stream import names
from tests.support.pipeline_world import START, World

DAY = 86_400_000
TWO = [{"name": "one"}, {"name": "two", "wait": "7d"}]
GOLD = {"campaign": "gold", "audience": {"plan": "gold"}}


def requests(world: World) -> dict[str, set[str]]:
    """Return the re-evaluation requests: user id to changed names."""
    return {raw["_id"].rsplit("/", 1)[1]: set(raw["names"]) for raw in world.database["looks"].find()}


def test_a_change_requests_re_evaluation_only_if_a_live_campaign_names_the_field(world: World) -> None:
    world.users(["a", "b", "c"], plan="free")
    world.event("c", "Seen", at=START - 1)
    world.start(GOLD)
    world.change("a", plan="gold")
    world.change("b", note="nobody names this")
    world.event("c", "Seen")
    world.feed()
    assert requests(world) == {"a": {"plan"}}
    world.settle()
    assert requests(world) == {}
    assert world.sent() == [("a", "one")]


def test_a_new_user_concerns_every_campaign_of_the_workspace_and_no_other(world: World) -> None:
    world.start(GOLD)
    world.user("here", plan="gold")
    world.user("there", workspace="other", plan="gold")
    world.feed()
    assert requests(world) == {"here": {EVERYTHING}}
    world.settle()
    assert world.sent() == [("here", "one")]


def test_a_paused_campaign_gets_no_requests_and_evaluates_everybody_at_the_resume(world: World) -> None:
    world.user("a", plan="free")
    world.start(GOLD)
    world.steer("pause", "gold")
    world.change("a", plan="gold")
    world.feed()
    assert requests(world) == {}
    world.steer("resume", "gold")
    world.settle()
    assert world.sent() == [("a", "one")]


@pytest.mark.parametrize("point", ["refresh", "add", "save"])
def test_a_feed_killed_anywhere_in_a_batch_repeats_it(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    world.user("a", plan="free")
    world.start(GOLD)
    world.change("a", plan="gold")
    owner = {"refresh": world.app.stores.users, "add": world.app.stores.looks, "save": world.app.stores.feeds}[point]
    method = {"refresh": "read_keys", "add": "add", "save": "save"}[point]

    class DiedError(Exception):
        """The process is gone."""

    def die(*_: object) -> None:
        raise DiedError

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, die)
        with pytest.raises(DiedError):
            world.feed()
    world.app.change_feed.close()
    world.settle()
    assert world.sent() == [("a", "one")]
    assert len(world.enrolments("gold")) == 1


def test_a_lost_resume_token_is_reported_and_everybody_is_evaluated(world: World) -> None:
    world.users(["a", "b"], plan="free")
    world.start(GOLD)
    before = world.app.stores.feeds.read().generation
    world.app.change_feed.close()
    for user in ("a", "b"):
        world.change(user, plan="gold")
    world.database["feeds"].update_one({}, {"$set": {"token": "82FFFFFFFF00000001"}})
    world.settle()
    assert world.app.stores.feeds.read().generation == before + 1
    assert world.sent() == [("a", "one"), ("b", "one")]


@pytest.mark.parametrize("in_ranges", [False, True])
def test_an_event_that_campaign_time_has_not_reached_is_not_decided_on(
    world: World, monkeypatch: pytest.MonkeyPatch, in_ranges: bool
) -> None:
    world.user("a")
    world.event("a", "Order Completed", at=START - 30 * DAY, value=100)
    world.start({"campaign": "lapsed", "audience": {"last_order_at": {"older_than": "14d"}}, "messages": TWO})
    world.settle()
    monkeypatch.setattr(change_feed, "BACKLOG", -1 if in_ranges else 1_000)
    world.event("a", "Order Completed", at=START + DAY // 2, value=100)
    world.settle()  # nothing is open
    assert world.enrolment("lapsed", "a").active
    assert set(requests(world)) == {"a"}
    assert world.database["dirty_ranges"].count_documents({}) == 0
    world.after("1d")
    enrolment = world.enrolment("lapsed", "a")
    assert (str(enrolment.reason), enrolment.ended_at) == ("unmatched", START + DAY)
    assert requests(world) == {}


def test_an_event_dated_years_ahead_does_not_block_its_user(world: World) -> None:
    world.user("a", plan="free")
    world.start(GOLD)
    world.database["settings"].delete_one({"_id": "campaign_time"})
    world.event("a", "Seen", at=world.app.system.system_now() + 400 * DAY)
    world.change("a", plan="gold")
    world.feed()
    world.app.rechecker.run()
    assert [enrolment.user for enrolment in world.enrolments("gold")] == [user_key("shop", "a")]


def test_a_burst_collapses_into_dirty_ranges_and_misses_no_user(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [f"u{number}" for number in range(40)]
    world.users(users, plan="free")
    world.start(GOLD)
    monkeypatch.setattr(change_feed, "BACKLOG", 5)
    monkeypatch.setattr(change_feed, "MOST", 10)
    monkeypatch.setattr(recheck_users, "AT_ONCE", 7)
    for user in users:
        world.change(user, plan="gold")
    world.feed()
    assert world.database["dirty_ranges"].count_documents({}) > 0
    assert world.database["looks"].count_documents({}) <= 20
    world.settle()
    assert world.sent() == sorted((user, "one") for user in users)
    assert world.database["dirty_ranges"].count_documents({}) == 0


def test_a_user_whose_row_raises_is_evaluated_alone_and_blocks_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.users(["bad", "good"], plan="free")
    world.start(GOLD)
    for user in ("bad", "good"):
        world.change(user, plan="gold")
    evaluate = world.app.evaluator.evaluate

    def raising(campaign: Any, profile: Any, them: Any, as_of: int, **more: Any) -> Any:
        if any(evaluation.row is not None and evaluation.row.key == user_key("shop", "bad") for evaluation in them):
            raise ValueError("a row that nobody expected")
        return evaluate(campaign, profile, them, as_of, **more)

    monkeypatch.setattr(world.app.evaluator, "evaluate", raising)
    world.feed()
    world.app.rechecker.run()
    assert [enrolment.user for enrolment in world.enrolments("gold")] == [user_key("shop", "good")]
    assert list(requests(world)) == ["bad"], "it waits, and is tried again"


def test_a_request_whose_workers_keep_dying_becomes_a_suspect_slice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recheck_users, "EXPIRE_EVERY", 0.0)
    world.user("a", plan="free")
    world.start(GOLD)
    world.change("a", plan="gold")
    world.feed()
    for _ in range(3):
        assert world.app.stores.looks.take(10, timedelta(0), world.now)
        while not world.app.stores.looks.expire():
            pass  # until MongoDB's clock has advanced by a millisecond
    assert world.app.stores.looks.take(10, timedelta(0), world.now) == []
    assert world.app.rechecker.suspects() == 1
    (slice_,) = world.database["slices"].find({"state": "open"})
    assert (slice_["kind"], slice_["suspect"], slice_["until"]) == ("everybody", True, slice_["first"] + "\0")
    world.settle()
    assert world.sent() == [("a", "one")]


def test_a_change_event_names_the_changed_fields() -> None:
    def update(*updated: str, removed: list[str] | None = None) -> dict[str, Any]:
        return {"operationType": "update", "updated": list(updated), "removed": removed}

    assert names(update("rev", "changed", "a.plan", "email")) == {"plan", "email"}
    assert names(update("g.orders_count", "e.Order Completed.n")) == {"orders_count", "event:Order Completed"}
    assert names(update("lists.2", removed=["a.tags"])) == {"lists", "tags"}
    assert names(update("a")) == {EVERYTHING}, "the first attribute comes with the whole of its part"
    assert names(update("deleted")) == {EVERYTHING}
    assert names({"operationType": "insert"}) == names({"operationType": "delete"}) == {EVERYTHING}
