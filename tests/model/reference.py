"""What must hold of one idle campaign: what `docs/semantics.md` says, independent of the engine's code.

The reference is told what people do (users, events, files, commands, time) and never how the engine works. It knows a
small language of audiences and rules, and judges the enrolments and the mails that it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

DAY: Final = 86_400_000
VIP: Final = 3 * DAY
INACTIVITY: Final = 20 * DAY
GOING: Final = ("live", "draining")


@dataclass(frozen=True)
class Message:
    """A message: `wait` in milliseconds, and the plan that its rule asks for."""

    name: str
    wait: int = 0
    when: str | None = None


@dataclass(frozen=True)
class File:
    """A campaign file: the audience by name, who leaves, who enters again after how long, until when, the messages."""

    audience: str = "all"
    unmatched: bool = True
    exit_plan: str | None = None
    goal_plan: str | None = None
    again: int | None = None
    ends: int | None = None
    messages: tuple[Message, ...] = (Message("one"),)


@dataclass
class Person:
    """The known facts of a user."""

    plan: str = "free"
    vip_until: int | None = None
    orders: int = 0
    deleted: bool = False


def matches(audience: str, person: Person, now: int) -> bool:
    """Return whether an audience includes a user."""
    if person.deleted:
        return False
    match audience:
        case "all":
            return True
        case "pro" | "free":
            return person.plan == audience
        case "ordered":
            return person.orders > 0
        case "vip":  # `vip_until: {within_next: 3d}`
            return person.vip_until is not None and now < person.vip_until <= now + VIP
    raise AssertionError(audience)


def flip(audience: str, person: Person, now: int) -> int | None:
    """Return when time alone changes the answer next."""
    if audience != "vip" or person.vip_until is None or person.vip_until <= now:
        return None
    return person.vip_until if matches(audience, person, now) else person.vip_until - VIP


def enters(file: File, person: Person, now: int) -> bool:
    """Return whether a user never enrolled enters: matches, and does not already meet the goal."""
    return matches(file.audience, person, now) and (file.goal_plan is None or person.plan != file.goal_plan)


class Wrong(AssertionError):
    """The engine did what `docs/semantics.md` does not say."""


def must(holds: bool, what: str) -> None:
    """Raise `Wrong` if the fact does not hold."""
    if not holds:
        raise Wrong(what)


@dataclass
class Reference:
    """One campaign and its users, as people know them."""

    one_off: bool = False
    people: dict[str, Person] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    could_enter: set[str] = field(default_factory=set)
    at_launch: set[str] | None = None
    replayed: set[str] = field(default_factory=set)
    cancelled: bool = False
    resumed_at: int = 0

    @property
    def file(self) -> File:
        """Return the present revision."""
        return self.files[-1]

    @property
    def now(self) -> int:
        """Return campaign time."""
        return self.times[-1]

    def noted(self) -> None:
        """Note, after a change, who could have entered so far under any revision."""
        for user, person in self.people.items():
            if user not in self.could_enter:
                matching = (matches(file.audience, person, at) for file in self.files for at in self.times)
                if any(matching):
                    self.could_enter.add(user)

    # section 4, 7: nothing is left undone

    def judge(self, state: str, enrolments: Sequence[Any], taken: Mapping[str, int]) -> None:
        """Judge everything while nothing is open; `taken` are the mails by delivery key."""
        by_user: dict[str, list[Any]] = {}
        for each in enrolments:
            by_user.setdefault(each.user.rsplit("/", 1)[1], []).append(each)
        for user, history in by_user.items():
            self._history(user, history)
        self._mails(enrolments, taken, state)
        if state == "paused":
            return
        active = {user: history[-1] for user, history in by_user.items() if history[-1].active}
        for each in enrolments:
            must(each.outgoing is None, f"nothing is open, and a delivery is on its way: {each}")
        if state == "live" and self.file.ends is not None:
            must(self.now < self.file.ends, f"live at {self.now}, and its intake ended at {self.file.ends}")
        if state in ("cancelled", "finished"):
            must(not active, f"{state}, and {sorted(active)} are in")
        if state == "draining" or (state == "live" and self.one_off):
            # "finished when its launch run is decided, no enrolment is active and no delivery open"
            must(bool(active), f"{state} with nobody in it: it is to be finished")
        if state not in GOING:
            return
        for user, enrolment in active.items():
            self._inside(user, enrolment)
        if state == "live" and not self.one_off:
            for user, person in self.people.items():
                self._outside(user, person, by_user.get(user, []))

    def launched(self, enrolments: Iterable[Any]) -> None:
        """Check that a one-off campaign took exactly its audience at launch, if nothing overlapped it."""
        if self.at_launch is not None:
            inside = {enrolment.user.rsplit("/", 1)[1] for enrolment in enrolments}
            must(inside == self.at_launch, f"launched for {sorted(self.at_launch)}, and {sorted(inside)} entered")
            self.at_launch = None

    # section 2: the decision

    def _outside(self, user: str, person: Person, history: Sequence[Any]) -> None:
        """Check that every user who must enter did.

        Such a user exists, matches, does not meet the goal, and was never in (or long enough ago).
        """
        if history and history[-1].active:
            return
        if not enters(self.file, person, self.now):
            return
        if not history:
            raise Wrong(f"{user} matches {self.file.audience} and never entered")
        if self.file.again is not None:
            opens = history[-1].ended_at + self.file.again
            must(self.now < opens, f"{user} matches {self.file.audience} and may enter again since {opens}")
            # "an ended enrolment of a campaign with again_after keeps due_at = end + W"
            due = history[-1].due_at
            must(due is not None and due <= opens, f"{user} may enter again at {opens}, and is due at {due}")

    def _reached(self, person: Person) -> bool:
        return self.file.goal_plan is not None and person.plan == self.file.goal_plan

    def _inside(self, user: str, enrolment: Any) -> None:
        """Check an active enrolment that no exit ends: it waits for its next message."""
        person, file = self.people[user], self.file
        must(
            enrolment.revision == len(self.files), f"{user} is in by revision {enrolment.revision} of {len(self.files)}"
        )
        must(not person.deleted, f"{user} is deleted and in")
        must(not self.cancelled, f"{user} is in a campaign that was cancelled")
        must(not self._reached(person), f"{user} has reached the goal and is in")
        must(file.exit_plan is None or person.plan != file.exit_plan, f"{user} meets the exit rule and is in")
        if file.unmatched:
            must(matches(file.audience, person, self.now), f"{user} does not match {file.audience} any more and is in")
        idle = max(enrolment.entered_at, enrolment.settled_at or 0, self.resumed_at)
        must(self.now < idle + INACTIVITY, f"{user} stands idle since {idle} and is in")
        open_messages = [message for message in file.messages if not self._settled(enrolment, message.name)]
        must(bool(open_messages), f"{user} has had every message and is in")
        moments = [flip(file.audience, person, self.now)] if file.unmatched else []
        first = next((message for message in open_messages if message.when in (None, person.plan)), None)
        if first is not None:
            due = (enrolment.settled_at or enrolment.entered_at) + first.wait
            must(self.now < due, f"{user} is to get {first.name} since {due}")
            moments.append(due)
        next_moment = min((moment for moment in moments if moment is not None), default=None)
        if next_moment is not None:
            must(enrolment.due_at is not None, f"{user} is to be looked at at {next_moment}, and nothing brings it up")
            must(enrolment.due_at <= next_moment, f"{user} is due at {enrolment.due_at}, too late for {next_moment}")

    @staticmethod
    def _settled(enrolment: Any, message: str) -> bool:
        return any(delivery.message == message for delivery in enrolment.settled)

    # section 1, 2, 5: what may have happened

    def _history(self, user: str, history: Sequence[Any]) -> None:
        """Check that enrolments are in sequence, their users could enter, and each ended for a possible reason."""
        must([person.entry for person in history] == list(range(1, len(history) + 1)), f"{user} has history {history}")
        must(user in self.could_enter, f"{user} entered and never matched")
        agains = [file.again for file in self.files if file.again is not None]
        for before, after in pairwise(history):
            must(not before.active, f"{user} is in twice")
            must(bool(agains), f"{user} entered twice, and nobody may")
            must(after.entered_at >= before.ended_at + min(agains), f"{user} entered again too early")
        for enrolment in history:
            names = [delivery.message for delivery in enrolment.settled] + (
                [enrolment.outgoing.message] if enrolment.outgoing else []
            )
            must(len(set(names)) == len(names), f"{user} was written to twice in one enrolment: {names}")
            self._waits(user, enrolment)
            if not enrolment.active:
                self._ended(user, enrolment)

    def _waits(self, user: str, enrolment: Any) -> None:
        """Check that no message was sent before its wait was over, by the shortest wait of any revision."""
        before = enrolment.entered_at
        for delivery in enrolment.settled:
            waits = [
                message.wait for file in self.files for message in file.messages if message.name == delivery.message
            ]
            must(
                delivery.at >= before + min(waits),
                f"{user} got {delivery.message} at {delivery.at}, {delivery.at - before} ms after",
            )
            before = max(before, delivery.at)

    def _ended(self, user: str, enrolment: Any) -> None:
        """Check that there is exactly one reason, and that campaign and user allow it."""
        reason = str(enrolment.reason)
        reasons = {"completed", "inactive"}
        if any(file.unmatched or file.exit_plan for file in self.files):
            reasons.add("unmatched")
        if any(file.goal_plan for file in self.files):
            reasons.add("goal")
        if self.people[user].deleted:
            reasons.add("deleted")
        if self.cancelled:
            reasons.add("cancelled")
        must(reason in reasons, f"{user} left as {reason}")
        names = {delivery.message for delivery in enrolment.settled}
        if reason == "completed":
            whole = any(names >= {message.name for message in file.messages} for file in self.files)
            must(whole or enrolment.outgoing is not None, f"{user} has completed with {sorted(names)}")
        if reason == "inactive":
            idle = max(enrolment.entered_at, enrolment.settled_at or 0)
            must(
                enrolment.ended_at >= idle + INACTIVITY, f"{user} left as inactive after {enrolment.ended_at - idle} ms"
            )

    # section 3, 5: deliveries

    def _mails(self, enrolments: Sequence[Any], taken: Mapping[str, int], state: str) -> None:
        """Check that sent messages went out once, mails have sent deliveries, and replays are settled."""
        sent: set[str] = set()
        for enrolment in enrolments:
            for delivery in enrolment.settled:
                end = (str(delivery.state), delivery.reason)
                must(end[0] in ("sent", "failed", "skipped"), f"{enrolment.user}: {delivery.message} ended as {end}")
                if end[0] == "sent":
                    sent.add(f"{enrolment.id}/{delivery.message}")
                if end[0] == "skipped":
                    must(
                        self._may_skip(enrolment, delivery),
                        f"{enrolment.user}: {delivery.message} was skipped ({delivery.reason})",
                    )
                if end[0] == "failed" and state != "paused":
                    mended = f"{enrolment.id}/{delivery.message}" in self.replayed
                    must(not mended, f"{enrolment.user}: {delivery.message} was replayed and is failed")
            if enrolment.outgoing is not None and state == "paused":
                sent.add(f"{enrolment.id}/{enrolment.outgoing.message}")
        missing = {key for key in sent if key not in taken and state != "paused"}
        must(not missing, f"sent, and never taken by the provider: {sorted(missing)}")
        must(not taken.keys() - sent, f"taken by the provider, and not sent: {sorted(taken.keys() - sent)}")
        must(all(count == 1 for count in taken.values()), f"sent twice: {taken}")

    def _may_skip(self, enrolment: Any, message: Any) -> bool:
        """Return whether the skip reason is possible.

        It is `exited` with its enrolment, `cancelled` with the campaign or by an edit that removed the message.
        """
        removed = any(message.message not in {message.name for message in file.messages} for file in self.files)
        gone = self.people[enrolment.user.rsplit("/", 1)[1]].deleted
        match message.reason:
            case "exited":
                return not enrolment.active
            case "cancelled":
                return self.cancelled or removed
            case _:
                return gone
