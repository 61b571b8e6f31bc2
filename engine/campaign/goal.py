"""The goal of a campaign: the rule for a conversion."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from engine.campaign.model import GoalRule
from engine.catalogue.catalogue import Catalogue
from engine.errors import Fault, InvalidSource
from engine.predicate.parse import parse_predicate
from engine.predicate.tree import Tree
from engine.yamlfile.nodes import Node, Steps, dotted


@dataclass(frozen=True, slots=True)
class LoadedGoal:
    """A valid goal: one event, or a predicate on fields, or either of them.

    `event` is the leaf of an event without a window: the decision requires an event later than the entry. `fields`
    names no event, since events before the entry must not count and a predicate cannot distinguish them.
    """

    within: timedelta | None
    exits: bool
    event: Tree | None
    fields: Tree | None


def read_goal(goal: GoalRule, node: Node, catalogue: Catalogue, faults: list[Fault]) -> LoadedGoal | None:
    """Read the goal at `node`; add mistakes to `faults`.

    Three shapes: `event: {name, where}`, a predicate without events, or `any:` of both.
    """
    rule = Node(node.mark, {key: node.find(key) for key in goal.rule}, dict(node.keys))
    event, fields, path = _parts(rule)
    if fields is not None:
        faults += [
            Fault(
                place.mark,
                dotted(("goal", *steps)),
                "only one event is allowed here, alone or in an any: at the top",
                hint,
            )
            for steps, place in _events(fields, path)
            for hint in ("events before the entry must not count",)
        ]
    if event is not None:
        inside = event.value["event"] if isinstance(event.value, dict) else event
        for key in ("within", "count", "sum", "after"):
            if inside.find(key) is not inside:
                hint = "write within: beside event:" if key == "within" else f"remove {key}:"
                problem = "a goal is reached by the first event after the entry"
                faults.append(Fault(inside.key_mark(key), dotted(("goal", "event", key)), problem, hint))
    if faults:
        return None
    try:
        return LoadedGoal(
            goal.within,
            goal.exits,
            parse_predicate(event, catalogue, ("goal",)) if event is not None else None,
            parse_predicate(fields, catalogue, ("goal",)) if fields is not None else None,
        )
    except InvalidSource as error:
        faults.extend(error.faults)
        return None


def _parts(rule: Node) -> tuple[Node | None, Node | None, Steps]:
    """Split a goal into its event and the rest, and return the path to the rest."""
    keys = rule.value if isinstance(rule.value, dict) else {}
    if set(keys) == {"event"}:
        return rule, None, ()
    if set(keys) == {"any"}:
        leaves = list(keys["any"])
        events = [leaf for leaf in leaves if isinstance(leaf.value, dict) and set(leaf.value) == {"event"}]
        if len(events) == 1:
            others = [leaf for leaf in leaves if leaf is not events[0]]
            rest = Node(rule.mark, {"any": Node(keys["any"].mark, others)}, rule.keys) if others else None
            return events[0], rest, ()
    return None, rule, ()


def _events(node: Node, path: Steps) -> list[tuple[Steps, Node]]:
    """Return every event leaf below `node`."""
    events: list[tuple[Steps, Node]] = []
    for key, value in (node.value if isinstance(node.value, dict) else {}).items():
        if key == "event":
            events.append(((*path, key), value))
        elif key in ("all", "any", "none"):
            for i, item in enumerate(value):
                events += _events(item, (*path, key, i))
    return events
