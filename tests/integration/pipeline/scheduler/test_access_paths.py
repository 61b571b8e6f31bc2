"""Every access path enrols the same users, for any audience, change and state of the cache.

Sixty random cases; `TIDEGATE_PATH_CASES=300` tries more.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import pytest
import redis
from pydantic import SecretStr

from engine.app.app import App
from engine.domain.changes import UserChange
from engine.domain.counts import Population
from engine.domain.keys import HIGHEST, user_key
from engine.domain.work import AccessPath
from engine.errors import ServiceUnreachable
from engine.telemetry.events import listening
from tests.support.pipeline_shop import Collected
from tests.support.pipeline_world import START, World
from tests.support.reading_world import entered, following

DAY: Final = 86_400_000
CASES: Final = int(os.environ.get("TIDEGATE_PATH_CASES", "60"))
PLANS: Final = ("gold", "silver", "free", None)
USERS: Final = [f"u{i}" for i in range(60)]


def change(world: World, draw: random.Random, users: list[str]) -> None:
    """Change some users, delete some, and create some (again)."""
    for user in users:
        if draw.random() < 0.1:
            world.app.stores.users.delete(user_key("shop", user))
            continue
        fields: dict[str, Any] = {
            "plan": draw.choice(PLANS),
            "age": draw.choice([None, 18, 30, 44]),
            "vip_until": draw.choice([None, START + draw.randrange(-20, 20) * DAY]),
            "unsubscribed": draw.random() < 0.2,
        }
        catalogue = world.app.campaign_cache.catalogue("shop")
        paths = {catalogue.fields[name].mongo_path: value for name, value in fields.items()}
        world.app.imports("shop").upserts.apply(
            [UserChange(user_key("shop", user), {"email": f"{user}@x.example", **paths})], revive=True
        )
        if draw.random() < 0.3:
            world.event(user, "Seen", at=START - draw.randrange(40) * DAY)
            world.event(user, "Order Completed", at=START - draw.randrange(40) * DAY, value=draw.randrange(10_000))


def audience(draw: random.Random) -> dict[str, Any]:
    """Return an audience of one to three clauses, some under `none`."""
    leaves: list[dict[str, Any]] = [
        {"plan": draw.choice(["gold", "silver"])},
        {"age": {"gte": draw.choice([18, 31])}},
        {"vip_until": {draw.choice(["older_than", "within", "within_next"]): f"{draw.randrange(1, 15)}d"}},
        {"orders_count": {"gte": draw.choice([1, 2])}},
        {"plan": {"exists": False}},
        {"event": {"name": "Order Completed", "within": f"{draw.randrange(2, 40)}d"}},
        {"event": {"name": "Order Completed", "after": {"name": "Seen", "within": "40d"}}},
        {"last_order_at": {"older_than": f"{draw.randrange(1, 30)}d"}},
    ]
    picked = draw.sample(leaves, draw.randrange(1, 4))
    cut = draw.randrange(0, 2)
    return {"all": picked[cut:], "none": [*picked[:cut], {"unsubscribed": True}]}


def disturb(world: World, client: redis.Redis, draw: random.Random, begin_anew: Callable[[], None]) -> tuple[str, int]:
    """Put the cache into some state: unchanged, cold, half evicted, or of an outdated generation.

    Return the number of buckets removed.
    """
    state = draw.choice(["warm", "warm", "cold", "half evicted", "stale"])
    keys = sorted(client.scan_iter(f"{world.database.name}:u:*"))
    evicted = {"cold": keys, "half evicted": draw.sample(keys, len(keys) // 2)}.get(state, [])
    if evicted:
        client.delete(*evicted)
    if state == "stale":
        begin_anew()
    return state, len(evicted)


def timed(world: World, name: str) -> int:
    """Return how many users of a campaign's launch count for the path's measured rate."""
    run = world.database["runs"].find_one({"campaign": world.record(name).uid})
    assert run is not None
    return int(run["results"].get("timed", 0))


@pytest.mark.timeout(900)
def test_every_access_path_enrols_the_same_users(reading: World) -> None:
    draw = random.Random(4)
    world = reading
    taken: set[str] = set()
    evicted: Counter[str] = Counter()
    url = world.settings.services.cache_url
    assert url is not None
    with following(world) as begin_anew, redis.Redis.from_url(url.get_secret_value()) as client:
        change(world, draw, USERS)
        begin_anew()  # as many buckets as the users require
        for number in range(CASES):
            change(world, draw, draw.sample(USERS, draw.randrange(0, 6)))
            state, buckets = disturb(world, client, draw, begin_anew)
            evicted[state] += buckets
            rule = audience(draw)
            results = {
                path: entered(world, f"c{number}-{path.value}", rule, path)
                for path in (AccessPath.SCAN, AccessPath.CACHE, AccessPath.ELASTIC)
            }
            expected, _ = results[AccessPath.SCAN]
            for path, (entered_, took) in results.items():
                assert entered_ == expected, (number, state, path, rule, entered_ ^ expected)
                taken.add(took)
    assert {"scan", "cache", "elastic"} <= taken
    assert min(evicted["cold"], evicted["half evicted"]) > CASES / 2, evicted


def test_a_cache_of_a_replaced_database_is_not_used(reading: World) -> None:
    """MongoDB is replaced, with other users under the same keys; Redis still holds the previous ones."""
    gold = {"all": [{"plan": "gold"}]}
    for life, plan in enumerate(("silver", "gold")):
        reading.close()
        for name in reading.database.list_collection_names():
            reading.database[name].delete_many({})
        reading.app = reading.open()
        reading.users(USERS[:10], plan=plan)
        reading.feed()  # the feed begins now, so it never saw the changes
        with following(reading):
            users, took = entered(reading, f"life{life}", gold, AccessPath.CACHE)
            assert took == "cache"
            assert len(users) == 10 * life
            cache = reading.app.cached_users
            assert cache is not None
            cache.warm("shop")
            assert cache.warm_share("shop") == 1.0


def test_a_cache_that_only_readers_reach_is_never_stale(reading: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world, cache = reading, reading.app.cached_users
    assert cache is not None
    plans = ("gold", "silver", "gold")
    monkeypatch.setattr(world.app.cached_users, "refresh", lambda *_: False)
    with listening() as events:
        for plan in plans:
            world.users(USERS[:9], plan=plan)
            world.feed()
            cache.epoch("shop", fresh=True)
            batches = cache.scan("shop", "0", HIGHEST, frozenset({"plan"}), world.app.catalogues["shop"])
            assert batches is not None
            assert {row.plan for rows in batches for row in rows.rows} == {plan}  # type: ignore[attr-defined]
    assert len(events.of("feed.gap")) == 1, "one warning for one outage"


def test_a_slice_continues_by_mongodb_when_elasticsearch_fails(reading: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = reading
    index = world.app.stores.user_index
    assert index is not None

    def away(*_: object) -> list[str]:
        raise ServiceUnreachable("it does not answer")

    monkeypatch.setattr(index, "ids", away)
    world.users(USERS[:9], plan="gold")
    with following(world):
        users, took = entered(world, "gone", {"plan": "gold"}, AccessPath.ELASTIC)
    assert (len(users), took) == (9, "elastic")
    assert timed(world, "gone") == 0, "MongoDB's time says nothing of Elasticsearch"


def test_only_users_read_from_the_cache_measure_its_rate(reading: World) -> None:
    world = reading
    world.users(USERS, plan="gold")
    with following(world):
        for name, share in (("cold", 0), ("warm", len(USERS))):
            users, took = entered(world, name, {"plan": "gold"}, AccessPath.CACHE)
            assert (len(users), took, timed(world, name)) == (len(USERS), "cache", share)


@pytest.mark.parametrize("path", [AccessPath.ELASTIC, None])
def test_a_plan_counts_no_user_by_a_store_that_is_behind(
    reading: World, monkeypatch: pytest.MonkeyPatch, path: AccessPath | None
) -> None:
    world = reading
    monkeypatch.setattr(world.app.access_paths, "small", 1)
    with following(world):
        assert entered(world, "filled", {"plan": "gold"}, AccessPath.ELASTIC) == (set(), "elastic")
    monkeypatch.setattr("engine.pipeline.scheduler.access_path.PATIENCE", 0.05)
    world.users(USERS, plan="gold")
    record = world.apply({"campaign": "hello", "audience": {"plan": "gold"}}).record
    planned = world.app.plans.plan(record, path)
    by_name = {other.path: other for other in planned.chosen.others}
    assert (planned.audience, planned.users) == (len(USERS), Population(len(USERS), estimated=False))
    assert planned.counted == "inside MongoDB, exactly"
    assert by_name[AccessPath.ELASTIC].reason == "it is behind: not every change of a user has reached it"
    assert planned.chosen.path is not AccessPath.ELASTIC
    assert planned.chosen.matches == len(USERS)
    monkeypatch.setattr("engine.pipeline.scheduler.access_path.PATIENCE", 60.0)
    with following(world):
        planned = world.app.plans.plan(record, AccessPath.ELASTIC)
    assert (planned.audience, planned.counted, planned.share) == (len(USERS), "by Elasticsearch", 1.0)


def test_campaigns_continue_while_elasticsearch_and_the_cache_are_unreachable(make_world: Callable[..., World]) -> None:
    world = make_world(reading=True)
    nowhere = SecretStr("http://127.0.0.1:9"), SecretStr("redis://127.0.0.1:9/0")
    services = world.settings.services.model_copy(update={"elastic_url": nowhere[0], "cache_url": nowhere[1]})
    app = App(world.settings.model_copy(update={"services": services}))
    app.hooks.messenger = Collected(world.asked)
    world.close()
    world.app = app
    world.users(USERS[:5], plan="gold")
    with listening() as events:
        for number, path in enumerate((AccessPath.CACHE, AccessPath.ELASTIC)):
            record = world.apply({"campaign": f"c{number}", "audience": {"plan": "gold"}}).record
            app.commands.launch(record, path=path)
            world.settle()
            world.change(USERS[number], plan="silver")
            world.settle()
    assert len(world.sent()) == 9, "five by the first campaign, and four by the second"
    lost = [
        occurrence for occurrence in events.of("service.lost") if occurrence.fields.get("service") == "elasticsearch"
    ]
    assert len(lost) == 1, "one warning, not one for each batch"
    assert world.database["index_requests"].count_documents({}) > 0, "what is to be indexed is kept"


@pytest.mark.timeout(600)
def test_launches_miss_no_user_while_users_keep_changing(reading: World) -> None:
    world = reading
    draw = random.Random(7)
    change(world, draw, USERS)
    launches = CASES // 3
    stop = threading.Event()

    def keep_changing() -> None:
        own = random.Random(8)
        while not stop.is_set():
            for user in own.sample(USERS, 3):
                world.change(user, plan=own.choice(PLANS))

    writer = threading.Thread(target=keep_changing)
    names = [f"c{number}" for number in range(launches)]
    with following(world):
        writer.start()
        try:
            for number, name in enumerate(names):
                path = [AccessPath.CACHE, AccessPath.ELASTIC, AccessPath.SCAN][number % 3]
                record = world.apply({"campaign": name, "audience": {"plan": "gold"}}).record
                record = world.app.commands.launch(record, path=path)
                world.app.clock_tick.launch(record, world.now)
                run = world.app.stores.runs.undecided([record.uid])[0]
                world.app.run_planner.run(run.id)
                for slice_ in world.app.stores.slices.of_run(run.id):
                    world.app.slice_decider.run(slice_.id)
                world.app.run_completion.run(run.id)
                world.app.rechecker.run()
        finally:
            stop.set()
            writer.join()
        position = world.app.stores.feeds.now()
        while world.app.stores.feeds.position() < position:
            stop.wait(0.005)
    while world.app.rechecker.run():
        pass
    gold = {document["_id"] for document in world.database["users"].find({"a.plan": "gold", "deleted": {"$ne": True}})}
    for name in names:
        enrolments = world.enrolments(name)
        missed = gold - {
            enrolment.user for enrolment in enrolments
        }  # except users who left and came back: the campaign is entered once
        wrong = {enrolment.user for enrolment in enrolments if enrolment.active} - gold
        assert (name, missed, wrong) == (name, set(), set())
