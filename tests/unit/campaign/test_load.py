"""A valid campaign file loads into the expected campaign, and a store returns that campaign unchanged."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from engine.campaign.load import LoadedCampaign, campaign_from_spec, load_campaign
from engine.catalogue.catalogue import Catalogue
from engine.catalogue.workspace_file import read_workspaces
from engine.clock import parse_instant
from engine.errors import InvalidSource
from engine.policy.load import load_policies
from engine.policy.models import CampaignKind, Cost

ROOT = Path(__file__).parents[3]

WINBACK = """\
campaign: winback
workspace: shop
kind: continuous
starts_at: 2026-12-01T08:00+01:00
ends_at: 2027-03-01
profile: lifecycle
audience:
  all:
    - orders_count: {gte: 3}
    - last_order_at: {older_than: 14d}
  none:
    - unsubscribed: true
    - event: {name: Coupon Redeemed, within: 30d}
entry: {again_after: 90d}
exit: {when: {plan: gone}}
goal: {event: {name: Order Completed}, within: 14d}
holdout: 12.5%
at_most_once: false
messages:
  - name: we-miss-you
    channel: email
    subject: "{{ user.first_name | default: 'Hello' }}, it has been a while"
    body: templates/we-miss-you.html
    text: templates/we-miss-you.txt
  - name: ten-percent
    wait: 3d
    when: {score: {gte: 200}}
    not_after: 2027-02-01
    channel: email
    subject: Ten percent
    body: |
      Hello {{ user.first_name }}
"""

LEAST = """\
campaign: least
workspace: shop
kind: {kind}
audience: {audience}
messages: [{{name: hello, channel: email, subject: Hello, body: Hi}}]
"""


def _load(folder: Path, text: str) -> LoadedCampaign:
    (folder / "templates").mkdir(exist_ok=True)
    (folder / "templates" / "we-miss-you.html").write_text("<p>{{ user.first_name }}</p>", encoding="utf-8")
    (folder / "templates" / "we-miss-you.txt").write_text("Hello", encoding="utf-8")
    file = folder / "campaign.yaml"
    file.write_text(text, encoding="utf-8")
    return load_campaign(file, {"shop": _shop()}, load_policies(ROOT / "policies"))


def _shop() -> Catalogue:
    return read_workspaces(ROOT / "examples" / "broken" / "workspaces")["shop"]


def test_every_key_of_a_file_is_read(tmp_path: Path) -> None:
    loaded = _load(tmp_path, WINBACK)
    file = loaded.file
    assert (file.campaign, file.workspace, file.kind) == ("winback", "shop", CampaignKind.CONTINUOUS)
    assert file.starts_at == parse_instant("2026-12-01T07:00:00+00:00")
    assert file.ends_at == parse_instant("2027-03-01")
    assert file.entry.again_after == timedelta(days=90)
    assert file.holdout == 0.125
    assert file.unmatched_exits
    assert file.at_most_once is False
    assert file.messages[1].wait == timedelta(days=3)
    assert file.messages[1].not_after == parse_instant("2027-02-01")
    assert loaded.exit_when is not None
    assert set(loaded.whens) == {"ten-percent"}
    assert loaded.goal is not None
    assert (loaded.goal.within, loaded.goal.exits) == (timedelta(days=14), True)
    assert loaded.goal.event is not None
    assert loaded.goal.fields is None


def test_template_files_replace_their_paths(tmp_path: Path) -> None:
    first = _load(tmp_path, WINBACK).file.messages[0]
    assert (first.body, first.text) == ("<p>{{ user.first_name }}</p>", "Hello")


def test_a_stored_campaign_round_trips_without_its_files(tmp_path: Path) -> None:
    loaded = _load(tmp_path, WINBACK)
    back = campaign_from_spec(json.loads(json.dumps(loaded.spec)), _shop())
    assert back.file == loaded.file
    assert back.spec == loaded.spec
    assert (back.audience, back.exit_when, back.goal) == (loaded.audience, loaded.exit_when, loaded.goal)
    assert (dict(back.whens), back.facts) == (dict(loaded.whens), loaded.facts)


def test_a_body_that_reads_like_a_path_is_not_opened_when_it_comes_from_a_store(tmp_path: Path) -> None:
    spec = _load(tmp_path, LEAST.format(kind="one_off", audience="{all: []}")).spec
    messages = spec["messages"]
    assert isinstance(messages, list)
    messages[0]["body"] = "templates/gone.html"
    assert campaign_from_spec(spec, _shop()).file.messages[0].body == "templates/gone.html"


def test_a_stored_campaign_whose_field_is_gone_is_refused_by_its_name(tmp_path: Path) -> None:
    spec = _load(tmp_path, LEAST.format(kind="one_off", audience="{plan: pro}")).spec
    spec["audience"] = {"plann": "pro"}
    with pytest.raises(InvalidSource, match=r"campaign least.*plann"):
        campaign_from_spec(spec, _shop())


@pytest.mark.parametrize(("kind", "leaves"), [("continuous", True), ("one_off", False)])
def test_unmatched_users_exit_only_continuous_campaigns(kind: str, leaves: bool, tmp_path: Path) -> None:
    assert _load(tmp_path, LEAST.format(kind=kind, audience="{plan: pro}")).file.unmatched_exits is leaves


@pytest.mark.parametrize(
    ("audience", "cost"),
    [("{plan: pro}", Cost.QUICK), ("{event: {name: Coupon Redeemed, within: 30d}}", Cost.SLOW)],
)
def test_an_audience_with_events_in_a_window_is_slow(audience: str, cost: Cost, tmp_path: Path) -> None:
    assert _load(tmp_path, LEAST.format(kind="continuous", audience=audience)).facts.cost is cost


@pytest.mark.parametrize(
    ("goal", "event", "fields"),
    [
        ("{event: {name: Order Completed, where: {value: {gt: 5}}}}", True, False),
        ("{plan: pro, within: 14d}", False, True),
        ("{any: [{event: {name: Order Completed}}, {plan: pro}], exits: false}", True, True),
    ],
)
def test_a_goal_is_an_event_or_fields_or_either(goal: str, event: bool, fields: bool, tmp_path: Path) -> None:
    text = LEAST.format(kind="continuous", audience="{all: []}") + f"goal: {goal}\n"
    loaded = _load(tmp_path, text).goal
    assert loaded is not None
    assert (loaded.event is not None, loaded.fields is not None) == (event, fields)


def test_faults_of_predicates_texts_and_names_are_reported_together(tmp_path: Path) -> None:
    text = WINBACK.replace("orders_count", "order_count").replace("user.first_name", "user.name", 1)
    text = text.replace("profile: lifecycle", "profile: gone")
    with pytest.raises(InvalidSource) as refused:
        _load(tmp_path, text)
    assert [fault.where for fault in refused.value.faults] == [
        "profile",
        "audience.all[0].order_count",
        "messages[0].subject",
    ]


def test_variables_that_a_template_makes_itself_are_known(tmp_path: Path) -> None:
    loop = "{% for i in (1..3) %}{{ i }}{{ forloop.index }}{% endfor %}"
    body = "{% assign x = user.plan %}{{ x }}" + loop + "{{ campaign.name }}"
    text = LEAST.format(kind="one_off", audience="{all: []}").replace("body: Hi", f'body: "{body}"')
    assert _load(tmp_path, text).file.messages[0].body == body
