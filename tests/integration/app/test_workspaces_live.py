"""Workspace files edited while the engine runs: fitting edits take effect, others are reported, no user is missed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

import pytest
from elasticsearch import Elasticsearch

from engine.cli.import_setting import Importing
from engine.cli.importing import remarks
from engine.domain.stuck import StuckBy
from engine.domain.work import AccessPath
from engine.errors import InvalidSource, WrongCall
from engine.pipeline.campaigns.compiled_cache import Unfit
from engine.pipeline.feed import change_feed
from engine.pipeline.importing.job import Kind, Order, Summary
from engine.pipeline.importing.run_import import Surroundings, run_import
from engine.pipeline.scheduler import stuck_campaigns
from engine.telemetry.events import listening
from tests.integration.pipeline.feed.test_lost_search_index import fill
from tests.support.pipeline_shop import SHOP
from tests.support.pipeline_world import World
from tests.support.reading_world import entered, following

ATTRIBUTES: Final[dict[str, Any]] = dict(SHOP["attributes"])  # type: ignore[call-overload]  # a table of the shop
GOLD: Final[dict[str, Any]] = {"plan": "gold"}
TIERED: Final[dict[str, Any]] = {"campaign": "c", "audience": {"tier": "gold"}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world that reads the files again at each failure, and reports failures at once."""
    monkeypatch.setattr("engine.pipeline.campaigns.compiled_cache.REREAD", 0.0)
    monkeypatch.setattr("engine.pipeline.scheduler.tick.DEBTS_EVERY", 0.0)
    monkeypatch.setattr(stuck_campaigns, "LASTING", 0.0)


def with_field(world: World, **fields: object) -> None:
    """Write the file of `shop` with more attributes; no process has read it yet."""
    world.workspace(attributes={**ATTRIBUTES, **fields})


def without(world: World, name: str) -> None:
    """Write the file of `shop` without an attribute."""
    world.workspace(attributes={key: kind for key, kind in ATTRIBUTES.items() if key != name})


def test_a_process_that_does_not_know_a_field_reads_the_files_again_before_it_fails(world: World) -> None:
    other = world.open()
    assert "tier" not in other.catalogues["shop"].fields
    with_field(world, tier="string")
    world.reload()
    world.user("u", tier="gold")
    world.start(TIERED)
    assert world.sent() == [("u", "one")]
    assert other.campaign_cache.of(world.record("c")).catalogue.fields["tier"].type == "string"
    other.close()


def test_a_live_campaign_is_compiled_again_and_its_sender_follows_the_file(world: World) -> None:
    world.user("first")
    world.start({"campaign": "c"})
    world.workspace(sender={"name": "Another", "address": "another@shop.example"})
    world.reload()
    entry = world.app.campaign_cache.of(world.record("c"))
    assert entry.catalogue.sender is not None
    assert entry.catalogue.sender.name == "Another"
    world.user("second")
    world.settle()
    folder = world.settings.maildir / "new"
    senders = sorted(line for path in folder.iterdir() for line in path.read_text().splitlines() if "From:" in line)
    assert [("Another" in line) for line in senders] == [True, False]


def test_an_unedited_campaign_is_not_compiled_again(world: World) -> None:
    world.start({"campaign": "c"})
    before = world.app.campaign_cache.of(world.record("c")).compiled
    world.workspace("other", attributes={**ATTRIBUTES, "tier": "string"})
    world.reload()
    assert world.app.campaign_cache.of(world.record("c")).compiled is before


@pytest.mark.parametrize(
    "text",
    ["workspace: shop\nattributes: {plan: strin}\n", "workspace: sh", "", "workspace: other\n"],
    ids=["wrong", "half", "empty", "another"],
)
def test_an_invalid_file_keeps_the_last_good_set_and_is_reported_like_policies(world: World, text: str) -> None:
    world.start({"campaign": "c", "audience": GOLD})
    world.app.hooks.process = "run"  # a file that a command cannot read is no failure of a loop
    before = world.app.catalogues.version
    path = world.folder / "conf/workspaces/shop.yaml"
    with listening() as events:
        path.write_text(text)
        world.reload()
        world.reload()
    assert (world.app.catalogues.version, len(events.of("workspace.refused"))) == (before, 1)
    assert "shop.yaml" in str(events.of("workspace.refused")[0].fields["text"])
    (failing,) = world.app.stores.process_failures.everything()
    assert (failing.loop, "last good set" in failing.reason) == ("workspaces", True)
    with pytest.raises(InvalidSource), closing(world.open()) as starting:
        starting.watch_files("run")
    world.user("u", plan="gold")
    world.settle()
    assert world.sent() == [("u", "one")]
    with_field(world)
    world.reload()
    assert world.app.stores.process_failures.everything() == []


def test_leftovers_of_editors_and_config_maps_are_no_workspaces(world: World) -> None:
    folder, before = world.folder / "conf/workspaces", world.app.catalogues.version
    for name in (".shop.yaml.swp", "shop.yaml~", "#shop.yaml#", "notes.md", ".#shop.yaml"):
        (folder / name).write_text("workspace: nonsense")
    (folder / "..2026_01").mkdir()
    (folder / "..2026_01" / "more.yaml").write_text("workspace: more\n")
    (folder / "..data").symlink_to("..2026_01")
    world.reload()
    assert world.app.catalogues.version == before
    (folder / "more.yaml").symlink_to("..data/more.yaml")
    world.reload()
    assert set(world.app.catalogues) == {"shop", "other", "more"}
    (folder / "..2026_02").mkdir()
    (folder / "..2026_02" / "more.yaml").write_text("workspace: more\nattributes: {tier: string}\n")
    (folder / "..swap").symlink_to("..2026_02")
    (folder / "..swap").rename(folder / "..data")
    world.reload()
    assert "tier" in world.app.catalogues["more"].fields


def test_a_suddenly_empty_folder_is_refused(world: World) -> None:
    before = world.app.catalogues.version
    for path in (world.folder / "conf/workspaces").glob("*.yaml"):
        path.unlink()
    world.reload()
    assert world.app.catalogues.version == before
    assert world.app.workspace_watcher.refusal is not None


def test_every_set_in_force_is_recorded_with_its_content(world: World) -> None:
    with_field(world, tier="string")
    world.reload()
    recorded = world.app.stores.workspace_versions.history()
    assert recorded[0]["_id"] == world.app.catalogues.version
    assert recorded[0]["content"]["shop"]["fields"]["tier"]["type"] == "string"


UNFIT: Final[dict[str, tuple[Callable[[World], object], str]]] = {
    "a field is gone": (lambda world: without(world, "plan"), "plan"),
    "a field has another type": (lambda world: with_field(world, plan="integer"), "plan"),
    "a field became many": (lambda world: with_field(world, plan={"type": "string", "many": True}), "many string"),
    "a text's field is gone": (lambda world: without(world, "note"), "note"),
    "the workspace is gone": (
        lambda world: (world.folder / "conf/workspaces/shop.yaml").unlink(),
        "workspace shop has no file; add conf/workspaces/shop.yaml",
    ),
}
LIVE: Final[dict[str, Any]] = {
    "campaign": "c",
    "audience": GOLD,
    "messages": [{"name": "one", "body": "Hi {{ user.note }}"}, {"name": "two", "wait": "1d"}],
}


@pytest.mark.parametrize("edit", list(UNFIT))
def test_a_campaign_that_an_edit_broke_is_stuck_and_misses_nobody_once_mended(world: World, edit: str) -> None:
    spoil, told = UNFIT[edit]
    world.users(["in", "later"], plan="gold")
    world.change("later", plan="silver")
    world.start(LIVE)
    spoil(world)
    world.reload()
    with listening() as events:
        world.app.stores.times.advance(world.now + 86_400_000, world.app.system.system_now())
        world.database["users"].update_one({"u": "later"}, {"$set": {"a.plan": "gold"}})
        for _ in range(4):
            world.step()
    record = world.record("c")
    reason = record.stuck_by[StuckBy.FILE].reason
    assert told in reason
    assert reason.count("conf/workspaces/") <= 1, "it says one thing to do"
    assert set(record.stuck_by) == {StuckBy.FILE}
    assert [len(events.of(name)) for name in ("campaign.stuck", "slice.failed", "run.failed")] == [1, 0, 0]
    assert list(world.app.quiescence.stuck()) == [record.uid]
    stuck = world.app.quiescence.stuck()
    assert any(not world.feed() and world.app.quiescence.what(stuck) is None for _ in range(50)), (
        "others write meanwhile"
    )
    explained = world.app.explainer.run(record, "in")
    assert (explained.next_evaluation, told in explained.now) == (None, True)
    assert len(world.mails()) == 1
    world.workspace()
    world.reload()
    world.settle()
    assert world.record("c").stuck is None
    assert world.sent() == [("in", "one"), ("in", "two"), ("later", "one")]


def importing_while(world: World, edit: Callable[[], object], at: int) -> tuple[Order, Callable[[], Summary]]:
    """Import 60 users in batches of 10, and edit the workspace's file at a given query."""
    path = world.folder / "users.csv"
    path.write_text("user_id,age\n" + "".join(f"u{line},7\n" for line in range(2, 62)))
    order, setting, numbers = Order(Kind.USERS, path, batch=10), Importing(world.app, "shop"), iter(range(at))

    def follow() -> Surroundings:
        if next(numbers, None) == at - 1:
            edit()
        return setting.follow()

    return order, lambda: run_import(order, *setting.follow(), follow=follow)


@pytest.mark.parametrize("at", [1, 4, 5, 6, 7])
def test_an_import_reads_its_remaining_rows_by_the_edited_file(world: World, at: int) -> None:
    _, run = importing_while(world, lambda: with_field(world, age="string"), at)
    summary = run()
    assert (summary.rows, summary.rejected) == (60, 0)
    assert summary.reread_at is not None
    kept = {raw["u"]: raw["a"]["age"] for raw in world.database["users"].find()}
    assert kept == {f"u{line}": "7" if line >= summary.reread_at else 7 for line in range(2, 62)}
    assert f"from line {summary.reread_at} on" in next(remarks(summary))


def test_an_import_whose_columns_an_edit_forbids_ends_and_can_be_resumed(world: World) -> None:
    order, run = importing_while(world, lambda: without(world, "age"), 6)
    with pytest.raises(WrongCall, match=r"was edited while the import ran: .*age") as caught:
        run()
    assert caught.value.remedy.endswith("; the same command continues where it stopped")
    assert 0 < world.database["users"].count_documents({}) < 60
    world.workspace()
    world.reload()
    now = Importing(world.app, "shop").follow()
    summary = run_import(order, *now)
    assert (summary.rows, summary.counts["created"], summary.reread_at) == (60, 60, None)
    assert summary.resumed_at is not None
    assert world.database["users"].count_documents({"a.age": 7}) == 60


def test_a_field_of_another_type_is_accepted_when_the_campaign_is_applied_again(world: World) -> None:
    world.start({"campaign": "c", "audience": {"age": {"exists": True}}})
    world.workspace(attributes={**ATTRIBUTES, "age": "string"})
    world.reload()
    with pytest.raises(Unfit, match="age was integer"):
        world.app.campaign_cache.of(world.record("c"))
    applied = world.apply({"campaign": "c", "audience": {"age": {"exists": True}}})
    assert [change.text for change in applied.changes] == ["age is string now, it was integer"]
    world.user("u", age="ten")
    world.settle()
    assert world.sent() == [("u", "one")]


def test_a_launch_that_does_not_fit_the_workspace_waits_and_blocks_no_other(world: World) -> None:
    world.users(["u"], plan="gold")
    world.apply(LIVE)
    world.apply({"campaign": "other"})
    without(world, "plan")
    world.reload()
    world.launch("c")
    world.launch("other")
    for _ in range(4):
        world.step()
    assert (world.state("c"), world.state("other")) == ("scheduled", "live")
    assert world.record("c").stuck is not None
    world.workspace()
    world.reload()
    world.settle()
    assert world.sent() == [("u", "one"), ("u", "one")]


@pytest.fixture
def golden(reading: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with some users in cache and Elasticsearch."""
    monkeypatch.setattr(change_feed, "TENDED", 0.0)
    reading.users([f"u{i}" for i in range(30)], plan="gold")
    reading.feed()
    fill(reading)
    return reading


@pytest.mark.elastic
@pytest.mark.parametrize("path", [AccessPath.CACHE, AccessPath.ELASTIC])
def test_cache_and_index_serve_a_new_field_only_once_they_are_complete(
    golden: World, elastic: Elasticsearch, path: AccessPath
) -> None:
    everybody = {raw["_id"] for raw in golden.database["users"].find()}
    golden.database["users"].update_many(
        {}, {"$set": {"a.tier": "gold"}}
    )  # imported by a process that already knew the field
    golden.feed()
    with_field(golden, tier="string")
    golden.reload()
    assert served(golden) == (False, False), "neither the cache nor the index has the field"
    golden.feed()
    assert served(golden) == (True, False), "the index is being filled"
    with following(golden):
        assert entered(golden, "filling", {"tier": "gold"}, AccessPath.ELASTIC) == (everybody, "scan")
        assert fill(golden) > 0
        assert served(golden) == (True, True)
        users, taken = entered(golden, "whole", {"tier": "gold"}, path)
    assert (everybody - users, users - everybody, taken) == (set(), set(), path.value)


def served(world: World) -> tuple[bool, bool]:
    """Return whether the user cache and Elasticsearch serve readers of the workspace file in force."""
    catalogue, cache = world.app.catalogues["shop"], world.app.cached_users
    assert cache is not None
    cache.epoch("shop", fresh=True)
    rows = cache.scan("shop", "0", "g", frozenset({"tier"}), catalogue)
    return rows is not None, world.app.index_filling.filled(catalogue) is not None


@pytest.mark.elastic
def test_a_restored_workspace_is_read_again(golden: World, elastic: Elasticsearch) -> None:
    path = golden.folder / "conf/workspaces/shop.yaml"
    text = path.read_text()
    path.unlink()
    golden.reload()
    golden.feed()
    golden.database["users"].update_many({}, {"$set": {"a.plan": "silver"}, "$inc": {"rev": 1}})
    golden.feed()
    path.write_text(text)
    golden.reload()
    golden.feed()
    fill(golden)
    with following(golden):
        for route in (AccessPath.CACHE, AccessPath.ELASTIC):
            assert entered(golden, route.value, GOLD, route) == (set(), route.value)


def test_a_new_aggregate_is_derived_for_existing_users(world: World) -> None:
    world.user("u")
    for at in (1, 2):
        world.event("u", "Seen", world.now - at)
    world.feed()
    world.workspace(aggregates={**SHOP["aggregates"], "seen_count": {"event": "Seen", "count": True}})  # type: ignore[dict-item]  # a table of the shop
    world.reload()
    world.feed()
    assert world.app.stores.index_requests.deriving("shop") == 1
    fill(world)
    assert world.app.stores.index_requests.deriving("shop") == 0
    world.start({"campaign": "c", "audience": {"seen_count": {"gte": 2}}})
    assert world.sent() == [("u", "one")]


ENDINGS: Final = {
    "finished": ("stop",),
    "cancelled": ("cancel",),
    "paused": ("pause",),
    "paused, then cancelled": ("pause", "cancel"),
    "draining": (),
}
"""What was done to a campaign before its file came not to fit; who has left it may still convert."""


def test_conversions_are_counted_once_a_file_fits_again_in_any_campaign_state(world: World) -> None:
    goal = {"any": [{"event": {"name": "Order Completed"}}, {"plan": "vip"}], "within": "10d"}
    for number, (name, steps) in enumerate(ENDINGS.items()):
        messages = [{"name": "one", "when": {"age": number}}, {"name": "two", "wait": "5d", "when": {"age": 99}}]
        world.users([f"{number}-in", f"{number}-ahead"], plan="gold", age=number)
        world.start(
            {
                "campaign": f"c{number}",
                "kind": "continuous",
                "audience": {"age": number},
                "exit": {"when": {"note": "gone"}},
                "goal": goal,
                "messages": messages if name != "finished" else messages[:1],
            }
        )
        if name in ("draining", "paused", "paused, then cancelled"):  # the users counted have left
            for user in ("in", "ahead"):
                world.change(f"{number}-{user}", note="gone")
            world.user(f"{number}-stays", plan="gold", age=number)
        world.settle()
        if name == "draining":
            world.steer("stop", f"c{number}")
        for step in steps[:1]:
            world.steer(step, f"c{number}")
        world.settle()
    names = [f"c{number}" for number in range(len(ENDINGS))]
    assert [world.state(name) for name in names] == ["finished", "cancelled", "paused", "paused", "draining"]
    world.after("1h")
    without(world, "plan")
    world.reload()
    for number in range(len(ENDINGS)):
        world.event(f"{number}-in", "Order Completed", world.now)
        world.event(f"{number}-ahead", "Order Completed", world.now + 86_400_000)
    for _ in range(4):
        world.step()
    assert {name: set(world.record(name).stuck_by) for name in names} == {name: {StuckBy.FILE} for name in names}
    assert any(not world.feed() and world.app.quiescence.in_vain() is not None for _ in range(50)), "others write"
    world.steer("cancel", "c3")
    world.workspace()
    world.reload()
    world.settle()
    world.after("1d")
    world.steer("resume", "c2")
    world.settle()
    users = {
        enrolment.user.rsplit("/", 1)[1]
        for name in names
        for enrolment in world.enrolments(name)
        if enrolment.converted_at
    }
    assert users == {f"{number}-{user}" for number in range(len(ENDINGS)) for user in ("in", "ahead")}
    assert {world.record(name).stuck for name in names} == {None}
    world.after("60d")
    assert world.closed(*names)


def test_a_campaign_whose_field_has_gone_for_good_can_be_cancelled_and_its_conversions_are_counted(
    world: World,
) -> None:
    world.users(["u", "buys"], plan="gold")
    order = {"event": {"name": "Order Completed"}}
    two = [{"name": name, "when": {"plan": "gold"}, "subject": "{{ user.plan }}"} for name in ("one", "two")]
    two[1]["wait"] = "1d"
    world.start({**LIVE, "goal": {**order, "within": "10d"}, "messages": two})
    named = {"any": [order, {"plan": "vip"}], "within": "10d"}
    world.start({**LIVE, "campaign": "goal", "goal": named, "messages": two})
    without(world, "plan")
    world.reload()
    world.step()
    assert [set(world.record(name).stuck_by) for name in ("c", "goal")] == [{StuckBy.FILE}] * 2
    for name in ("c", "goal"):
        world.steer("cancel", name)
    world.advance("2d")
    for _ in range(6):
        world.step()
    assert [(str(enrolment.reason), enrolment.active) for enrolment in world.enrolments("c")] == [
        ("cancelled", False)
    ] * 2
    assert [world.record(name).stuck is None for name in ("c", "goal")] == [True, False]
    world.event("buys", "Order Completed")
    for _ in range(6):
        world.step()
    assert [enrolment.converted_at is not None for enrolment in world.enrolments("c", "buys")] == [True]
    world.advance("60d")  # the other's goal cannot be evaluated any more: its window ends without it
    world.settle()
    assert [(str(enrolment.reason), enrolment.active) for enrolment in world.enrolments("goal")] == [
        ("cancelled", False)
    ] * 2
    assert [(world.record(name).stuck, world.record(name).converting_until) for name in ("c", "goal")] == [
        (None, None)
    ] * 2
    assert len(world.mails()) == 4
