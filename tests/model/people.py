"""What people do to one campaign: they change users, edit the file, give commands and let time pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from engine.clock import millis
from engine.errors import IllegalTransition, WrongCall
from tests.model.campaign_files import FILES, USERS, spec
from tests.model.memory_world import Installation, MemoryWorld
from tests.model.reference import DAY, File, Person, Reference, enters

STEPS: Final = (timedelta(hours=1), timedelta(days=1), timedelta(days=2), timedelta(days=5), timedelta(days=21))


class People(RuleBasedStateMachine):
    """The actions of people; each tells the reference what it must expect. `shared` is set by the test."""

    shared: Installation
    using: Callable[[MemoryWorld], None]

    def __init__(self) -> None:
        super().__init__()
        self.world = MemoryWorld(self.shared)
        type(self).using(self.world)
        self.reference = Reference(times=[self.world.now])

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
            self.reference.at_launch = {user for user, one in people.items() if enters(file, one, now)}

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
            f"{enrolment.id}/{one.message}": enrolment
            for enrolment in self.world.enrolments()
            for one in enrolment.settled
            if str(one.state) == "failed"
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
            first = next(one.message for one in enrolment.settled if str(one.state) == "failed")
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
