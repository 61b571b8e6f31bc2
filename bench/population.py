"""A population of any size, resampled from the grocer's 2,469 households with a seed.

Each user is one real household with its state at the end of `AS_OF` (its traits and the aggregates of its orders) under
an id of its own, so values have their real distribution and correlation. Documents are laid out as in the `users`
collection of `docs/architecture.md`, about 600 bytes each.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Final

from engine.domain.document import Document
from engine.domain.keys import user_key
from examples.grocer import data

WORKSPACE: Final = "bench"
AS_OF: Final = data.as_of(date(2017, 7, 1))
"""Campaign time of every pass: the middle of the data."""

DAY_MS: Final = 86_400_000
SEED: Final = 20170701


def households() -> list[Document]:
    """Return the data of each household at `AS_OF`: `a` traits, `g` aggregates, `e` event summaries."""
    orders: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for event in data.events_before(date(2017, 7, 1) + timedelta(days=1)):
        if event["event"] == data.ORDER:
            properties = event["properties"]
            assert isinstance(properties, dict)
            moment = datetime.fromisoformat(str(event["time"])).astimezone(UTC)
            orders[str(event["user_id"])].append(
                (int(moment.timestamp()) * 1000, int(Decimal(properties["value"]) * 100))
            )
    return [{"a": user["attributes"], **_summary(orders[str(user["user_id"])])} for user in data.users()]


def _summary(orders: list[tuple[int, int]]) -> Document:
    if not orders:
        return {}
    first, last = min(orders)[0], max(orders)[0]
    value = sum(cents for _, cents in orders)
    return {
        "g": {"orders_count": len(orders), "first_order_at": first, "last_order_at": last, "orders_value": value},
        "e": {data.ORDER: {"n": len(orders), "first": first, "last": last}},
    }


def documents(count: int, seed: int = SEED) -> Iterator[Document]:
    """Yield `count` user documents `u-1` to `u-count`, each a household drawn with `seed`.

    One in fifty has unsubscribed.
    """
    real = households()
    draw = random.Random(seed)
    for number in range(1, count + 1):
        user_id = f"u-{number}"
        yield {
            "_id": user_key(WORKSPACE, user_id),
            "w": WORKSPACE,
            "u": user_id,
            "rev": 1,
            "changed": ["email"],
            "email": f"{user_id}@example.org",
            "unsubscribed": draw.random() < 0.02,
            "first_name": f"Name{number}",
            "timezone": "America/New_York",
            "created_at": AS_OF - draw.randrange(400) * DAY_MS,
            "lists": [],
            **draw.choice(real),
        }
