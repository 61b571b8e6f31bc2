"""The part `simulate` of `bench.lanes`: what `policy simulate` forecasts for an edit, against a run of the edit."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.installation import CommandFailed, Installation
from bench.log_events import log_events
from bench.sink_process import sink

WORKSPACES: Final = {"a": 200, "b": 300, "c": 600}
"""Workspaces by name, with the milliseconds that a batch of each waits."""
USERS: Final = 16_000
"""Users of each workspace."""
SLICE: Final = 200
"""Users of a slice, which is one batch."""
DELIVERING: Final = 600
"""Milliseconds that each window of deliveries waits."""
GOAL: Final = 0.25
"""The largest error of the forecast of a lane's p95 wait."""

_PATIENCE: Final = 300.0
"""Seconds that the load may take."""


def _more_threads(policies: Path) -> None:
    """Double the threads of the slow fleet."""
    lanes = policies / "lanes.yaml"
    text = lanes.read_text(encoding="utf-8")
    before, after = (
        "[slow, index], processes: 1, threads: 2, prefetch: 2",
        "[slow, index], processes: 1, threads: 4, prefetch: 4",
    )
    lanes.write_text(text.replace(before, after), encoding="utf-8")


def _moved(policies: Path) -> None:
    """Route the campaign with the longest slices to the fast lane, by a profile of its own."""
    bulk = (policies / "profiles/bulk.yaml").read_text(encoding="utf-8")
    moved = bulk.replace("profile: bulk", "profile: moved").replace("priority: 10", "priority: 20")
    moved = moved.replace("matches: {kind: one_off}", "matches: {campaign: to-c}").replace("lane: slow", "lane: fast")
    (policies / "profiles/moved.yaml").write_text(moved, encoding="utf-8")


EDITS: Final[dict[str, Callable[[Path], None]]] = {
    "the threads of the fleet `slow` doubled": _more_threads,
    "the campaign of `c` in the lane `fast`": _moved,
}
"""The edits by what they change; each edits a folder of policies."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The p95 waits (s) of a lane: before the edit, as forecast for the edit, and as measured with it.

    `longer` is by how much a turn took longer in the run with the edit than the forecast took it to take, as a share.
    """

    edit: str
    lane: str
    before: float | None
    forecast: float | None
    measured: float
    slices: int
    longer: float | None

    @property
    def error(self) -> float | None:
        """The error of the forecast, as a share of the measured wait."""
        return None if self.forecast is None else self.forecast / self.measured - 1


def simulated() -> list[Compared]:
    """Run the load under today's policies, forecast each edit, and run the same load under each."""
    lanes, forecasts = _run(None, list(EDITS))
    compared: list[Compared] = []
    for edit in EDITS:
        measured, _ = _run(edit, [])
        for lane, waits in measured.items():
            before, told = lanes.get(lane), forecasts[edit].get(lane)
            compared.append(
                Compared(
                    edit,
                    lane,
                    None if before is None else before["p95"],
                    None if told is None else told["p95"],
                    waits["p95"],
                    waits["slices"],
                    None if told is None else waits["turn"] / told["turn"] - 1,
                )
            )
    return compared


def _run(edit: str | None, ask: list[str]) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, dict[str, Any]]]]:
    """Run the load; return the recorded waits by lane, and for each edit in `ask` the waits forecast for it."""
    failpoints = [f"slice.decided=wait{wait}@*~/{name}-" for name, wait in WORKSPACES.items()]
    failpoints.append(f"deliver.marked=wait{DELIVERING}@*")
    with _ground(edit, ",".join(failpoints)) as installation:
        for name in WORKSPACES:
            installation.fill_workspace(name, USERS)
        installation.wait_until_quiet(60)
        for name in WORKSPACES:
            installation.apply_plain(f"to-{name}", name, holdout="80%")
        for name in WORKSPACES:
            installation.run("campaign", "launch", f"to-{name}", "--path", "scan")
        _until_finished(installation)
        forecasts = {}
        for name in ask:
            edited = installation.folder / "edited"
            shutil.copytree(installation.folder / "policies", edited)
            EDITS[name](edited)
            print(
                installation.run("policy", "simulate", "--days", "1", "--edited", "edited"), file=sys.stderr, flush=True
            )
            forecasts[name] = _waits(installation, "edited", "--edited", str(edited))
            shutil.rmtree(edited)
        return _waits(installation, "recorded"), forecasts


@contextmanager
def _ground(edit: str | None, failpoints: str) -> Iterator[Installation]:
    """Start an installation of its own under edited policies; remove the folder afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-simulate-"))
    folder.chmod(0o755)
    try:
        with sink(0.0) as server:
            installation = Installation(folder / "run", server.port, elastic=False, failpoints=failpoints)
            installation.edit("policies/profiles/bulk.yaml", "slice_users: 20000", f"slice_users: {SLICE}")
            installation.edit("policies/profiles/bulk.yaml", "candidates: [1000, 5000]", f"candidates: [{SLICE}]")
            if edit is not None:
                EDITS[edit](installation.folder / "policies")
            with installation.running():
                yield installation
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _waits(installation: Installation, which: str, *options: str) -> dict[str, dict[str, Any]]:
    told = json.loads(installation.run("policy", "simulate", "--days", "1", *options, "--json"))["forecast"]
    return {lane["lane"]: lane[which] for lane in told["lanes"] if lane[which] is not None}


def _until_finished(installation: Installation) -> None:
    """Wait for the log lines of all campaigns' ends: a command each second would take the processors of the load."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        finished = {line["labels"]["campaign"] for _, _, line in log_events(installation, "campaign.finished")}
        if len(finished) >= len(WORKSPACES):
            return
        time.sleep(2)
    raise CommandFailed(f"the campaigns are not finished after {_PATIENCE:.0f} s")


_HEAD: Final = (
    "| edit | lane | slices | p95 wait before the edit | forecast for the edit | measured with it | error "
    "| a turn took longer by |\n"
    "|---|---|--:|--:|--:|--:|--:|--:|"
)


def simulate_part(_: int, rounds: int) -> str:
    """Return the table of the part: each edit and lane, with the error of the forecast."""
    rows = [_HEAD]
    for _round in range(rounds):
        for one in simulated():
            print(one, file=sys.stderr, flush=True)
            rows.append(
                f"| {one.edit} | `{one.lane}` | {one.slices:,} | {_seconds(one.before)} | {_seconds(one.forecast)} "
                f"| {_seconds(one.measured)} | {_share(one.error)} | {_share(one.longer)} |"
            )
    return "\n".join(rows)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:+.0%}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} s"
