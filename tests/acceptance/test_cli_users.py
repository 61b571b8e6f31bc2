"""An operator's questions and actions for one user: explain, test-send, show, erase, time, queues, origins."""

from __future__ import annotations

import email
import email.policy
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from actors.broker.broker import HardenedBroker
from actors.broker.queue_admin import list_dead
from actors.fleet import run_fleet_in_process, stop_fleets
from actors.setup import broker_for
from engine.clock import format_instant, millis, parse_duration
from engine.domain.keys import user_key
from engine.domain.lifecycle import SKIPPED_BECAUSE, SkipReason
from engine.domain.suppression import Bounced
from tests.support.installation import PATIENCE, Installation, Told
from tests.support.pipeline_world import START, World

Tidegate = Callable[..., Told]
DAY = millis(parse_duration("1d"))
PREVIEW = ("campaign", "preview", "series", "--headers", "--user")


@pytest.fixture
def shop(installation: Installation) -> World:
    """A shop with a series for the users of the free plan."""
    world = installation.world
    world.user("sam", plan="free", email="sam@x.example")
    world.user("pat", plan="pro")
    messages = [
        {"name": "one", "subject": "Hello {{ user.user_id }}", "body": "<p>Plan: {{ user.plan }}</p>"},
        {"name": "two", "wait": "3d"},
    ]
    world.apply({"campaign": "series", "audience": {"plan": "free"}, "messages": messages})
    return world


def explained(tidegate: Tidegate, user: str) -> dict[str, Any]:
    document: dict[str, Any] = tidegate("explain", "series", user, "--json").document
    return document


def test_explain_says_that_a_campaign_was_not_launched(shop: World, tidegate: Tidegate) -> None:
    assert "draft" in explained(tidegate, "sam")["now"]


def test_explain_refuses_an_unknown_user_and_knows_one_that_was_erased(shop: World, tidegate: Tidegate) -> None:
    shop.launch("series")
    shop.settle()
    for form in ((), ("--json",)):
        result = tidegate("explain", "series", "nobody", *form)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("tidegate: there is no user nobody in shop\n")
    assert tidegate("user", "erase", "sam", "-w", "shop", "--yes").code == 0
    shop.settle()
    gone = explained(tidegate, "sam")
    assert (gone["known"], gone["matches"], gone["now"]) == (False, False, "the user was deleted")
    assert [enrolment["reason"] for enrolment in gone["stays"]] == ["deleted"]


def test_explain_names_the_leaf_that_fails_and_its_data(shop: World, tidegate: Tidegate) -> None:
    shop.launch("series")
    shop.settle()
    explanation = explained(tidegate, "pat")
    assert (explanation["known"], explanation["matches"], explanation["stays"]) == (True, False, [])
    (leaf,) = [leaf for leaf in explanation["audience"] if leaf["fails"]]
    assert "plan" in leaf["leaf"]
    assert "pro" in str(leaf["data"])
    words = tidegate("explain", "series", "pat").out
    assert "does not match the audience" in words
    assert "fails" in words


def test_explain_shows_a_waiting_enrolment_and_its_next_evaluation(shop: World, tidegate: Tidegate) -> None:
    shop.launch("series")
    shop.settle()
    explanation = explained(tidegate, "sam")
    assert explanation["now"].startswith(f"waits until {format_instant(START + 3 * DAY)}")
    assert explanation["next_look"] == format_instant(START + 3 * DAY)
    (enrolment,) = explanation["stays"]
    assert [(row["message"], row["state"]) for row in enrolment["messages"]] == [("one", "sent")]
    assert "next evaluation by time" in tidegate("explain", "series", "sam").out


def test_explain_shows_why_an_enrolment_ended(shop: World, tidegate: Tidegate) -> None:
    shop.launch("series")
    shop.settle()
    shop.after("3d")
    explanation = explained(tidegate, "sam")
    assert "completed" in explanation["now"]
    assert "enters this campaign once" in explanation["now"]
    assert [row["message"] for row in explanation["stays"][0]["messages"]] == ["one", "two"]


def test_a_test_send_goes_to_another_address_and_is_not_recorded(shop: World, tidegate: Tidegate) -> None:
    result = tidegate("campaign", "test-send", "series", "one", "--user", "sam", "--to", "me@office.example")
    assert (result.code, result.out) == (0, ""), result.err
    (path,) = (shop.settings.maildir / "new").iterdir()
    mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert (mail["To"], mail["Subject"]) == ("me@office.example", "Hello sam")
    assert "Plan: free" in path.read_text()
    assert shop.enrolments("series") == []
    assert result.err.startswith("a mail to me@office.example is in ")
    assert "nothing is sent" in result.err, "a Maildir sends nothing"
    wrong = tidegate("campaign", "test-send", "series", "three", "--user", "sam", "--to", "me@office.example")
    assert wrong.code == 2
    assert "one, two" in wrong.err
    assert tidegate("campaign", "test-send", "series", "one", "--user", "sam", "--to", "me").code == 2


def test_a_preview_shows_a_message_and_sends_nothing(shop: World, tidegate: Tidegate) -> None:
    result = tidegate("campaign", "preview", "series", "--user", "sam")
    assert result.code == 0, result.err
    assert "To: sam@x.example\nSubject: Hello sam\n" in result.out
    assert result.out.endswith("\nPlan: free\n")
    assert tidegate("campaign", "preview", "series", "--text").out == "Plan: sample\n"
    assert "Plan" not in tidegate("campaign", "preview", "series", "--headers", "--message", "two").out
    page, mail = shop.folder / "mail.html", shop.folder / "mail.eml"
    result = tidegate("campaign", "preview", "series", "--empty", "--html", str(page), "--eml", str(mail))
    assert (result.code, result.out) == (0, "")
    assert page.read_text().rstrip() == "<p>Plan: </p>"
    assert email.message_from_bytes(mail.read_bytes(), policy=email.policy.default)["Subject"] == "Hello sample-1"
    shop.user("lea", plan="free", email="lea@nowhere")
    shop.user("kim", plan="free", email="kim@x.example", unsubscribed=True)
    assert tidegate(*PREVIEW, "lea").err == (
        "note: lea gets no mail. The e-mail address is not valid: mails are skipped (no_address)\n"
    )
    assert tidegate(*PREVIEW, "kim").err == "note: kim gets no mail. Unsubscribed: mails are skipped (suppressed)\n"
    result = tidegate("campaign", "preview", str(shop.folder / "campaigns" / "series.yaml"), "--json")
    assert result.document["html"].rstrip() == "<p>Plan: sample</p>"
    assert not list(shop.settings.maildir.glob("new/*"))
    for words in (("nobody",), ("series", "--user", "nobody"), ("series", "--message", "three")):
        assert tidegate("campaign", "preview", *words).code == 2
    assert tidegate("campaign", "preview", "series", "--user", "sam", "--sample").code == 2
    assert tidegate("campaign", "preview", "series", "--message", "two", "--html", "x").code == 2


def test_test_send_preview_explain_and_report_name_a_failing_template(shop: World, tidegate: Tidegate) -> None:
    reason = "template: one.body:1: divided_by: can't divide by 0"
    body = "{{ 10 | divided_by: user.age }}"
    file = shop.folder / "campaigns" / "broken.yaml"
    shop.apply({"campaign": "broken", "audience": {"plan": "free"}, "messages": [{"name": "one", "body": body}]})
    assert "warning: one.body:1: fails for a user without any field" in tidegate("campaign", "apply", str(file)).err
    for words in (
        ("test-send", "broken", "one", "--user", "sam", "--to", "me@office.example"),
        ("preview", "broken", "--user", "sam"),
    ):
        result = tidegate("campaign", *words)
        assert (result.code, result.err.splitlines()[0]) == (2, f"tidegate: the message cannot be made: {reason}")
    shop.launch("broken")
    shop.settle()
    assert f"one: failed ({reason})" in tidegate("explain", "broken", "sam").out
    states = tidegate("campaign", "report", "broken", "--json").document["messages"]["one"]
    assert states["decided"] == 1
    assert any(state.startswith("failed") for state in states)


def test_a_user_can_be_shown_and_erased_for_good(shop: World, tidegate: Tidegate) -> None:
    shop.event("sam", "Order Completed", START, value=1250)
    shop.app.imports("shop").lists.add("vip", [user_key("shop", "sam")])
    shop.launch("series")
    shop.settle()
    answer = tidegate("user", "show", "sam", "-w", "shop", "--json").document
    assert answer["user"]["email"] == "sam@x.example"
    assert answer["stays"] == [{"campaign": "series", "entry": 1, "state": "active"}]
    assert [row["n"] for row in answer["events"]] == ["Order Completed"]
    assert tidegate("user", "erase", "sam", "-w", "shop", "--yes").code == 0
    shop.settle()
    assert str(shop.enrolment("series", "sam").reason) == "deleted"
    answer = tidegate("user", "show", "sam", "-w", "shop", "--json").document
    assert answer["events"] == []
    assert shop.database["list_members"].count_documents({}) == 0
    assert "sam@x.example" not in str(answer)
    answer = tidegate(*PREVIEW, "sam")
    assert (answer.code, answer.err) == (2, "tidegate: there is no user sam in shop: deleted\n")
    answer = tidegate("campaign", "test-send", "series", "one", "--user", "sam", "--to", "me@office.example")
    assert (answer.code, answer.err) == (2, "tidegate: there is no user sam in shop: deleted\n")
    assert shop.database["users"].count_documents({"email": "sam@x.example"}) == 0


def test_a_suppressed_address_is_shown_explained_and_can_be_lifted(shop: World, tidegate: Tidegate) -> None:
    shop.launch("series")
    shop.app.stores.suppressions.add("shop", [Bounced("sam@x.example", "smtp_550", shop.record("series").uid, "one")])
    shop.settle()
    assert shop.ends("series", "sam") == [("one", "skipped", "suppressed")]
    answer = tidegate("user", "show", "sam", "-w", "shop", "--json").document["suppressed"]
    assert (answer["reason"], answer["campaign"], answer["message"]) == ("smtp_550", "series", "one")
    assert "the address is suppressed" in tidegate("user", "show", "sam", "-w", "shop").out
    words = tidegate("explain", "series", "sam").out
    assert "mail to the address bounced (smtp_550) at " in words
    assert "one: skipped (suppressed)" in words
    assert SKIPPED_BECAUSE[SkipReason.SUPPRESSED] in words
    assert "note: sam gets no mail. Mail to the address bounced" in tidegate(*PREVIEW, "sam").err
    assert tidegate("user", "unsuppress", "sam", "-w", "shop").err == "mails to the address of sam are sent again\n"
    assert tidegate("user", "unsuppress", "sam", "-w", "shop").err == "the address of sam was not suppressed\n"
    assert tidegate("user", "show", "sam", "-w", "shop", "--json").document["suppressed"] is None
    shop.user("none", email=None)
    wrong = tidegate("user", "unsuppress", "none", "-w", "shop")
    assert (wrong.code, len(wrong.err.splitlines())) == (2, 2)


def test_a_search_without_a_result_says_where_to_look(shop: World, tidegate: Tidegate) -> None:
    """The logs have no line for a user who got nothing: not matched, not yet launched, no such user."""
    for query, command in (
        ("campaign:series user:pat", "tidegate explain series pat"),
        ("user:pat event:batch.*", "tidegate explain CAMPAIGN pat"),
        ("'campaign:two words' user:hh/1", "tidegate explain 'two words' hh/1"),
    ):
        result = tidegate("logs", "search", query, "--files")
        assert f"`{command}` says why" in result.err
        assert json.loads(tidegate("logs", "search", query, "--files", "--json").out) == []
    assert "explain" not in tidegate("logs", "search", "campaign:series", "--files").err


def test_check_shows_the_mail_server_and_the_cost_of_short_times(
    tidegate: Tidegate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mail(**email: str) -> str:
        for name, value in email.items():
            monkeypatch.setenv(f"TIDEGATE_EMAIL__{name.upper()}", value)
        rows = tidegate("check", "--json").document
        (row,) = [row for row in rows if row["check"] == "mail"]
        assert row["ok"]
        return str(row["told"])

    assert mail().startswith("into the Maildir ")
    assert mail(transport="smtp", host="mail.example") == "to mail.example:587 by SMTP"
    short = mail(transport="smtp", host="mail.example", attempt="5s", timeout="2s")
    assert "email.timeout is 2s and email.attempt is 5s: RFC 5321 gives a server 10m" in short


def test_campaign_time_never_goes_back(shop: World, tidegate: Tidegate) -> None:
    assert tidegate("clock", "advance", "--to", "2026-02-01", "--no-wait").code == 0
    result = tidegate("clock", "advance", "--to", "2026-01-31")
    assert result.code == 2
    assert "forward" in result.err
    assert len(result.err.splitlines()) <= 3
    assert tidegate("clock", "show", "--json").document == {
        "campaign_time": "2026-02-01T00:00:00.000Z",
        "set": True,
        "open": None,
    }


def test_an_advance_that_times_out_reports_the_pending_work(shop: World, tidegate: Tidegate) -> None:
    shop.launch("series")
    result = tidegate("clock", "advance", "--by", "1d", "--patience", "50ms")
    assert result.code == 1
    assert "series waits for its launch" in result.err


def test_origins_show_the_source_of_each_setting_and_no_secret(
    shop: World, tidegate: Tidegate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_SERVICES__BROKER_URL", "redis://app:hunter2@localhost:6379/0")
    monkeypatch.setenv("TIDEGATE_EMAIL__PASSWORD", "hunter3")
    for form in ((), ("--json",)):
        result = tidegate("--set", "engine.tick=1s", "check", "--origin", *form)
        assert result.code == 0
        assert "hunter" not in result.out + result.err
    rows = {row["key"]: row for row in tidegate("--set", "engine.tick=1s", "check", "--origin", "--json").document}
    assert rows["engine.tick"]["value"] == "1s"
    assert "--" in rows["engine.tick"]["source"]
    assert rows["services.broker_url"]["value"] == "redis://***@localhost:6379/0"
    assert "TIDEGATE_SERVICES__BROKER_URL" in rows["services.broker_url"]["source"]
    assert rows["logs.keep"]["source"] == "default"


def test_dead_letters_can_be_listed_replayed_and_dropped(shop: World, tidegate: Tidegate) -> None:
    broker = broker_for(shop.app)
    broker.flush_all()
    try:
        for number in range(2):
            message = broker.get_actor("process_slice").message(f"slice-{number}").copy(queue_name="fast")
            broker.enqueue(message.copy(options={"max_retries": 0}))
        shop.app.__dict__["slice_decider"] = _Broken()
        _serve(shop, broker, lambda: len(list_dead(broker, "fast")) == 2)
        letters = tidegate("queue", "deadletters", "fast", "--json").document
        assert {letter["actor"] for letter in letters} == {"process_slice"}
        assert {letter["arguments"] for letter in letters} == {"slice-0", "slice-1"}
        assert "ValueError" in letters[0]["failure"]
        row = next(row for row in tidegate("queue", "list", "--json").document if row["queue"] == "fast")
        assert (row["ready"], row["dead"]) == (0, 2)
        assert "1 messages" in tidegate("queue", "replay", "fast", letters[0]["id"]).err
        row = next(row for row in tidegate("queue", "list", "--json").document if row["queue"] == "fast")
        assert (row["ready"], row["dead"]) == (1, 1)
        assert "1 dead letters" in tidegate("queue", "drop", "fast").err
        assert tidegate("queue", "deadletters", "fast", "--json").document == []
    finally:
        broker.flush_all()
        broker.close()


class _Broken:
    def run(self, slice_id: str) -> None:
        raise ValueError("it cannot be done")


def _serve(world: World, broker: HardenedBroker, until: Callable[[], bool]) -> None:
    """Let a worker serve until `until` holds; run no command meanwhile: it would take over this process's actors."""
    fleet = world.app.policies.fleets["all"].model_validate({"lanes": ["fast"], "threads": 1, "worker_timeout": "50ms"})
    worker = run_fleet_in_process(broker, fleet)
    pause, deadline = threading.Event(), time.monotonic() + PATIENCE
    try:
        while not until():
            assert time.monotonic() < deadline, "the dead letters never came"
            pause.wait(0.02)
    finally:
        stop_fleets(broker, [worker])


def test_open_slices_are_shown_for_their_lane(shop: World, tidegate: Tidegate) -> None:
    shop.launch("series")
    shop.tick()
    shop.work(lambda kind, ident: kind == "plan")
    rows = {row["queue"]: row for row in tidegate("queue", "list", "--json").document}
    assert rows["fast"]["slices"] == 1
    assert rows["deliver"]["slices"] == 0
