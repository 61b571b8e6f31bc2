"""The change stream of the users, read in batches with one command each.

A batch ends when the server has no more changes: waiting for another one would delay those already read. An empty batch
still advances the position, by the server's own high-water mark (`postBatchResumeToken`). The stream also contains
calls (`FeedPosition.call`), which batches leave out. A call ends the wait, so that its caller learns it at once.
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
from engine.stores.mongo.feed_position import CALLS, position_of

LOST: Final = frozenset({9, 15, 136, 260, 280, 286, 50796})
"""CappedPositionLost, InvalidResumeToken, ChangeStreamFatalError, ChangeStreamHistoryLost, and the codes of an
unreadable token (FailedToParse, Overflow, a token without its version: tried one by one on 6.0)."""

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
    """The change stream cannot resume where it stopped: the changes since then are unknown."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes in order, the resume token after them, and the position up to which there are no other changes.

    `newest` is the position of the last change. If the stream was drained, `position` lies after it.
    """

    changes: Sequence[Changed]
    token: str
    position: int
    newest: int


class UserStream:
    """An open change stream; `take` returns the next batch."""

    def __init__(self, client: MongoClient[Document], database: str, token: str | None) -> None:
        """Open the stream after `token` (None: from now on). Raises `HistoryLost`.

        `client` must have no overall time limit, because the command itself limits the wait for changes.
        """
        self._database = client[database]
        self._session: ClientSession = client.start_session(causal_consistency=False)
        stage: Document = {} if token is None else {"resumeAfter": {"_data": token}}
        pipeline = [{"$changeStream": stage}, {"$match": _OURS}, {"$project": _PROJECTION}]
        command = {"aggregate": 1, "pipeline": pipeline, "cursor": {"batchSize": 0}}
        reply = self._command({**command, "readConcern": {"level": "majority"}})
        self.cursor = reply["cursor"]["id"]
        self.start = str(reply["cursor"]["postBatchResumeToken"]["_data"])

    def take(self, most: int, wait: timedelta) -> Batch:
        """Return the next changes, at most `most`; wait up to `wait` if there are none. Raises `HistoryLost`."""
        more = {"getMore": self.cursor, "collection": "$cmd.aggregate", "batchSize": most, "maxTimeMS": millis(wait)}
        cursor = self._command(more)["cursor"]
        token = str(cursor["postBatchResumeToken"]["_data"])
        users = [raw for raw in cursor["nextBatch"] if raw["ns"]["coll"] == "users"]
        changes = [Changed(str(raw["documentKey"]["_id"]), names(raw)) for raw in users]
        newest = position_of_token(str(users[-1]["_id"]["_data"])) if users else 0
        return Batch(changes, token, position_of_token(token), newest)

    def close(self) -> None:
        """End the session, so that the server forgets the stream."""
        self._session.end_session()

    def _command(self, command: Mapping[str, Any]) -> Document:
        try:
            return self._database.command(dict(command), session=self._session)
        except OperationFailure as error:
            if error.code in LOST:
                raise HistoryLost from error
            raise


def names(raw: Mapping[str, Any]) -> frozenset[str]:
    """Return what a change event changed, by the catalogue's names; `EVERYTHING` if a user came or went."""
    if raw["operationType"] != "update":
        return frozenset({EVERYTHING})
    paths = [*raw.get("updated", ()), *(raw.get("removed") or ()), *(raw.get("cut") or ())]
    return frozenset(names_of_paths(paths))


def names_of_paths(paths: Sequence[str]) -> Iterator[str]:
    """Yield the catalogue's names of changed document paths."""
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
    """Return the cluster time in a resume token: the type byte 0x82, then seconds and counter of four bytes each.

    Source: MongoDB's KeyString encoding of a timestamp, src/mongo/db/pipeline/resume_token.h.
    """
    if not token.startswith("82"):
        return 0
    return position_of(int(token[2:10], 16), int(token[10:18], 16))
