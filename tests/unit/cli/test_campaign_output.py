"""Plans and reports for people and for programs: estimates, shares, the order of messages, conversions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from engine.cli.campaign_output import (
    conversions_sentence,
    path_rows,
    plan_document,
    plan_rows,
    report_document,
    show_report,
)
from engine.clock import parse_instant
from engine.decisions.access_path_cost import Estimate
from engine.domain.campaign import FOR_EVER, LATE, CampaignRecord
from engine.domain.counts import Arm, CampaignCounts, MessageCounts, Population
from engine.domain.lifecycle import CampaignState
from engine.domain.work import AccessPath
from engine.pipeline.insight.campaign_report import Report, conversions, messages
from engine.pipeline.insight.plan_and_report import Plan
from engine.pipeline.scheduler.access_path import Chosen

DAY = 86_400_000
NOW = parse_instant("2026-03-01")
C = CampaignState


def plan(users: Population, audience: int) -> Plan:
    scan = Estimate(AccessPath.SCAN, users.users, 1.5, 7)
    none = Estimate(AccessPath.ELASTIC, reason="there is no Elasticsearch")
    chosen = Chosen(AccessPath.SCAN, scan, (scan, none), users.users, audience, "x", "why")
    return Plan(
        as_of=NOW,
        users=users.at_least(audience),
        audience=audience,
        counted="inside MongoDB, exactly",
        chosen=chosen,
        reads_events=False,
        cost="quick",
        profile="default",
        lane="fast",
        deliver_lane="deliver",
        slices=1,
        batch=1_000,
        inactivity=timedelta(days=1),
        holdout=0.0,
    )


@pytest.mark.parametrize(
    ("users", "audience", "expected", "share"),
    [
        (Population(64_000, estimated=False), 21_307, "21,307 of 64,000 users (33.3%)", 21_307 / 64_000),
        (Population(640_953, estimated=True), 213_070, "213,070 of about 640,953 users (about 33.2%)", None),
        (Population(98_960, estimated=True), 100_000, "100,000 of about 100,000 users (about 100.0%)", 1.0),
        (Population(0, estimated=False), 0, "0 of 0 users", None),
    ],
)
def test_a_plan_marks_estimates_and_no_share_is_above_one(
    users: Population, audience: int, expected: str, share: float | None
) -> None:
    planned = plan(users, audience)
    rows = dict(plan_rows(planned))
    assert rows["audience"] == f"{expected}, counted inside MongoDB, exactly"
    document = plan_document(record(), planned)
    assert (document["users_estimated"], document["audience_estimated"]) == (users.estimated, False)
    assert document["share"] is None or document["share"] <= 1
    if share is not None:
        assert document["share"] == share
    assert document["paths"][0]["estimated"] is True
    assert path_rows(planned)[0][1:4] == (f"about {users.users:,}", "about 1.50 s", "about 7")


def record(state: CampaignState = C.LIVE, kind: str = "one_off", **more: Any) -> CampaignRecord:
    goal = more.pop("goal", {"event": {"name": "Order Completed"}, "within": "10d"})
    spec = {"messages": [{"name": "zulu"}, {"name": "alpha"}, {"name": "mike"}], **({"goal": goal} if goal else {})}
    return CampaignRecord("c", "shop", "hello", kind, state, 1, spec, **more)


def counts(last_entered: int | None = NOW, **more: Any) -> CampaignCounts:
    values: dict[str, Any] = {"entered": 10, "active": 0, "exited": {"completed": 10}, "messages": {}}
    values |= {"holdout": 0, "converted": 0, "converted_holdout": 0}
    return CampaignCounts(**values | more, last_entered=last_entered)


def report(of: CampaignRecord, campaign_counts: CampaignCounts, now: int = NOW) -> Report:
    return Report(of, campaign_counts, True, (), messages(of, campaign_counts), conversions(of, campaign_counts, now))


def test_messages_are_in_the_order_of_the_file_with_removed_ones_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    by_name = {name: MessageCounts(1, {"sent": 1}) for name in ("alpha", "gone", "before-zulu", "zulu", "first-zulu")}
    of = record(renamed={"zulu": ["first-zulu", "before-zulu"]})
    shown = report(of, counts(messages=by_name))
    lines = [(message.name, message.counts.decided, message.note) for message in shown.messages]
    assert lines == [
        ("zulu", 1, ""),
        ("alpha", 1, ""),
        ("mike", 0, ""),
        ("first-zulu", 1, "now zulu"),
        ("before-zulu", 1, "now zulu"),
        ("gone", 1, "no longer in the file"),
    ]
    document = report_document(shown)["messages"]
    assert list(document) == ["zulu", "alpha", "first-zulu", "before-zulu", "gone"]
    assert document["gone"] == {"decided": 1, "sent": 1, "note": "no longer in the file"}
    show_report(shown)
    out = capsys.readouterr().out
    assert out.index("zulu: decided 1 = sent 1") < out.index("alpha: ") < out.index("mike: decided 0\n")
    assert "gone (no longer in the file): decided 1 = sent 1" in out


def test_conversions_of_the_holdout_are_shown_with_rates_and_uplift(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = report(record(), counts(entered=1_000, holdout=100, converted=95, converted_holdout=5))
    assert (shown.counts.treated, shown.counts.held_out) == (Arm(900, 90), Arm(100, 5))
    document = report_document(shown)
    assert (document["converted"], document["converted_holdout"]) == (95, 5)
    assert document["conversions"]["treated"] == {"entered": 900, "converted": 90, "rate": 0.1}
    assert document["conversions"]["holdout"] == {"entered": 100, "converted": 5, "rate": 0.05}
    assert document["conversions"]["uplift"] == pytest.approx(0.05)
    show_report(shown)
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines() if "messages  " in line or "holdout  " in line][-2:] == [
        ["with", "messages", "900", "90", "10.00%"],
        ["in", "the", "holdout", "100", "5", "5.00%"],
    ]
    assert "uplift over the holdout: +5.00 percentage points" in out
    nobody = report(record(), counts(None, entered=0, exited={})).counts
    assert (nobody.treated.rate, nobody.uplift) == (None, None)


CLOSES = "2026-03-11T00:00:00.000Z"
SENTENCES = {
    "open": (
        record(C.FINISHED, converting_until=NOW + 10 * DAY),
        NOW + 10 * DAY,
        f"conversions counted until {CLOSES}",
    ),
    "closed, late events count": (
        record(C.FINISHED, converting_until=NOW + 10 * DAY),
        NOW + 10 * DAY + 1,
        f"conversions closed at {CLOSES}; events from before then are counted until 2026-04-10T00:00:00.000Z",
    ),
    "closed": (record(C.FINISHED), NOW + 90 * DAY, f"conversions closed at {CLOSES}"),
    "cancelled": (record(C.CANCELLED, converting_until=NOW + 99 * DAY), NOW, f"conversions counted until {CLOSES}"),
    "draining": (record(C.DRAINING, "continuous"), NOW, f"conversions counted until {CLOSES}"),
    "entering": (
        record(C.LIVE, "continuous"),
        NOW + 90 * DAY,
        f"conversions counted until {CLOSES}, later for users who enter from now on",
    ),
    "stopped, then paused": (
        record(C.PAUSED, "continuous", resume_to=C.DRAINING),
        NOW,
        f"conversions counted until {CLOSES}",
    ),
    "without a window": (
        record(C.FINISHED, goal={"plan": "pro"}, converting_until=FOR_EVER),
        NOW + 900 * DAY,
        "conversions are counted forever: the goal has no within:",
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_a_report_shows_until_when_conversions_count(name: str) -> None:
    of, now, sentence = SENTENCES[name]
    converted = conversions(of, counts(), now)
    assert converted is not None
    assert conversions_sentence(converted) == sentence
    document = report_document(report(of, counts(), now))["conversions"]
    assert document["open"] is ("closed" not in name)
    assert document["until"] == (None if name == "without a window" else CLOSES)
    assert LATE == 30 * DAY


def test_conversions_are_omitted_without_a_goal_and_reduced_to_the_window_without_users(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_report(report(record(goal=None), counts()))
    assert "conver" not in capsys.readouterr().out
    converted = conversions(record(C.LIVE), counts(None), NOW)
    assert converted is not None
    assert conversions_sentence(converted) == "conversions are counted for 10d after each entry"
