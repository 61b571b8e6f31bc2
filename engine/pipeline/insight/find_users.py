"""Find users by their address, through Elasticsearch: MongoDB has no index on addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from engine.catalogue.catalogue import BUILTINS, Catalogue
from engine.domain.keys import HIGHEST
from engine.errors import OperatorError
from engine.predicate.compile_elastic import path_of

MOST: Final = 50
"""Users with one address that are found."""


class IndexedUsers(Protocol):
    """The users' index."""

    def ids(
        self, query: Mapping[str, Any], workspace: str, first: str, until: str, size: int, index: str | None = None
    ) -> list[str]:
        """Return the keys of matching users."""


class UserFinder:
    """Finds users; `index` is None without Elasticsearch, `filled` returns the index if it holds all users."""

    def __init__(self, index: IndexedUsers | None, filled: Callable[[Catalogue], str | None]) -> None:
        self._index = index
        self._filled = filled

    def by_address(self, catalogue: Catalogue, address: str) -> list[str]:
        """Return the keys of the users of a workspace with exactly this address, at most `MOST`.

        Raises `OperatorError` if Elasticsearch does not hold the users of the workspace.
        """
        name = None if self._index is None else self._filled(catalogue)
        if self._index is None or name is None:
            raise OperatorError(
                "users can be found by their address only once Elasticsearch holds them: it does not",
                remedy="search by the user's id",
            )
        query = {"term": {path_of(BUILTINS["email"]): address}}
        return self._index.ids(query, catalogue.workspace, "0", HIGHEST, MOST, name)
