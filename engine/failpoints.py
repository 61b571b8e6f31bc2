"""Named points between two writes where a test can stop the process, as `fail-rs` does it for databases.

`TIDEGATE_FAILPOINTS="deliver.marked=kill@2,enter.inserted=raise"` kills the process (SIGKILL) at the second passage of
one point and raises at the first passage of the other. `stop` stops the process (SIGSTOP) until somebody continues it.
`hang` blocks the thread until it is interrupted, for example by a time limit. `@*` means every passage. A trailing
`~TEXT` counts only passages whose keys contain that text: `slice.decided=kill@*~/hh-7` kills every process that decides
about hh-7. Without the variable a passage costs one check of an empty dict. `docs/failure-modes.md` lists the points by
name.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Final

POINTS: Final = frozenset(
    {
        "run.started",
        "plan.sliced",
        "slice.decided",
        "enter.inserted",
        "enter.reentered",
        "choose.advanced",
        "slice.recorded",
        "slice.checkpointed",
        "slice.closed",
        "run.decided",
        "campaign.finished",
        "deliver.skipped",
        "deliver.marked",
        "deliver.sending",
        "deliver.sent",
        "deliver.settled",
        "deliver.recovered",
        "lease.freed",
        "poison.half_written",
        "poison.halved",
        "poison.buried",
        "feed.refreshed",
        "feed.asked",
        "feed.handled",
        "look.decided",
    }
)

ACTIONS: Final = ("kill", "raise", "stop", "hang")

LONGEST_HANG: Final = 300.0
"""Seconds after which a hanging thread continues anyway: far longer than any test waits."""


class Failpoint(RuntimeError):
    """A test requested a failure at this point."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """The action at a point, its passage (None: every one), and a text that the passage's keys must contain."""

    action: str
    at: int | None
    about: str


def _read(text: str) -> dict[str, _Planned]:
    planned: dict[str, _Planned] = {}
    for part in filter(None, text.split(",")):
        name, _, rest = part.partition("=")
        rest, _, about = rest.partition("~")
        action, _, at = rest.partition("@")
        if name not in POINTS or action not in ACTIONS or not (at in ("", "*") or at.isdecimal()):
            raise ValueError(f"TIDEGATE_FAILPOINTS: {part!r} is not POINT={'|'.join(ACTIONS)}[@passage|@*][~text]")
        planned[name] = _Planned(action, None if at == "*" else int(at or 1), about)
    return planned


_planned: Final = _read(os.environ.get("TIDEGATE_FAILPOINTS", ""))
_passages: Final = {name: count(1) for name in _planned}
_done: Final[set[str]] = set()


def arm(text: str) -> None:
    """Replace the armed failpoints by `text`, in the format of the environment variable; empty disarms all."""
    fresh = _read(text)
    _planned.clear()
    _passages.clear()
    _done.clear()
    _planned.update(fresh)
    _passages.update({name: count(1) for name in fresh})


def done() -> frozenset[str]:
    """Return the points at which an action was taken since `arm`."""
    return frozenset(_done)


def passage(name: str, about: Iterable[str] = ()) -> None:
    """Pass the point `name`, which concerns the keys in `about`.

    Kill or stop the process, hang, or raise `Failpoint`, if a test requested it.
    """
    if not _planned or name not in _planned:
        return
    planned = _planned[name]
    if planned.about and not any(planned.about in value for value in about):
        return
    if next(_passages[name]) != planned.at and planned.at is not None:
        return
    _done.add(name)
    if planned.action == "raise":
        raise Failpoint(name)
    if planned.action == "hang":
        until = time.monotonic() + LONGEST_HANG
        while time.monotonic() < until:
            time.sleep(0.05)  # short, because an asynchronous exception waits for its end
        return
    os.kill(os.getpid(), signal.SIGKILL if planned.action == "kill" else signal.SIGSTOP)
