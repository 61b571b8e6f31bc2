"""`python -m bench.importing`: measure rows a second of imports from CSV files, into `docs/benchmarks.md`.

Every row is a household of the grocer under an id of its own (`bench/population.py`), or one of the households' orders.
The import is the command's own use case in this process, with its usual durability (majority).
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pymongo.collection import Collection

from bench import report
from bench.measure import Rounds, Way, machine, side_by_side
from bench.population import SEED, WORKSPACE, documents
from bench.run import ground
from engine.app.app import App
from engine.clock import format_instant
from engine.domain.document import Document
from engine.pipeline.importing.columns import Layout
from engine.pipeline.importing.job import Kind, Order
from engine.pipeline.importing.run_import import run_import
from engine.settings import load_settings
from engine.stores.migrations import migrate_mongo
from engine.stores.mongo.client import MAJORITY
from examples.grocer import data

ATTRIBUTES: Final = ("age", "income", "home_ownership", "marital_status", "household_size")
USER_COLUMNS: Final = ("user_id", "email", "first_name", "timezone", "created_at", *ATTRIBUTES)
EVENT_COLUMNS: Final = ("user_id", "id", "time", "value", "departments")
EMPTIED: Final = ("users", "events", "list_members", "imports")
HEAD: Final = (
    "| import | rows | rows/s, median (slowest to fastest) | processor a row: ours, mongod |\n|---|--:|--:|--:|"
)
HERE: Final = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Files:
    """The files of the bench: users, the same users with one value of each changed, and as many of their events."""

    users: Path
    changed: Path
    events: Path


def write_files(folder: Path, rows: int, seed: int = SEED) -> Files:
    """Write the files, `rows` rows each."""
    files = Files(folder / "users.csv", folder / "changed.csv", folder / "events.csv")
    _write(files.users, USER_COLUMNS, (_user(document, "") for document in documents(rows, seed)))
    _write(files.changed, USER_COLUMNS, (_user(document, " II") for document in documents(rows, seed)))
    _write(files.events, EVENT_COLUMNS, _events(rows, seed))
    return files


def _write(path: Path, columns: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _user(document: Mapping[str, Any], behind_name: str) -> list[object]:
    row = {**document, **document["a"], "user_id": document["u"], "first_name": document["first_name"] + behind_name}
    row["created_at"] = format_instant(document["created_at"])
    return [row.get(name, "") for name in USER_COLUMNS]


def _events(rows: int, seed: int) -> Iterator[list[object]]:
    """Yield orders drawn from the grocer's, each of a user drawn from those of the file."""
    orders = [event for event in islice(data.events_before(date(2017, 7, 2)), 50_000) if event["event"] == data.ORDER]
    draw = random.Random(seed)
    for number in range(rows):
        order: Mapping[str, Any] = draw.choice(orders)
        properties = order["properties"]
        departments = "|".join(properties.get("departments", ()))
        yield [f"u-{1 + draw.randrange(rows)}", f"o-{number}", order["time"], properties["value"], departments]


class ImportWay(Way):
    """One import as a side of the bench: imports `path` after the `before` files."""

    def __init__(self, app: App, name: str, kind: Kind, path: Path, outcome: str, before: Sequence[Path] = ()) -> None:
        """Every row must end as `outcome` says."""
        self._app, self.name, self._kind, self._path = app, name, kind, path
        self._outcome, self._before = outcome, before
        with path.open("rb") as file:
            self.users = sum(1 for _ in file) - 1

    def prepare(self) -> None:
        """Empty the collections and import the `before` files."""
        database = self._app.stores.database
        for name in EMPTIED:
            database.drop_collection(name)
        migrate_mongo(database)
        for path in self._before:
            self._import(Kind.USERS, path)

    def run(self) -> int:
        """Run the import; return how many rows ended as expected."""
        return self._import(self._kind, self._path)[self._outcome]

    def _import(self, kind: Kind, path: Path) -> Mapping[str, int]:
        catalogue = self._app.campaign_cache.catalogue(WORKSPACE)
        layout = Layout(defaults={"name": data.ORDER} if kind is Kind.EVENTS else {})
        order = Order(kind, path, layout=layout)
        return run_import(order, catalogue, self._app.imports(WORKSPACE)).counts

    def entered(self) -> set[str]:
        """Return the keys of all users."""
        return {str(document["_id"]) for document in self._app.stores.database["users"].find({}, {"_id": 1})}


class InsertWay(Way):
    """The floor of new users: inserts finished documents in the import's batches; reads, checks and builds nothing."""

    name = "floor: `insert_many` of the finished documents"

    def __init__(self, app: App, users: ImportWay) -> None:
        users.prepare()
        users.run()
        self._app = app
        self._documents: list[Document] = list(app.stores.database["users"].find().sort("_id", 1))
        random.Random(SEED).shuffle(self._documents)  # as in a file: users are in no order of their keys
        gc.freeze()  # the garbage collector need not search these documents while the other ways run

    @property
    def users(self) -> int:
        """The number of documents."""
        return len(self._documents)

    def prepare(self) -> None:
        """Empty the users."""
        self._app.stores.database.drop_collection("users")
        migrate_mongo(self._app.stores.database)

    def run(self) -> int:
        """Insert all documents."""
        users: Collection[Document] = self._app.stores.database.get_collection("users", write_concern=MAJORITY)
        batch = Order(Kind.USERS, Path()).batch
        for first in range(0, len(self._documents), batch):
            users.insert_many(self._documents[first : first + batch], ordered=False)
        return len(self._documents)

    def entered(self) -> set[str]:
        """Return the keys of the documents."""
        return {str(document["_id"]) for document in self._documents}


def open_app(addresses: Mapping[str, str], folder: Path) -> App:
    """Open the engine on the services of `addresses` (dotted settings), with the workspace of the bench."""
    flags = {
        **addresses,
        "paths.var": str(folder),
        "paths.policies": str(HERE.parent / "policies"),
        "paths.workspaces": str(HERE / "conf" / "workspaces"),
    }
    return App(load_settings(HERE.parent / "conf" / "settings.yaml", flags=flags).settings)


def compare(app: App, files: Files, rounds: int) -> list[Rounds]:
    """Run all imports and the floor, in turns. Raises `AssertionError` if a row does not end as it should."""
    new = ImportWay(app, "new users", Kind.USERS, files.users, "created")
    ways = [
        new,
        ImportWay(app, "known users, nothing new", Kind.USERS, files.users, "unchanged", [files.users]),
        ImportWay(app, "known users, one value new in each", Kind.USERS, files.changed, "updated", [files.users]),
        ImportWay(app, "events of known users", Kind.EVENTS, files.events, "created", [files.users]),
        InsertWay(app, new),
    ]
    results = side_by_side(app.stores.database, ways, rounds)
    for way, result in zip(ways, results, strict=True):
        assert result.passes[0].matched == way.users, f"{way.name}: {result.passes[0].matched} of {way.users} rows"
    return results


def table(results: Sequence[Rounds]) -> str:
    """Return the results as a Markdown table."""
    lines = [HEAD]
    for result in results:
        slowest, fastest = result.spread()
        lines.append(
            f"| {result.name} | {result.passes[-1].users:,} | {result.rate():,.0f} ({slowest:,.0f} to {fastest:,.0f}) "
            f"| {result.per_user('own_cpu') * 1e6:.1f} µs, {result.per_user('mongod_cpu') * 1e6:.1f} µs |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; return 0 when it is done."""
    parser = argparse.ArgumentParser(prog="python -m bench.importing", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="rows of each file (default 200,000)")
    parser.add_argument("--rounds", type=int, default=5, help="measured imports of each kind (default 5)")
    parser.add_argument("--print-only", action="store_true", help="leave docs/benchmarks.md as it is")
    given = parser.parse_args(argv)
    load = os.getloadavg()[0]
    with ground(0) as place:
        app = open_app(place.addresses, place.folder)
        try:
            results = compare(app, write_files(place.folder, given.rows), given.rounds)
        finally:
            app.close()
        version = str(place.database.client.server_info()["version"])
    command = f"python -m bench.importing --rows {given.rows} --rounds {given.rounds}"
    text = (
        f"Measured with `{command}` on {machine(version, load)}. Users and orders are resampled from the grocer's data "
        f"(seed {SEED}). Medians of {given.rounds} rounds, in turns, in one run.\n\n{table(results)}"
    )
    report.publish("bench.importing", text, print_only=given.print_only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
