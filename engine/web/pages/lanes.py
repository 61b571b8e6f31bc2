"""`/lanes` and `/lanes/LANE`: what waits, for how long, who holds the lane's time, and its dead letters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from actors.broker.queue_admin import list_dead
from engine.decisions.slow_and_failing import percentile
from engine.domain.slice_record import SliceRecord
from engine.pipeline.insight.system_reader import MOST_RECENT, RECENT
from engine.web.page import Call, Page, Reach, not_there
from engine.web.queues import broker_of

BOUNDS: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Upper bounds (s) of the bars of a histogram, but for the last one; three a power of ten."""
LETTERS: Final = 50
"""Dead letters that the page lists, the latest."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a histogram: its bounds in seconds (`above` None: no upper one), how many cases, and its height."""

    least: float
    above: float | None
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class Holder:
    """What a campaign had of a lane lately: slices, seconds in work, its share of all such seconds, and its waits."""

    campaign: str
    slices: int
    seconds: float
    share: float
    p95: float
    worst: float


def lanes(call: Call) -> Response:
    """Show all lanes and all fleets."""
    reading = call.site.system.latest()
    if reading.error:
        call.missing.sentences.append("the installation cannot be read")
    return call.show(
        "lanes.html",
        title="Lanes and fleets",
        command="tidegate queue list",
        at=reading.at or None,
        view=reading.value,
    )


def lane(call: Call) -> Response:
    """Show one lane."""
    name = call.part("lane")
    if name not in call.app.policies.lanes:
        raise not_there(f"lane {name}")
    reading = call.site.system.latest()
    view = reading.value
    found = call.read("MongoDB", "the latest slices", lambda: call.app.stores.lane_work.latest(RECENT, MOST_RECENT))
    ended = [one for one in found or () if one.lane == name]
    letters = call.read("Redis", "the dead letters", lambda: list_dead(broker_of(call.app), name, limit=LETTERS))
    return call.show(
        "lane.html",
        title=f"Lane {name}",
        command=f"tidegate queue deadletters {name}",
        at=reading.at or None,
        lane=None if view is None else next((one for one in view.lanes if one.name == name), None),
        rule=call.app.policies.lanes[name],
        bars=histogram([turn.wait / 1e3 for one in ended for turn in one.turns]),
        holders=holders(ended, _names(call, ended)),
        letters=letters,
        fleets=() if view is None else [fleet for fleet in view.fleets if name in fleet.lanes],
    )


def _names(call: Call, ended: Sequence[SliceRecord]) -> dict[str, str]:
    uids = {one.campaign for one in ended}
    records = call.read("MongoDB", "the campaigns", lambda: call.app.stores.campaigns.of(uids)) if uids else {}
    return {uid: f"{record.workspace}/{record.name}" for uid, record in (records or {}).items()}


def histogram(waits: Sequence[float]) -> list[Bar]:
    """Return how many of the waits (s) lie within each pair of bounds; heights are shares of the highest bar."""
    edges = (0.0, *BOUNDS)
    counts = [0] * len(edges)
    for wait in waits:
        counts[sum(1 for bound in BOUNDS if wait >= bound)] += 1
    highest = max(counts, default=0)
    return [
        Bar(least, BOUNDS[number] if number < len(BOUNDS) else None, count, count / highest if highest else 0.0)
        for number, (least, count) in enumerate(zip(edges, counts, strict=True))
    ]


def holders(ended: Sequence[SliceRecord], names: dict[str, str]) -> list[Holder]:
    """Return what each campaign had of the lane, the largest share first."""
    by_campaign: dict[str, list[SliceRecord]] = defaultdict(list)
    for one in ended:
        by_campaign[one.campaign].append(one)
    worked = {uid: sum(turn.held for one in own for turn in one.turns) / 1e3 for uid, own in by_campaign.items()}
    whole = sum(worked.values())
    found = []
    for uid, own in by_campaign.items():
        waits = [turn.wait / 1e3 for one in own for turn in one.turns] or [0.0]
        share = worked[uid] / whole if whole else 0.0
        found.append(Holder(names.get(uid, uid), len(own), worked[uid], share, percentile(waits, 0.95), max(waits)))
    return sorted(found, key=lambda one: -one.seconds)


PAGES: Final = (
    Page("/lanes", lanes, Reach.INSTALLATION, every=2.0),
    Page("/lanes/{lane}", lane, Reach.INSTALLATION, every=2.0),
)
