"""Pydantic models over YAML with positions: each mistake becomes a `Fault` with its line, column and a suggestion.

The error texts are built from the models, so they always match what is checked. `validate` is the only entry point.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from engine.clock import format_duration
from engine.errors import Fault, InvalidSource
from engine.yamlfile.nodes import Node, Steps, dotted
from engine.yamlfile.scalars import Misfit, nearest, shown

M = TypeVar("M", bound=BaseModel)

_THOUSANDS: Final = {"k": 1_000, "m": 1_000_000}


def validate(model: type[M], node: Node, *, empty: bool = True) -> M:
    """Read the model from `node`; `empty` says whether a key may lack a value, as in settings.

    Raises `InvalidSource` with one `Fault` for each mistake.
    """
    faults = [] if empty else list(_empty(node, ()))
    try:
        read = model.model_validate(node.plain())
    except ValidationError as error:
        known = {fault.where for fault in faults}
        others = [fault for fault in faults_of(error, model, node) if fault.where not in known]
        raise InvalidSource([*faults, *others]) from error
    if faults:
        raise InvalidSource(faults)
    return read


def _empty(node: Node, path: Steps) -> Iterator[Fault]:
    """Yield a fault for each key without a value, because a reader could take it for anything."""
    if node.value is None:
        yield Fault(node.mark, dotted(path), "has no value", "write one, or remove the key")
    for key, value in (node.value if isinstance(node.value, dict) else {}).items():
        yield from _empty(value, (*path, key))
    for i, value in enumerate(node):
        yield from _empty(value, (*path, i))


def faults_of(error: ValidationError, model: type[BaseModel], node: Node) -> list[Fault]:
    """Return pydantic's errors about values in `node`, each with its position."""
    details = error.errors(include_url=False)
    relevant = [detail for detail in details if detail["type"] != "too_short" or not _below(detail["loc"], details)]
    return [_fault(model, node, detail) for detail in relevant]


def _below(steps: tuple[str | int, ...], details: list[ErrorDetails]) -> bool:
    """Whether a part of the value at `steps` is itself wrong: pydantic then counts only the valid parts."""
    return any(len(other["loc"]) > len(steps) and other["loc"][: len(steps)] == steps for other in details)


def fault(node: Node, path: Steps, problem: str, suggestion: str = "") -> Fault:
    """Return a fault of the value at `path` below `node`, or of the deepest existing value on the way to it."""
    return Fault(node.find(*path).mark, dotted(path), problem, suggestion)


def _fault(model: type[BaseModel], node: Node, detail: ErrorDetails) -> Fault:
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    path = _real(node, detail["loc"], missing=kind == "missing")
    if kind == "missing":
        return Fault(node.find(*path).mark, dotted(path), "is missing", f"add {path[-1]}:" if path else "")
    if kind == "extra_forbidden":
        keys = _keys(model, path[:-1])
        return Fault(node.key_mark(*path), dotted(path), "unknown key", nearest(path[-1], keys) if path else "")
    cause = context.get("error")
    if isinstance(cause, Misfit):
        place = (*path, *cause.at)
        is_key = bool(detail["loc"]) and detail["loc"][-1] == "[key]"
        mark = node.key_mark(*place) if is_key else node.find(*place).mark
        return Fault(mark, dotted(place), cause.problem, cause.suggestion)
    problem, suggestion = _words(kind, given, context, detail["msg"])
    return Fault(node.find(*path).mark, dotted(path), problem, suggestion)


def _real(node: Node, steps: tuple[str | int, ...], *, missing: bool) -> Steps:
    """Return those steps of a pydantic location that exist in the document (it also names validators and keys)."""
    path: list[str | int] = []
    here = node
    for step in steps:
        below = here.find(step)
        if below is not here:
            path.append(step)
            here = below
        elif missing and step == steps[-1]:
            path.append(step)
    return tuple(path)


def _words(kind: str, given: object, context: Mapping[str, object], message: str) -> tuple[str, str]:
    if kind.startswith("int"):
        return f"expected a whole number, got {shown(given)}", _whole(given)
    if kind.startswith("float") or kind == "finite_number":
        return f"expected a number, got {shown(given)}", _whole(given)
    if kind.startswith("bool"):
        return f"expected true or false, got {shown(given)}", ""
    if kind == "string_type":
        single = isinstance(given, int | float) and not isinstance(given, bool)
        return f"expected a text, got {shown(given)}", f'write "{given}"' if single else ""
    if kind in ("enum", "literal_error"):
        choices = [part.strip("' ") for part in re.split(r",| or ", str(context.get("expected", "")))]
        listed = ", ".join(choices)
        near = nearest(given, choices) if isinstance(given, str) else ""
        return f"expected one of {listed}, got {shown(given)}", near if near.startswith("did") else ""
    if kind in ("list_type", "tuple_type", "set_type", "frozen_set_type"):
        hint = f"write [{given}]" if isinstance(given, str | int | float) and not isinstance(given, bool) else ""
        hint = "write a dash before each" if isinstance(given, Mapping) else hint
        return f"expected a list, got {shown(given)}", hint
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return f"expected keys and values, got {shown(given)}", ""
    bounds = {"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le")}
    bounds |= {"greater_than": ("more than", "gt"), "less_than": ("less than", "lt")}
    if kind in bounds:
        words, key = bounds[kind]
        return f"must be {words} {_bound(context.get(key))}, got {_bound(given)}", ""
    if kind == "too_short":
        return f"needs at least {context.get('min_length')} of them, got {context.get('actual_length')}", ""
    if kind == "string_too_short":
        return "must not be empty", ""
    return message[:1].lower() + message[1:], ""


def _bound(value: object) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _whole(given: object) -> str:
    if not isinstance(given, str):
        return f"did you mean {given:.0f}?" if isinstance(given, float) and given.is_integer() else ""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", given.replace("_", "").replace(",", "").strip())
    if not match:
        return ""
    return f"did you mean {int(Decimal(match[1]) * _THOUSANDS.get(match[2].lower(), 1))}?"


def _keys(model: type[BaseModel], path: Steps) -> list[str]:
    """Return the keys that the model at `path` below `model` knows."""
    here: object = model
    for step in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            fields = [field for name, field in here.model_fields.items() if step in (name, field.alias)]
            here = fields[0].annotation if fields else None
        else:
            here = _inside(here)
        here = _bare(here)
    if isinstance(here, type) and issubclass(here, BaseModel):
        return [field.alias or name for name, field in here.model_fields.items()]
    return []


def _bare(kind: object) -> object:
    """Return `kind` without an alternative `None`."""
    parts = [part for part in getattr(kind, "__args__", ()) if part is not type(None)]
    origin = getattr(kind, "__origin__", None)
    return parts[0] if origin is None and len(parts) == 1 else kind


def _inside(kind: object) -> object:
    """Return the item type of a list or mapping type."""
    parts = [part for part in getattr(kind, "__args__", ()) if part is not Ellipsis]
    return parts[-1] if parts else None
