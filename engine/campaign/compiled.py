"""A campaign ready to decide with: its predicates compiled, their event queries merged into one list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from engine.campaign.goal import LoadedGoal
from engine.campaign.load import LoadedCampaign
from engine.clock import Instant, millis
from engine.domain.campaign import CampaignRecord
from engine.domain.enrolment import Enrolment
from engine.domain.keys import arm, user_id_of
from engine.domain.lifecycle import LOOKED_AT, CampaignState
from engine.errors import ProgrammerError
from engine.predicate.compiled import Candidates, CompiledPredicate, EventFacts, EventQuery, compile_predicate
from engine.predicate.fields import Catalogue, Row
from engine.predicate.tree import Predicate


@dataclass(frozen=True, slots=True)
class Facts:
    """What a look knows of one user: the row (None: never existed) and the events of each of the campaign's queries.

    `events` None: they were not read, for `CompiledCampaign.needs_events` said that the row tells enough.
    """

    row: Row | None
    events: EventFacts | None = ()


@dataclass(frozen=True, slots=True)
class CampaignPredicate:
    """A predicate with the positions of its event queries in the campaign's merged list."""

    compiled: CompiledPredicate
    positions: tuple[int, ...]

    def _own(self, facts: Facts) -> EventFacts:
        return tuple(_read(facts)[i] for i in self.positions)

    def matches(self, facts: Facts, as_of: Instant) -> bool:
        """Whether the user matches; a missing or deleted user never does.

        Raises `ProgrammerError` where the events were not read and the row alone does not tell.
        """
        if facts.row is None or facts.row.deleted:
            return False
        if facts.events is None and (answer := self.maybe(facts.row, as_of)) is not None:
            return answer
        return self.compiled.matches(facts.row, self._own(facts), as_of)

    def maybe(self, row: Row, as_of: Instant) -> bool | None:
        """The answer where it needs no event, else None."""
        return self.compiled.maybe(row, as_of)

    def next_flip(self, facts: Facts, as_of: Instant) -> Instant | None:
        """The earliest moment after `as_of` at which time alone could change the answer."""
        if facts.row is None or facts.row.deleted:
            return None
        return self.compiled.next_flip(facts.row, self._own(facts), as_of)


@dataclass(frozen=True, slots=True)
class EventGoal:
    """A goal that one event reaches: the leaf of that event, and the position of its query."""

    compiled: CompiledPredicate
    position: int

    def first_after(self, facts: Facts, after: Instant, until: Instant | None) -> Instant | None:
        """The time of the first event that counts in (after, until]: each is shown to the leaf alone. None: ever."""
        if facts.row is None:
            return None
        for event in sorted(_read(facts)[self.position], key=lambda one: one[0]):
            at = event[0]
            if after < at and (until is None or at <= until) and self.compiled.matches(facts.row, ((event,),), at):
                return at
        return None


@dataclass(frozen=True, slots=True)
class Goal:
    """What the campaign is for: on an event, on fields, or either; `within` counts from the entry."""

    within: timedelta | None
    exits: bool
    event: EventGoal | None = None
    fields: CampaignPredicate | None = None

    @property
    def predicates(self) -> tuple[CompiledPredicate, ...]:
        """What it asks of a user: the event's leaf, the fields, or both."""
        event = () if self.event is None else (self.event.compiled,)
        return event if self.fields is None else (*event, self.fields.compiled)

    def closes(self, entered_at: Instant) -> Instant | None:
        """When the window of a stay that began at `entered_at` closes; None: never."""
        return None if self.within is None else entered_at + millis(self.within)

    def reached_at(self, facts: Facts, entered_at: Instant, as_of: Instant, planned: Instant | None) -> Instant | None:
        """When the goal was reached in (entry, entry + within], as far as `as_of` tells; None: not yet, or never.

        An event counts by its own time, however late it was stored. Fields count at the evaluation that finds them met;
        where that was `planned` for an earlier moment and comes late (campaign time was set on), at the moment from
        which time alone has met them.
        """
        closes = self.closes(entered_at)
        until = as_of if closes is None else min(as_of, closes)
        if self.event is not None:
            at = self.event.first_after(facts, entered_at, until)
            if at is not None:
                return at
        if self.fields is None:
            return None
        if entered_at <= as_of == until and self.fields.matches(facts, as_of):
            return as_of
        return (
            None if planned is None or planned < entered_at else self._met_by_time(self.fields, facts, planned, until)
        )

    @staticmethod
    def _met_by_time(fields: CampaignPredicate, facts: Facts, planned: Instant, until: Instant) -> Instant | None:
        """The first flip in [planned, until] from which the fields were met, as the user is now."""
        at = fields.next_flip(facts, planned - 1)
        while at is not None and at <= until:
            if fields.matches(facts, at):
                return at
            at = fields.next_flip(facts, at)
        return None

    def next_flip(self, facts: Facts, entered_at: Instant, as_of: Instant) -> Instant | None:
        """The earliest moment after `as_of`, inside the window, at which time alone could reach it.

        A stored event may be yet to come.
        """
        closes = self.closes(entered_at)
        event = None if self.event is None else self.event.first_after(facts, max(entered_at, as_of), closes)
        fields = None if self.fields is None else self.fields.next_flip(facts, as_of)
        flips = (moment for moment in (event, fields) if moment is not None and (closes is None or moment <= closes))
        return min(flips, default=None)


@dataclass(frozen=True, slots=True)
class CompiledMessage:
    """One message as the decision sees it; `names` holds its name and those that it had before edits renamed it."""

    name: str
    names: frozenset[str]
    wait: timedelta
    when: CampaignPredicate | None
    not_after: Instant | None


@dataclass(frozen=True, slots=True)
class CompiledCampaign:
    """A campaign as `engine.decide` sees it; `queries` are all event queries of its predicates, each once.

    `evaluation_wanted` tells whoever writes a decision whether a command has come since it read the campaign.
    """

    uid: str
    workspace: str
    name: str
    revision: int
    state: CampaignState
    intake_open: bool
    resumed_at: Instant
    audience: CampaignPredicate
    unmatched_exits: bool
    exit_rule: CampaignPredicate | None
    again_after: timedelta | None
    goal: Goal | None
    holdout: float
    messages: tuple[CompiledMessage, ...]
    queries: tuple[EventQuery, ...]
    goal_position: int | None
    evaluation_wanted: int = 0

    @property
    def only_converts(self) -> bool:
        """Whether an evaluation counts conversions and does nothing else: the campaign is paused, or has finished."""
        return self.state not in LOOKED_AT

    @property
    def moves(self) -> bool:
        """Whether time alone can let somebody in."""
        return self.audience.compiled.moves or any(one.moves for one in self._gates)

    @property
    def _gates(self) -> tuple[CompiledPredicate, ...]:
        """What keeps users out beside the audience: a goal on fields that they already meet."""
        goal = self.goal
        return () if goal is None or goal.fields is None else (goal.fields.compiled,)

    def candidates(self, after: Instant | None, as_of: Instant) -> Candidates:
        """Who may enter at `as_of`; with `after`, only those whom time may have let in since the pass at `after`."""
        return self.audience.compiled.candidates(after, as_of, also=self._gates)

    def in_holdout(self, user: str) -> bool:
        """Whether the user of this key is in the holdout; the same for every stay."""
        return self.holdout > 0 and arm(self.uid, "holdout", user_id_of(user)) < self.holdout

    def needs_events(self, row: Row, stay: Enrolment | None, as_of: Instant) -> bool:
        """Whether a look at this user, whose latest stay is `stay`, needs event facts."""
        if not self.queries:
            return False
        if stay is not None and self.goal_position is not None and stay.converted_at is None:
            return True
        if self.only_converts:
            return False
        if stay is not None and stay.active:
            return True
        if not self.intake_open or (stay is not None and self.again_after is None):
            return False
        return self.audience.maybe(row, as_of) is not False

    def at_state(self, record: CampaignRecord, *, launching: bool) -> CompiledCampaign:
        """The same revision in the state of `record`; the slices of a launch run let users in."""
        live = record.state is CampaignState.LIVE
        return replace(
            self,
            state=record.state,
            intake_open=record.intake_open or (launching and live),
            resumed_at=record.resumed_at,
            evaluation_wanted=record.evaluation_wanted,
        )


def _read(facts: Facts) -> EventFacts:
    if facts.events is None:
        raise ProgrammerError("a decision needs events that were not read")
    return facts.events


class QueryList:
    """Merges the event queries of several predicates, each once, and hands out their positions."""

    def __init__(self) -> None:
        self._queries: list[EventQuery] = []

    def add(self, queries: Sequence[EventQuery]) -> tuple[int, ...]:
        """The positions of `queries` in the merged list."""
        for query in queries:
            if query not in self._queries:
                self._queries.append(query)
        return tuple(self._queries.index(query) for query in queries)

    def bind(self, compiled: CompiledPredicate) -> CampaignPredicate:
        """`compiled` with the positions of its queries."""
        return CampaignPredicate(compiled, self.add(compiled.event_queries))

    @property
    def queries(self) -> tuple[EventQuery, ...]:
        """All queries added so far."""
        return tuple(self._queries)


def compile_campaign(record: CampaignRecord, loaded: LoadedCampaign) -> CompiledCampaign:
    """`loaded` as the decision needs it, with the uid, revision and state of `record`."""
    queries = QueryList()
    catalogue = loaded.catalogue

    def bind(tree: Predicate | None) -> CampaignPredicate | None:
        return None if tree is None else queries.bind(compile_predicate(tree, catalogue))

    audience = queries.bind(compile_predicate(loaded.audience, catalogue))
    exit_rule = bind(loaded.exit_when)
    messages = tuple(
        CompiledMessage(
            message.name,
            frozenset({message.name, *record.renamed.get(message.name, ())}),
            message.wait,
            bind(loaded.whens.get(message.name)),
            message.not_after,
        )
        for message in loaded.file.messages
    )
    goal = None if loaded.goal is None else _goal(loaded.goal, catalogue, queries)
    return CompiledCampaign(
        uid=record.uid,
        workspace=record.workspace,
        name=record.name,
        revision=record.revision,
        state=record.state,
        intake_open=record.intake_open,
        resumed_at=record.resumed_at,
        audience=audience,
        unmatched_exits=loaded.file.unmatched_exits,
        exit_rule=exit_rule,
        again_after=loaded.file.entry.again_after,
        goal=goal,
        holdout=loaded.file.holdout,
        messages=messages,
        queries=queries.queries,
        goal_position=goal.event.position if goal is not None and goal.event is not None else None,
    )


def _goal(goal: LoadedGoal, catalogue: Catalogue, queries: QueryList) -> Goal:
    event = None
    if goal.event is not None:
        compiled = compile_predicate(goal.event, catalogue, summaries=False)
        event = EventGoal(compiled, queries.add(compiled.event_queries)[0])
    fields = None if goal.fields is None else queries.bind(compile_predicate(goal.fields, catalogue))
    return Goal(goal.within, goal.exits, event, fields)
