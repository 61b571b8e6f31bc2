"""The users' index, as access paths and the feed use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol


class Search(Protocol):
    """The users' index in Elasticsearch (`engine.stores.search.user_index`)."""

    def ids(
        self, query: Mapping[str, object], workspace: str, first: str, until: str, size: int, index: str | None = None
    ) -> list[str]: ...
    def count(self, query: Mapping[str, object], workspace: str, index: str | None = None) -> int: ...
    def identity(self) -> str | None: ...
    def refresh(self) -> None: ...
    def index(self, documents: Iterable[Mapping[str, object]]) -> int: ...
