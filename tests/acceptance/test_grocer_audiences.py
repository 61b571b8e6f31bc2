"""Compare the matches of one day with the oracle: the grocer's data, through the real import, stores and predicates.

A user who matches a continuous campaign on the first day of a replay gets its first mail on that day, so the oracle's
replay of one day gives exactly the users that match.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.workspace_file import read_workspaces
from engine.domain.keys import user_id_of, user_key
from engine.pipeline.importing.job import Kind, Order, Summary
from engine.pipeline.importing.ports import ImportStores
from engine.pipeline.importing.run_import import run_import
from engine.predicate.compiled import compile_predicate
from engine.predicate.parse import parse_predicate
from engine.stores.mongo.event_aggregates import Derivation, initial_fields
from engine.stores.mongo.events import Events
from engine.stores.mongo.import_cursors import ImportCursors
from engine.stores.mongo.lists import Lists
from engine.stores.mongo.user_upserts import UserUpserts
from engine.stores.mongo.users import Users
from engine.yamlfile.nodes import read
from examples.grocer import campaign_files, data, oracle

HERE = Path(data.__file__).parent
DAY = date(2017, 3, 1)


class Grocer:
    """The grocer's workspace in one database."""

    def __init__(self, database: Database[dict[str, Any]]) -> None:
        self.catalogue: Catalogue = read_workspaces(HERE / "conf" / "workspaces")["grocer"]
        for store in (Users, Events, Lists, ImportCursors):
            for index in store.INDEXES:
                database[store.NAME].create_index(index["keys"], name=index["name"])
        initial = initial_fields(self.catalogue)
        self.users, self.events = Users(database), Events(database)
        self._stores = ImportStores(
            UserUpserts(self.users, initial),
            self.users,
            self.events,
            Derivation(self.users, self.events, self.catalogue),
            Lists(database, self.users, initial),
            ImportCursors(database),
        )

    def bring_in(self, kind: Kind, path: Path, list_name: str | None = None) -> Summary:
        order = Order(kind, path, list_name=list_name)
        return run_import(order, self.catalogue, self._stores)

    def who_matches(self, audience: Path, as_of: int) -> set[int]:
        """Return the households that match the audience of a campaign file, decided user by user."""
        node = read(audience).find("audience")
        predicate = compile_predicate(parse_predicate(node, self.catalogue, ("audience",)), self.catalogue)
        documents = self.users.read_range("grocer", "0", "g", 10_000)
        facts = self.events.fetch(
            [str(raw_document["_id"]) for raw_document in documents], predicate.event_queries, as_of
        )
        nothing = tuple(() for _ in predicate.event_queries)
        users = set()
        for document in documents:
            row = self.catalogue.row(document)
            if predicate.matches(row, facts.get(row.key, nothing), as_of):
                users.add(int(user_id_of(row.key).removeprefix("hh-")))
        return users


@pytest.fixture(scope="module")
def grocer(mongo_client: MongoClient[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grocer]:
    """All data up to the end of `DAY`, imported once: no test here changes them."""
    tmp_path = tmp_path_factory.mktemp("grocer")
    database = mongo_client[f"test_{uuid.uuid4().hex[:16]}"]
    shop = Grocer(database)
    data.write_ndjson(tmp_path / "users.ndjson", data.users())
    assert shop.bring_in(Kind.USERS, tmp_path / "users.ndjson").counts["created"] == 2469
    for campaign in data.list_campaigns():
        if data.FORTNIGHT.launch_day(campaign):
            data.write_list(tmp_path / f"{campaign.list}.csv", campaign)
            shop.bring_in(Kind.LISTS, tmp_path / f"{campaign.list}.csv", campaign.list)
    rows = data.write_ndjson(tmp_path / "events.ndjson", data.events_before(DAY + timedelta(days=1)))
    summary = shop.bring_in(Kind.EVENTS, tmp_path / "events.ndjson")
    assert (summary.rows, summary.counts["created"], summary.rejected) == (rows, rows, 0)
    yield shop
    mongo_client.drop_database(database)


def test_the_users_who_match_on_a_day_are_those_the_oracle_mails(grocer: Grocer, tmp_path: Path) -> None:
    files = campaign_files.write_campaigns(tmp_path / "campaigns", data.FORTNIGHT)
    mails = oracle.expected(DAY, DAY)
    lists = {campaign.name: set(campaign.households) for campaign in data.list_campaigns()}
    for file in files:
        expected = lists.get(file.stem) or {mail.household for mail in mails if mail.campaign == file.stem}
        assert expected
        assert grocer.who_matches(file, data.as_of(DAY)) == expected, file.stem


def test_aggregates_equal_an_independent_computation(grocer: Grocer) -> None:
    documents = grocer.users.read_range("grocer", "0", "g", 10_000)
    values = {document["u"]: int(document["g"].get("orders_value") or 0) for document in documents}
    sums = oracle.read_orders(DAY).group_by("household").sum().select("household", "cents").iter_rows()
    assert {user: cents for user, cents in values.items() if cents} == {
        f"hh-{hh}": cents for hh, cents in sums if cents
    }


def test_repeated_events_change_no_user(grocer: Grocer, tmp_path: Path) -> None:
    before = grocer.users.get(user_key("grocer", "hh-900"))
    rows = data.write_ndjson(tmp_path / "again.ndjson", data.events_of(DAY))
    again = grocer.bring_in(Kind.EVENTS, tmp_path / "again.ndjson")
    assert again.counts["repeated"] + again.counts["unchanged"] == rows
    assert grocer.users.get(user_key("grocer", "hh-900")) == before
