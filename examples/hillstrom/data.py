"""The public file of the MineThatData e-mail challenge, as Tidegate imports it: users, and events by day.

64,000 customers of a shop in three random arms: a mail about men's merchandise, one about women's, none. The file says
who visited, who bought and for how much within two weeks, and has no dates and no ids. Decided here:

- Row N (from 1) is the user `h-N`. All columns up to `segment` are attributes.
- The mail goes out at `SENT`. Who visited has one `Visit`, at a moment of the two weeks that follows from N alone; who
  bought has one `Purchase`, ten minutes later, with the money spent.
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

from engine.clock import Instant, format_instant, parse_instant
from engine.errors import WrongCall

WORKSPACE: Final = "hillstrom"
ARMS: Final = {"mens": "Mens E-Mail", "womens": "Womens E-Mail", "control": "No E-Mail"}
"""The arms, and what the column `segment` calls them."""

COLUMNS: Final = (
    "recency", "history_segment", "history", "mens", "womens", "zip_code", "newbie", "channel", "segment",
    "visit", "conversion", "spend",
)  # fmt: skip
SENT: Final = parse_instant("2008-03-06T14:00:00Z")
DAY: Final = 86_400_000
DAYS: Final = 14
_FIRST: Final = 3_600_000
_LATER: Final = 600_000
_SPREAD: Final = DAYS * DAY - 2 * _FIRST


@dataclass(frozen=True, slots=True)
class Customer:
    """One row: number, attributes, and what was done within two weeks; `spend` in cents."""

    number: int
    attributes: dict[str, object]
    segment: str
    visited: bool
    bought: bool
    spend: Decimal

    @property
    def user(self) -> str:
        """The user's id."""
        return f"h-{self.number}"

    @property
    def visited_at(self) -> Instant:
        """When the visit was, if there was one: after `SENT`, and so that a purchase is within `DAYS` too."""
        return SENT + _FIRST + self.number * 7_919_000 % _SPREAD


@dataclass(frozen=True, slots=True)
class Figures:
    """One arm: how many are in it, how many visited, how many bought."""

    entered: int
    visits: int
    conversions: int


def customers(file: Path) -> Iterator[Customer]:
    """Every row of the public file. Raises `WrongCall` where it cannot be read, or is another file."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise WrongCall(f"{file}: it has no column {', '.join(missing)}", remedy=f"the columns are {COLUMNS}")
            for number, row in enumerate(rows, start=1):
                yield _customer(file, number, row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WrongCall(f"{file} cannot be read: {error}", remedy="give the path of the public CSV file") from error


def _customer(file: Path, number: int, row: dict[str, str]) -> Customer:
    try:
        attributes = {
            "recency": int(row["recency"]),
            "history_segment": row["history_segment"],
            "history": _money(row["history"]),
            **{name: _flag(row[name]) for name in ("mens", "womens", "newbie")},
            **{name: row[name] for name in ("zip_code", "channel")},
            "segment": _segment(row["segment"]),
        }
        visited, bought = _flag(row["visit"]), _flag(row["conversion"])
        return Customer(number, attributes, row["segment"], visited, bought, Decimal(_money(row["spend"])))
    except (ValueError, TypeError, InvalidOperation) as error:
        raise WrongCall(f"{file}: row {number}: {error}", remedy="give the public CSV file as it is") from error


def _segment(text: str) -> str:
    if text not in ARMS.values():
        raise ValueError(f"no segment is called {text!r}")
    return text


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"{text!r} is neither 0 nor 1")
    return text == "1"


def _money(text: str) -> str:
    return str(Decimal(text).quantize(Decimal("0.01")))


def write_files(file: Path, folder: Path) -> list[Path]:
    """`users.ndjson` and one file of events for each day after the mail, in `folder`; gives the latter in order.

    Raises as `customers`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    days: dict[int, list[str]] = defaultdict(list)
    with (folder / "users.ndjson").open("w", encoding="utf-8") as users:
        for customer in customers(file):
            known = {"user_id": customer.user, "email": f"{customer.user}@example.org", **customer.attributes}
            users.write(json.dumps(known) + "\n")
            for day, event in _events(customer):
                days[day].append(event)
    written = [folder / f"events-{day + 1:02d}.ndjson" for day in range(DAYS)]
    for day, path in enumerate(written):
        path.write_text("".join(days[day]), encoding="utf-8")
    return written


def _events(customer: Customer) -> Iterator[tuple[int, str]]:
    """The day and the line of each event."""
    events: list[tuple[str, Instant, dict[str, object]]] = []
    if customer.visited:
        events.append(("Visit", customer.visited_at, {}))
    if customer.bought:
        events.append(("Purchase", customer.visited_at + _LATER, {"spend": str(customer.spend)}))
    for name, at, properties in events:
        event = {
            "user_id": customer.user,
            "name": name,
            "time": format_instant(at),
            "id": name,
            "properties": properties,
        }
        yield (at - SENT) // DAY, json.dumps(event) + "\n"


def figures(file: Path) -> dict[str, Figures]:
    """The table counted from the file itself, by arm: what the engine's reports must say. Raises as `customers`."""
    entered, visits, bought = Counter[str](), Counter[str](), Counter[str]()
    for customer in customers(file):
        entered[customer.segment] += 1
        visits[customer.segment] += customer.visited
        bought[customer.segment] += customer.bought
    return {arm: Figures(entered[name], visits[name], bought[name]) for arm, name in ARMS.items()}
