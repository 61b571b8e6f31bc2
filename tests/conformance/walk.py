"""A second judge, for tests only: walk the plain YAML of a predicate over raw documents, with no code of the engine.

It follows `docs/predicates.md`, and is slow and straightforward on purpose.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

Event = tuple[str, int, Mapping[str, Any]]

FIELDS: dict[str, tuple[str, bool]] = {
    "s": ("string", False), "s2": ("string", False), "f": ("folded", False), "i": ("integer", False),
    "i2": ("integer", False), "n": ("number", False), "n2": ("number", False), "d": ("decimal", False),
    "d2": ("decimal", False), "b": ("boolean", False), "b2": ("boolean", False), "t": ("time", False),
    "t2": ("time", False), "ss": ("string", True), "fs": ("folded", True), "is": ("integer", True),
    "ns": ("number", True), "orders_count": ("integer", False), "last_order_at": ("time", False),
    "orders_value": ("decimal", False),
}  # fmt: skip
PROPERTIES: dict[str, tuple[str, bool]] = {
    "value": ("decimal", False), "items": ("integer", False), "coupon": ("string", False), "note": ("folded", False),
    "departments": ("string", True), "gift": ("boolean", False), "weight": ("number", False),
    "shipped": ("time", False),
}  # fmt: skip
UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def walk(predicate: Any, document: Mapping[str, Any], events: Sequence[Event], now: int) -> bool:
    """Report whether a user matches."""
    held = []
    for key, value in predicate.items():
        if key == "all":
            held.append(all(walk(part, document, events, now) for part in value))
        elif key == "any":
            held.append(any(walk(part, document, events, now) for part in value))
        elif key == "none":
            held.append(not any(walk(part, document, events, now) for part in value))
        elif key == "list":
            held.append(value in document["lists"])
        elif key == "event":
            held.append(happened(value, events, now))
        else:
            held.append(field_holds(key, value, document, now))
    return all(held)


def values_of(stored: Any, kind: str, *, many: bool) -> list[Any]:
    """Return the values of that type in a stored value; none if it is missing."""
    if many:
        return [v for item in stored for v in values_of(item, kind, many=False)] if isinstance(stored, list) else []
    if kind == "boolean":
        good = isinstance(stored, bool)
    elif kind in ("string", "folded"):
        good = isinstance(stored, str)
    elif kind == "number":
        good = isinstance(stored, float) and math.isfinite(stored)
    else:
        good = isinstance(stored, int) and not isinstance(stored, bool)
    if not good:
        return []
    return [folded(stored) if kind == "folded" else stored]


def folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def literal(written: Any, kind: str) -> Any:
    if kind == "folded":
        return folded(written)
    if kind == "decimal":
        return int(Decimal(str(written)) * 100)
    if kind == "time":
        read = datetime.fromisoformat(written)
        read = read if read.tzinfo else read.replace(tzinfo=UTC)
        return (read - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return written


def span(text: str) -> int:
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdw])", text))


def field_holds(name: str, conditions: Any, document: Mapping[str, Any], now: int) -> bool:
    def stored(field: str) -> list[Any]:
        kind, many = FIELDS[field]
        holder = document["g"] if field in ("orders_count", "last_order_at", "orders_value") else document["a"]
        return values_of(holder.get(field), kind, many=many)

    return holds(conditions, stored(name), FIELDS[name][0], now, stored)


def holds(
    conditions: Any, values: list[Any], kind: str, now: int, other: Callable[[str], list[Any]] | None = None
) -> bool:
    if not isinstance(conditions, dict):
        conditions = {"eq": conditions}
    for_one: list[Callable[[Any], bool]] = []
    for op, operand in conditions.items():
        if isinstance(operand, dict):
            assert other is not None
            right = other(operand["field"])
            if not values or not right or not compare(op, values[0], right[0]):
                return False
        elif op == "exists":
            if bool(values) is not operand:
                return False
        elif op in ("ne", "not_in"):
            refused = [literal(item, kind) for item in (operand if op == "not_in" else [operand])]
            if not values or any(value in refused for value in values):
                return False
        else:
            for_one.append(one_test(op, operand, kind, now))
    return not for_one or any(all(test(value) for test in for_one) for value in values)


def one_test(op: str, operand: Any, kind: str, now: int) -> Callable[[Any], bool]:
    if op == "in":
        allowed = [literal(item, kind) for item in operand]
        return lambda value: value in allowed
    if op == "prefix":
        start = literal(operand, kind)
        return lambda value: value.startswith(start)
    if op == "older_than":
        return lambda t: t <= now - span(operand)
    if op == "within":
        return lambda t: now - span(operand) < t <= now
    if op == "within_next":
        return lambda t: now < t <= now + span(operand)
    edge = literal(operand, kind)
    return lambda value: compare(op, value, edge)


def compare(op: str, left: Any, right: Any) -> bool:
    return {
        "eq": left == right, "ne": left != right, "gt": left > right, "gte": left >= right, "lt": left < right,
        "lte": left <= right,
    }[op]  # fmt: skip


def among(conditions: Mapping[str, Any], events: Sequence[Event], now: int) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the events of a name, up to now, in the window, with the given properties."""
    matching = []
    for name, t, properties in events:
        if name != conditions["name"] or t > now or ("within" in conditions and t <= now - span(conditions["within"])):
            continue
        if all(
            property_holds(key, condition, properties, now) for key, condition in conditions.get("where", {}).items()
        ):
            matching.append((t, properties))
    return matching


def property_holds(name: str, condition: Any, properties: Mapping[str, Any], now: int) -> bool:
    kind, many = PROPERTIES[name]
    return holds(condition, values_of(properties.get(name), kind, many=many), kind, now)


def happened(conditions: Mapping[str, Any], events: Sequence[Event], now: int) -> bool:
    stored = among(conditions, events, now)
    if "after" in conditions:
        others = [t for t, _ in among(conditions["after"], events, now)]
        stored = [(t, properties) for t, properties in stored if any(other < t for other in others)]
    if "count" not in conditions and "sum" not in conditions and not stored:
        return False
    count = conditions.get("count", {"gte": 0})
    count = count if isinstance(count, dict) else {"eq": count}
    if not all(compare(op, len(stored), edge) for op, edge in count.items()):
        return False
    if "sum" not in conditions:
        return True
    of = conditions["sum"]["of"]
    kind = PROPERTIES[of][0]
    total = sum(value for _, properties in stored for value in values_of(properties.get(of), kind, many=False))
    return all(compare(op, total, literal(edge, kind)) for op, edge in conditions["sum"].items() if op != "of")
