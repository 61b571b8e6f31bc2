"""One import in a separate process, for tests that kill it or measure it.

`python program.py '{"mongo": ..., "database": ..., "kind": ..., "path": ..., "order": {...}, "die": {"record": 3}}'`
prints a line of JSON per batch and one at the end. `die` kills it after the n-th call of a store's method. `python
program.py serve` does so for each line of stdin, in a fork each: the libraries are imported once, not per kill.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[4]))

from pymongo import MongoClient

from engine.catalogue.workspace_file import read_workspace
from engine.pipeline.importing.columns import Layout
from engine.pipeline.importing.job import Kind, Limit, Mode, Order
from engine.pipeline.importing.ports import ImportStores
from engine.pipeline.importing.run_import import run_import
from engine.stores.mongo.event_aggregates import Derivation, initial_fields
from engine.stores.mongo.events import Events
from engine.stores.mongo.import_cursors import ImportCursors
from engine.stores.mongo.lists import Lists
from engine.stores.mongo.user_upserts import UserUpserts
from engine.stores.mongo.users import Users


def peak_memory() -> float:
    """Return this program's peak memory in MiB; `ru_maxrss` would include the parent process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) / 1024


def dying(call: Callable[..., Any], times: int) -> Callable[..., Any]:
    """Wrap `call` to kill the process after its n-th return."""
    left = [times]

    def wrapped(*args: Any, **more: Any) -> Any:
        result = call(*args, **more)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main(told: dict[str, Any]) -> None:
    client: MongoClient[dict[str, Any]] = MongoClient(told["mongo"], w="majority")
    database = client[told["database"]]
    catalogue = read_workspace(Path(__file__).with_name("shop.yaml"))
    initial = initial_fields(catalogue)
    users, events, cursors = Users(database), Events(database), ImportCursors(database)
    lists, derivation, upserts = (
        Lists(database, users, initial),
        Derivation(users, events, catalogue),
        UserUpserts(users, initial),
    )
    owners = {
        "record": events,
        "derive": derivation,
        "apply": upserts,
        "add": lists,
        "remove_others": lists,
        "save": cursors,
    }
    for name, times in told.get("die", {}).items():
        setattr(owners[name], name, dying(getattr(owners[name], name), times))
    more = dict(told.get("order", {}))
    if "mode" in more:
        more["mode"] = Mode(more["mode"])
    order = Order(
        Kind(told["kind"]), Path(told["path"]), layout=Layout(**told.get("layout", {})), limit=Limit(share=1.0), **more
    )
    stores = ImportStores(upserts, users, events, derivation, lists, cursors)
    summary = run_import(
        order,
        catalogue,
        stores,
        watch=lambda reached: say({"rows": reached.rows}),
    )
    peak = peak_memory()
    say({"rows": summary.rows, **summary.counts, "removed": summary.removed, "mib": peak, "rate": summary.rate})
    client.close()


def serve() -> None:
    """Fork a process for each order, with its output in the named pipe `out`; `{"wait": pid}` returns how it ended."""
    for line in sys.stdin:
        document = json.loads(line)
        if "wait" in document:
            say({"status": os.waitstatus_to_exitcode(os.waitpid(document["wait"], 0)[1])})
            continue
        pid = os.fork()
        if pid:
            say({"pid": pid})
            continue
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(document["out"], os.O_WRONLY), 1)
        code = 1
        try:
            main(document)
            code = 0
        finally:
            os._exit(code)


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else main(json.loads(sys.argv[1]))
