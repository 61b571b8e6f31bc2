"""`python -m bench.e2e`: measure the whole product as users run it, into `docs/benchmarks.md`.

It runs `tidegate init` in a fresh folder and `tidegate up` with the policies that `init` writes, imports N users,
launches one campaign, and counts mails at a sink of ours. Processor time comes from the kernel and covers every process
and store, from before the launch until everything is quiet and the last log line is found. `--only` picks parts by
name.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench import e2e_tables, report
from bench.calibration import REFERENCE, calibrate
from bench.e2e_cases import HANGING, LATE, QUICK, TEN, Launched, Manner, crowd, whole
from bench.measure import machine
from bench.peers.listmonk import Listmonk, Sent
from bench.sink_process import sink
from bench.termination import end_on_term
from engine.local.services.mongod import binary
from engine.settings.model import Email

PARTS: Final = ("whole", "late", "crowd", "two", "million")
_THREADS: Final = 4
"""Threads of the fleet `deliver` in the policies that `init` writes."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Users of each part, and launches of each way."""

    users: int
    late: int
    crowd: int
    two: int
    million: int
    rounds: int
    hanging: bool


def _whole(sizes: Sizes) -> str:
    ours: dict[str, list[Launched]] = {"`tidegate up`, as `init` writes it": [], "the same without Elasticsearch": []}
    peer, theirs = Listmonk.of_environment(), list[Sent]()
    for _ in range(sizes.rounds):
        for name, elastic in zip(ours, (True, False), strict=True):
            ours[name].append(_said(name, whole(sizes.users, elastic=elastic)))
        if peer is not None:
            with sink() as server:
                theirs.append(peer.send(sizes.users, server))
    return e2e_tables.whole(ours, theirs or None)


def _late(sizes: Sizes) -> str:
    connections = _THREADS * Email().connections
    manners: list[Manner] = [LATE, HANGING] if sizes.hanging else [LATE]
    launches = [
        (manner, connections, [_said(manner.name, whole(sizes.late, manner)) for _ in range(sizes.rounds)])
        for manner in manners
    ]
    return e2e_tables.late(launches)


def _crowd(sizes: Sizes) -> str:
    return e2e_tables.crowd([_said("small ones", crowd(sizes.crowd)) for _ in range(sizes.rounds)])


def _two(sizes: Sizes) -> str:
    first, other = list[Launched](), list[Launched]()
    for _ in range(sizes.rounds):
        first.append(_said("one process", whole(sizes.two, TEN)))
        other.append(_said("two processes", whole(sizes.two, TEN, processes=2)))
    return e2e_tables.two(first, other)


def _million(sizes: Sizes) -> str:
    launches = [_said("the million", whole(sizes.million, QUICK)) for _ in range(sizes.rounds)]
    return (
        f"{e2e_tables.whole({'`tidegate up`, as `init` writes it': launches}, None)}\n\n{e2e_tables.memory(launches)}"
    )


_RUN: Final[dict[str, Callable[[Sizes], str]]] = {
    "whole": _whole,
    "late": _late,
    "crowd": _crowd,
    "two": _two,
    "million": _million,
}


GOALS: Final = {
    "whole": "**P21**: at least 5,000 mails/s from launch to last mail at `calib_s` 0.45, the first within 2 s. "
    "**P22**: at most 350 µs a mail at 0.45, 220 without Elasticsearch.",
    "late": "**P23**: at least 90 % of what the connections allow (threads x connections / mean seconds of an answer), "
    "no second without a mail, 0 doubled.",
    "crowd": "**P24**: p95 at most 3 s.",
    "two": "**P26**: two processes at least 1.9 times one, sink 10 ms late.",
    "million": "**P21**: as above. **P25**: flat, workers at most 250 MiB each.",
}


def _said(name: str, launched: Launched) -> Launched:
    print(f"{name}: {launched}", file=sys.stderr, flush=True)
    return launched


def mongodb_version() -> str:
    """Return the version of the `mongod` that `tidegate up` starts."""
    output = subprocess.run([binary(), "--version"], capture_output=True, text=True, check=True).stdout
    return output.split()[2].lstrip("v")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; return 0 when it is done."""
    parser = argparse.ArgumentParser(prog="python -m bench.e2e", description=__doc__)
    parser.add_argument("--users", type=int, default=100_000, help="users of the whole (default 100,000)")
    parser.add_argument("--late-users", type=int, default=20_000, help="users of the late sink (default 20,000)")
    parser.add_argument("--crowd-users", type=int, default=300_000, help="users beside the small ones (300,000)")
    parser.add_argument("--two-users", type=int, default=50_000, help="users of the two processes (50,000)")
    parser.add_argument("--million-users", type=int, default=1_000_000, help="users of the million (1,000,000)")
    parser.add_argument("--rounds", type=int, default=1, help="launches of each way (default 1)")
    parser.add_argument("--only", default="whole,late,crowd,two", help=f"parts of {','.join(PARTS)}")
    parser.add_argument("--no-hanging", action="store_true", help="leave out the sink that hangs (7 minutes)")
    parser.add_argument("--print-only", action="store_true", help="leave docs/benchmarks.md as it is")
    given = parser.parse_args(argv)
    parts = given.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    end_on_term()
    sizes = Sizes(
        users=given.users,
        late=given.late_users,
        crowd=given.crowd_users,
        two=given.two_users,
        million=given.million_users,
        rounds=given.rounds,
        hanging=not given.no_hanging,
    )
    words = " ".join(argv if argv is not None else sys.argv[1:])
    for part in parts:
        load, calib = os.getloadavg()[0], calibrate()
        times = f"{sizes.rounds} launch{'es' if sizes.rounds > 1 else ''} of each way, in turns"
        text = (
            f"Measured with `python -m bench.e2e {words}` on {machine(mongodb_version(), load)}. "
            f"`calib_s` {calib:.3f}, where the goals refer to {REFERENCE}; {times}. "
            f"{GOALS[part]}\n\n{_RUN[part](sizes)}"
        )
        report.publish(f"bench.e2e {part}", text, print_only=given.print_only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
