"""Fixtures of import tests: a workspace, its stores on a real database, and files written on the spot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from pymongo.database import Database
from typer.testing import CliRunner, Result

from engine.catalogue.workspace_file import read_workspace
from engine.cli.importing import mount
from engine.errors import NotFound
from engine.pipeline.importing.columns import Layout
from engine.pipeline.importing.job import Kind, Order, Summary
from engine.pipeline.importing.ports import ImportStores
from engine.pipeline.importing.run_import import Surroundings, run_import
from engine.stores.mongo.event_aggregates import Derivation, initial_fields
from engine.stores.mongo.events import Events
from engine.stores.mongo.import_cursors import ImportCursors
from engine.stores.mongo.lists import Lists
from engine.stores.mongo.user_upserts import UserUpserts
from engine.stores.mongo.users import Users

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

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def run(self, kind: str, path: Path, *, layout: Layout | None = None, **more: Any) -> Summary:
        order = Order(Kind(kind), path, layout=layout or Layout(), **more)
        return run_import(order, self.catalogue, self.stores)

    def stored_users(self) -> dict[str, Mapping[str, Any]]:
        """Return every user by id, without fields that differ from run to run."""
        documents = self.database["users"].find({}, {"rev": 0, "changed": 0, "_id": 0, "w": 0})
        return {document.pop("u"): document for document in documents}

    def rejected(self, summary: Summary) -> list[tuple[int, str]]:
        """Return line and reason of each rejected row."""
        if summary.rejects is None:
            return []
        lines = summary.rejects.read_text().splitlines()
        return [(item["line"], item["reason"]) for item in map(json.loads, lines)]


@pytest.fixture
def importer(database: Database[dict[str, Any]], tmp_path: Path) -> Importer:
    return Importer(database, tmp_path)


@pytest.fixture
def another(database: Database[dict[str, Any]], tmp_path: Path) -> Any:
    """Yield a function that makes importers on further, empty databases."""
    made: list[Database[dict[str, Any]]] = []

    def make() -> Importer:
        fresh = database.client[f"{database.name}_{len(made)}"]
        made.append(fresh)
        return Importer(fresh, tmp_path)

    yield make
    for request in made:
        database.client.drop_database(request.name)


def counts(summary: Summary) -> Sequence[int]:
    """Return the counts: created, updated, unchanged, repeated, rejected."""
    return tuple(summary.counts[name] for name in ("created", "updated", "unchanged", "repeated", "rejected"))


class Running:
    """An import that runs in a separate process."""

    def __init__(self, server: subprocess.Popen[str], pid: int, out: Path) -> None:
        self._server = server
        self.pid = pid
        self.lines = out.open()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> tuple[list[str], int]:
        """Return the remaining output and the exit status."""
        with self.lines:
            lines = self.lines.readlines()
        return lines, int(ask(self._server, {"wait": self.pid})["status"])


def ask(server: subprocess.Popen[str], order: Mapping[str, Any]) -> dict[str, Any]:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(order) + "\n")
    server.stdin.flush()
    answer: dict[str, Any] = json.loads(server.stdout.readline())
    return answer


class Program:
    """Runs `program.py` on the database of a test."""

    def __init__(self, mongo: str, server: subprocess.Popen[str], folder: Path) -> None:
        self._mongo = mongo
        self._server = server
        self._folder = folder

    def start(self, importer: Importer, kind: str, path: Path, **more: Any) -> Running:
        values = {"mongo": self._mongo, "database": importer.database.name, "kind": kind, "path": str(path), **more}
        out = self._folder / f"{uuid.uuid4().hex}.pipe"
        os.mkfifo(out)
        return Running(self._server, ask(self._server, {**values, "out": str(out)})["pid"], out)

    def run(self, importer: Importer, kind: str, path: Path, **more: Any) -> dict[str, Any]:
        """Run to the end; return the last line of output."""
        result, status = self.start(importer, kind, path, **more).end()
        assert status == 0
        last: dict[str, Any] = json.loads(result[-1])
        return last

    def run_alone(self, importer: Importer, kind: str, path: Path) -> dict[str, Any]:
        """Run to the end in a fresh interpreter, to measure its memory alone."""
        values = {"mongo": self._mongo, "database": importer.database.name, "kind": kind, "path": str(path)}
        words = [sys.executable, str(PROGRAM), json.dumps(values)]
        last: dict[str, Any] = json.loads(subprocess.check_output(words, text=True).splitlines()[-1])
        return last

    def run_and_die(self, importer: Importer, kind: str, path: Path, **more: Any) -> None:
        """Run until the import kills itself."""
        assert self.start(importer, kind, path, **more).end()[1] == -signal.SIGKILL

    def run_and_kill(self, importer: Importer, kind: str, path: Path, rows: int, **more: Any) -> bool:
        """Run until that many rows are reported, then kill it; return False if it ended before."""
        running = self.start(importer, kind, path, **more)
        for line in running.lines:
            if json.loads(line)["rows"] >= rows:
                break
        running.kill()
        return running.end()[1] == -signal.SIGKILL


PROGRAM = Path(__file__).with_name("program.py")


@pytest.fixture(scope="session")
def forking() -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, str(PROGRAM), "serve"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield server
        assert server.stdin is not None
        server.stdin.close()


@pytest.fixture
def program(services: Any, forking: subprocess.Popen[str], tmp_path: Path) -> Program:
    return Program(services.mongo_url, forking, tmp_path)


@dataclass
class Setting:
    """The objects that the composition root hands to the command, on the test's database."""

    importer: Any

    def follow(self) -> Surroundings:
        return Surroundings(self.importer.catalogue, self.importer.stores)


@pytest.fixture
def call(importer: Any) -> Any:
    app = typer.Typer()

    @contextmanager
    def open_import(context: typer.Context, workspace: str) -> Iterator[Setting]:
        if workspace != "shop":
            raise NotFound(f"there is no workspace {workspace}")
        yield Setting(importer)

    mount(app, open_import)

    @app.command()
    def other() -> None:
        """Do nothing: a second command makes `import` a group."""

    def run(*words: str, given: bytes | None = None) -> Result:
        return CliRunner().invoke(app, ["import", *words], input=given)

    return run
