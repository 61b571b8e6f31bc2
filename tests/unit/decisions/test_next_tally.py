"""Which campaign is counted next: closed ones at once, outdated ones in a bounded share of the time."""

from __future__ import annotations

import random

import pytest

from engine.decisions.next_tally import SHARE, YOUNG, Countable, is_final, next_tally, rest
from engine.domain.campaign_progress import TallyHead

NOW = 1_000_000_000
RUNNING = Countable(closed=False, ending=0)
CLOSED = Countable(closed=True, ending=1)


def head(age: float, took: float = 0.01, *, final: bool = False, closed: bool = False, ending: int = 0) -> TallyHead:
    return TallyHead(NOW - round(age * 1e3), took, final, closed, ending)


def test_a_campaign_that_was_never_counted_comes_first() -> None:
    campaigns = {"a": RUNNING, "b": RUNNING}
    assert next_tally(campaigns, {"a": head(10_000)}, NOW, rested=True, turn=1) == "b"


def test_nothing_is_counted_during_the_rest_but_what_has_closed() -> None:
    campaigns = {"a": RUNNING, "b": CLOSED}
    assert next_tally({"a": RUNNING}, {"a": head(10_000)}, NOW, rested=False, turn=1) is None
    assert next_tally(campaigns, {"a": head(10_000), "b": head(1)}, NOW, rested=False, turn=1) == "b"


def test_a_final_tally_is_not_repeated_until_a_replay_leads_to_another_ending() -> None:
    final = {"b": head(10_000, final=True, closed=True, ending=1)}
    assert next_tally({"b": CLOSED}, final, NOW, rested=True, turn=1) is None
    assert is_final(CLOSED, final["b"])
    again = Countable(closed=True, ending=2)
    assert next_tally({"b": again}, final, NOW, rested=False, turn=1) == "b"
    assert not is_final(again, final["b"])


def test_a_closed_campaign_with_open_deliveries_is_counted_at_the_pace_of_the_others() -> None:
    open_still = {"b": head(YOUNG + 1, closed=True, ending=1)}
    assert next_tally({"b": CLOSED}, open_still, NOW, rested=False, turn=1) is None
    assert next_tally({"b": CLOSED}, open_still, NOW, rested=True, turn=1) == "b"


def test_a_young_tally_is_not_repeated_however_cheap() -> None:
    assert next_tally({"a": RUNNING}, {"a": head(YOUNG - 1, 0.0)}, NOW, rested=True, turn=1) is None


def test_campaigns_that_ended_before_an_upgrade_get_every_fourth_turn_and_each_idle_one() -> None:
    campaigns = {"old": CLOSED, "a": RUNNING}
    outdated = {"a": head(100)}
    assert [next_tally(campaigns, outdated, NOW, rested=True, turn=turn) for turn in range(4)] == ["old", "a", "a", "a"]
    assert next_tally(campaigns, {"a": head(1)}, NOW, rested=True, turn=1) == "old"


@pytest.mark.parametrize("seed", range(5))
def test_counting_takes_no_more_than_its_share_and_leaves_nobody_out(seed: int) -> None:
    """Play an hour: some campaigns of a million users, many small ones."""
    chance = random.Random(seed)
    costs = {f"c{n}": chance.choice((0.002, 0.002, 0.05, 4.0)) for n in range(40)}
    campaigns = dict.fromkeys(costs, RUNNING)
    heads: dict[str, TallyHead] = {}
    at, rested_at, busy, turn = 0.0, 0.0, 0.0, 0
    while at < 3_600:
        uid = next_tally(campaigns, heads, round(at * 1e3), rested=at >= rested_at, turn=turn)
        if uid is None:
            at += 1
            continue
        turn += 1
        heads[uid] = TallyHead(round(at * 1e3), costs[uid])
        at += costs[uid]
        busy += costs[uid]
        rested_at = at + rest(costs[uid])
    assert busy <= SHARE * at + max(costs.values())
    assert heads.keys() == costs.keys()
    cheap = [at - heads[uid].at / 1e3 for uid, cost in costs.items() if cost < 0.01]
    assert max(cheap) < 900, "small campaigns do not wait for the large ones alone"
