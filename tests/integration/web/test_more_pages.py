"""The pages of lanes, queries, policies, gate, users and logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.domain.access import Role
from engine.domain.gate import GateState, Gauge, Member
from engine.query_metrics import MEASUREMENTS, Stretch
from engine.web.pages.lanes import histogram
from tests.support.pipeline_shop import POLICIES
from tests.support.pipeline_world import World
from tests.support.web_pages import Pages, text_of

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def sent(world: World) -> World:
    """A world in which one campaign has sent one message to each of three users."""
    world.users(["u1", "u2", "u3"], plan="free")
    world.start({"campaign": "hello", "audience": {"plan": "free"}})
    return world


def test_a_lane_shows_its_waits_and_who_held_its_time(sent: World, pages: Pages) -> None:
    name = sent.app.plans.plan(sent.record("hello")).lane
    assert f'href="/lanes/{name}"' in pages.get("/lanes")
    shown = text_of(pages.get(f"/lanes/{name}"))
    assert "shop/hello" in shown
    assert "100%" in shown
    assert "no living process serves the lane" in shown


def test_a_histogram_counts_each_wait_once_in_the_bar_of_its_bounds() -> None:
    bars = histogram([0.0, 0.009, 0.01, 0.5, 99.0, 100.0, 5_000.0])
    assert [bar.count for bar in bars] == [2, 1, 0, 0, 1, 0, 0, 0, 1, 2]
    assert bars[-1].above is None
    assert bars[0].share == 1.0
    assert all(bar.share == 0 for bar in histogram([]))


def test_an_unknown_lane_is_not_there(pages: Pages) -> None:
    assert pages.client().get("/lanes/nothing").status_code == 404


def test_queries_show_times_index_and_the_worst_with_its_campaign(sent: World, pages: Pages) -> None:
    now = sent.app.system.system_now()
    sent.app.stores.statistics.write(Stretch("h:1:a/0000", "fast", now, now, MEASUREMENTS.figures(), {}))
    shown = text_of(pages.get("/queries?order=p99"))
    assert "users.read_range mongodb" in shown
    assert "slices.claim" in shown
    course = text_of(pages.get("/queries/slices.claim"))
    assert "p95 of each five minutes" in course
    assert pages.client().get("/queries/no.such").status_code == 404


def test_policies_show_what_is_in_force_and_what_each_version_changed(world: World, pages: Pages) -> None:
    world.app.stores.policy_versions.record("aaaaaaaaaaaa", world.app.policies.plain(), 1)
    world.profile(inactivity="10d")
    world.reload()
    now = world.app.policies
    world.app.stores.policy_versions.record(now.version, now.plain(), 2)
    shown = text_of(pages.get("/policies"))
    assert f"Version {now.version} is in force" in shown
    assert "inactivity" in shown
    changed = text_of(pages.get(f"/policies/{now.version}"))
    assert "What it changed" in changed
    assert "10d" in changed


def test_an_edit_is_judged_without_being_saved(sent: World, pages: Pages) -> None:
    client = pages.access("ann", Role.OPERATE)
    path = Path(sent.app.settings.paths.policies) / "profiles" / "default.yaml"
    before = path.read_text()
    lane = sent.app.plans.plan(sent.record("hello")).lane
    other = "slow" if lane != "slow" else "fast"
    edited = before.replace(f"lane: {lane}", f"lane: {other}", 1)
    assert edited != before
    judged = text_of(pages.send(client, "/policies/check", page="/policies", file="default.yaml", text=edited).text)
    assert f"shop/hello: decides in {other} (was {lane})" in judged
    assert path.read_text() == before
    fields = {"file": "default.yaml", "text": edited, "replay": "yes"}
    replayed = text_of(pages.send(client, "/policies/check", page="/policies", **fields).text)
    assert "Waits in each lane, replayed" in replayed
    assert f"{other} " in replayed.split("simulated edited")[1]
    refused = text_of(
        pages.send(client, "/policies/check", page="/policies", file="lanes.yaml", text="lanes: {fast: {x: 1}}").text
    )
    assert "the file is refused, and nothing changes" in refused
    assert "lanes.yaml:1" in refused
    assert "tmp" not in refused
    wrong = pages.send(client, "/policies/check", page="/policies", file="../../etc/passwd", text="x")
    assert wrong.status_code == 400


def test_the_gate_says_what_it_does_and_why(world: World, pages: Pages) -> None:
    world.policies({**POLICIES, "rates": {"email": {"per_second": 7}}})
    store = world.app.gate_store
    store.beat(Member("c", "clock", 0, 0.0), may_control=True)
    store.decide("c", GateState(0.5, 1, "the probe's p95 is 300 ms, above 250 ms"), Gauge(0.1, 0.3))
    shown = text_of(pages.get("/gate"))
    assert "the probe's p95 is 300 ms, above 250 ms" in shown
    assert "per_second" in shown


def test_a_user_is_found_by_id_and_every_enrolment_explained(sent: World, pages: Pages) -> None:
    client = pages.client()
    found = client.get("/w/shop/users?q=u1")
    assert (found.status_code, found.headers["location"]) == (303, "/w/shop/user?id=u1")
    shown = text_of(pages.get("/w/shop/user?id=u1"))
    assert "hello , enrolment 1" in shown
    assert "sent" in shown
    assert "matches the audience" in shown
    assert "plan free" in shown or "a.plan free" in shown
    assert text_of(pages.get("/w/shop/users?q=nobody")).count("There is no user with the id") == 1
    assert "only once Elasticsearch holds them" in text_of(pages.get("/w/shop/users?q=a@x.example"))
    assert client.get("/w/shop/user?id=nobody").status_code == 404


def test_what_a_user_brings_is_text(world: World, pages: Pages) -> None:
    world.users([HOSTILE], plan=HOSTILE)
    world.event(HOSTILE, "Order Completed")
    for path in ("/w/shop/users?q=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E", "/logs?q=%3Cimg%20src%3E"):
        assert HOSTILE not in pages.client().get(path).text
    shown = pages.get("/w/shop/user?id=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    assert HOSTILE not in shown
    assert "&lt;img" in shown


def test_logs_are_searched_in_the_files_where_there_is_no_log_search(world: World, pages: Pages) -> None:
    folder = world.app.settings.log_folder
    folder.mkdir(parents=True, exist_ok=True)
    at = "2099-01-01T00:00:00.000Z"
    lines = [
        f'{{"@timestamp":"{at}","log.level":"info","event":{{"action":"campaign.started","sequence":{n}}},'
        f'"message":"line {n}","labels":{{"workspace":"{workspace}","campaign":"c{n}"}},"process":{{"pid":1}}}}\n'
        for n, workspace in enumerate(("shop", "other"))
    ]
    (folder / "test.ndjson").write_text("".join(lines))
    everything = text_of(pages.get("/logs?q=event:campaign.started&since=1h"))
    assert "c0" in everything
    assert "c1" in everything
    assert "the log files of this machine" in everything
    limited = text_of(pages.get("/logs?q=event:campaign.started&since=1h", pages.access("oda", Role.READ, "other")))
    assert "c1" in limited
    assert "c0" not in limited
    assert "no field" in text_of(pages.get("/logs?q=colour:red", pages.access("ann", Role.READ)))
