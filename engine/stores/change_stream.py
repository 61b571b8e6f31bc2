"""The change stream of the users, read batch by batch with one command each.

A batch ends where the server had no more: waiting for a further change would hold back those that are there. A batch
that is empty still moves the position on, by the server's own high-water mark (`postBatchResumeToken`). Calls stand in
the stream too (`Feeds.call`), and are left out of the batches: they end the wait, so that whoever calls hears at once
how far the feed is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure

from engine.clock import millis
from engine.domain.document import Document
from engine.domain.looks import EVERYTHING, Changed
from engine.errors import EngineError
from engine.stores.feeds import CALLS, position_of

LOST: Final = frozenset({9, 15, 136, 260, 280, 286, 50796})
"""CappedPositionLost, InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost, and a token that cannot be
read (FailedToParse, Overflow, a token without its version: tried one by one on 6.0)."""

_KEYS: Final = {
    "$map": {"input": {"$objectToArray": {"$ifNull": ["$updateDescription.updatedFields", {}]}}, "in": "$$this.k"}
}
_PROJECTION: Final[Document] = {
    "operationType": 1,
    "documentKey": 1,
    "ns": 1,
    "updated": _KEYS,
    "removed": "$updateDescription.removedFields",
    "cut": "$updateDescription.truncatedArrays.field",
}
_OURS: Final[Document] = {"ns.coll": {"$in": ["users", CALLS]}}
_DERIVED: Final = frozenset({"rev", "changed", "w", "u"})


class HistoryLost(EngineError):
    """The change stream cannot go on from where it was: what changed meanwhile is not known."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes in their order, with the token behind them and the position up to which there are no others.

    `newest` is the position of the last of them: where the stream was drained `position` lies behind it.
    """

    changes: Sequence[Changed]
    token: str
    position: int
    newest: int


class UserStream:
    """One open change stream; `take` gives the next batch."""

    def __init__(self, client: MongoClient[Document], database: str, token: str | None) -> None:
        """Open it behind `token` (None: from now on). Raises `HistoryLost`.

        `client` has no overall time limit of its own: the wait for changes is the command's.
        """
        self._database = client[database]
        self._session: ClientSession = client.start_session(causal_consistency=False)
        stage: Document = {} if token is None else {"resumeAfter": {"_data": token}}
        pipeline = [{"$changeStream": stage}, {"$match": _OURS}, {"$project": _PROJECTION}]
        command = {"aggregate": 1, "pipeline": pipeline, "cursor": {"batchSize": 0}}
        reply = self._command({**command, "readConcern": {"level": "majority"}})
        self._cursor = reply["cursor"]["id"]
        self.start = str(reply["cursor"]["postBatchResumeToken"]["_data"])

    def take(self, most: int, wait: timedelta) -> Batch:
        """The next changes, at most `most`; waits up to `wait` where there is none. Raises `HistoryLost`."""
        more = {"getMore": self._cursor, "collection": "$cmd.aggregate", "batchSize": most, "maxTimeMS": millis(wait)}
        cursor = self._command(more)["cursor"]
        token = str(cursor["postBatchResumeToken"]["_data"])
        users = [raw for raw in cursor["nextBatch"] if raw["ns"]["coll"] == "users"]
        changes = [Changed(str(raw["documentKey"]["_id"]), names(raw)) for raw in users]
        newest = position_of_token(str(users[-1]["_id"]["_data"])) if users else 0
        return Batch(changes, token, position_of_token(token), newest)

    def close(self) -> None:
        """Let the server forget it."""
        self._session.end_session()

    def _command(self, command: Mapping[str, Any]) -> Document:
        try:
            return self._database.command(dict(command), session=self._session)
        except OperationFailure as error:
            if error.code in LOST:
                raise HistoryLost from error
            raise


def names(raw: Mapping[str, Any]) -> frozenset[str]:
    """What one change event changed, by the catalogue's names; a user who came or went is `EVERYTHING`."""
    if raw["operationType"] != "update":
        return frozenset({EVERYTHING})
    paths = [*raw.get("updated", ()), *(raw.get("removed") or ()), *(raw.get("cut") or ())]
    return frozenset(names_of_paths(paths))


def names_of_paths(paths: Sequence[str]) -> Iterator[str]:
    """The catalogue's names of changed document paths."""
    for path in paths:
        head = path.split(".", 1)[0]
        if head == "deleted":
            yield EVERYTHING
        elif head == "e":
            yield f"event:{path.split('.')[1]}" if "." in path else EVERYTHING
        elif head == "lists":
            yield "lists"
        elif head == "k":
            yield path.split(".")[1] if "." in path else EVERYTHING
        elif head in ("a", "g") and "." not in path:
            yield EVERYTHING
        elif head not in _DERIVED:
            yield path.split(".")[1] if head in ("a", "g") else head


def position_of_token(token: str) -> int:
    """The cluster time inside a resume token: the type's byte 0x82, then seconds and counter of four bytes each.

    Source: MongoDB's KeyString encoding of a timestamp, src/mongo/db/pipeline/resume_token.h.
    """
    if not token.startswith("82"):
        return 0
    return position_of(int(token[2:10], 16), int(token[10:18], 16))
