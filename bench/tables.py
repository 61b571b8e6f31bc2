"""The tables of `bench.run`, as Markdown, each row with its goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from bench.changes import Lags
from bench.enrolled import Enrolled
from bench.measure import Rounds
from bench.ours import SMALL_WORKSPACES
from bench.passes import Passes
from bench.paths import Tried
from bench.report import table
from bench.small_campaigns import Idle
from engine.domain.work import AccessPath

FLOOR_READ: float = 1_160_000
FLOOR_TEST: float = 6_000_000
"""Users per second of reading with decoding, and of the generated test, on one core (`docs/architecture.md`)."""


def passes(results: Mapping[str, Passes], rounds: int) -> str:
    """Return the tables of P1, P1b, P1c, P2 and P11."""
    parts = [f"Medians of {rounds} rounds, in turns."]
    for name, few in results.items():
        parts.append(f"### Audience: {name} of the users match\n\n{table(few.rounds)}")
    few, fifth = results["1%"], results["22%"]
    naive, competent, _, ours = few.rounds
    rows = [
        ("P1: 1 % match, against naive", _times(ours, naive), ">= 200"),
        ("P1b: 22 % match and are written, against naive", _times(fifth.rounds[3], fifth.rounds[0]), ">= 80"),
        ("P1c: P1 against the competent way", _times(ours, competent), ">= 3"),
        ("P1c: P1 against the serial floor of its parts", f"{ours.rate() / few.floor:.0%}", ">= 50 %"),
        ("P2: commands a user, against naive", _share(ours, naive, "commands"), "<= 0.1 %"),
        ("P2: documents examined a user, against naive", _share(ours, naive, "examined"), "<= 1 %"),
        ("P2: mongod's processor time a user, against naive", _share(ours, naive, "mongod_cpu"), "<= 1 %"),
        ("P11: memory of a worker process before the pass, and at the most", _memory(results), "<= 250 MiB, flat"),
    ]
    lines = "\n".join(f"| {what} | {value} | {goal} |" for what, value, goal in rows)
    serial = 1 / (1 / FLOOR_READ + 1 / FLOOR_TEST)
    parts.append(
        f"| what | measured | goal |\n|---|--:|--:|\n{lines}\n\n"
        f"The serial floor measured here is {few.floor:,.0f} users/s (reading, decoding and testing every row, on one "
        f"thread, nothing else); it was {serial:,.0f} on a quiet machine. The first pass "
        "of every way is not counted."
    )
    return "\n\n".join(parts)


def _times(ours: Rounds, other: Rounds) -> str:
    return f"{ours.rate() / other.rate():.0f} times"


def _share(ours: Rounds, naive: Rounds, what: str) -> str:
    return f"{ours.per_user(what) / naive.per_user(what):.2%}"


def _memory(results: Mapping[str, Passes]) -> str:
    return "; ".join(
        f"{name}: {measured.memory[0]:.0f}, {measured.memory[1]:.0f} MiB" for name, measured in results.items()
    )


def search(share: int, selective: Mapping[AccessPath, float]) -> str:
    """Return the table of P8: the number of users found, and the seconds of each path."""
    elastic = selective[AccessPath.ELASTIC]
    rows = [
        f"| {path.value} | {seconds * 1000:,.0f} ms | {seconds / elastic:.1f} |" for path, seconds in selective.items()
    ]
    return (
        f"**P8**, an audience of one in a thousand ({share:,} users): all candidates found and judged, medians after "
        "one round to warm up; goal: Elasticsearch at least 10 times as fast as the cached scan and as MongoDB "
        "without a fitting index.\n\n"
        "| path | time | of Elasticsearch's |\n|---|--:|--:|\n" + "\n".join(rows)
    )


def paths(tried: Sequence[Tried], rounds: int) -> str:
    """Return the table of P9."""
    chosen = sum(trial.seconds[trial.chosen] for trial in tried)
    best = sum(trial.seconds[trial.best] for trial in tried)
    worst = max(tried, key=lambda trial: trial.regret)
    lines = [
        f"| `{_in_a_line(trial.audience)}` | {trial.matches:,} | "
        + " | ".join(f"{trial.seconds[path]:.2f}" if path in trial.seconds else "" for path in _SHOWN)
        + f" | {trial.chosen.value} | {trial.regret:.0%} |"
        for trial in tried
    ]
    heads = " | ".join(path.value for path in _SHOWN)
    return (
        f"**P9**, {len(tried)} audiences: summed regret {chosen / best - 1:.1%} (goal <= 10 %), the worst "
        f"{worst.regret + 1:.2f} times the best path (goal: none above 2). Seconds, medians of {rounds}:\n\n"
        f"| audience | matches | {heads} | chosen | regret |\n|---|--:|--:|--:|--:|--:|---|--:|\n" + "\n".join(lines)
    )


_SHOWN = (AccessPath.SCAN, AccessPath.INDEX, AccessPath.ELASTIC, AccessPath.CACHE)


def enrolled(nobody: Sequence[Enrolled], some: Sequence[Enrolled]) -> str:
    """Return the tables of P3 and P7."""
    head = "| enrolled | time | processor time | MongoDB commands | documents examined |\n|--:|--:|--:|--:|--:|\n"

    def rows(measured: Sequence[Enrolled]) -> str:
        return "\n".join(
            f"| {row.enrolled:,} | {row.cost.seconds * 1000:.1f} ms | {row.cost.processor * 1000:.1f} ms "
            f"| {row.cost.commands} | {row.cost.examined} |"
            for row in measured
        )

    time = nobody[-1].cost.seconds / nobody[0].cost.seconds
    processor = some[-1].cost.processor / some[0].cost.processor
    return (
        f"**P3**, nobody due: the largest takes {time:.2f} times as long as the smallest (goal <= 1.5; <= 10 "
        f"operations). A pass is a whole tick of the clock.\n\n{head}{rows(nobody)}\n\n"
        f"**P7**, {some[0].due} due at each pass: the largest takes {processor:.2f} times the processor time of the "
        f"smallest (goal <= 1.1).\n\n{head}{rows(some)}"
    )


def changes(arrivals: Lags, many: Lags, campaigns: int, named: int) -> str:
    """Return the table of P10 and P18."""
    return (
        "| | changes | median | p99 | missed | goal |\n|---|--:|--:|--:|--:|--:|\n"
        f"| P10: from a change to its delivery chosen, while passes over everybody go on | {arrivals.changes:,} "
        f"| {arrivals.median:.2f} s | {arrivals.p99:.2f} s | {arrivals.missed} | p99 <= 2 s |\n"
        f"| P18: the feed's lag, 500 changes a second, {campaigns:,} campaigns of which {named} name the field "
        f"| {many.changes:,} | {many.median:.2f} s | {many.p99:.2f} s | {many.missed} | p99 <= 5 s, 0 missed |"
    )


def small(bare: Idle, full: Idle) -> str:
    """Return the table of P16."""
    rows = "\n".join(_idle_row(idle) for idle in (bare, full))
    return (
        f"**P16**, live campaigns in {SMALL_WORKSPACES} workspaces for {full.seconds:.0f} s, nothing due, `pass: 10m`; "
        "goal: at most 5 % of a core and 20 MongoDB commands a second (two of the bench's own included).\n\n"
        "| campaigns | of a core | clock and feed | mongod | MongoDB commands a second |\n|--:|--:|--:|--:|--:|\n"
        + rows
    )


def _idle_row(idle: Idle) -> str:
    shares = " | ".join(f"{share:.1%}" for share in (idle.ours + idle.mongod, idle.ours, idle.mongod))
    return f"| {idle.campaigns:,} | {shares} | {idle.operations:.1f} |"


def _in_a_line(audience: str) -> str:
    """Return YAML as one line for a table cell."""
    return yaml.safe_dump(yaml.safe_load(audience), default_flow_style=True, width=10_000).strip()
