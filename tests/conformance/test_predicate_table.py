"""The conformance table on Python, a real MongoDB and a real Elasticsearch."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from elasticsearch import Elasticsearch
from pymongo import MongoClient
from pymongo.database import Database

from engine.predicate.compiled import CompiledPredicate, compile_predicate
from engine.predicate.parse import parse_predicate
from engine.yamlfile.nodes import Node, parse
from tests.conformance import targets
from tests.conformance.population import NOW, catalogue_of, compiled
from tests.conformance.table import GROUPS

ROWS = [(group, text, set(names.split())) for group, held in GROUPS.items() for text, names in held.rows]
CATALOGUES = {group: catalogue_of(group) for group in GROUPS}

each_row = pytest.mark.parametrize(("group", "text", "expected"), ROWS, ids=[f"{g}: {t[:60]}" for g, t, _ in ROWS])


def both_ways(group: str, text: str, expected: set[str]) -> list[tuple[CompiledPredicate, set[str]]]:
    """Return the predicate with the people that match, and its negation with everybody else."""
    everybody = set(GROUPS[group].people)
    assert expected <= everybody, f"the table names nobody: {expected - everybody}"
    catalogue = CATALOGUES[group]
    positive = parse(text, "campaigns/test.yaml")
    negative = Node(positive.mark, {"none": Node(positive.mark, [positive])}, {"none": positive.mark})
    return [
        (compiled(text, catalogue), expected),
        (compile_predicate(parse_predicate(negative, catalogue), catalogue), everybody - expected),
    ]


@pytest.fixture(scope="module")
def filled(mongo_client: MongoClient[dict[str, Any]]) -> Iterator[Database[dict[str, Any]]]:
    name = f"test_{uuid.uuid4().hex[:16]}"
    for group, held in GROUPS.items():
        targets.fill_mongo(mongo_client[name], CATALOGUES[group], held.people)
    yield mongo_client[name]
    mongo_client.drop_database(name)


@pytest.fixture(scope="module")
def index(elastic: Elasticsearch) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:16]}"
    targets.create_index(elastic, name)
    for group, held in GROUPS.items():
        targets.fill_elastic(elastic, name, CATALOGUES[group], held.people)
    yield name
    elastic.indices.delete(index=name)


@each_row
def test_python_agrees_with_the_table(group: str, text: str, expected: set[str]) -> None:
    for predicate, matching in both_ways(group, text, expected):
        assert targets.by_python(predicate, GROUPS[group].people, NOW) == matching


@each_row
def test_mongodb_agrees_with_the_table(
    group: str, text: str, expected: set[str], filled: Database[dict[str, Any]]
) -> None:
    for predicate, matching in both_ways(group, text, expected):
        final, candidates, _ = targets.by_mongo(predicate, filled, GROUPS[group].people, NOW)
        assert candidates >= matching
        assert final == matching


@pytest.mark.elastic
@each_row
def test_elasticsearch_agrees_with_the_table(
    group: str, text: str, expected: set[str], elastic: Elasticsearch, index: str
) -> None:
    for predicate, matching in both_ways(group, text, expected):
        final, candidates, _ = targets.by_elastic(predicate, elastic, index, GROUPS[group].people, NOW)
        assert candidates >= matching
        assert final == matching


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_fields_lists_and_events_ever_are_exact_in_mongodb(group: str) -> None:
    for text, _ in GROUPS[group].rows:
        predicate = compiled(text, CATALOGUES[group])
        assert predicate.mongo(NOW).exact or predicate.event_queries, text


@pytest.mark.parametrize("group", sorted(set(GROUPS) - {"fields", "windows", "where", "sums", "order"}))
def test_fields_against_literals_are_exact_in_elasticsearch(group: str) -> None:
    for text, _ in GROUPS[group].rows:
        assert compiled(text, CATALOGUES[group]).elastic(NOW).exact, text
