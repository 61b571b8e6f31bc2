"""An edit of a live campaign takes effect for the enrolled users."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import InvalidSource, WrongCall
from tests.support.pipeline_world import World

TWO = [{"name": "one"}, {"name": "two", "wait": "5d"}]


def series(**more: Any) -> dict[str, Any]:
    return {"campaign": "series", "messages": TWO, **more}


def test_enrolled_users_are_evaluated_once_under_the_new_revision(world: World) -> None:
    world.users(["free", "pro"], plan="free")
    world.change("pro", plan="pro")
    world.start(series())
    applied = world.apply(series(audience={"plan": "free"}))
    assert (applied.created, applied.record.revision) == (False, 2)
    assert applied.changes
    world.settle()
    assert str(world.enrolment("series", "pro").reason) == "unmatched"
    assert world.enrolment("series", "free").active
    assert world.enrolment("series", "free").revision == 2
    passes = [run for run in world.runs("series") if run["kind"] == "stays"]
    assert [run["results"]["users"] for run in passes] == [2]
    world.settle()
    assert len([run for run in world.runs("series") if run["kind"] == "stays"]) == 1


def test_an_apply_that_changes_nothing_is_no_revision(world: World) -> None:
    world.user("u")
    world.start(series())
    applied = world.apply(series())
    assert (applied.record.revision, applied.changes) == (1, ())


def test_two_edits_at_the_same_campaign_time_are_both_evaluated(world: World) -> None:
    world.user("u")
    world.start(series())
    world.apply(series(holdout="1%"))
    world.settle()
    world.apply(series(audience={"plan": "pro"}))
    world.settle()
    assert str(world.enrolment("series", "u").reason) == "unmatched"


def test_a_renamed_message_is_not_sent_again(world: World) -> None:
    world.user("u")
    world.start(series())
    messages = [{"name": "hello", "was": "one"}, {"name": "two", "wait": "5d"}]
    world.apply(series(messages=messages))
    world.settle()
    assert world.sent() == [("u", "one")]
    world.user("new")
    world.after("5d")
    assert world.sent() == [("new", "hello"), ("u", "one"), ("u", "two")]
    world.apply(series(messages=[{"name": "hi", "was": "hello"}, TWO[1], {"name": "three", "was": "none"}]))
    world.after("5d")
    assert [mail.message for mail in world.mails() if mail.user == "u"].count("hi") == 0


def test_a_rename_reaches_deliveries_queued_under_the_old_name(world: World) -> None:
    world.user("u")
    world.apply(series())
    world.launch("series")
    world.choose()
    world.apply(series(messages=[{"name": "hello", "was": "one", "subject": "new"}, TWO[1]]))
    world.settle()
    assert [(mail.message, mail.subject) for mail in world.mails()] == [("one", "new")]


def test_a_rename_that_is_not_declared_is_refused(world: World) -> None:
    world.user("u")
    world.start(series())
    with pytest.raises(InvalidSource, match="was"):
        world.apply(series(messages=[{"name": "hello"}, TWO[1]]))
    assert world.record("series").revision == 1


def test_a_queued_delivery_of_a_message_that_was_removed_is_skipped_as_cancelled(world: World) -> None:
    world.user("u")
    world.apply(series())
    world.launch("series")
    world.choose()
    world.apply(series(messages=[TWO[1]]))
    world.settle()
    assert world.ends("series", "u") == [("one", "skipped", "cancelled")]
    world.after("5d")
    assert world.sent() == [("u", "two")]


def test_a_new_message_reaches_enrolled_users_and_not_those_who_left(world: World) -> None:
    world.users(["in", "out"])
    world.start(series(audience={"none": [{"plan": "pro"}]}))
    world.change("out", plan="pro")
    world.after("1d")
    world.apply(series(audience={"none": [{"plan": "pro"}]}, messages=[*TWO, {"name": "three", "was": "none"}]))
    world.change("out", plan="free")
    world.after("4d")
    world.after("1d")
    assert world.sent() == [("in", "one"), ("in", "three"), ("in", "two"), ("out", "one")]


def test_a_shorter_wait_takes_effect_at_once(world: World) -> None:
    world.user("u")
    world.start(series())
    world.after("2d")
    world.apply(series(messages=[TWO[0], {"name": "two", "wait": "1d"}]))
    world.settle()
    assert world.sent() == [("u", "one"), ("u", "two")]


def test_an_edit_during_a_pause_is_evaluated_after_the_resume(world: World) -> None:
    world.user("u")
    world.start(series())
    world.steer("pause", "series")
    world.apply(series(audience={"plan": "pro"}))
    world.settle()
    assert world.enrolment("series", "u").active
    world.steer("resume", "series")
    world.settle()
    assert str(world.enrolment("series", "u").reason) == "unmatched"


def test_texts_are_those_of_the_revision_at_the_moment_of_sending(world: World) -> None:
    world.user("u")
    world.apply(series())
    world.launch("series")
    world.choose()
    world.apply(series(messages=[{"name": "one", "subject": "better"}, TWO[1]]))
    world.settle()
    assert [mail.subject for mail in world.mails()] == ["better"]


def test_an_ended_campaign_cannot_be_edited(world: World) -> None:
    world.start({"campaign": "hello", "kind": "one_off"})
    with pytest.raises(WrongCall, match="finished"):
        world.apply({"campaign": "hello", "kind": "one_off", "holdout": "5%"})


def test_an_edit_of_a_layout_is_a_new_revision_and_no_worker_reads_its_file(world: World) -> None:
    frame = world.folder / "conf" / "workspaces" / "shop" / "templates" / "frame.html"
    frame.parent.mkdir(parents=True)
    frame.write_text("<body>first {{ content }}</body>", encoding="utf-8")
    messages = [
        {
            "name": "one",
            "body": "{% layout 'frame' %}<p>{{ user.user_id }}</p>",
            "sender": "Sales <sales@shop.example>",
            "headers": {"X-User": "{{ user.user_id }}"},
        }
    ]
    campaign = {"campaign": "hello", "audience": {"plan": "free"}, "messages": messages}
    world.user("u1", plan="free")
    world.start(campaign)
    assert world.apply(campaign).record.revision == 1
    frame.write_text("<body>second {{ content }}</body>", encoding="utf-8")
    (change,) = world.apply(campaign).changes
    assert change.text.startswith('the snippet or layout "frame" changed')
    assert world.record("hello").revision == 2
    frame.unlink()
    world.user("u2", plan="free")
    world.settle()
    mails = {path.read_text().replace("\r\n", "\n") for path in world.settings.maildir.glob("new/*")}
    (first,) = [mail for mail in mails if "<body>first <p>u1</p></body>" in mail]
    (second,) = mails - {first}
    for line in ("<body>second <p>u2</p></body>", "From: Sales <sales@shop.example>\n", "X-User: u2\n"):
        assert line in second
