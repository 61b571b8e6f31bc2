"""The part `edits` of `bench.lanes`: a running campaign is moved between two lanes by edits of its profile."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench.e2e_cases import QUICK, ground
from bench.installation import BIG, Installation
from bench.log_events import log_events
from bench.sink_process import Sink
from engine.policy.load import load_policies

EDITS: Final = 10
"""Edits while the campaign is being decided and sent."""
LANES: Final = ("slow", "fast")
"""The lanes between which it is moved, each served by the fleet of the same name."""
WAIT: Final = 2_000
"""Milliseconds that each batch waits, so that the campaign is still being decided at the last edit."""
SLICE: Final = 500
"""Users of a slice, which is one batch."""
BETWEEN: Final = 3.0
"""Seconds from the first slice in a lane to the next edit."""
PROFILE: Final = "policies/profiles/bulk.yaml"
FAILPOINTS: Final = f"slice.decided=wait{WAIT}@*"

_PATIENCE: Final = 60.0
_LOOK: Final = 0.1


@dataclass(frozen=True, slots=True)
class Edit:
    """An edit: the lane to which it moves the campaign, and two spans in seconds from the save.

    `swapped` ends with the last process's swap, `claimed` with the first slice that the lane's fleet claims under the
    edited policies.
    """

    lane: str
    swapped: float
    claimed: float


@dataclass(frozen=True, slots=True)
class Edited:
    """A campaign that was edited while it ran: what the sink and the report say in the end."""

    users: int
    edits: list[Edit]
    state: str
    sent: int
    missing: int
    doubled: int


def edited(users: int) -> Edited:
    """Launch a campaign to `users` and edit its profile's lane ten times while it is decided and sent."""
    with ground(QUICK, elastic=False, failpoints=FAILPOINTS) as (installation, server):
        installation.edit(PROFILE, "slice_users: 20000", f"slice_users: {SLICE}")
        installation.edit(PROFILE, "candidates: [1000, 5000]", f"candidates: [{SLICE}]")
        installation.fill(users)
        installation.apply(BIG, BIG)
        installation.wait_until_quiet(30)
        installation.run("campaign", "launch", BIG)
        _until_claimed(installation, LANES[0], "", 0.0)
        edits = [_edit(installation, *_turn(number)) for number in range(EDITS)]
        return _ended(installation, server, users, edits)


def _turn(number: int) -> tuple[str, str]:
    return LANES[number % 2], LANES[(number + 1) % 2]


def _edit(installation: Installation, before: str, after: str) -> Edit:
    time.sleep(BETWEEN)
    installation.edit(PROFILE, f"lane: {before}", f"lane: {after}")
    saved = time.time()
    version = load_policies(installation.folder / "policies").version
    claimed = _until_claimed(installation, after, version, saved)
    swapped = max(at for _, at in _lines(installation, "*", "policy.swapped", version) if at > saved)
    one = Edit(after, swapped - saved, claimed - saved)
    print(one, file=sys.stderr, flush=True)
    return one


def _until_claimed(installation: Installation, fleet: str, version: str, since: float) -> float:
    """Wait until a fleet claims a slice under a version of the policies (empty: any); return when it did."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        times = [at for _, at in _lines(installation, fleet, "slice.claimed", version) if at > since]
        if times:
            return min(times)
        time.sleep(_LOOK)
    raise TimeoutError(f"the fleet {fleet} claimed no slice within {_PATIENCE:.0f} s of an edit: is the campaign over?")


def _lines(
    installation: Installation, process: str, event: str, version: str
) -> Iterator[tuple[dict[str, Any], float]]:
    """Yield the lines of an event that processes of a kind wrote under a version (empty: any), with their times."""
    for _, at, line in log_events(installation, event, process=process):
        if version in ("", line["labels"].get("policy")):
            yield line, at


def _ended(installation: Installation, server: Sink, users: int, edits: list[Edit]) -> Edited:
    deadline = time.monotonic() + 600
    state, sent = "", 0
    while time.monotonic() < deadline and state != "finished":
        time.sleep(1)
        told = json.loads(installation.run("campaign", "report", BIG, "--json"))
        state, sent = told["state"], told["messages"].get("hello", {}).get("sent", 0)
    return Edited(
        users=users,
        edits=edits,
        state=state,
        sent=sent,
        missing=server.compared(installation.addresses)["missing"],
        doubled=server.now()["repeated"],
    )


def part(users: int, rounds: int) -> str:
    """Return the tables of so many rounds."""
    tried = [edited(users) for _ in range(rounds)]
    head = (
        "| round | users | edits | seconds to the last process's swap, median (most) "
        "| seconds to the first slice in the new lane, median (most) | report | missing | doubled |\n"
        "|--:|--:|--:|--:|--:|---|--:|--:|"
    )
    rows = [head]
    for number, one in enumerate(tried, 1):
        swaps, claims = [edit.swapped for edit in one.edits], [edit.claimed for edit in one.edits]
        rows.append(
            f"| {number} | {one.users:,} | {len(one.edits)} | {statistics.median(swaps):.2f} ({max(swaps):.2f}) "
            f"| {statistics.median(claims):.2f} ({max(claims):.2f}) | {one.state}, {one.sent:,} sent "
            f"| {one.missing:,} | {one.doubled:,} |"
        )
    each = ", ".join(f"{edit.claimed:.2f} ({edit.lane})" for edit in tried[-1].edits)
    return "\n".join(rows) + f"\n\nEach edit of the last round, to the first slice: {each}."
