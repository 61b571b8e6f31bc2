"""No order of edits, pauses, crashes and arrivals starves a campaign, exceeds a bound, or strands a slice in a lane."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import failpoints
from engine.decisions.routing import route
from engine.domain.campaign import CampaignRecord
from engine.domain.keys import user_id_of
from engine.domain.lifecycle import CampaignState
from engine.domain.work import SliceKind
from engine.pipeline.campaigns.compiled_cache import routing_facts
from engine.policy.models import LaneKind
from tests.model.memory_world import Installation, MemoryWorld

CAMPAIGNS: Final = ("first", "second", "third")
USERS: Final = 6
ROUNDS: Final = 60
"""Rounds within which everything must be done once edits, pauses and crashes have ended; each begins a slice."""

PROFILES: Final = st.fixed_dictionaries(
    {
        "lane": st.sampled_from(["fast", "slow", "third"]),
        "in_flight": st.integers(1, 3),
        "weight": st.sampled_from([0.1, 1, 10]),
        "urgency": st.sampled_from(["high", "normal", "low"]),
    }
)
LANES: Final = st.fixed_dictionaries(
    {
        "third": st.booleans(),
        "depth": st.integers(1, 3),
        "threads": st.integers(1, 2),
        "together": st.booleans(),
    }
)
"""Whether the third lane exists, how many messages wait for each thread, and whether one fleet serves all lanes."""

STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), st.tuples(LANES, st.tuples(PROFILES, PROFILES, PROFILES))),
        st.tuples(st.just("launch"), st.sampled_from(CAMPAIGNS)),
        st.tuples(st.just("pause"), st.sampled_from(CAMPAIGNS)),
        st.tuples(st.just("resume"), st.sampled_from(CAMPAIGNS)),
        st.tuples(st.just("tick"), st.booleans()),
        st.tuples(st.just("work"), st.integers(1, 6)),
        st.tuples(st.just("crash"), st.sampled_from(["slice.decided", "slice.recorded", "deliver.marked"])),
        st.tuples(st.just("lose"), st.integers(1, 6)),
        st.tuples(st.just("wait"), st.sampled_from([1, 31, 61])),
    ),
    max_size=40,
)


class Shop:
    """A world with three campaigns to everybody, each under a profile of its own."""

    def __init__(self, installation: Installation) -> None:
        self.folder = installation.folder
        self.watcher = installation.first.watcher
        plain = {"lane": "fast", "in_flight": 2, "weight": 1, "urgency": "normal"}
        self.edit({"third": True, "depth": 2, "threads": 2, "together": False}, (plain, plain, plain))
        self.world = MemoryWorld(installation)
        for number in range(USERS):
            self.world.user(f"u{number}", plan="pro")
        self.world.feed()
        for name in CAMPAIGNS:
            self.world.apply(
                {
                    "campaign": name,
                    "workspace": "shop",
                    "kind": "one_off",
                    "profile": name,
                    "audience": {"plan": "pro"},
                    "messages": [{"name": "one", "channel": "email", "subject": "s", "body": "b"}],
                }
            )

    def edit(self, lanes: dict[str, Any], profiles: tuple[dict[str, Any], ...]) -> None:
        """Save other policies, and put them in force; a profile of a missing lane falls back to `fast`."""
        named = ["fast", "slow", *(["third"] if lanes["third"] else [])]
        kept = {"control": {}, "looks": {}, "index": {}, "suspect": {"depth": 1}, "deliver": {"kind": "deliver"}}
        served = ["control", "looks", "index", "deliver"]
        fleets: dict[str, Any] = {"suspect": {"lanes": ["suspect"], "processes": 1, "threads": 1}}
        if lanes["together"]:
            fleets["all"] = {"lanes": [*served, *named], "threads": lanes["threads"]}
        else:
            fleets["rest"] = {"lanes": served, "threads": lanes["threads"]}
            fleets |= {f"of-{name}": {"lanes": [name], "threads": lanes["threads"]} for name in named}
        decide = {name: {"kind": "decide", "depth": lanes["depth"]} for name in named}
        self._save("lanes", {"lanes": {**kept, **decide}, "fleets": fleets})
        for name, profile in zip(("default", *CAMPAIGNS), ({"lane": "fast"}, *profiles), strict=True):
            lane = profile["lane"] if profile["lane"] in named else "fast"
            sizes = {"slice_users": 1, "batch": {"candidates": [1]}, "errors": {"budget": "100%"}}
            self._save(f"profiles/{name}", {"profile": name, **sizes, **profile, "lane": lane})
        self.watcher.look()
        assert self.watcher.refusal is None

    def _save(self, name: str, content: object) -> None:
        path = self.folder / f"policies/{name}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    def record(self, name: str) -> CampaignRecord:
        return self.world.app.commands.named(name)

    def steer(self, what: str, name: str) -> None:
        """Launch, pause or resume a campaign if its state allows it."""
        state = self.record(name).state
        allowed = {
            "launch": state is CampaignState.DRAFT,
            "pause": state in (CampaignState.LIVE, CampaignState.DRAINING),
            "resume": state is CampaignState.PAUSED,
        }
        if allowed[what]:
            getattr(self.world.app.commands, what)(self.record(name))

    def tick(self, *, second: bool) -> None:
        """Tick, and check where the tick put slices and how many of them."""
        before, flying = self._queued(), self._flying()
        self.world.tick(second=second)
        policies = self.world.app.policies
        after = self._queued()
        for lane in after - before:
            assert policies.fleet_names(lane), f"nobody serves {lane}"
            assert after[lane] <= max(before[lane], policies.room(lane)), f"{lane} is too full"
        for name in CAMPAIGNS:
            now = self._flying()[name]
            assert now <= max(flying[name], policies.profiles[name].in_flight), f"{name} has {now} slices at a time"

    def _queued(self) -> Counter[str]:
        """Count the messages of each lane; those of paused campaigns take no room, for they end at once."""
        slices, campaigns = self.world.app.stores.slices, self.world.app.stores.campaigns
        queued: Counter[str] = Counter()
        for kind, ident, lane in self.world.asked:
            slice_ = slices.get(ident) if kind in ("process", "deliver") else None
            record = None if slice_ is None else campaigns.get(slice_.campaign)
            queued[lane] += record is not None and record.state is not CampaignState.PAUSED
        return queued

    def _flying(self) -> Counter[str]:
        """Count the deciding slices of each campaign that are enqueued or held, as the database has it."""
        names = {self.record(name).uid: name for name in CAMPAIGNS}
        waiting = self.world.app.stores.slices.waiting(self.world.app.settings.engine.ring_again, 1_000)
        return Counter(
            names[slice_.campaign]
            for slice_ in waiting
            if slice_.kind is not SliceKind.DELIVER and (slice_.held or slice_.rung)
        )

    def work(self, most: int) -> int:
        """Let workers take messages, as far as a fleet serves their lanes; each follows its campaign first."""
        done = 0
        for _ in range(len(self.world.asked)):
            if done >= most or not self.world.asked:
                break
            kind, ident, lane = self.world.asked.popleft()
            if not self.world.app.policies.fleet_names(lane):
                continue  # a queue that nobody serves any more: the message is lost
            goes_to = self._lane_of(kind, ident)
            if goes_to is not None and goes_to != lane:
                self.world.asked.append((kind, ident, goes_to))
                continue
            self.world.asked.appendleft((kind, ident, lane))
            done += self.world.work(1)
        return done

    def _lane_of(self, kind: str, ident: str) -> str | None:
        slice_ = self.world.app.stores.slices.get(ident) if kind in ("process", "deliver") else None
        if slice_ is None:
            return None
        record = self.world.app.stores.campaigns.get(slice_.campaign)
        assert record is not None
        facts = routing_facts(record, slow=slice_.slow)
        lane = LaneKind.DELIVER if kind == "deliver" else LaneKind.DECIDE
        return route(self.world.app.policies, facts, suspect=slice_.suspect, kind=lane)

    def crash(self, point: str) -> None:
        with self.world.dying(point, 1):
            self.work(3)

    def finish(self) -> int:
        """Resume and launch everything, and work until all campaigns have ended; return the rounds that it took."""
        for name in CAMPAIGNS:
            self.steer("resume", name)
            self.steer("launch", name)
        for rounds in range(ROUNDS):
            self.tick(second=False)
            self.work(1_000)
            self.world.feed()
            if all(self.record(name).state is CampaignState.FINISHED for name in CAMPAIGNS):
                return rounds
            if not self.world.asked:
                self.world.wait(31)  # leases of the dead run out, lost messages are enqueued again
        raise AssertionError({name: self.record(name).state.value for name in CAMPAIGNS})


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("lanes"))


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


@settings(max_examples=40)
@given(STEPS)
def test_every_campaign_reaches_everybody_once_whatever_happens_to_its_lanes(
    installation: Installation, steps: list[tuple[str, Any]]
) -> None:
    shop = Shop(installation)
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr("os.kill", shop.world.signal)
        for what, more in steps:
            match what:
                case "edit":
                    shop.edit(*more)
                case "tick":
                    shop.tick(second=more)
                case "work":
                    shop.work(more)
                case "crash":
                    shop.crash(more)
                case "lose":
                    shop.world.lose(more)
                case "wait":
                    shop.world.wait(more)
                case _:
                    shop.steer(what, more)
        shop.finish()
    reached = Counter((enrolment.campaign, user_id_of(enrolment.user)) for enrolment in shop.world.enrolments())
    assert set(reached.values()) == {1}
    assert len(reached) == len(CAMPAIGNS) * USERS


@settings(max_examples=20)
@given(st.integers(0, 2), st.integers(1, 8))
def test_a_paused_campaign_never_blocks_those_behind_it(installation: Installation, paused: int, work: int) -> None:
    shop = Shop(installation)
    for name in CAMPAIGNS:
        shop.steer("launch", name)
    shop.tick(second=False)
    shop.work(work)
    shop.tick(second=False)
    shop.steer("pause", CAMPAIGNS[paused])
    others = [name for number, name in enumerate(CAMPAIGNS) if number != paused]
    for _ in range(ROUNDS):
        shop.tick(second=False)
        shop.work(1_000)
        shop.world.feed()
        if all(shop.record(name).state is CampaignState.FINISHED for name in others):
            break
    assert all(shop.record(name).state is CampaignState.FINISHED for name in others)
    assert shop.record(CAMPAIGNS[paused]).state in (CampaignState.PAUSED, CampaignState.FINISHED)
