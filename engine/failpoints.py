"""Named points between two writes where a test can stop the process, as `fail-rs` does it for databases.

`TIDEGATE_FAILPOINTS="deliver.marked=kill@2,enter.inserted=raise"` kills the process (SIGKILL) at the second passage of
one point and raises at the first passage of the other. Without the variable a passage costs one check of an empty dict.
The points are listed by name in `docs/failure-modes.md`.
"""

from __future__ import annotations

import os
import signal
from itertools import count
from typing import Final

POINTS: Final = frozenset(
    {
        "enter.inserted",
        "enter.reentered",
        "choose.advanced",
        "slice.recorded",
        "slice.checkpointed",
        "slice.closed",
        "run.decided",
        "plan.sliced",
        "deliver.marked",
        "deliver.sent",
        "deliver.settled",
        "deliver.skipped",
        "deliver.recovered",
        "poison.halved",
        "poison.buried",
    }
)


class Failpoint(RuntimeError):
    """A test asked for a failure here."""


def _read(text: str) -> dict[str, tuple[str, int]]:
    wanted: dict[str, tuple[str, int]] = {}
    for part in filter(None, text.split(",")):
        name, _, action = part.partition("=")
        kind, _, passage = action.partition("@")
        if name not in POINTS or kind not in ("kill", "raise"):
            raise ValueError(f"TIDEGATE_FAILPOINTS: {part!r} is not POINT=kill|raise[@passage]")
        wanted[name] = (kind, int(passage or 1))
    return wanted


_wanted: Final = _read(os.environ.get("TIDEGATE_FAILPOINTS", ""))
_passages: Final = {name: count(1) for name in _wanted}


def arm(text: str) -> None:
    """Replace what is wanted by `text`, in the format of the environment variable; empty disarms all."""
    fresh = _read(text)
    _wanted.clear()
    _passages.clear()
    _wanted.update(fresh)
    _passages.update({name: count(1) for name in fresh})


def passage(name: str) -> None:
    """Pass the point `name`; kills the process or raises `Failpoint` where a test asked for it."""
    if not _wanted or name not in _wanted:
        return
    kind, at = _wanted[name]
    if next(_passages[name]) != at:
        return
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise Failpoint(name)
