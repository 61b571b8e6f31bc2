"""Documents as MongoDB reads and writes them: filters, expressions, updates and projections that the stores use.

An operator that the stores do not use raises `NotImplementedError`, so that nothing is answered by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias

from bson.decimal128 import Decimal128

from engine.domain.document import Document
from engine.stores.mongo.client import EPOCH

Test: TypeAlias = Callable[[Document, datetime], bool]

MISSING: Final = object()
"""What a path gives where there is nothing."""


def copied(value: Any) -> Any:
    """Return a copy that shares no container with `value`."""
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return [copied(item) for item in value]
    return value


def at(document: Any, path: str) -> Any:
    """Return the value at a dotted path; of an array, those of its elements."""
    value = document
    for number, step in enumerate(steps := path.split(".")):
        if isinstance(value, list):
            rest = ".".join(steps[number:])
            values = [item for item in (at(each, rest) for each in value) if item is not MISSING]
            return values or MISSING
        if not isinstance(value, dict) or step not in value:
            return MISSING
        value = value[step]
    return value


def _kind(value: Any) -> str:
    if value is None or value is MISSING:
        return "null"
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def _compares(operator: str, value: Any, bound: Any) -> bool:
    if _kind(value) != _kind(bound):
        return False
    return _ORDER[operator](value, bound)


_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "$lt": lambda left, right: left < right,
    "$lte": lambda left, right: left <= right,
    "$gt": lambda left, right: left > right,
    "$gte": lambda left, right: left >= right,
}


def _same(value: Any, operand: Any) -> bool:
    if value is MISSING:
        return operand is None
    if _kind(value) == _kind(operand) and value == operand:
        return True
    return isinstance(value, list) and any(_same(item, operand) for item in value)


def _condition(operator: str, operand: Any) -> Callable[[Any], bool]:
    match operator:
        case "$eq":
            return lambda value: _same(value, operand)
        case "$ne":
            return lambda value: not _same(value, operand)
        case "$in":
            members = list(operand)
            return lambda value: any(_same(value, key) for key in members)
        case "$nin":
            left_out = list(operand)
            return lambda value: not any(_same(value, item) for item in left_out)
        case "$exists":
            return lambda value: (value is not MISSING) == bool(operand)
        case "$lt" | "$lte" | "$gt" | "$gte":
            return lambda value: _compares(operator, value, operand)
        case "$type":
            types = set(operand) if isinstance(operand, list) else {operand}
            types |= {"int", "long", "double"} if "number" in types else set()
            return lambda value: any(_type(item) in types for item in (value if isinstance(value, list) else [value]))
        case "$not":
            inner = [_condition(name, condition) for name, condition in operand.items()]
            return lambda value: not all(condition(value) for condition in inner)
        case "$elemMatch":
            test = compiled(operand)
            return lambda value: isinstance(value, list) and any(test(item, EPOCH) for item in value)
    raise NotImplementedError(operator)


def _field(path: str, wanted: Any) -> Test:
    if isinstance(wanted, dict) and any(key.startswith("$") for key in wanted):
        conditions = [_condition(operator, operand) for operator, operand in wanted.items()]
        if len(conditions) == 1:
            (only,) = conditions
            return lambda document, now: only(at(document, path))
        return lambda document, now: all(condition(at(document, path)) for condition in conditions)
    return lambda document, now: _same(at(document, path), wanted)


def compiled(query: Mapping[str, Any]) -> Test:
    """Return a filter as a test of one document at a moment of the server's clock."""
    tests: list[Test] = []
    for key, condition in query.items():
        if key in ("$and", "$or", "$nor"):
            tests.append(_together(key, [compiled(key_of_user) for key_of_user in condition]))
        elif key == "$expr":
            tests.append(lambda document, now, wanted=condition: truth(evaluated(wanted, document, now)))  # type: ignore[misc]
        elif key.startswith("$"):
            raise NotImplementedError(key)
        else:
            tests.append(_field(key, condition))
    if len(tests) == 1:
        return tests[0]
    return lambda document, now: all(test(document, now) for test in tests)


def _together(operator: str, tests: list[Test]) -> Test:
    if operator == "$and":
        return lambda document, now: all(test(document, now) for test in tests)
    if operator == "$or":
        return lambda document, now: any(test(document, now) for test in tests)
    return lambda document, now: not any(test(document, now) for test in tests)


def truth(value: Any) -> bool:
    """Return whether a value counts as true."""
    return value is not MISSING and value is not None and value is not False and value != 0


def _number(value: Any) -> Any:
    return value.to_decimal() if isinstance(value, Decimal128) else value


def _added(values: Iterable[Any]) -> Any:
    total: Any = None
    milliseconds: Any = 0
    for value in values:
        if value is None or value is MISSING:
            return None
        if isinstance(value, datetime):
            total = value
        else:
            milliseconds += _number(value)
    return milliseconds if total is None else total + timedelta(milliseconds=float(milliseconds))


def rank(value: Any) -> tuple[int, Any]:
    """Return the sort key of a value across types: missing, null, numbers, texts, documents, ..., dates."""
    if value is MISSING:
        return (0, 0)
    if value is None:
        return (1, 0)
    if isinstance(value, bool):
        return (6, value)
    if isinstance(value, (int, float, Decimal, Decimal128)):
        return (2, _number(value))
    if isinstance(value, str):
        return (3, value)
    if isinstance(value, dict):
        return (4, 0)
    return (7, value) if isinstance(value, datetime) else (5, 0)


_TYPES: Final[dict[type, str]] = {str: "string", bool: "bool", float: "double", dict: "object", list: "array"}


def _type(value: Any) -> str:
    if value is MISSING:
        return "missing"
    if value is None:
        return "null"
    if type(value) is int:
        return "int" if abs(value) < 1 << 31 else "long"
    return _TYPES.get(type(value), "date" if isinstance(value, datetime) else type(value).__name__)


def evaluated(expression: Any, document: Document, now: datetime) -> Any:
    """Return the value of an aggregation expression."""
    if isinstance(expression, str) and expression.startswith("$"):
        return now if expression == "$$NOW" else at(document, expression[1:])
    if isinstance(expression, list):
        return [evaluated(item, document, now) for item in expression]
    if not isinstance(expression, dict):
        return expression
    if not any(key.startswith("$") for key in expression):
        values = {key: evaluated(item, document, now) for key, item in expression.items()}
        return {key: value for key, value in values.items() if value is not MISSING}
    ((operator, operand),) = expression.items()
    return _operated(operator, operand, document, now)


def _operated(operator: str, operand: Any, document: Document, now: datetime) -> Any:  # noqa: C901 - a case for each operator
    if operator == "$literal":
        return operand
    if operator == "$cond":
        condition, then, otherwise = operand
        return evaluated(then if truth(evaluated(condition, document, now)) else otherwise, document, now)
    if operator == "$filter":
        items = evaluated(operand["input"], document, now)
        return [one for one in items if truth(evaluated(operand["cond"], {**document, "$this": one}, now))]
    if operator == "$getField":
        return evaluated(operand["input"], document, now).get(evaluated(operand["field"], document, now), MISSING)
    values = evaluated(operand, document, now)
    match operator:
        case "$ifNull":
            return next((value for value in values[:-1] if value is not MISSING and value is not None), values[-1])
        case "$add":
            return _added(values)
        case "$subtract":
            left, right = values
            if left in (None, MISSING) or right in (None, MISSING):
                return None
            if isinstance(left, datetime) and isinstance(right, datetime):
                return (left - right) // timedelta(milliseconds=1)
            return left - timedelta(milliseconds=right) if isinstance(left, datetime) else left - right
        case "$eq" | "$ne":
            left, right = (None if value is MISSING else value for value in values)
            return (rank(left) == rank(right) and left == right) == (operator == "$eq")
        case "$lt" | "$lte" | "$gt" | "$gte":
            return _ORDER[operator](rank(values[0]), rank(values[1]))
        case "$and":
            return all(map(truth, values))
        case "$or":
            return any(map(truth, values))
        case "$in":
            return values[0] in values[1]
        case "$type":
            return _type(values)
        case "$max":
            return max((value for value in values if value not in (None, MISSING)), key=rank, default=None)
        case "$concatArrays":
            return [one for each in values for one in each]
        case "$toLong":
            return int(values.timestamp() * 1000) if isinstance(values, datetime) else int(values)
        case "$toDecimal":
            return Decimal(values)
    raise NotImplementedError(operator)


def put(document: Document, path: str, value: Any) -> None:
    """Set a dotted path; create missing documents on it."""
    *steps, last = path.split(".")
    for step in steps:
        document = document.setdefault(step, {})
    document[last] = value


def removed(document: Document, path: str) -> None:
    """Unset a dotted path."""
    *steps, last = path.split(".")
    for step in steps:
        document = document.get(step, {})
    document.pop(last, None)


def updated(document: Document, update: Any, now: datetime, *, inserting: bool = False) -> Document:
    """Return a new document: `update` applied to a copy of `document`."""
    new: Document = copied(document)
    for stage in update if isinstance(update, list) else [update]:
        if isinstance(update, list):
            new = _staged(new, stage, now)
        else:
            for operator, fields in stage.items():
                for path, operand in fields.items():
                    _changed(new, operator, path, operand, now, inserting=inserting)
    return new


def _staged(document: Document, stage: Mapping[str, Any], now: datetime) -> Document:
    ((operator, operand),) = stage.items()
    if operator == "$set":
        values = {path: evaluated(item, document, now) for path, item in operand.items()}
        for path, value in values.items():
            if value is not MISSING:
                put(document, path, copied(value))
    elif operator == "$unset":
        for path in [operand] if isinstance(operand, str) else operand:
            removed(document, path)
    elif operator == "$replaceWith":
        return dict(copied(evaluated(operand, document, now)))
    else:
        raise NotImplementedError(operator)
    return document


def _changed(document: Document, operator: str, path: str, operand: Any, now: datetime, *, inserting: bool) -> None:
    before = at(document, path)
    match operator:
        case "$set":
            put(document, path, copied(operand))
        case "$setOnInsert":
            if inserting:
                put(document, path, copied(operand))
        case "$unset":
            removed(document, path)
        case "$inc":
            put(document, path, (0 if before is MISSING else before) + operand)
        case "$max" | "$min":
            wins = max if operator == "$max" else min
            put(document, path, operand if before is MISSING else wins(before, operand, key=rank))
        case "$push":
            many = isinstance(operand, dict) and "$each" in operand
            pushed = [
                *([] if before is MISSING else before),
                *(copied(operand["$each"]) if many else [copied(operand)]),
            ]
            put(document, path, pushed[operand["$slice"] :] if many and "$slice" in operand else pushed)
        case "$addToSet":
            held = [] if before is MISSING else list(before)
            more = operand["$each"] if isinstance(operand, dict) and "$each" in operand else [operand]
            put(document, path, held + [item for item in more if item not in held])
        case "$pull":
            test = compiled(operand)
            put(document, path, [item for item in before if not test(item, now)])
        case "$currentDate":
            put(document, path, now)
        case _:
            raise NotImplementedError(operator)


def projected(document: Document, projection: Mapping[str, Any] | None) -> Document:
    """Return a copy with the fields that a projection keeps."""
    if not projection:
        return dict(copied(document))
    if not any(projection.values()):
        left: Document = copied(document)
        for path in projection:
            removed(left, path)
        return left
    kept: Document = {}
    if projection.get("_id", 1) and "_id" in document:
        kept["_id"] = document["_id"]
    for path, value in projection.items():
        if path != "_id" and value:
            _keep(document, kept, path.split("."))
    return kept


def _keep(document: Document, kept: Document, steps: list[str]) -> None:
    step, *rest = steps
    if step not in document:
        return
    value = document[step]
    if not rest or not isinstance(value, dict):
        kept[step] = copied(value)
        return
    _keep(value, kept.setdefault(step, {}), rest)
