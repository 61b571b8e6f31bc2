"""Random sequences of actions of people, machines and accidents on one campaign, judged by the reference."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from engine.clock import millis
from engine.errors import IllegalTransition, WrongCall
from tests.model.campaign_files import FILES, PLANS, USERS, spec
from tests.model.memory_world import Installation, MemoryWorld
from tests.model.reference import DAY, File, Person, Reference, enters

DECIDING_POINTS: Final = (
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
    "look.decided",
    "deliver.skipped",
    "deliver.marked",
    "deliver.sending",
    "deliver.sent",
    "deliver.settled",
    "deliver.recovered",
)
SLEEPING_POINTS: Final = (*("slice.decided",) * 16, *DECIDING_POINTS)
MEANWHILE: Final = (
    "edit go",
    "edit go",
    "audience go",
    "audience go",
    "expire go",
    "user go",
    "user edit go",
    "pause resume",
    "pause resume go",
    "pause user resume go",
    "pause edit resume go",
    "pause user stop go",
    "pause",
    "pause user stop",
    "pause user resume",
    "pause audience",
    "resume",
    "resume go",
    "stop",
    "stop go",
    "cancel go",
    "delete go",
    "advance go",
    "replay",
    "replay go",
)
COMMANDS: Final = ("edit", "pause", "resume", "stop", "cancel", "replay", "tick", "go", "launch")
TICK_POINTS: Final = ("run.started", "lease.freed", "campaign.finished")
FEED_POINTS: Final = ("feed.refreshed", "feed.asked", "feed.handled")
STEPS: Final = (timedelta(hours=1), timedelta(days=1), timedelta(days=2), timedelta(days=5), timedelta(days=21))


class Campaign(RuleBasedStateMachine):
    """One campaign with five users, two clocks, a feed and workers. `shared` is set by the test."""

    shared: Installation
    using: Callable[[MemoryWorld], None]

    def __init__(self) -> None:
        super().__init__()
        self.world = MemoryWorld(self.shared)
        type(self).using(self.world)
        self.reference = Reference(times=[self.world.now])

    @initialize(
        plans=st.lists(st.sampled_from(PLANS), min_size=3, max_size=4),
        file=FILES,
        one_off=st.sampled_from((False, False, True)),
        launched=st.sampled_from((True, True, True, False)),
        settled=st.booleans(),
    )
    def begin(self, plans: list[str], file: File, one_off: bool, launched: bool, settled: bool) -> None:
        self.reference.one_off = one_off
        for user, plan in zip(USERS, plans, strict=False):
            self._user(user, plan)
        self._apply(file)
        if launched:
            self.launch()
        if settled:
            self.settle()

    # people

    def _changed(self) -> None:
        self.reference.noted()

    def _unclean(self) -> None:
        """Something overlaps the launch: who enters is no longer known exactly."""
        self.reference.at_launch = None

    def _user(self, user: str, plan: str) -> None:
        self.world.user(user, email=f"{user}@x.example", plan=plan)
        self.reference.people.setdefault(user, Person()).plan = plan
        self._changed()

    def _alive(self, user: str) -> bool:
        return not self.reference.people.get(user, Person()).deleted

    @rule(user=st.sampled_from(USERS))
    def user(self, user: str) -> None:
        """A user comes, or changes the plan."""
        if self._alive(user):
            self._unclean()
            known = self.reference.people.get(user)
            self._user(user, "free" if known is not None and known.plan == "pro" else "pro")

    def vip(self, user: str, days: int) -> None:
        if user in self.reference.people and self._alive(user):
            self._unclean()
            until = self.world.now + days * DAY
            self.world.user(user, vip_until=until)
            self.reference.people[user].vip_until = until
            self._changed()

    def order(self, user: str) -> None:
        if user in self.reference.people and self._alive(user):
            self._unclean()
            self.world.order(user, self.world.now)
            self.reference.people[user].orders += 1
            self._changed()

    def delete(self, user: str) -> None:
        if user in self.reference.people:
            self._unclean()
            self.world.delete(user)
            self.reference.people[user].deleted = True

    def _apply(self, file: File) -> None:
        if self.reference.one_off:
            file = replace(file, again=None, ends=None)  # a one-off campaign takes its audience once
        if self.reference.files and file == self.reference.file:
            return
        try:
            self.world.apply(spec(file, one_off=self.reference.one_off))
        except WrongCall:
            return  # the campaign has ended
        self._unclean()
        self.reference.files.append(file)
        self._changed()

    @rule(file=FILES)
    def edit(self, file: File) -> None:
        self._apply(file)

    @rule(file=FILES)
    def edit_audience(self, file: File) -> None:
        """Edit only the audience."""
        before = self.reference.file
        self._apply(replace(before, audience=file.audience))

    def _steer(self, what: str) -> bool:
        try:
            self.world.steer(what)
        except (IllegalTransition, WrongCall):
            return False
        return True

    def launch(self) -> None:
        if self._steer("launch") and self.reference.one_off:
            people, now, file = self.reference.people, self.world.now, self.reference.file
            self.reference.at_launch = {user for user, enrolment in people.items() if enters(file, enrolment, now)}

    def pause(self) -> None:
        self._steer("pause")

    def resume(self) -> None:
        now = self.world.now
        if self._steer("resume"):
            self.reference.resumed_at = now

    def stop(self) -> None:
        self._unclean()
        paused, now = self.world.record().state == "paused", self.world.now
        if self._steer("stop") and paused:
            self.reference.resumed_at = now

    def cancel(self, sure: bool) -> None:
        if sure and self._steer("cancel"):
            self._unclean()
            self.reference.cancelled = True

    def address(self, user: str, refused: bool) -> None:
        """Let the provider begin, or cease, to refuse a recipient."""
        held = self.world.provider.refused
        (held.add if refused else held.discard)(f"{user}@x.example")

    def replay(self) -> None:
        failed = {
            f"{enrolment.id}/{delivery.message}": enrolment
            for enrolment in self.world.enrolments()
            for delivery in enrolment.settled
            if str(delivery.state) == "failed"
            and enrolment.outgoing is None
            and str(enrolment.reason) in ("None", "completed", "failed")
        }
        try:
            self.world.replay()
        except WrongCall:
            return
        refused = self.world.provider.refused
        for key, enrolment in failed.items():
            user = enrolment.user.rsplit("/", 1)[1]
            first = next(delivery.message for delivery in enrolment.settled if str(delivery.state) == "failed")
            if f"{user}@x.example" not in refused and key == f"{enrolment.id}/{first}":
                self.reference.replayed.add(key)

    @rule(what=st.sampled_from(("launch", "pause", "resume", "resume", "stop", "replay", "replay", "cancel")))
    def command(self, what: str) -> None:
        """Give one command."""
        if what == "cancel":
            self.cancel(sure=True)
        else:
            getattr(self, what)()

    @rule(
        what=st.sampled_from(("vip", "order", "delete", "refused", "taken")),
        user=st.sampled_from(USERS),
        days=st.sampled_from((1, 4, 8)),
    )
    def detail(self, what: str, user: str, days: int) -> None:
        """Change another attribute of a user."""
        match what:
            case "vip":
                self.vip(user, days)
            case "order" | "delete":
                getattr(self, what)(user)
            case _:
                self.address(user, what == "refused")

    @rule(by=st.sampled_from(STEPS))
    def advance(self, by: timedelta) -> None:
        self._unclean()
        self.world.advance(by)
        self.reference.times.append(self.reference.now + millis(by))
        self._changed()

    # machines

    @rule(
        what=st.sampled_from(("tick", "second tick", "feed", "work", "lose", "wait")),
        most=st.integers(1, 6),
        seconds=st.sampled_from((6, 31, 61)),
    )
    def machines(self, what: str, most: int, seconds: int) -> None:
        """Let one part act: a tick, some changes, some work, some lost messages, some time."""
        match what:
            case "tick" | "second tick":
                self.world.tick(second=what != "tick")
            case "feed":
                self.world.feed()
            case "work":
                self.world.work(most)
            case "lose":
                self.world.lose(most)
            case _:
                self.world.wait(seconds)

    @rule(times=st.integers(1, 3))
    def go(self, times: int) -> None:
        """Let every part work for a while."""
        for _ in range(times):
            self.world.feed()
            self.world.tick()
            self.world.work()

    @rule(most=st.integers(1, 3))
    def lose(self, most: int) -> None:
        self.world.lose(most)

    @rule(words=st.sampled_from(MEANWHILE), file=FILES, user=st.sampled_from(USERS))
    def people_act(self, words: str, file: File, user: str) -> None:
        """Do several things in a row, as they go together."""
        self._acting(words, file, user)()

    # accidents

    def worker_dies(self, point: str, passage: int, most: int) -> None:
        with self.world.dying(point, passage):
            self.world.work(most)

    def clock_dies(self, point: str, passage: int, second: bool) -> None:
        with self.world.dying(point, passage):
            self.world.tick(second=second)

    def feed_dies(self, point: str) -> None:
        with self.world.dying(point, 1):
            self.world.feed()

    def _acting(  # noqa: C901 - a case for each word
        self, words: str, file: File, user: str
    ) -> Callable[[], None]:
        """Do what others do, step by step."""

        def act() -> None:
            for word in words.split():
                match word:
                    case "edit":
                        self._apply(file)
                    case "audience":
                        self.edit_audience(file)
                    case "user":
                        self.user(user)
                    case "delete":
                        self.delete(user)
                    case "advance":
                        self.advance(timedelta(days=1))
                    case "cancel":
                        self.cancel(sure=True)
                    case "go":
                        for _ in range(3):
                            self.world.feed()
                            self.world.tick(second=True)
                            self.world.work()
                    case "expire":
                        self.world.wait(61)
                    case "tick":
                        self.world.tick()
                    case _:
                        getattr(self, word)()

        return act

    @rule(
        point=st.sampled_from(SLEEPING_POINTS),
        passage=st.integers(1, 2),
        words=st.sampled_from(MEANWHILE),
        file=FILES,
        user=st.sampled_from(USERS),
    )
    def worker_sleeps(self, point: str, passage: int, words: str, file: File, user: str) -> None:
        """Let a worker sleep between two writes while others act; its lease may run out meanwhile."""
        self.world.feed()
        self.world.tick()
        self.world.plan()
        self.world.tick()
        with self.world.crossed(point, passage, self._acting(words, file, user)):
            self.world.work()

    @rule(point=st.sampled_from(SLEEPING_POINTS), passage=st.integers(1, 2))
    def worker_dozes(self, point: str, passage: int) -> None:
        """Let a worker sleep between two writes until it is woken, whatever happens in between."""
        self.world.feed()
        self.world.tick()
        self.world.plan()
        self.world.tick()
        self.world.doze(point, passage)

    @rule(number=st.integers(0, 2), kill=st.sampled_from((False, False, True)))
    def worker_wakes(self, number: int, kill: bool) -> None:
        self.world.wake(number, kill=kill)

    @rule(
        command=st.sampled_from(COMMANDS),
        words=st.sampled_from(MEANWHILE),
        file=FILES,
        other=FILES,
        user=st.sampled_from(USERS),
    )
    def command_is_overtaken(self, command: str, words: str, file: File, other: File, user: str) -> None:
        """Let others act between a read of the campaign by a command or the clock and its write."""
        with self.world.overtaken(self._acting(words, other, user)):
            self._acting(command, file, user)()

    @rule(
        point=st.sampled_from((*DECIDING_POINTS, *DECIDING_POINTS, *TICK_POINTS, *FEED_POINTS)),
        passage=st.integers(1, 3),
        most=st.integers(1, 8),
        second=st.booleans(),
    )
    def something_dies(self, point: str, passage: int, most: int, second: bool) -> None:
        """Kill a worker, a clock or the feed."""
        if point in FEED_POINTS:
            self.feed_dies(point)
        elif point in TICK_POINTS:
            self.clock_dies(point, passage, second)
        else:
            self.worker_dies(point, passage, most)

    # judgement

    @rule()
    def settle(self) -> None:
        self.world.settle()
        self.judge()

    def judge(self) -> None:
        record, enrolments = self.world.record(), self.world.enrolments()
        if record.state in ("live", "finished") and self.reference.one_off:
            self.reference.launched(enrolments)
        self.reference.judge(str(record.state), enrolments, self.world.provider.taken)
        if record.state in ("live", "draining", "cancelled", "finished"):
            assert not self.world.app.stores.runs.undecided(), "a run is open"
            left = [raw for raw in self.world.database["slices"].find({"state": "open"}) if raw["kind"] != "deliver"]
            assert not left, f"nothing is open, and slices are: {left}"

    def teardown(self) -> None:
        """Check that the campaign comes to rest after any sequence, and ends after a resume and a stop."""
        if sys.exc_info()[0] is not None:
            while self.world.sleepers:
                self.world.wake(0, kill=True)
            return  # it failed
        self.settle()
        if self.world.record().state == "paused":
            self.resume()
            self.settle()
        self.stop()
        self.settle()
        self.advance(timedelta(days=21))
        self.settle()
        assert self.world.record().state in ("draft", "scheduled", "finished", "cancelled"), self.world.record().state
