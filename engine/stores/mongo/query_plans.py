"""A registry of queries: each has a name, an index it relies on, and a sample that MongoDB can explain.

A store registers each query with `explained` in the module that builds it, with a command from the same function that
the query itself uses. A test fills the collections, asks MongoDB for every plan, and fails if one scans a collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pymongo.database import Database

from engine.domain.document import Document
from engine.errors import ProgrammerError

QUERIES: Final[dict[str, ExplainedQuery]] = {}
"""Maps query names to their registrations; filled when the modules of `engine.stores` are imported."""


@dataclass(frozen=True, slots=True)
class ExplainedQuery:
    """One named query: `index` is the name of the index it relies on (`_id_` for the key), `command` is a sample."""

    name: str
    index: str
    command: Document


def explained(name: str, index: str, command: Document) -> None:
    """Register a named query. Raises `ProgrammerError` if the name is taken."""
    if name in QUERIES:
        raise ProgrammerError(f"two queries are named {name}")
    QUERIES[name] = ExplainedQuery(name, index, command)


def find_command(collection: str, filter: Mapping[str, object], **options: object) -> Document:  # noqa: A002 - MongoDB's own word
    """Build a `find` as a database command; `options` are `sort`, `projection`, `limit`."""
    return {"find": collection, "filter": dict(filter), **options}


def update_command(collection: str, filter: Mapping[str, object], update: object) -> Document:  # noqa: A002 - MongoDB's own word
    """Build an `update` of many documents as a database command."""
    return {"update": collection, "updates": [{"q": dict(filter), "u": update, "multi": True}]}


def delete_command(collection: str, filter: Mapping[str, object]) -> Document:  # noqa: A002 - MongoDB's own word
    """Build a `delete` of many documents as a database command."""
    return {"delete": collection, "deletes": [{"q": dict(filter), "limit": 0}]}


def aggregate_command(collection: str, pipeline: list[Document]) -> Document:
    """Build an `aggregate` as a database command."""
    return {"aggregate": collection, "pipeline": pipeline, "cursor": {}}


@dataclass(frozen=True, slots=True)
class Plan:
    """MongoDB's plan: the stages of the winning plan and the indexes that they read."""

    stages: frozenset[str]
    indexes: frozenset[str]

    @property
    def scans(self) -> bool:
        """Whether the plan reads a whole collection."""
        return "COLLSCAN" in self.stages


def explain(database: Database[Document], query: ExplainedQuery) -> Plan:
    """Return MongoDB's winning plan for the sample of a query."""
    answer = database.command("explain", query.command, verbosity="queryPlanner")
    stages: set[str] = set()
    indexes: set[str] = set()
    for stage in _winning(answer):
        stages.add(str(stage["stage"]))
        if "indexName" in stage:
            indexes.add(str(stage["indexName"]))
        elif stage["stage"] == "IDHACK":
            indexes.add("_id_")
    return Plan(frozenset(stages), frozenset(indexes))


def _winning(answer: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(answer, Mapping):
        if isinstance(answer.get("stage"), str):
            yield answer
        for key, inner in answer.items():
            if key != "rejectedPlans":
                yield from _winning(inner)
    elif isinstance(answer, list):
        for inner in answer:
            yield from _winning(inner)
