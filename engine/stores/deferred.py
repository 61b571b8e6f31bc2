"""Stands for a store until it is used: opening it may import a client that most processes never need."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any


class Deferred:
    """What `opens` gives, opened when the first of its attributes is asked for."""

    def __init__(self, opens: Callable[[], object]) -> None:
        self._opens = opens

    @cached_property
    def _opened(self) -> object:
        return self._opens()

    def __getattr__(self, name: str) -> Any:  # any: whatever the store has
        return getattr(self._opened, name)
