"""Compare the facts that the replay imports with the figures of the issue."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from examples.grocer import data, oracle


def test_a_household_is_a_user_and_two_thirds_have_no_demographics() -> None:
    users = data.users()
    assert len({user["user_id"] for user in users}) == len(users) == 2469
    assert sum(not user["attributes"] for user in users) == 2469 - 801
    assert users[0] == {
        "user_id": "hh-1",
        "email": "hh-1@example.org",
        "attributes": {
            "age": "65+",
            "income": "35-49K",
            "home_ownership": "Homeowner",
            "marital_status": "Married",
            "household_size": "2",
            "household_comp": "2 Adults No Kids",
            "kids_count": "0",
        },
    }


def test_baskets_of_the_thirteen_weeks_and_of_the_year() -> None:
    def baskets(window: data.Window) -> int:
        return sum(event["event"] == data.ORDER for day in window.days() for event in data.events_of(day))

    assert baskets(data.THIRTEEN_WEEKS) == 37_964
    assert baskets(data.YEAR) == 155_762


def test_events_of_a_household_have_unique_ids() -> None:
    seen = Counter((event["user_id"], event["id"]) for day in data.YEAR.days() for event in data.events_of(day))
    assert set(seen.values()) == {1}
    assert len(seen) == 155_762 + 2_102


def test_events_lie_on_their_day() -> None:
    for day in data.FORTNIGHT.days():
        for event in data.events_of(day):
            at = datetime.fromisoformat(str(event["time"]))
            assert at.date() == day
            assert at.utcoffset() == timedelta(0)
            assert event["event"] == data.ORDER or f"{at:%H:%M:%S}" == "23:59:59"


def test_values_in_cents_equal_an_independent_reading() -> None:
    cents: Counter[tuple[str, date]] = Counter()
    for day in data.YEAR.days():
        for event in data.events_of(day):
            if event["event"] == data.ORDER:
                properties = event["properties"]
                assert isinstance(properties, dict)
                cents[str(event["user_id"]), day] += int(Decimal(properties["value"]) * 100)
    second = oracle.read_orders(data.LAST_DAY).select("household", "day", "cents").iter_rows()
    assert {(f"hh-{household}", day): value for household, day, value in second} == dict(cents)


def test_events_before_a_replay_are_its_history() -> None:
    history = sum(1 for _ in data.events_before(data.FORTNIGHT.first))
    assert history == sum(len(data.events_of(date(2017, 1, 1) + timedelta(days=n))) for n in range(59))


def test_list_campaigns_launch_in_their_window_only() -> None:
    campaigns = data.list_campaigns()
    assert [campaign.number for campaign in campaigns] == list(range(1, 28))
    assert sum(len(campaign.households) for campaign in campaigns) == 6589
    launched = {c.number: len(c.households) for c in campaigns if data.THIRTEEN_WEEKS.launch_day(c)}
    assert launched == {27: 361, 1: 13, 2: 48, 3: 12, 4: 81}
    assert all(data.YEAR.launch_day(campaign) == campaign.start for campaign in campaigns)


def test_files_for_import_hold_a_row_per_fact(tmp_path: Path) -> None:
    rows = data.events_of(date(2017, 1, 3))
    assert data.write_ndjson(tmp_path / "events.ndjson", rows) == len(rows)
    assert [json.loads(line) for line in (tmp_path / "events.ndjson").read_text().splitlines()] == rows
    campaign = data.list_campaigns()[0]
    assert data.write_list(tmp_path / "list.csv", campaign) == 13
    assert (tmp_path / "list.csv").read_text().splitlines()[0] == "user_id"
