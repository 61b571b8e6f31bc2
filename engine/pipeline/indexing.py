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


class Indexing:
    """The use case behind the actor `index_users`."""

    def __init__(self, users: UserReads, index: Index, catalogues: Mapping[str, Catalogue]) -> None:
        self._users = users
        self._index = index
        self._catalogues = catalogues

    def run(self, keys: Sequence[str]) -> int:
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
