"""A process of the engine as the stores know it, on whatever machine it runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Seen:
    """A process: `host:pid:chance`, its type (`fast`), the lanes it serves, and when it was last heard of.

    `since` is ISO 8601; `ago` is how long ago it last said that it is alive.
    """

    id: str
    process: str
    lanes: tuple[str, ...]
    since: str
    ago: timedelta
