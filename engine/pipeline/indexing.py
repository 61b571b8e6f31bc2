"""Index users into Elasticsearch: read them from MongoDB as they are now, write them as whole documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol

from engine.pipeline.ports import UserReads
from engine.predicate.elastic import elastic_document
from engine.predicate.fields import Catalogue
from engine.telemetry.events import emit


class Index(Protocol):
    """The users' index."""

    def index(self, documents: Iterable[Mapping[str, Any]]) -> int:
        """Index whole documents under their revision; gives how many were newer than what was there."""

    def refresh(self) -> None:
        """Make everything that is indexed visible to searches."""


class Request(Protocol):
    """Users to be indexed: by key, or all of a workspace with a suffix in [first, until)."""

    @property
    def keys(self) -> Sequence[str]:
        """User keys."""

    @property
    def workspace(self) -> str:
        """The workspace of the range; empty without one."""

    @property
    def first(self) -> str:
        """The first suffix."""

    @property
    def until(self) -> str:
        """The bound behind the last."""


class Requests(Protocol):
    """Kept requests (`engine.stores.index_requests`)."""

    def get(self, request_id: str) -> Request | None:
        """One that is not done yet."""

    def done(self, request_id: str) -> None:
        """Take it away."""


class Indexing:
    """The use case behind the actor `index_users`."""

    def __init__(self, users: UserReads, index: Index, requests: Requests, catalogues: Mapping[str, Catalogue]) -> None:
        self._users = users
        self._requests = requests
        self._index = index
        self._catalogues = catalogues

    def run(self, request_id: str) -> int:
        """Do a request, and take it away afterwards; safe to call twice, late, or for one that is done.

        Where no request waits, searches see everybody: an index that was just filled must not answer that nobody is
        there.
        """
        request = self._requests.get(request_id)
        if request is None:
            return 0
        newer = self.keys(request.keys)
        if request.workspace:
            newer += self.range(request.workspace, request.first, request.until)
        self._index.refresh()
        self._requests.done(request_id)
        return newer

    def keys(self, keys: Sequence[str]) -> int:
        """Index these users (user keys); safe to call twice or late. Gives how many were newer than what was there."""
        newer = 0
        for workspace, group in groupby(sorted(keys), key=lambda key: key.split("/", 1)[0]):
            catalogue = self._catalogues.get(workspace)
            if catalogue is not None:
                documents = self._users.read_keys(list(group), catalogue.projection())
                newer += self._write(workspace, catalogue, documents)
        return newer

    def range(self, workspace: str, first: str, until: str, size: int = 5_000) -> int:
        """Index every user of a workspace with a suffix in [first, until), in order; gives how many there are."""
        catalogue, count = self._catalogues.get(workspace), 0
        while catalogue is not None:
            documents = self._users.read_range(workspace, first, until, size, catalogue.projection())
            if documents:
                self._write(workspace, catalogue, documents)
                count += len(documents)
            if len(documents) < size:
                break
            first = documents[-1]["_id"].split("/", 1)[1] + "\0"
        return count

    def _write(self, workspace: str, catalogue: Catalogue, documents: Sequence[Mapping[str, Any]]) -> int:
        newer = self._index.index(elastic_document(catalogue, document) for document in documents)
        emit("users.indexed", workspace=workspace, users=len(documents), older=len(documents) - newer)
        return newer
