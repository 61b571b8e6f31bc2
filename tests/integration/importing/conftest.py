"""What import tests share: a workspace, its stores on a real database, and files written on the spot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from engine.pipeline.importing.columns import Layout
from engine.pipeline.importing.order import Kind, Order, Summary
from engine.pipeline.importing.ports import ImportStores
from engine.pipeline.importing.run import run_import
from engine.predicate.workspace import read_workspace
from engine.stores.derived import Derivation, initial_fields
from engine.stores.events import Events
from engine.stores.imports import ImportCursors
from engine.stores.lists import Lists
from engine.stores.upserts import UserUpserts
from engine.stores.users import Users

WORKSPACE = Path(__file__).with_name("shop.yaml")


class Importer:
    """Imports files into the workspace `shop` of one database."""

    def __init__(self, database: Database[dict[str, Any]], folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.catalogue = read_workspace(WORKSPACE)
        for store in (Users, Events, Lists, ImportCursors):
            for index in store.INDEXES:
                database[store.NAME].create_index(index["keys"], name=index["name"])
        initial = initial_fields(self.catalogue)
        self.users = Users(database)
        self.events = Events(database)
        self.lists = Lists(database, self.users, initial)
        self.derivation = Derivation(self.users, self.events, self.catalogue)
        self.stores = ImportStores(
            UserUpserts(self.users, initial),
            self.users,
            self.events,
            self.derivation,
            self.lists,
            ImportCursors(database),
        )
        self.indexed: list[str] = []

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def run(self, kind: str, path: Path, *, layout: Layout | None = None, **more: Any) -> Summary:
        order = Order(Kind(kind), path, layout=layout or Layout(), **more)
        return run_import(order, self.catalogue, self.stores, index_users=self.indexed.extend)

    def told(self) -> dict[str, Mapping[str, Any]]:
        """Every user by id, without what differs from run to run."""
        found = self.database["users"].find({}, {"rev": 0, "changed": 0, "_id": 0, "w": 0})
        return {one.pop("u"): one for one in found}

    def rejected(self, summary: Summary) -> list[tuple[int, str]]:
        """Line and reason of each rejected row."""
        if summary.rejects is None:
            return []
        lines = summary.rejects.read_text().splitlines()
        return [(one["line"], one["reason"]) for one in map(json.loads, lines)]


@pytest.fixture
def importer(database: Database[dict[str, Any]], tmp_path: Path) -> Importer:
    return Importer(database, tmp_path)


@pytest.fixture
def another(database: Database[dict[str, Any]], tmp_path: Path) -> Any:
    """Makes importers on further, empty databases beside the first."""
    made: list[Database[dict[str, Any]]] = []

    def make() -> Importer:
        fresh = database.client[f"{database.name}_{len(made)}"]
        made.append(fresh)
        return Importer(fresh, tmp_path)

    yield make
    for one in made:
        database.client.drop_database(one.name)


def counts(summary: Summary) -> Sequence[int]:
    """created, updated, unchanged, repeated, rejected."""
    return tuple(summary.counts[name] for name in ("created", "updated", "unchanged", "repeated", "rejected"))
