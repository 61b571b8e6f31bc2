"""Requests to index or derive whole workspaces, and whether Elasticsearch holds everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.workspace_set import indexed_shape
from engine.domain.keys import cut
from engine.pipeline.ports.messaging import Messenger
from engine.stores.mongo.index_requests import IndexRequest
from engine.stores.stores import Stores

_USERS: Final = 5_000
"""About how many users a request covers."""

_MOST: Final = 256
"""Requests for one workspace."""


class IndexFilling:
    """Fills the users' index by stored requests; workers carry them out."""

    def __init__(self, stores: Stores, size: Callable[[str], int], messenger: Callable[[], Messenger]) -> None:
        """`size` returns about how many users a workspace has."""
        self._stores = stores
        self._size = size
        self._messenger = messenger

    def filled(self, catalogue: Catalogue) -> str | None:
        """Return the name of the Elasticsearch index that contains all users of a workspace in its catalogue's form.

        Return None if there is no such index or some users are still to be indexed. The index is read before the
        requests, because the feed records an index only after the requests to fill it.
        """
        state = self._stores.feeds.read()
        if state.index is None or state.shapes.get(catalogue.workspace) != indexed_shape(catalogue):
            return None
        return None if self._stores.index_requests.any() else state.index_name

    def create(self) -> None:
        """Create the users' index if it is missing."""
        from engine.stores.migrations import migrate_search

        if self._stores.user_index is not None:
            migrate_search(self._stores.user_index)

    def reindex(self, workspace: str) -> list[str]:
        """Store requests to index every user of a workspace, in ranges of some thousand; return their ids.

        They replace requests for single users that were stored while Elasticsearch was away.
        """
        requests = self._stores.index_requests
        included = requests.of_users(workspace)
        made = requests.add([IndexRequest((), workspace, *one) for one in self._ranges(workspace)])
        requests.done(included)
        return made

    def derive(self, workspace: str) -> list[str]:
        """Store requests to derive every user of a workspace, in ranges of some thousand; return their ids."""
        ranges = [IndexRequest((), workspace, *one, derive=True) for one in self._ranges(workspace)]
        return self._stores.index_requests.add(ranges)

    def index(self, keys: Sequence[str]) -> None:
        """Store a request for some users and enqueue it; the clock enqueues it again if no worker received it."""
        self._messenger().index(self._stores.index_requests.add([IndexRequest(keys)]))

    def _ranges(self, workspace: str) -> Iterable[tuple[str, str]]:
        return cut(max(1, min(_MOST, self._size(workspace) // _USERS)))
