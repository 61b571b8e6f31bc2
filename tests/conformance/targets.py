"""One function per target, all with one question: which users of this workspace does this predicate match?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from elasticsearch import Elasticsearch
from pymongo.database import Database

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.fields import Row
from engine.predicate.compile_elastic import elastic_document
from engine.predicate.compiled import CompiledPredicate
from tests.conformance.population import Person

MAPPING = Path(__file__).parents[2] / "conf" / "index-templates" / "users.json"

Found = tuple[set[str], set[str], bool]
"""The final set of user ids, the candidates before judging, and whether the target reported that these are exact."""


def fill_mongo(database: Database[dict[str, Any]], catalogue: Catalogue, people: Mapping[str, Person]) -> None:
    database.users.insert_many([person.document(catalogue, name) for name, person in people.items()])
    events = [event for name, person in people.items() for event in person.event_documents(catalogue, name)]
    if events:
        database.events.insert_many(events)


def create_index(elastic: Elasticsearch, index: str) -> None:
    template = json.loads(MAPPING.read_text())
    elastic.indices.create(index=index, settings=template["settings"], mappings=template["mappings"])


def fill_elastic(elastic: Elasticsearch, index: str, catalogue: Catalogue, people: Mapping[str, Person]) -> None:
    lines: list[dict[str, Any]] = []
    for name, person in people.items():
        indexed = elastic_document(catalogue, person.document(catalogue, name))
        lines.append({"index": {"_id": indexed["user_id"], "version": indexed["rev"], "version_type": "external"}})
        lines.append(indexed)
    answer = elastic.bulk(index=index, operations=lines, refresh=True)
    assert not answer["errors"], answer


_ROWS: WeakKeyDictionary[Catalogue, dict[str, Row]] = WeakKeyDictionary()


def rows_of(catalogue: Catalogue, people: Mapping[str, Person]) -> dict[str, Row]:
    """Return the rows of a population, read once; a catalogue belongs to one population."""
    known = _ROWS.setdefault(catalogue, {})
    for name in people.keys() - known.keys():
        known[name] = catalogue.row(people[name].document(catalogue, name))
    return known


def by_python(predicate: CompiledPredicate, people: Mapping[str, Person], as_of: int) -> set[str]:
    """Return the judge's own answer, after three ways that must agree: one by one, as a batch, and with `maybe`."""
    catalogue = predicate.catalogue
    rows = rows_of(catalogue, people)
    facts = {name: person.facts(predicate) for name, person in people.items()}
    single = {name for name in people if predicate.matches(rows[name], facts[name], as_of)}
    names = list(people)
    batch = predicate.filter_rows([rows[name] for name in names], {rows[n].key: facts[n] for n in names}, as_of)
    assert {names[place] for place in batch} == single
    for name in names:
        verdict = predicate.maybe(rows[name], as_of)
        assert verdict in (None, name in single), f"maybe says {verdict} of {name}"
        assert verdict is not None or predicate.event_queries, f"maybe does not know {name}, and no event could tell"
    return single


def by_mongo(
    predicate: CompiledPredicate, database: Database[dict[str, Any]], people: Mapping[str, Person], as_of: int
) -> Found:
    """Return the candidates of the filter over the workspace's range; if not exact, judge them from MongoDB's data."""
    catalogue = predicate.catalogue
    answer = predicate.mongo(as_of)
    reach = {"$gte": f"{catalogue.workspace}/", "$lt": f"{catalogue.workspace}0"}
    documents = list(database.users.find({"_id": reach, **answer.filter}, predicate.catalogue.projection()))
    candidates = {document["u"] for document in documents}
    if answer.exact:
        return candidates, candidates, True
    facts: dict[str, list[list[Any]]] = {
        document["_id"]: [[] for _ in predicate.event_queries] for document in documents
    }
    for place, query in enumerate(predicate.event_queries):
        query_ = {"user": {"$in": list(facts)}, **query.mongo(as_of)}
        for event in database.events.find(query_, query.projection()):
            facts[event["user"]][place].append((event["t"], event.get("p", {})))
    final = {
        document["u"]
        for document in documents
        if predicate.matches(catalogue.row(document), facts[document["_id"]], as_of)
    }
    return final, candidates, False


def by_elastic(
    predicate: CompiledPredicate, elastic: Elasticsearch, index: str, people: Mapping[str, Person], as_of: int
) -> Found:
    """Return the candidates of the query in the workspace; if not exact, judge them from the documents."""
    catalogue = predicate.catalogue
    answer = predicate.elastic(as_of)
    candidates = ids(elastic, index, catalogue, answer.filter)
    if answer.exact:
        return candidates, candidates, True
    judged = by_python(predicate, {name: people[name] for name in candidates}, as_of)
    return judged, candidates, False


def ids(elastic: Elasticsearch, index: str, catalogue: Catalogue, query: Mapping[str, Any]) -> set[str]:
    """Return the user ids that a query finds in the workspace."""
    hits = elastic.search(
        index=index,
        query={"bool": {"filter": [{"term": {"w": catalogue.workspace}}, query]}},
        size=1_000,
        docvalue_fields=["user_id"],
        stored_fields="_none_",
        source=False,
    )["hits"]["hits"]
    return {hit["fields"]["user_id"][0].rsplit("/", 1)[1] for hit in hits}
