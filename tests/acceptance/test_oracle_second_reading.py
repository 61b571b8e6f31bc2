"""Compare the oracle with a slow second reading of `docs/semantics.md`, section 2, in milliseconds, step by step.

It reads the facts that the replay imports (`data.py`), so it also shows that they agree with the parquet files.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import pytest

from examples.grocer import data, oracle

DAY = 86_400_000
SEED = 20170101


class Happened(NamedTuple):
    name: str
    at: int
    cents: int
    departments: Sequence[str]


@dataclass(frozen=True)
class Rules:
    matches: Callable[[list[Happened], int], bool]
    messages: Sequence[tuple[str, int]]
    again_after: int | None = None


def orders(events: list[Happened], as_of: int) -> list[Happened]:
    return [event for event in events if event.name == data.ORDER and event.at <= as_of]


def lapsed(events: list[Happened], as_of: int) -> bool:
    last = max((order.at for order in orders(events, as_of)), default=None)
    return last is not None and last <= as_of - 14 * DAY


def big_spender(events: list[Happened], as_of: int) -> bool:
    return sum(order.cents for order in orders(events, as_of) if order.at > as_of - 30 * DAY) > 200_00


def deli_no_seafood(events: list[Happened], as_of: int) -> bool:
    departments = [name for order in orders(events, as_of) for name in order.departments]
    return "DELI" in departments and "SEAFOOD" not in departments


def redeemed_and_back(events: list[Happened], as_of: int) -> bool:
    redeemed = [event.at for event in events if event.name == data.REDEMPTION and event.at <= as_of]
    return any(order.at > at for order in orders(events, as_of) for at in redeemed)


RULES = {
    "lapsed": Rules(lapsed, [("we-miss-you", 0), ("still-here", 7 * DAY)], 60 * DAY),
    "big-spender": Rules(big_spender, [("thank-you", 0)]),
    "deli-no-seafood": Rules(deli_no_seafood, [("try-seafood", 0)]),
    "redeemed-and-back": Rules(redeemed_and_back, [("welcome-back", 0)]),
}


def looks(rules: Rules, events: list[Happened], window: data.Window) -> list[tuple[str, date]]:
    """Evaluate repeatedly on every day until an evaluation changes nothing; each message is sent at once."""
    sent: list[tuple[str, date]] = []
    enrolments, ended, active, settled, progress = 0, 0, False, 0, 0
    for day in window.days():
        as_of = data.as_of(day)
        known = [event for event in events if event.at <= as_of]
        changed = True
        while changed:
            changed = False
            matches = rules.matches(known, as_of)
            free = enrolments == 0 or (rules.again_after is not None and as_of >= ended + rules.again_after)
            if not active and matches and free:
                active, enrolments, settled, progress = True, enrolments + 1, as_of, 0
            if not active:
                continue
            if not matches or progress == len(rules.messages):
                active, ended, changed = False, as_of, True
            elif as_of >= settled + rules.messages[progress][1]:
                sent.append((rules.messages[progress][0], day))
                settled, progress, changed = as_of, progress + 1, True
    return sent


def history() -> dict[str, list[Happened]]:
    events: dict[str, list[Happened]] = defaultdict(list)
    for row in data.events_before(data.LAST_DAY + timedelta(days=1)):
        properties = row["properties"]
        assert isinstance(properties, dict)
        at = round(datetime.fromisoformat(str(row["time"])).timestamp() * 1000)
        cents = round(Decimal(properties.get("value", "0")) * 100)
        events[str(row["user_id"])].append(Happened(str(row["event"]), at, cents, properties.get("departments", ())))
    return events


@pytest.mark.parametrize("window", [data.YEAR, data.THIRTEEN_WEEKS, data.FORTNIGHT], ids=["year", "weeks", "fortnight"])
def test_the_oracle_agrees_with_an_evaluation_of_every_day(window: data.Window) -> None:
    events = history()
    by_size = sorted(events, key=lambda user: len(events[user]))
    redeemers = [user for user in by_size if any(event.name == data.REDEMPTION for event in events[user])]
    chosen = random.Random(SEED)
    sample = {*by_size[:40], *chosen.sample(by_size, 50), *chosen.sample(redeemers, 20)}
    expected: dict[tuple[str, str], list[tuple[str, date]]] = defaultdict(list)
    for mail in sorted(oracle.expected(window.first, window.last), key=lambda mail: mail.day):
        expected[mail.campaign, f"hh-{mail.household}"].append((mail.message, mail.day))
    for user in sample:
        for name, rules in RULES.items():
            assert looks(rules, events[user], window) == expected[name, user], (user, name)
