"""A placeholder for a store until its first use: opening it may import a client that most processes never need."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any


class Deferred:
    """Forwards attributes to the object that `opens` returns, which is opened at the first access."""

    def __init__(self, opens: Callable[[], object]) -> None:
        self._opens = opens

    @cached_property
    def _opened(self) -> object:
        return self._opens()

    def __getattr__(self, name: str) -> Any:  # Any: whatever attributes the store has
        return getattr(self._opened, name)
