"""Named points between two writes where a test can stop the process, as `fail-rs` does it for databases.

`TIDEGATE_FAILPOINTS="deliver.marked=kill@2,enter.inserted=raise"` kills the process (SIGKILL) at the second passage of
one point and raises at the first passage of the other. `stop` stops the process (SIGSTOP) until somebody continues it.
`hang` blocks the thread until it is interrupted, for example by a time limit; `wait200` delays it by 200 ms, and
`spin200` keeps the processor busy for that long. `@*` means every passage. A trailing `~TEXT` counts only passages
whose keys contain that text: `slice.decided=kill@*~/hh-7` kills every process that decides about hh-7. Without the
variable a passage costs one check of an empty dict.
`docs/failure-modes.md` lists the points by name.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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

_LASTS: Final = re.compile(r"(?:wait|spin)\d{1,5}")

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
    passages: Iterator[int] = field(default_factory=lambda: count(1))


def _read(text: str) -> dict[str, list[_Planned]]:
    planned: dict[str, list[_Planned]] = {}
    for part in filter(None, text.split(",")):
        name, _, rest = part.partition("=")
        rest, _, about = rest.partition("~")
        action, _, at = rest.partition("@")
        known = action in ACTIONS or _LASTS.fullmatch(action)
        if name not in POINTS or not known or not (at in ("", "*") or at.isdecimal()):
            actions = "|".join((*ACTIONS, "waitMILLISECONDS", "spinMILLISECONDS"))
            raise ValueError(f"TIDEGATE_FAILPOINTS: {part!r} is not POINT={actions}[@passage|@*][~text]")
        planned.setdefault(name, []).append(_Planned(action, None if at == "*" else int(at or 1), about))
    return planned


_planned: Final = _read(os.environ.get("TIDEGATE_FAILPOINTS", ""))
_done: Final[set[str]] = set()


def arm(text: str) -> None:
    """Replace the armed failpoints by `text`, in the format of the environment variable; empty disarms all."""
    fresh = _read(text)
    _planned.clear()
    _done.clear()
    _planned.update(fresh)


def done() -> frozenset[str]:
    """Return the points at which an action was taken since `arm`."""
    return frozenset(_done)


def passage(name: str, about: Iterable[str] = ()) -> None:
    """Pass the point `name`, which concerns the keys in `about`.

    Kill or stop the process, hang, wait, spin, or raise `Failpoint`, if a test requested it.
    """
    if not _planned or name not in _planned:
        return
    keys = tuple(about)
    for planned in _planned[name]:
        if planned.about and not any(planned.about in key for key in keys):
            continue
        if next(planned.passages) == planned.at or planned.at is None:
            _done.add(name)
            _act(name, planned.action)


def _act(name: str, action: str) -> None:
    if action == "raise":
        raise Failpoint(name)
    if action.startswith("wait"):
        time.sleep(int(action.removeprefix("wait")) / 1000)
    elif action.startswith("spin"):
        spent = time.thread_time() + int(action.removeprefix("spin")) / 1000
        while time.thread_time() < spent:
            pass
    elif action == "hang":
        until = time.monotonic() + LONGEST_HANG
        while time.monotonic() < until:
            time.sleep(0.05)  # short, because an asynchronous exception waits for its end
    else:
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
