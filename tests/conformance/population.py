"""Shared by the tests of predicates: a workspace with every type, and documents as the stores hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.workspace_file import workspace_of
from engine.domain.keys import user_key
from engine.predicate.compiled import CompiledPredicate, compile_predicate
from engine.predicate.parse import parse_predicate
from engine.yamlfile.nodes import parse

WORKSPACE = """
workspace: {name}
timezone: America/New_York
attributes:
  s: string
  s2: string
  f: {{type: string, case: ignore}}
  i: integer
  i2: integer
  n: number
  n2: number
  d: {{type: decimal, scale: 2}}
  d2: {{type: decimal, scale: 2}}
  b: boolean
  b2: boolean
  t: time
  t2: time
  ss: {{type: string, many: true}}
  fs: {{type: string, many: true, case: ignore}}
  is: {{type: integer, many: true}}
  ns: {{type: number, many: true}}
events:
  Order Completed:
    value: {{type: decimal, scale: 2}}
    items: integer
    coupon: string
    note: {{type: string, case: ignore}}
    departments: {{type: string, many: true}}
    gift: boolean
    weight: number
    shipped: time
  Coupon Redeemed: {{}}
aggregates:
  orders_count: {{event: Order Completed, count: true}}
  last_order_at: {{event: Order Completed, last: true}}
  orders_value: {{event: Order Completed, sum: value}}
"""

NOW = 1_796_083_200_000
"""2026-12-01T00:00:00Z in ms: the `as_of` of the tables."""
DAY = 86_400_000
ORDER, COUPON = "Order Completed", "Coupon Redeemed"


def catalogue_of(workspace: str) -> Catalogue:
    return workspace_of(parse(WORKSPACE.format(name=workspace), "conf/workspaces/test.yaml"))


@dataclass(frozen=True)
class Person:
    """A user as a test writes it: raw attributes, lists, other parts of the document, and events (name, t, p)."""

    a: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[tuple[str, int, Mapping[str, Any]]] = ()
    lists: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    def document(self, catalogue: Catalogue, name: str) -> dict[str, Any]:
        """Return the document of `users`, with folded copies and correct summaries and aggregates."""
        summaries: dict[str, dict[str, int]] = {}
        for event, t, _ in self.events:
            summary = summaries.setdefault(event, {"n": 0, "first": t, "last": t})
            summary["n"] += 1
            summary["first"], summary["last"] = min(summary["first"], t), max(summary["last"], t)
        orders = [(t, p) for event, t, p in self.events if event == ORDER]
        values = [p["value"] for _, p in orders if type(p.get("value")) is int]
        # As the stores derive them: counts and sums are 0 for a user without events, instants are missing.
        aggregates = {"orders_count": len(orders), "orders_value": sum(values)}
        if orders:
            aggregates["last_order_at"] = max(t for t, _ in orders)
        document = {
            "_id": user_key(catalogue.workspace, name),
            "w": catalogue.workspace,
            "u": name,
            "rev": 1_796_083_200_001,
            "a": dict(self.a),
            "k": catalogue.folded(self.a),
            "g": aggregates,
            "e": summaries,
            "lists": list(self.lists),
        }
        return {**document, **self.more}

    def event_documents(self, catalogue: Catalogue, name: str) -> list[dict[str, Any]]:
        """Return the documents of `events`."""
        key = user_key(catalogue.workspace, name)
        return [
            {"_id": f"{key}/{place}", "user": key, "w": catalogue.workspace, "n": event, "t": t, "p": dict(p)}
            for place, (event, t, p) in enumerate(self.events)
        ]

    def facts(self, predicate: CompiledPredicate) -> list[list[tuple[int, Mapping[str, Any]]]]:
        """Return all events of this person, for each of the predicate's event queries."""
        return [[(t, p) for event, t, p in self.events if event == query.name] for query in predicate.event_queries]


def compiled(text: str, catalogue: Catalogue) -> CompiledPredicate:
    """Compile the predicate of a YAML text."""
    return compile_predicate(parse_predicate(parse(text, "campaigns/test.yaml"), catalogue), catalogue)
