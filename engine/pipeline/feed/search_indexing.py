"""Index users into Elasticsearch: read their current documents from MongoDB, write them whole."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, Protocol

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.workspace_set import LiveWorkspaces, derived_shape, indexed_shape
from engine.domain.keys import bound_behind, workspace_of
from engine.errors import EngineError
from engine.pipeline.ports.users import UserReads
from engine.predicate.compile_elastic import elastic_document
from engine.telemetry.events import emit


class Index(Protocol):
    """The users' index in Elasticsearch."""

    def index(self, documents: Iterable[Mapping[str, Any]], *, again: bool = False) -> int:
        """Index whole documents by revision; return how many were newer (`again`: not older) than the indexed ones."""

    def refresh(self) -> None:
        """Make all indexed documents visible to searches."""


class Request(Protocol):
    """A request to index users: by key, or all users of a workspace with a suffix in [first, until)."""

    @property
    def keys(self) -> Sequence[str]:
        """User keys."""

    @property
    def workspace(self) -> str:
        """The workspace of the range; empty if there is no range."""

    @property
    def first(self) -> str:
        """The first suffix of the range."""

    @property
    def until(self) -> str:
        """The bound behind the last suffix of the range."""

    @property
    def derive(self) -> bool:
        """Whether to derive the users' aggregates instead."""

    @property
    def indexed(self) -> bool:
        """Whether its users are indexed and only the refresh is missing."""


class Requests(Protocol):
    """Stored requests (`engine.stores.mongo.index_requests`)."""

    def get(self, request_id: str) -> Request | None:
        """Return a request; None if it is done."""

    def done(self, ids: Sequence[str]) -> None:
        """Remove requests."""

    def put_off(self, request_id: str) -> None:
        """Put a request off until its turn comes (`engine.pipeline.feed.dispatch_indexing`)."""

    def indexed(self, request_id: str) -> Sequence[str]:
        """Mark a request as indexed; if no other request waits, return the ids of all indexed ones."""


class Deriving(Protocol):
    """Derive users' aggregates from their events (`engine.stores.mongo.event_aggregates`)."""

    def derive(self, keys: Collection[str], *, create: bool = True) -> set[str]:
        """Derive the aggregates of these users (user keys); return the keys of those that were written."""


DERIVED_AT_ONCE: Final = 1_000
"""Most users whose events one aggregation counts."""


class Behind(EngineError):
    """This process and the feed have read different workspace files; the request waits until both have the same."""


class SearchIndexer:
    """Index users and derive their aggregates: the use case behind the actor `index_users`."""

    def __init__(
        self,
        *,
        users: UserReads,
        index: Index | None,
        requests: Requests,
        catalogues: LiveWorkspaces,
        shapes: Callable[[], Mapping[str, str]],
        reread: Callable[[], bool],
        derivation: Callable[[Catalogue], Deriving],
        derived: Callable[[], Mapping[str, str]],
        mails_go_out: Callable[[], bool],
    ) -> None:
        """`shapes` returns the form of users that the feed wants, by workspace; `reread` reads the files again.

        `derivation` derives users' aggregates from their events. `derived` returns the aggregates that the feed wants,
        by workspace. Without Elasticsearch (`index` is None) deriving is the only work. While `mails_go_out` a range of
        users waits for its turn (`engine.pipeline.feed.dispatch_indexing`).
        """
        self._mails_go_out = mails_go_out
        self._derivation = derivation
        self._derived = derived
        self._shapes = shapes
        self._reread = reread
        self._users = users
        self._requests = requests
        self._index = index
        self._catalogues = catalogues

    def run(self, request_id: str, *, in_turn: bool = False) -> int:
        """Do a request; return a count of its users. Safe to call twice, late, or for a request that is done.

        While mails go out, a range waits until it is `in_turn`. The last waiting request refreshes the index and then
        removes all indexed requests: once no request waits, searches must find every user of an index that was just
        filled. One refresh instead of many leaves few segments to merge.
        Raises `Behind` if the workspace files were edited before or meanwhile; the request stays.
        """
        request = self._requests.get(request_id)
        if request is None:
            return 0
        if request.derive:
            return self._derive(request_id, request)
        if self._index is None:
            self._requests.done([request_id])
            return 0
        if request.workspace and not request.indexed and not in_turn and self._mails_go_out():
            self._requests.put_off(request_id)
            return 0
        newer = 0 if request.indexed else self._index_users(request)
        if ended := self._requests.indexed(request_id):
            self._index.refresh()
            self._requests.done(ended)
        return newer

    def _index_users(self, request: Request) -> int:
        workspaces = {workspace_of(key) for key in request.keys} | ({request.workspace} - {""})
        if not self._up_to_date(workspaces):
            self._reread()
            self._refuse_behind(workspaces)
        newer = self.keys(request.keys)
        if request.workspace:
            newer += self.range(request.workspace, request.first, request.until)
        self._refuse_behind(workspaces)
        return newer

    def _derive(self, request_id: str, request: Request) -> int:
        """Derive the aggregates of a range of users from their events; return how many users were written."""
        workspace, first, count = request.workspace, request.first, 0
        catalogue = self._catalogues.get(workspace)
        if catalogue is None or self._derived().get(workspace) != derived_shape(catalogue):
            self._reread()
            catalogue = self._catalogues.get(workspace)
        if catalogue is not None and self._derived().get(workspace) != derived_shape(catalogue):
            raise Behind
        while catalogue is not None:
            documents = self._users.read_range(workspace, first, request.until, DERIVED_AT_ONCE, {"_id": 1})
            if documents:
                count += len(self._derivation(catalogue).derive([raw["_id"] for raw in documents], create=False))
            if len(documents) < DERIVED_AT_ONCE:
                break
            first = bound_behind(documents[-1]["_id"])
        self._requests.done([request_id])
        return count

    def _up_to_date(self, workspaces: Iterable[str]) -> bool:
        """Whether this process's workspace files give users the form that the feed wants."""
        shapes, own = self._shapes(), self._catalogues.snapshot()
        return all(
            name not in shapes or name not in own or shapes[name] == indexed_shape(own[name]) for name in workspaces
        )

    def _refuse_behind(self, workspaces: Iterable[str]) -> None:
        if not self._up_to_date(workspaces):
            raise Behind

    def keys(self, keys: Sequence[str]) -> int:
        """Index these users (user keys); return how many were newer than before. Safe to call twice or late."""
        newer = 0
        for workspace, group in groupby(sorted(keys), key=lambda key: workspace_of(key)):
            catalogue = self._catalogues.get(workspace)
            if catalogue is not None:
                documents = self._users.read_keys(list(group), catalogue.projection())
                newer += self._write(workspace, catalogue, documents)
        return newer

    def range(self, workspace: str, first: str, until: str, size: int = 5_000) -> int:
        """Index every user of a workspace with a suffix in [first, until), in order; return how many there are."""
        catalogue, count = self._catalogues.get(workspace), 0
        while catalogue is not None:
            documents = self._users.read_range(workspace, first, until, size, catalogue.projection())
            if documents:
                self._write(workspace, catalogue, documents, again=True)
                count += len(documents)
            if len(documents) < size:
                break
            first = bound_behind(documents[-1]["_id"])
        return count

    def _write(
        self, workspace: str, catalogue: Catalogue, documents: Sequence[Mapping[str, Any]], *, again: bool = False
    ) -> int:
        if self._index is None:
            return 0
        newer = self._index.index((elastic_document(catalogue, document) for document in documents), again=again)
        emit("users.indexed", workspace=workspace, users=len(documents), older=len(documents) - newer)
        return newer
