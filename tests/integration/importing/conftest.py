"""What import tests share: a workspace, its stores on a real database, and files written on the spot."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
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


class Program:
    """Runs `program.py` on the database of a test."""

    def __init__(self, mongo: str) -> None:
        self._mongo = mongo

    def start(self, importer: Importer, kind: str, path: Path, **more: Any) -> subprocess.Popen[str]:
        told = {"mongo": self._mongo, "database": importer.database.name, "kind": kind, "path": str(path), **more}
        script = Path(__file__).with_name("program.py")
        return subprocess.Popen([sys.executable, str(script), json.dumps(told)], stdout=subprocess.PIPE, text=True)

    def run(self, importer: Importer, kind: str, path: Path, **more: Any) -> dict[str, Any]:
        """Run to the end; the last line that it prints."""
        with self.start(importer, kind, path, **more) as process:
            told, _ = process.communicate()
        assert process.returncode == 0
        last: dict[str, Any] = json.loads(told.splitlines()[-1])
        return last

    def run_and_die(self, importer: Importer, kind: str, path: Path, **more: Any) -> None:
        """Run until it kills itself."""
        with self.start(importer, kind, path, **more) as process:
            process.communicate()
        assert process.returncode == -signal.SIGKILL

    def run_and_kill(self, importer: Importer, kind: str, path: Path, rows: int, **more: Any) -> bool:
        """Run until it has told so many rows, then kill it; False where it came to its end before that."""
        with self.start(importer, kind, path, **more) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if json.loads(line)["rows"] >= rows:
                    break
            process.kill()
            process.communicate()
        return process.returncode == -signal.SIGKILL


@pytest.fixture
def program(services: Any) -> Program:
    return Program(services.mongo_url)
