"""`python -m bench.lanes`: what keeps a campaign, a provider or a workspace from harming the others.

Each part starts an installation as `tidegate init` writes it, with `tidegate up`, and measures it from outside: at the
sink and in the log lines. `--only` picks parts by name. The tables go into `docs/benchmarks.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench import lanes_edits, lanes_plots, report
from bench.calibration import calibrate
from bench.e2e import mongodb_version
from bench.e2e_cases import QUICK, ground
from bench.installation import BIG, Installation
from bench.lanes_gate import gate
from bench.lanes_simulate import simulate_part
from bench.lanes_slow import slow_campaign
from bench.lanes_waits import beside, flood
from bench.log_events import log_events
from bench.measure import machine
from bench.sink_process import Sink
from bench.termination import end_on_term

REFUSAL: Final = "550 refused"
"""The reply of the provider that refuses everything."""

RATE: Final = 100
"""The limit of the provider, in mails a second."""
PROCESSES: Final = 8
"""Delivering processes that share it."""
RATED_FOR: Final = 60.0
"""Seconds that the limited campaign takes."""
EDITED: Final = 6.0
"""Seconds after which an edit of the policies is in force everywhere."""

WORKSPACES: Final = {"a": (50, 1), "b": (150, 2), "c": (500, 5)}
"""Workspaces by name: the milliseconds that a batch of each waits, and its weight."""
SHARED_USERS: Final = 250_000
"""Users of each of these workspaces."""
SLICE: Final = 500
"""Users of a slice, which is one batch."""

_PATIENCE: Final = 300.0
"""Seconds that a campaign may take to end in any way."""


@dataclass(frozen=True, slots=True)
class Braked:
    """A campaign to `users` at a provider that refuses everything, and its second try at one that takes all mails.

    `refused` counts the recipients that the provider refused, `failed` the deliveries that the report calls so.
    `seconds` lie between the first failed delivery and the pause, None if there was none. `missing` and `doubled` are
    counts at the sink after `campaign replay` and `campaign resume`.
    """

    users: int
    refused: int
    failed: int
    seconds: float | None
    reason: str
    missing: int
    doubled: int


def braked(users: int, *, then: str) -> Braked:
    """Launch a campaign at a provider that refuses all; replay and resume it once the provider takes all mails."""
    with ground(QUICK) as (installation, server):
        installation.edit("policies/profiles/bulk.yaml", "then: pause", f"then: {then}")
        installation.fill(users)
        installation.apply(BIG, BIG)
        installation.wait_until_quiet(30)
        server.refuse(REFUSAL)
        installation.run("campaign", "launch", BIG)
        counted = _until_over(installation)
        times: dict[str, float] = {}
        for name, at, _ in log_events(installation, "delivery.failed", "campaign.paused"):
            times[name] = min(at, times.get(name, at))
        paused = times.get("campaign.paused")
        refused = server.now()["refused"]
        server.refuse("")
        installation.run("campaign", "replay", BIG)
        if counted["state"] == "paused":
            installation.run("campaign", "resume", BIG)
        _until_taken(server, users)
        missing = server.compared(installation.addresses)["missing"]
        return Braked(
            users=users,
            refused=refused,
            failed=counted["failed"],
            seconds=None if paused is None else paused - times["delivery.failed"],
            reason=str(counted["reason"] or ""),
            missing=missing,
            doubled=server.now()["repeated"],
        )


def _until_over(installation: Installation) -> dict[str, Any]:
    """Wait until the campaign is paused or finished and its attempts are settled; return state, reason, failures."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        told = json.loads(installation.run("campaign", "report", BIG, "--json"))
        states = told["messages"].get("hello", {})
        over = told["state"] in {"paused", "finished"} and "attempting" not in states
        if over or time.monotonic() > deadline:
            return {"state": told["state"], "reason": told["paused_reason"], "failed": states.get("failed", 0)}
        time.sleep(0.5)


def _until_taken(server: Sink, users: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while server.now()["recipients"] < users and time.monotonic() < deadline:
        time.sleep(0.25)


_BRAKE_HEAD: Final = (
    "| error budget | users | refused by the provider, median (least to most) | failed, by the report "
    "| seconds from the first failure to the pause | then `replay` and `resume`: missing, doubled |\n"
    "|---|--:|--:|--:|--:|--:|"
)


def _brake(users: int, rounds: int) -> str:
    rows = [_BRAKE_HEAD]
    reasons = []
    for then in ("pause", "report"):
        tried = [braked(users, then=then) for _ in range(rounds)]
        print(*tried, sep="\n", file=sys.stderr, flush=True)
        refused = [one.refused for one in tried]
        seconds = [one.seconds for one in tried if one.seconds is not None]
        took = f"{statistics.median(seconds):.2f}" if seconds else "no pause"
        rows.append(
            f"| `then: {then}` | {users:,} | {statistics.median(refused):,.0f} ({min(refused):,} to {max(refused):,}) "
            f"| {statistics.median(one.failed for one in tried):,.0f} | {took} "
            f"| {max(one.missing for one in tried):,}, {max(one.doubled for one in tried):,} |"
        )
        reasons += [one.reason for one in tried if one.reason]
    said = f"\n\nWhat `campaign show` says of the paused campaign: “{reasons[-1]}”." if reasons else ""
    return "\n".join(rows) + said


@dataclass(frozen=True, slots=True)
class Rated:
    """A campaign at a limited rate, one delivering process killed meanwhile: what the sink saw (mails a second)."""

    users: int
    average: float
    busiest: int
    missing: int
    doubled: int


def rated(seconds: float, *, limited: bool) -> Rated:
    """Send for about `seconds` with 8 delivering processes at `RATE`; kill one of them after a third of the time.

    A mail whose process dies between the provider's answer and the settling may be sent twice: `doubled` counts it.
    """
    users = int(RATE * seconds)
    with ground(QUICK, processes=PROCESSES) as (installation, server):
        if limited:
            lanes = installation.folder / "policies/lanes.yaml"
            text = lanes.read_text(encoding="utf-8")
            lanes.write_text(f"{text}\nrates:\n  email: {{per_second: {RATE}}}\n", encoding="utf-8")
            installation.run("policy", "check")
            time.sleep(EDITED)
        installation.fill(users)
        installation.apply(BIG, BIG)
        installation.wait_until_quiet(30)
        installation.run("campaign", "launch", BIG)
        if limited:
            time.sleep(seconds / 3)
            installation.one_of("deliver").kill()
        _until_taken(server, users)
        counts = server.now()
        group = counts["groups"][f"{BIG}.example"]
        return Rated(
            users=users,
            average=(counts["mails"] - 1) / (group[2] - group[1]),
            busiest=counts["busiest"],
            missing=server.compared(installation.addresses)["missing"],
            doubled=counts["repeated"],
        )


def _rate(_: int, rounds: int) -> str:
    rows = [
        "| limit | users | mails/s on average, median | in the busiest second, most | missing | doubled |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for limited in (True, False):
        tried = [rated(RATED_FOR, limited=limited) for _ in range(rounds)]
        print(*tried, sep="\n", file=sys.stderr, flush=True)
        rows.append(
            f"| {f'{RATE} a second, one process killed' if limited else 'none'} | {tried[0].users:,} "
            f"| {statistics.median(one.average for one in tried):,.1f} | {max(one.busiest for one in tried):,} "
            f"| {max(one.missing for one in tried):,} | {max(one.doubled for one in tried):,} |"
        )
    return "\n".join(rows)


def shared(*, weighted: bool) -> dict[str, float]:
    """Launch a campaign in each of three workspaces at once; return the lane-seconds of each while all have work.

    A slice of `a` takes 50 ms, one of `b` 150 and one of `c` 500. Hardly any user gets a mail: 99 % are in the holdout.
    """
    failpoints = ",".join(f"slice.decided=wait{wait}@*~/{name}-" for name, (wait, _) in WORKSPACES.items())
    with ground(QUICK, elastic=False, failpoints=failpoints) as (installation, _):
        installation.edit("policies/profiles/bulk.yaml", "slice_users: 20000", f"slice_users: {SLICE}")
        installation.edit("policies/profiles/bulk.yaml", "candidates: [1000, 5000]", f"candidates: [{SLICE}]")
        if weighted:
            lanes = installation.folder / "policies/lanes.yaml"
            weights = ", ".join(f"{name}: {{weight: {weight}}}" for name, (_, weight) in WORKSPACES.items())
            lanes.write_text(f"{lanes.read_text(encoding='utf-8')}\nworkspaces: {{{weights}}}\n", encoding="utf-8")
        for name in WORKSPACES:
            installation.fill_workspace(name, SHARED_USERS)
        installation.wait_until_quiet(60)
        for name in WORKSPACES:
            installation.apply_plain(f"to-{name}", name)
        for name in WORKSPACES:
            installation.run("campaign", "launch", f"to-{name}")
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            decided = [one["labels"]["workspace"] for _, _, one in log_events(installation, "run.decided")]
            if decided:
                break
            time.sleep(2)
        return _lane_seconds(installation)


def _lane_seconds(installation: Installation) -> dict[str, float]:
    """Return the time for which workers held deciding slices of each workspace, once all three have begun.

    The time ends when the first workspace has no slice left.
    """
    held: list[tuple[str, float, float]] = []
    begun: dict[str, tuple[str, float]] = {}
    names = ("slice.claimed", "slice.closed", "slice.released")
    for event, at, line in sorted(log_events(installation, *names), key=lambda one: one[1]):
        labels = line["labels"]
        if "/deliver/" in labels["slice"]:
            continue  # another lane
        if event == "slice.claimed":
            begun[labels["slice"]] = (labels["workspace"], at)
        elif labels["slice"] in begun:
            workspace, since = begun.pop(labels["slice"])
            held.append((workspace, since, at))
    first = max(min(since for name, since, _ in held if name == workspace) for workspace in WORKSPACES)
    last = min(max(until for name, _, until in held if name == workspace) for workspace in WORKSPACES)
    spent = dict.fromkeys(WORKSPACES, 0.0)
    for name, since, until in held:
        spent[name] += max(0.0, min(until, last) - max(since, first))
    return spent


def _shares(_: int, rounds: int) -> str:
    rows = [
        "| weights | lane-seconds of `a`, `b`, `c` | their shares | by the weights | largest error |",
        "|---|--:|--:|--:|--:|",
    ]
    for weighted in (True, False):
        weights = [weight if weighted else 1 for _, weight in WORKSPACES.values()]
        for _round in range(rounds):
            spent = list(shared(weighted=weighted).values())
            print(weighted, spent, file=sys.stderr, flush=True)
            shares = [seconds / sum(spent) for seconds in spent]
            due = [weight / sum(weights) for weight in weights]
            worst = max(abs(share / want - 1) for share, want in zip(shares, due, strict=True))
            rows.append(
                f"| {' : '.join(map(str, weights))} | {', '.join(f'{one:.1f}' for one in spent)} "
                f"| {', '.join(f'{one:.1%}' for one in shares)} | {', '.join(f'{one:.1%}' for one in due)} "
                f"| {worst:.1%} |"
            )
    return "\n".join(rows)


_RUN: Final[dict[str, Callable[[int, int], str]]] = {
    "brake": _brake,
    "rate": _rate,
    "shares": _shares,
    "gate": gate,
    "flood": flood,
    "beside": beside,
    "slow": slow_campaign,
    "edits": lanes_edits.part,
    "simulate": simulate_part,
}

GOALS: Final = {
    "brake": "**P19**: the campaign is paused after at most 500 failed deliveries, within 5 s; `replay` then sends "
    "every mail once.",
    "rate": "**P15**: 8 delivering processes, one of them killed, over 60 s: above 97 mails/s on average and at most "
    "110 in any second at the sink.",
    "shares": "**P14**: lane-seconds of three workspaces with weights 1 : 2 : 5, whose slices cost 1 : 3 : 10, within "
    "5 % of the weights while all have work.",
    "gate": "**P5**: the p99 of 200 operations a second of the company's own users on the same MongoDB is at most 1.3 "
    "times that beside an equal load of the processors, while the campaign keeps at least 30 % of its ungated rate.",
    "flood": "**P4**: the waits of at least 1,000 slices of quick campaigns during a flood of 500 slices that wait "
    "200 ms each: p99 at most 1.2 times that before or 50 ms more, and at most 500 ms; one queue at least 50 times.",
    "beside": "**P4b**: 50 small campaigns while a big one goes out in the same lane: p95 within 1.2 times of a fair "
    "share.",
    "slow": "**P13**: a campaign turns slow (200 ms more a batch): waits on the fast lane are normal within 10 s.",
    "edits": "**P12**: ten edits move a running campaign between two lanes: at most 5 s from the save to the first "
    "slice in the new lane; no mail missing, none doubled.",
    "simulate": "**P20**: the forecast of `policy simulate --edited` against a real run of the edited policy: p95 wait "
    "per lane, within 25 %.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; return 0 when it is done."""
    parser = argparse.ArgumentParser(prog="python -m bench.lanes", description=__doc__)
    parser.add_argument("--users", type=int, default=100_000, help="users of the campaign (default 100,000)")
    parser.add_argument("--rounds", type=int, default=1, help="launches of each way (default 1)")
    parser.add_argument("--only", default=",".join(_RUN), help=f"parts of {','.join(_RUN)}")
    parser.add_argument("--print-only", action="store_true", help="leave docs/benchmarks.md as it is")
    given = parser.parse_args(argv)
    parts = given.only.split(",")
    if unknown := set(parts) - set(_RUN):
        parser.error(f"--only: no part {', '.join(sorted(unknown))}; there are {', '.join(_RUN)}")
    end_on_term()
    words = " ".join(argv if argv is not None else sys.argv[1:])
    for part in parts:
        load, calib = os.getloadavg()[0], calibrate()
        times = f"{given.rounds} launch{'es' if given.rounds > 1 else ''} of each way"
        command = f"python -m bench.lanes {words}".strip()
        text = (
            f"Measured with `{command}` on {machine(mongodb_version(), load)}. `calib_s` {calib:.3f}; {times}. "
            f"{GOALS[part]}\n\n{_RUN[part](given.users, given.rounds)}"
        )
        report.publish(f"bench.lanes {part}", text, print_only=given.print_only)
    if not given.print_only:
        lanes_plots.draw(report.PAGE.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
