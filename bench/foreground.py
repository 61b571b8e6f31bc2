"""`python -m bench.foreground URL`: the company's own users, as an open load on the same MongoDB.

Operations begin at a fixed rate, whether or not earlier ones have ended: half of them read a document by its `_id`, and
half update one with write concern majority. A latency counts from the moment at which the operation should have begun,
so that a stall is not hidden by the operations that it holds up. It ends after `--seconds`, or when its standard input
closes, and prints the latencies as JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from pymongo import MongoClient, WriteConcern

DOCUMENTS: Final = 50_000
"""Documents of the company's collection."""
THREADS: Final = 32
"""Operations that may be under way at once."""
_DATABASE: Final = "company"


def fill(url: str) -> None:
    """Write the company's documents, of about 500 bytes each."""
    with MongoClient[dict[str, Any]](url) as client:
        users = client[_DATABASE]["users"]
        users.drop()
        for first in range(0, DOCUMENTS, 5_000):
            users.insert_many(
                [{"_id": number, "visits": 0, "text": "x" * 450} for number in range(first, first + 5_000)]
            )


def load(url: str, rate: float, seconds: float, stop: threading.Event) -> dict[str, list[float]]:
    """Run the load; return the latencies (ms) of reads and writes, in the order in which they ended."""
    latencies: dict[str, list[float]] = {"read": [], "write": []}
    lock = threading.Lock()
    began = time.monotonic() + 0.5
    turns = iter(range(int(rate * seconds)))

    def work(client: MongoClient[dict[str, Any]]) -> None:
        users = client[_DATABASE].get_collection("users", write_concern=WriteConcern("majority"))
        chance = random.Random()
        while not stop.is_set():
            with lock:
                turn = next(turns, None)
            if turn is None:
                return
            at = began + turn / rate
            if (pause := at - time.monotonic()) > 0 and stop.wait(pause):
                return
            key, kind = chance.randrange(DOCUMENTS), "write" if turn % 2 else "read"
            if turn % 2:
                users.update_one({"_id": key}, {"$inc": {"visits": 1}})
            else:
                users.find_one({"_id": key})
            took = (time.monotonic() - at) * 1000
            with lock:
                latencies[kind].append(took)

    with MongoClient[dict[str, Any]](url, maxPoolSize=THREADS) as client:
        client.admin.command("ping")
        threads = [threading.Thread(target=work, args=(client,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return latencies


def main(argv: Sequence[str] | None = None) -> int:
    """Run the load; return 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.foreground", description=__doc__)
    parser.add_argument("url", help="MongoDB's address")
    parser.add_argument("--rate", type=float, default=200.0, help="operations a second (default 200)")
    parser.add_argument("--seconds", type=float, default=600.0, help="the longest time (default 600)")
    parser.add_argument("--fill", action="store_true", help="write the documents first")
    given = parser.parse_args(argv)
    if given.fill:
        fill(given.url)
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    print(json.dumps(load(given.url, given.rate, given.seconds, stop)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
