"""The oracle of the grocer's year: hand-made cases, the figures of the data, and the files it reads."""

from __future__ import annotations

import ast
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from examples.grocer import data, oracle

FIRST = date(2017, 1, 1)


def day(number: int) -> date:
    """Return the date of a day; day 1 is the first of the replay."""
    return FIRST + timedelta(days=number - 1)


def lapsed(*order_days: int, last: int = 200, first: int = 1) -> list[tuple[str, int]]:
    sent = oracle.lapsed_mails([day(number) for number in order_days], day(first), day(last))
    return [(message, (at - FIRST).days + 1) for message, at in sent]


def orders(*rows: tuple[int, int, bool, bool]) -> pl.DataFrame:
    """Return the shopping of one household: day, cents, deli, seafood."""
    return pl.DataFrame(
        [(1, day(number), cents, deli, seafood) for number, cents, deli, seafood in rows],
        schema={"household": pl.Int64, "day": pl.Date, "cents": pl.Int64, "deli": pl.Boolean, "seafood": pl.Boolean},
        orient="row",
    )


def test_a_user_without_orders_is_never_lapsed() -> None:
    assert lapsed() == []


def test_lapsed_mails_fourteen_days_after_the_order_and_a_week_later() -> None:
    assert lapsed(1, last=60) == [("we-miss-you", 15), ("still-here", 22)]


def test_an_order_before_the_second_mail_ends_the_enrolment() -> None:
    for again in range(16, 23):
        assert lapsed(1, again, last=60) == [("we-miss-you", 15)]


def test_an_order_on_the_day_after_the_second_mail_changes_nothing() -> None:
    assert lapsed(1, 23, last=60) == [("we-miss-you", 15), ("still-here", 22)]


def test_a_completed_user_may_enter_again_sixty_days_after_the_end() -> None:
    assert lapsed(1, last=90) == [("we-miss-you", 15), ("still-here", 22), ("we-miss-you", 82), ("still-here", 89)]


def test_a_user_who_left_by_an_order_may_enter_again_sixty_days_after_it() -> None:
    assert lapsed(1, 17, last=84) == [("we-miss-you", 15), ("we-miss-you", 77), ("still-here", 84)]


def test_a_user_not_lapsed_after_sixty_days_enters_when_lapsed_again() -> None:
    assert lapsed(1, 70, last=84) == [("we-miss-you", 15), ("still-here", 22), ("we-miss-you", 84)]


def test_orders_before_the_first_day_count_on_it() -> None:
    assert lapsed(1, first=40, last=50) == [("we-miss-you", 40), ("still-here", 47)]


def test_the_last_day_of_a_replay_is_part_of_it() -> None:
    assert lapsed(1, last=14) == []
    assert lapsed(1, last=15) == [("we-miss-you", 15)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(1, 200_00, False, False)], []),
        ([(1, 200_01, False, False)], [1]),
        ([(1, 100_00, False, False), (30, 100_01, False, False)], [30]),
        ([(1, 100_00, False, False), (31, 100_01, False, False)], []),
        ([(1, 150_00, False, False), (40, 201_00, False, False), (41, 300_00, False, False)], [40]),
    ],
)
def test_big_spender_is_strictly_more_than_200_within_30_days_once(
    rows: list[tuple[int, int, bool, bool]], expected: list[int]
) -> None:
    mails = oracle.of_big_spender(orders(*rows), day(1), day(90))
    assert [mail.day for mail in mails] == [day(number) for number in expected]


def test_money_spent_before_the_first_day_still_counts_on_it() -> None:
    mails = oracle.of_big_spender(orders((1, 300_00, False, False)), day(30), day(90))
    assert [mail.day for mail in mails] == [day(30)]
    assert list(oracle.of_big_spender(orders((1, 300_00, False, False)), day(31), day(90))) == []


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(3, 1, True, False), (5, 1, False, True)], [3]),
        ([(3, 1, True, False), (3, 1, False, True)], []),
        ([(3, 1, True, True)], []),
        ([(2, 1, False, True), (3, 1, True, False)], []),
        ([(2, 1, False, False)], []),
        ([(3, 1, True, False), (9, 1, True, False)], [3]),
    ],
)
def test_deli_no_seafood_is_mailed_on_the_first_deli_day_before_any_seafood(
    rows: list[tuple[int, int, bool, bool]], expected: list[int]
) -> None:
    mails = oracle.of_deli_no_seafood(orders(*rows), day(1), day(90))
    assert [mail.day for mail in mails] == [day(number) for number in expected]


@pytest.mark.parametrize(
    ("order_days", "redemption_days", "expected"),
    [([5], [5], []), ([6], [5], [6]), ([4, 9, 12], [5, 10], [9]), ([4], [5], []), ([6], [], [])],
)
def test_redeemed_and_back_needs_an_order_later_than_some_redemption(
    order_days: list[int], redemption_days: list[int], expected: list[int]
) -> None:
    redemptions = pl.DataFrame(
        [(1, day(number)) for number in redemption_days], schema={"household": pl.Int64, "day": pl.Date}, orient="row"
    )
    shopping = orders(*((number, 100, False, False) for number in order_days))
    mails = oracle.of_redeemed_and_back(shopping, redemptions, day(1), day(90))
    assert [mail.day for mail in mails] == [day(number) for number in expected]


def test_thirteen_weeks_have_the_five_list_campaigns_with_515_pairs() -> None:
    mails = oracle.expected(data.THIRTEEN_WEEKS.first, data.THIRTEEN_WEEKS.last)
    of_lists = Counter(mail.campaign for mail in mails if mail.campaign.startswith("list-"))
    assert of_lists == {"list-27": 361, "list-01": 13, "list-02": 48, "list-03": 12, "list-04": 81}
    others = Counter(f"{mail.campaign}/{mail.message}" for mail in mails if not mail.campaign.startswith("list-"))
    assert others == {
        "lapsed/we-miss-you": 1654,
        "lapsed/still-here": 847,
        "big-spender/thank-you": 1117,
        "deli-no-seafood/try-seafood": 1200,
        "redeemed-and-back/welcome-back": 47,
    }


def test_the_year_has_27_list_campaigns_with_6589_pairs() -> None:
    mails = oracle.expected(data.YEAR.first, data.YEAR.last, launch_earlier=True)
    of_lists = Counter(mail.campaign for mail in mails if mail.campaign.startswith("list-"))
    assert (len(of_lists), of_lists.total()) == (27, 6589)
    others = Counter(f"{mail.campaign}/{mail.message}" for mail in mails if not mail.campaign.startswith("list-"))
    assert others == {
        "lapsed/we-miss-you": 7743,
        "lapsed/still-here": 4518,
        "big-spender/thank-you": 1607,
        "deli-no-seafood/try-seafood": 1854,
        "redeemed-and-back/welcome-back": 408,
    }


def test_a_replay_that_launches_earlier_campaigns_does_so_on_its_first_day() -> None:
    left_out = oracle.expected(date(2017, 1, 1), date(2017, 1, 2))
    launched = oracle.expected(date(2017, 1, 1), date(2017, 1, 2), launch_earlier=True)
    assert {mail.campaign for mail in launched - left_out} == {"list-24", "list-25", "list-26"}
    assert {mail.day for mail in launched - left_out} == {date(2017, 1, 1)}


def test_the_oracle_shares_no_code_with_the_engine_or_the_data_module() -> None:
    tree = ast.parse(Path(oracle.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in imported if name.split(".")[0] in {"engine", "actors", "examples", "data"}}


def test_every_time_in_the_data_is_a_whole_second_and_one_per_basket() -> None:
    lines = oracle.table("transactions").select("basket_id", "transaction_timestamp").collect()
    assert lines.select((pl.col("transaction_timestamp").dt.nanosecond() == 0).all()).item()
    assert lines.group_by("basket_id").agg(pl.col("transaction_timestamp").n_unique() == 1).to_series(1).all()


def test_as_of_of_a_day_is_its_last_millisecond() -> None:
    assert datetime.fromtimestamp((data.as_of(FIRST) + 1) / 1000, UTC) == datetime(2017, 1, 2, tzinfo=UTC)
