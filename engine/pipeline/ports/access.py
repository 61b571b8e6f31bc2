"""Who may see the pages, and the failed log-ins."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Protocol

from engine.domain.access import Access


class AccessStore(Protocol):
    """Where accesses are kept."""

    def everything(self) -> list[Access]: ...
    def add(self, access: Access) -> bool: ...
    def remove(self, name: str) -> bool: ...
    def session_key(self, candidate: str) -> str: ...


class FailedLogins(Protocol):
    """Where failed log-ins are counted."""

    def wait(self, whom: Iterable[str]) -> float: ...
    def failed(self, who: str, remembered: timedelta) -> int: ...
    def delay(self, who: str, wait: timedelta) -> None: ...
    def forget(self, who: str) -> None: ...
