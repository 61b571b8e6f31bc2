"""2,000 random predicates: Python, MongoDB, Elasticsearch and a second judge all find the same people."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from elasticsearch import Elasticsearch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from pymongo import MongoClient
from pymongo.database import Database

from tests.conformance import targets
from tests.conformance.population import NOW, catalogue_of
from tests.conformance.walk import walk
from tests.property.predicate_strategies import TIMES, compiled, people, predicates

SEED = int(os.environ.get("TIDEGATE_POPULATION_SEED") or random.SystemRandom().randrange(10**6))
POPULATIONS = {f"p{place}": people(SEED + place, 40) for place in range(6)}
CATALOGUES = {name: catalogue_of(name) for name in POPULATIONS}
DOCUMENTS = {
    group: {name: person.document(CATALOGUES[group], name) for name, person in held.items()}
    for group, held in POPULATIONS.items()
}

searching = settings(max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@dataclass(frozen=True)
class Filled:
    database: Database[dict[str, Any]]
    elastic: Elasticsearch
    index: str


@pytest.fixture(scope="module")
def filled(mongo_client: MongoClient[dict[str, Any]], elastic: Elasticsearch) -> Iterator[Filled]:
    name = f"test-{uuid.uuid4().hex[:16]}"
    targets.create_index(elastic, name)
    for group, held in POPULATIONS.items():
        targets.fill_mongo(mongo_client[name], CATALOGUES[group], held)
        targets.fill_elastic(elastic, name, CATALOGUES[group], held)
    mongo_client[name].events.create_index([("user", 1), ("n", 1), ("t", 1)])
    yield Filled(mongo_client[name], elastic, name)
    mongo_client.drop_database(name)
    elastic.indices.delete(index=name)


def by_walk(plain: dict[str, Any], group: str, as_of: int) -> set[str]:
    held = POPULATIONS[group]
    return {name for name, document in DOCUMENTS[group].items() if walk(plain, document, held[name].events, as_of)}


@pytest.mark.elastic
@pytest.mark.long(seconds=90)
@pytest.mark.timeout(900)  # 2,000 times three stores: a minute alone, more on a busy machine
@searching
@given(plain=predicates(), group=st.sampled_from(sorted(POPULATIONS)), as_of=st.sampled_from([NOW, *TIMES]))
def test_random_predicates_find_the_same_users_on_every_target(
    filled: Filled, plain: dict[str, Any], group: str, as_of: int
) -> None:
    note(f"TIDEGATE_POPULATION_SEED={SEED}")
    held, catalogue = POPULATIONS[group], CATALOGUES[group]
    predicate = compiled(plain, catalogue)
    expected = by_walk(plain, group, as_of)
    assert targets.by_python(predicate, held, as_of) == expected
    final, candidates, _ = targets.by_mongo(predicate, filled.database, held, as_of)
    assert candidates >= expected
    assert final == expected
    final, candidates, _ = targets.by_elastic(predicate, filled.elastic, filled.index, held, as_of)
    assert candidates >= expected
    assert final == expected


@pytest.mark.elastic
@settings(searching, max_examples=400)
@given(
    plain=predicates(),
    group=st.sampled_from(sorted(POPULATIONS)),
    moments=st.lists(st.sampled_from(TIMES), min_size=2, max_size=2, unique=True).map(sorted),
)
def test_every_user_who_flips_by_time_alone_is_in_a_crossing_set(
    filled: Filled, plain: dict[str, Any], group: str, moments: list[int]
) -> None:
    note(f"TIDEGATE_POPULATION_SEED={SEED}")
    after, until = moments
    catalogue = CATALOGUES[group]
    flipped = by_walk(plain, group, after) ^ by_walk(plain, group, until)
    in_mongo: set[str] = set()
    in_elastic: set[str] = set()
    for crossing in compiled(plain, catalogue).crossings(after, until):
        if crossing.collection == "events":
            keys = filled.database.events.distinct("user", crossing.mongo)
        else:
            reach = {"$gte": f"{group}/", "$lt": f"{group}0"}
            keys = filled.database.users.distinct("_id", {"_id": reach, **crossing.mongo})
        in_mongo |= {key.rsplit("/", 1)[1] for key in keys}
        in_elastic |= targets.ids(filled.elastic, filled.index, catalogue, crossing.elastic)
    assert in_mongo >= flipped
    assert in_elastic >= in_mongo
