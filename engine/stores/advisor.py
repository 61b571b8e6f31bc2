"""Which index serves what, asked of the live collections; and how many users a filter would find."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pymongo.database import Database

import engine.stores
from engine.domain.counts import Population
from engine.domain.document import Document
from engine.domain.keys import HASH_SPACE, hash_prefix
from engine.stores.explained import QUERIES, ExplainedQuery, explain, find_command
from engine.stores.users import Users, range_filter

SAMPLE: Final = 4_000
"""Users of which a share is told: it is then right to 1.6 % of all of them (two standard errors), in some 10 ms."""

COLLECTIONS: Final[Mapping[str, str]] = {
    "audience": "users",
    "campaigns.revisions": "campaign_revisions",
    "counts": "enrolments",
    "deliveries": "enrolments",
    "lists": "list_members",
    "statistics": "stats",
}
"""Which collection the named queries of a store ask, where it has another name than the store."""


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """A named query: the index it relies on, and what is wrong with it here (None: nothing).

    `explained` tells whether MongoDB was asked for its plan; of a query without a sample the index was looked up.
    """

    name: str
    collection: str
    index: str
    explained: bool
    problem: str | None


class IndexAdvisor:
    """Explains and counts; it writes nothing."""

    def __init__(self, database: Database[Document]) -> None:
        self._database = database
        self._users = Users(database)

    def named(self) -> list[NamedQuery]:
        """Every named query of every store, by name."""
        modules = [importlib.import_module(f"{engine.stores.__name__}.{one.name}") for one in _modules()]
        relied = {name: index for module in modules for name, index in getattr(module, "NAMED", {}).items()}
        present: dict[str, set[str]] = {}
        found = [self._explained(query) for query in QUERIES.values()]
        for name, index in relied.items():
            collection = COLLECTIONS.get(name) or COLLECTIONS.get(name.split(".")[0]) or name.split(".")[0]
            if collection not in present:
                present[collection] = set(self._database[collection].index_information())
            missing = [one for one in index.split(" or ") if one not in present[collection]]
            problem = f"{collection} has no index {' and no '.join(missing)}" if missing else None
            found.append(NamedQuery(name, collection, index, explained=False, problem=problem))
        return sorted(found, key=lambda query: query.name)

    def _explained(self, query: ExplainedQuery) -> NamedQuery:
        plan = explain(self._database, query)
        collection = str(query.command[next(iter(query.command))])
        problem = None
        if plan.scans:
            problem = f"MongoDB scans all of {collection}"
        elif query.index not in plan.indexes:
            used = ", ".join(sorted(plan.indexes)) or "no index"
            problem = f"MongoDB uses {used} of {collection}"
        return NamedQuery(query.name, collection, query.index, explained=True, problem=problem)

    def serving(self, collection: str, query: Mapping[str, Any]) -> tuple[str, ...]:
        """The indexes by which MongoDB would find what matches `query`; none where it would scan the collection."""
        plan = explain(self._database, ExplainedQuery("advised", "", find_command(collection, query)))
        return () if plan.scans else tuple(sorted(plan.indexes))

    def users(self, workspace: str) -> Population:
        """How many users a workspace has, counted up to `SAMPLE` of them. Index: `_id_`."""
        return self._users.population(workspace, SAMPLE)

    def matching(self, workspace: str, query: Mapping[str, Any], total: int) -> int:
        """About how many of the `total` users of a workspace match: the share of `SAMPLE` neighbours by hash.

        Where the sample has none, it is what one in the sample would stand for, for there may be that many.
        Index: `_id_` range.
        """
        if total == 0:
            return 0
        until = hash_prefix(min(HASH_SPACE, HASH_SPACE * SAMPLE // total))
        sampled = range_filter(workspace, hash_prefix(0), until)
        users = self._database.users
        counted = users.count_documents(sampled, hint="_id_")
        found = users.count_documents({"$and": [sampled, dict(query)]}, hint="_id_")
        if found == 0 and counted < total:
            found = 1
        return round(total * found / counted) if counted else 0


def _modules() -> list[pkgutil.ModuleInfo]:
    return list(pkgutil.iter_modules(engine.stores.__path__))
