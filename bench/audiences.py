"""The audiences of the benches, six clauses each, in the language of campaign files."""

from __future__ import annotations

from typing import Final, TypeAlias

from engine.yamlfile.nodes import Node, parse

Tree: TypeAlias = "dict[str, object]"

ONE_PERCENT: Final = """\
all:
  - orders_count: {gte: 3}
  - orders_value: {gte: 450}
  - last_order_at: {older_than: 14d}
  - first_order_at: {older_than: 60d}
  - age: {in: ["35-44", "45-54"]}
none:
  - unsubscribed: true
"""
"""About 1.0 % of `bench.population` matches: P1, a full pass that finds few users."""

ONE_FIFTH: Final = """\
all:
  - orders_count: {gte: 3}
  - orders_value: {gte: 1}
  - last_order_at: {older_than: 14d}
  - first_order_at: {older_than: 60d}
  - timezone: America/New_York
none:
  - unsubscribed: true
"""
"""About 22 % of `bench.population` matches: P1b, a pass that writes a lot."""

AUDIENCES: Final = {"1%": ONE_PERCENT, "22%": ONE_FIFTH}


def node(audience: str) -> Node:
    """Return the audience with its marks, as `engine.predicate.parse` reads it."""
    return parse(audience, "bench/audiences.py")
