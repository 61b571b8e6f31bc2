"""The effect of a refusal: none if it concerns the sender, the address if it is dead, few deliveries if all fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.decisions.slow_and_failing import RECENT
from engine.domain.lifecycle import CampaignState
from engine.domain.stuck import StuckBy
from engine.pipeline.control.replay import replay
from engine.pipeline.delivery.send_window import MOST_ATTEMPTS
from engine.telemetry.events import listening
from tests.integration.channels.smtp.test_channel_smtp import Sink, serving
from tests.support.pipeline_shop import hurry
from tests.support.pipeline_world import World

USERS = [f"u{number}" for number in range(300)]


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def world(make_world: Callable[..., World], sink: Sink) -> Iterator[World]:
    with serving(sink) as port:
        smtp = {"transport": "smtp", "host": "127.0.0.1", "port": port, "starttls": "off", "timeout": "2s"}
        yield make_world(transport=smtp)


def states(world: World, name: str = "hello") -> dict[str, int]:
    return dict(world.app.plans.report(world.record(name)).counts.messages["one"].states)


def tries(world: World, times: int) -> None:
    """Try waiting deliveries that often, as if their back-offs were over."""
    for _ in range(times):
        for _ in range(4):
            world.step()
        hurry(world.database)


@pytest.mark.parametrize(
    ("phase", "reply"),
    [
        ("MAIL", "553 <news@shop.example> sender not allowed"),
        ("MAIL", "530 5.7.0 log in first"),
        ("RCPT", "550 5.1.8 <news@shop.example>: Sender address rejected: Domain not found"),
        ("RCPT", "554 5.7.1 <relay>: Relay access denied"),
        ("DOT", "550 5.7.26 This mail is unauthenticated"),
        ("DOT", "554 5.7.1 looks like spam"),
    ],
)
def test_a_refusal_of_the_sender_fails_no_delivery_and_sending_continues_once_mended(
    world: World, sink: Sink, phase: str, reply: str
) -> None:
    sink.answers[phase] = [reply] * 100_000
    world.users(USERS)
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    limit = 100_000
    for _ in range(3):
        tries(world, 1)
        spent, limit = limit - len(sink.answers[phase]), len(sink.answers[phase])
        assert 0 < spent <= 250, "a window of each slice is tried, not everybody"
    assert states(world) == {"queued": len(USERS)}
    record = world.record("hello")
    assert (record.state, list(record.stuck_by)) == (CampaignState.LIVE, [StuckBy.SENDER])
    assert f"the mail server refuses us (smtp_{reply[:3]}: {reply[:3]}" in (record.stuck or "")
    assert "@" not in (record.stuck or "")
    if phase == "MAIL":
        assert all(
            enrolment.outgoing is not None and enrolment.outgoing.attempts == 0
            for enrolment in world.enrolments("hello")
        )
    del sink.answers[phase]
    tries(world, 2)
    world.settle()
    assert states(world) == {"sent": len(USERS)}
    record = world.record("hello")
    assert (record.state, record.stuck) == (CampaignState.FINISHED, None)


def test_a_policy_refusal_counts_for_the_recipient_if_others_are_accepted(world: World, sink: Sink) -> None:
    sink.answers["RCPT"] = ["550 5.7.1 this list takes mail from members only"]
    world.users(USERS[:60])
    world.start({"campaign": "hello", "kind": "one_off"})
    assert states(world) == {"sent": 59, "failed": 1}
    assert world.record("hello").stuck is None


def test_an_outage_uses_no_attempt_and_is_reported(make_world: Callable[..., World], sink: Sink) -> None:
    with serving(sink) as port:
        pass
    smtp = {"transport": "smtp", "host": "127.0.0.1", "port": port, "starttls": "off", "timeout": "2s"}
    world = make_world(transport=smtp)
    world.users(USERS[:3])
    world.apply({"campaign": "hello", "kind": "one_off"})
    world.launch("hello")
    tries(world, 1)
    assert world.record("hello").stuck is None, "a moment's outage is nobody's business"
    tries(world, MOST_ATTEMPTS + 2)
    assert states(world) == {"queued": 3}
    assert "no mail can be handed over (smtp_unreachable)" in (world.record("hello").stuck or "")
    world.steer("cancel", "hello")
    world.settle()
    assert states(world) == {"skipped(cancelled)": 3}
    assert world.record("hello").stuck is None, "nothing waits any more"


def test_a_hard_bounce_suppresses_the_address_for_every_campaign(world: World, sink: Sink) -> None:
    world.user("gone", email="Gone@x.example")
    world.user("also", email="gone@X.example")
    world.user("good")
    world.user("full", email="full@x.example")
    rcpt = {"gone@x.example": "550 5.1.1 no such user", "full@x.example": "552 5.2.2 mailbox full"}

    class Choosy(Sink):
        async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802 - aiosmtpd's hook
            if address.lower() in rcpt:
                return rcpt[address.lower()]
            envelope.rcpt_tos.append(address)
            return "250 OK"

    sink.handle_RCPT = Choosy.handle_RCPT.__get__(sink)  # type: ignore[method-assign]
    with listening() as events:
        world.start({"campaign": "hello", "kind": "one_off"})
    assert states(world) == {"sent": 1, "failed": 3}
    assert {str(occurrence.fields["user"]) for occurrence in events.of("address.suppressed")} == {"gone", "also"}
    app = world.app
    # a replay is like any later mail: a dead address stays dead
    assert replay(app.stores.deliveries, app.commands, app.stores.wakeup, app.clock, world.record("hello"), None) == 3
    rcpt.clear()
    world.settle()
    assert states(world) == {"sent": 2, "skipped(suppressed)": 2}
    world.start({"campaign": "second", "kind": "one_off"})
    assert states(world, "second") == {"sent": 2, "skipped(suppressed)": 2}
    explanation = app.explainer.run(world.record("second"), "gone").address
    assert explanation.startswith("mail to the address bounced (smtp_550) at ")
    assert app.stores.suppressions.get("shop", "GONE@x.example") is not None
    assert app.stores.suppressions.get("other", "gone@x.example") is None
    assert "gone" not in str(list(world.database["suppressions"].find())), "nobody can read the address there"
    world.change("also", email="new@x.example")
    assert app.stores.suppressions.lift("shop", "gone@x.example")
    assert not app.stores.suppressions.lift("shop", "gone@x.example")
    world.start({"campaign": "third", "kind": "one_off"})
    assert states(world, "third") == {"sent": 4}


@pytest.mark.parametrize("others", [True, False])
def test_a_550_without_a_status_suppresses_only_if_others_are_accepted(world: World, sink: Sink, others: bool) -> None:
    """A reply without a status may be a policy: a server that refuses every mail must not suppress the audience."""
    sink.answers["RCPT"] = ["550 no such user"] if others else ["550 denied"] * 100
    world.users(USERS[:10])
    world.start({"campaign": "hello", "kind": "one_off"})
    assert states(world)["failed"] == (1 if others else 10)
    assert world.database["suppressions"].count_documents({}) == (1 if others else 0)


def test_an_address_that_needs_smtputf8_is_skipped_if_the_server_lacks_it(
    make_world: Callable[..., World], sink: Sink
) -> None:
    with serving(sink, enable_SMTPUTF8=False) as port:
        smtp = {"transport": "smtp", "host": "127.0.0.1", "port": port, "starttls": "off", "timeout": "2s"}
        world = make_world(transport=smtp)
        world.user("zoë", email="zoë@x.example")
        world.user("bob", email="bob@faß.de")
        world.start({"campaign": "hello", "kind": "one_off"})
    assert states(world) == {"sent": 1, "skipped(no_smtputf8)": 1}
    assert [rcpt for _, [rcpt], _ in sink.taken] == ["bob@xn--fa-hia.de"]


def test_the_error_budget_pauses_a_campaign_during_sending(world: World, sink: Sink) -> None:
    """Every mailbox is full: the first windows pause the campaign, not the last."""
    sink.answers["RCPT"] = ["552 5.2.2 mailbox full"] * 100_000
    world.users([f"u{number}" for number in range(3_000)])
    world.start({"campaign": "hello", "kind": "one_off"})
    assert world.state("hello") == "paused"
    assert 50 <= states(world)["failed"] <= 300


def test_a_provider_that_turns_to_refuse_everything_costs_a_few_hundred(world: World, sink: Sink) -> None:
    """By then the windows are wide, and far fewer than the budget of the campaign have failed."""
    sink.answers["RCPT"] = ["250 ok"] * 5_000 + ["552 5.2.2 mailbox full"] * 100_000
    world.users([f"u{number}" for number in range(7_000)])
    world.start({"campaign": "hello", "kind": "one_off"})
    assert world.state("hello") == "paused"
    assert "of the last 200 deliveries failed" in str(world.record("hello").paused_reason)
    assert 100 <= states(world)["failed"] <= 500
    sink.answers["RCPT"] = []
    app = world.app
    replay(app.stores.deliveries, app.commands, app.stores.wakeup, app.clock, world.record("hello"), None)
    world.steer("resume", "hello")
    world.settle()
    assert states(world) == {"sent": 7_000}
    assert len({rcpt for _, [rcpt], _ in sink.taken}) == len(sink.taken) == 7_000


def test_a_provider_that_calls_every_address_dead_is_soon_not_believed(world: World, sink: Sink) -> None:
    sink.answers["RCPT"] = ["250 ok"] * 500 + ["550 5.1.1 no such user"] * 100_000
    world.users([f"u{number}" for number in range(2_000)])
    world.start({"campaign": "hello", "kind": "one_off"})
    assert world.state("hello") == "paused"
    sink.answers["RCPT"] = []
    app = world.app
    replay(app.stores.deliveries, app.commands, app.stores.wakeup, app.clock, world.record("hello"), None)
    world.steer("resume", "hello")
    world.settle()
    suppressed = states(world).get("skipped(suppressed)", 0)
    assert suppressed <= RECENT // 2 + 1
    assert states(world)["sent"] == 2_000 - suppressed


def test_a_template_that_fails_for_everybody_costs_a_few_hundred(world: World, sink: Sink) -> None:
    world.users([f"u{number}" for number in range(2_000)], age=0)
    world.start(
        {
            "campaign": "hello",
            "kind": "one_off",
            "messages": [{"name": "one", "body": "{{ 10 | divided_by: user.age }}"}],
        }
    )
    assert world.state("hello") == "paused"
    assert 50 <= states(world)["failed"] <= 200
    assert sink.taken == []


def test_a_resume_releases_the_brake_even_if_a_replay_took_all_failures_back(world: World, sink: Sink) -> None:
    sink.answers["RCPT"] = ["552 5.2.2 mailbox full"] * 100_000
    world.users([f"u{number}" for number in range(500)])
    world.start({"campaign": "hello", "kind": "one_off"})
    sink.answers["RCPT"] = []
    app = world.app
    replay(app.stores.deliveries, app.commands, app.stores.wakeup, app.clock, world.record("hello"), None)
    world.steer("resume", "hello")
    assert world.record("hello").accepted == (0, 0)
    world.settle()
    assert states(world) == {"sent": 500}


def test_an_engaged_brake_does_not_keep_a_cancelled_campaign_open(world: World, sink: Sink) -> None:
    sink.answers["RCPT"] = ["552 5.2.2 mailbox full"] * 100_000
    world.users([f"u{number}" for number in range(500)])
    world.start({"campaign": "hello", "kind": "one_off"})
    failed = states(world)["failed"]
    world.steer("cancel", "hello")
    world.settle()
    assert states(world) == {"failed": failed, "skipped(cancelled)": 500 - failed}


def test_a_budget_of_everything_never_stops_a_campaign(make_world: Callable[..., World], sink: Sink) -> None:
    sink.answers["RCPT"] = ["552 5.2.2 mailbox full"] * 100_000
    with serving(sink) as port:
        smtp = {"transport": "smtp", "host": "127.0.0.1", "port": port, "starttls": "off", "timeout": "2s"}
        world = make_world(transport=smtp, errors={"budget": "100%"})
        world.users([f"u{number}" for number in range(500)])
        world.start({"campaign": "hello", "kind": "one_off"})
    assert states(world) == {"failed": 500}


def test_every_skipped_delivery_has_a_log_line(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.users([f"h{number}" for number in range(40)])
    world.users([f"none{number}" for number in range(15)], email=None)  # not all of them are in the holdout
    world.users([f"left{number}" for number in range(15)], unsubscribed=True)
    world.user("exits", plan="free")
    with listening() as emitted:
        world.start({"campaign": "hello", "kind": "one_off", "holdout": "30%"})
        world.apply({"campaign": "series", "audience": {"plan": "free"}})
        world.launch("series")
        world.choose()
        world.change("exits", plan="pro")
        world.settle()
        world.users(["late1", "late2"])
        world.apply({"campaign": "cut", "kind": "one_off"})
        world.launch("cut")
        world.choose()
        world.steer("cancel", "cut")
        world.settle()
    expected: Counter[tuple[str, str, str]] = Counter()
    for name in ("hello", "series", "cut"):
        for enrolment in world.enrolments(name):
            for delivery in enrolment.settled:
                if delivery.state == "skipped":
                    expected[(name, f"{enrolment.id}/{delivery.message}", str(delivery.reason))] += 1
    events = emitted.of("delivery.skipped")
    lines = Counter((str(o.fields["campaign"]), str(o.fields["key"]), str(o.fields["reason"])) for o in events)
    assert lines == expected
    assert {reason for _, _, reason in lines} == {"holdout", "no_address", "suppressed", "exited", "cancelled"}
    assert all(
        event.fields.get("chosen_at") and event.fields.get("slice") and event.fields.get("as_of") for event in events
    )
