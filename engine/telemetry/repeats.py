"""Holds back repeated failure lines: writes the first at once, then one per window."""

from __future__ import annotations

import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Final

LIMITED: Final = frozenset({"engine.failed", "slice.failed", "run.failed", "library.logged"})
"""Events that a lasting fault emits thousands of times; a delivery's own line is never held back."""

WINDOW: Final = 30.0
"""Seconds between two lines that report the same failure."""

KEPT: Final = 1_000
"""Different failures that are remembered at once."""


@dataclass(slots=True)
class _Seen:
    at: float
    held_back: int = 0


class Repeats:
    """Remembers the failures that were written; `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seen: OrderedDict[tuple[object, ...], _Seen] = OrderedDict()
        self._lock = Lock()

    def admit(self, name: str, level: str, fields: Mapping[str, object]) -> int | None:
        """Return how many lines like this were held back since the last one; None to hold back this one too.

        Lines are alike if they share event, campaign, process, reason, type of error and the place that raised it.
        """
        error = fields.get("error")
        if name not in LIMITED or level not in ("warning", "error") or not isinstance(error, BaseException):
            return 0
        key = (
            name,
            fields.get("campaign_uid"),
            fields.get("process"),
            fields.get("reason"),
            type(error),
            _place(error),
        )
        now = self._monotonic()
        with self._lock:
            seen = self._seen.get(key)
            if seen is not None and now - seen.at < WINDOW:
                seen.held_back += 1
                return None
            self._seen[key] = _Seen(now)
            self._seen.move_to_end(key)
            while len(self._seen) > KEPT:
                self._seen.popitem(last=False)
            return 0 if seen is None else seen.held_back


def _place(error: BaseException) -> tuple[str, int | None]:
    frames = traceback.extract_tb(error.__traceback__, -1)
    return (frames[0].filename, frames[0].lineno) if frames else ("", None)
