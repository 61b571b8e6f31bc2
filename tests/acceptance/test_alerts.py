"""Each alert is provoked on the real system, and fires there: the rules read metrics that an installation had.

The runbook of each is followed as far as a test can: what mends the fault ends the alert.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.broker.queue_admin import drop, replay
from actors.broker.queue_views import watch_queues
from actors.registry import SPECS
from actors.setup import broker_for
from engine.clock import SystemClock
from engine.telemetry.exposition import exposition
from tests.integration.channels.smtp.test_channel_smtp import Sink, serving
from tests.support.firing_alerts import FILES, firing, promtool
from tests.support.installation import Installation, Told
from tests.support.pipeline_world import World

Tidegate = Callable[..., Told]
ALONE = {"TidegateProcessMissing", "TidegateLaneWaits"}
"""What fires in a world of one thread, which has no processes: work waits for them."""


def shown(world: World) -> str:
    """Return the metrics of a world as they are now."""
    watch_queues(world.app)
    world.app.__dict__.pop("metrics", None)
    text, _ = exposition(world.app.metrics.read())
    return text.decode()


def others(alerts: dict[str, set[str]]) -> set[str]:
    return alerts.keys() - ALONE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    promtool()
    return tmp_path


def test_nobody_is_woken_while_all_is_well(installation: Installation, tidegate: Tidegate, folder: Path) -> None:
    process = installation.start("run", "--no-services")
    world = installation.world
    world.users(["a", "b"], plan="free")
    world.apply({"campaign": "one", "kind": "one_off"})
    world.launch("one")

    installation.until(lambda: 'outcome="sent"' in tidegate("metrics").out, "the campaign is counted", process)
    installation.until(
        lambda: not firing(tidegate("metrics").out, folder), "no alert once it has reported itself", process
    )
    installation.end(process)
    installation.until(
        lambda: firing(tidegate("metrics").out, folder).get("TidegateProcessMissing", set()) >= {"clock", "feed"},
        "without its only process, parts are missing",
    )


def test_no_web_process_answers(folder: Path) -> None:
    assert set(firing(None, folder)) == {"TidegateScrapeFailing"}


@pytest.mark.parametrize(("store", "variable"), [("cache", "CACHE_URL"), ("broker", "BROKER_URL")])
def test_a_store_is_down(
    installation: Installation,
    tidegate: Tidegate,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    store: str,
    variable: str,
) -> None:
    assert "TidegateStoreDown" not in firing(tidegate("metrics").out, folder)
    monkeypatch.setenv(f"TIDEGATE_SERVICES__{variable}", "redis://127.0.0.1:9/0")
    assert store in firing(tidegate("metrics").out, folder)["TidegateStoreDown"]


def test_mongodb_is_down(
    installation: Installation, tidegate: Tidegate, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_SERVICES__MONGO_URL", "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=500")
    told = tidegate("metrics")
    assert told.code == 0
    assert "mongodb" in firing(told.out, folder)["TidegateStoreDown"]
    assert "tidegate_deliveries" not in told.out
    assert "tidegate_lane_messages" in told.out, "what Redis knows is still shown"


def test_work_waits_for_a_fleet_that_is_not_there(world: World, folder: Path) -> None:
    world.users(["a"], plan="free")
    assert "TidegateLaneWaits" not in firing(shown(world), folder)
    world.apply({"campaign": "one"})
    world.launch("one")
    world.tick()
    world.work(lambda kind, ident: kind == "plan")
    assert "fast" in firing(shown(world), folder)["TidegateLaneWaits"]


def test_a_message_is_given_up_and_replayed(world: World, folder: Path) -> None:
    broker = broker_for(world.app)
    world.app.messenger().plan("run-1")
    lane = SPECS["plan_run"].queue
    consumer = broker.consume(lane, timeout=1_000)
    message = next(consumer)
    assert message is not None
    assert others(firing(shown(world), folder)) == set()
    consumer.nack(message)
    assert firing(shown(world), folder)["TidegateDeadLetters"] >= {lane}
    assert replay(broker, lane) == 1
    assert "TidegateDeadLetters" not in firing(shown(world), folder)
    consumer.close()
    drop(broker, lane)


def test_counts_do_not_add_up(world: World, folder: Path) -> None:
    world.users(["a", "b"], plan="free")
    world.start({"campaign": "once", "kind": "one_off"})
    world.app.live_campaigns.refresh()
    assert world.app.tally_keeper.step()
    assert others(firing(shown(world), folder)) == set()
    uid = world.record("once").uid
    world.database["enrolments"].update_one({"campaign": uid}, {"$set": {"state": "active"}})
    world.app.tally_keeper.count(world.record("once"))
    assert "TidegateNumbersDoNotAddUp" in firing(shown(world), folder)
    world.database["enrolments"].update_one({"campaign": uid, "state": "active"}, {"$set": {"state": "ended"}})
    world.app.tally_keeper.count(world.record("once"))
    assert "TidegateNumbersDoNotAddUp" not in firing(shown(world), folder)


def test_the_gate_is_closed_and_opened(installation: Installation, tidegate: Tidegate, folder: Path) -> None:
    assert "TidegateGateClosed" not in firing(tidegate("metrics").out, folder)
    assert tidegate("gate", "set", "--closed", "--for", "1h", "--why", "a test").code == 0
    assert "TidegateGateClosed" in firing(tidegate("metrics").out, folder)
    assert tidegate("gate", "set", "--automatic").code == 0
    assert "TidegateGateClosed" not in firing(tidegate("metrics").out, folder)


def test_the_feed_is_behind(world: World, folder: Path) -> None:
    world.feed()
    assert "TidegateFeedBehind" not in firing(shown(world), folder)
    world.database["feeds"].update_one({"_id": "users"}, {"$inc": {"position": -(300 << 32)}})
    world.app.stores.broker_client.delete(f"{world.database.name}:tidegate:feed")  # as a feed that died 5 minutes ago
    assert "TidegateFeedBehind" in firing(shown(world), folder)
    world.user("a", plan="free")
    world.feed()
    assert "TidegateFeedBehind" not in firing(shown(world), folder)


def test_a_clock_is_wrong(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = world.app.stores.processes
    processes.beat("elsewhere:1:a", "fast", ["fast"])
    assert "TidegateClockSkew" not in firing(shown(world), folder)
    real = SystemClock.system_now
    with monkeypatch.context() as wrong:
        wrong.setattr(SystemClock, "system_now", lambda self: real(self) - 7_000)
        processes.beat("elsewhere:1:a", "fast", ["fast"])
    assert "fast" in firing(shown(world), folder)["TidegateClockSkew"]
    processes.beat("elsewhere:1:a", "fast", ["fast"])
    assert "TidegateClockSkew" not in firing(shown(world), folder)


def test_a_campaign_is_late_because_no_fleet_serves_its_lane(world: World, folder: Path) -> None:
    world.users(["a"], plan="free")
    world.apply({"campaign": "one"})
    world.launch("one")
    world.tick()
    world.work(lambda kind, ident: kind == "plan")
    assert "TidegateCampaignsLate" not in firing(shown(world), folder)
    earlier = {"$subtract": ["$added_at", 3_600_000]}
    world.database["slices"].update_many({}, [{"$set": {"added_at": earlier}}])
    late = firing(shown(world), folder)["TidegateCampaignsLate"]
    assert late & {"no_fleet", "no_clock"}, late
    world.settle()
    assert "TidegateCampaignsLate" not in firing(shown(world), folder)


def test_the_provider_refuses_mails(make_world: Callable[..., World], services: Any, folder: Path) -> None:
    sink = Sink()
    sink.answers["RCPT"] = ["550 5.1.1 no such user"] * 100_000
    with serving(sink) as port:
        smtp = {"transport": "smtp", "host": "127.0.0.1", "port": port, "starttls": "off", "timeout": "2s"}
        world = make_world(transport=smtp, errors={"budget": "100%", "then": "report"})
        more = {f"TIDEGATE_EMAIL__{name.upper()}": str(value) for name, value in smtp.items()}
        installation = Installation(world, services, more)
        try:
            process = installation.start("run", "--no-services")
            world.users([f"u{n}" for n in range(40)], plan="free")
            world.apply({"campaign": "one", "kind": "one_off"})
            world.launch("one")
            fails = installation.until(
                lambda: firing(shown(world), folder).get("TidegateDeliveriesFailing"), "the alert", process
            )
            assert "email" in fails
            assert world.app.plans.report(world.record("one")).failures[0].reason == "smtp_550"
            installation.end(process)
        finally:
            installation.close()


def test_each_alert_is_provoked_in_this_file() -> None:
    rules = yaml.safe_load((FILES / "tidegate-alerts.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    text = Path(__file__).read_text(encoding="utf-8")
    assert {rule["alert"] for rule in rules if f'"{rule["alert"]}"' not in text} == set()
