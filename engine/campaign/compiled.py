"""A campaign compiled for decisions: its predicates compiled, their event queries merged into one list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from engine.campaign.goal import LoadedGoal
from engine.campaign.load import LoadedCampaign
from engine.catalogue.catalogue import Catalogue
from engine.catalogue.fields import Row
from engine.clock import Instant, millis
from engine.domain.campaign import CampaignRecord
from engine.domain.enrolment import Enrolment
from engine.domain.keys import arm, user_id_of
from engine.domain.lifecycle import LOOKED_AT, CampaignState
from engine.errors import ProgrammerError
from engine.predicate.compiled import Candidates, CompiledPredicate, EventFacts, EventQuery, compile_predicate
from engine.predicate.tree import Predicate


@dataclass(frozen=True, slots=True)
class Facts:
    """The data of one user for an evaluation: the row (None: never existed) and the events of each campaign query.

    `events` is None if they were not read, because `CompiledCampaign.needs_events` said that the row is enough.
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
        """Return whether the user matches; a missing or deleted user never does.

        Raises `ProgrammerError` if the events were not read and the row alone does not decide.
        """
        if facts.row is None or facts.row.deleted:
            return False
        if facts.events is None and (answer := self.maybe(facts.row, as_of)) is not None:
            return answer
        return self.compiled.matches(facts.row, self._own(facts), as_of)

    def maybe(self, row: Row, as_of: Instant) -> bool | None:
        """Return the answer if it needs no event, else None."""
        return self.compiled.maybe(row, as_of)

    def next_flip(self, facts: Facts, as_of: Instant) -> Instant | None:
        """Return the earliest moment after `as_of` at which time alone could change the answer."""
        if facts.row is None or facts.row.deleted:
            return None
        return self.compiled.next_flip(facts.row, self._own(facts), as_of)


@dataclass(frozen=True, slots=True)
class EventGoal:
    """A goal that one event reaches: the leaf of that event, and the position of its query."""

    compiled: CompiledPredicate
    position: int

    def first_after(self, facts: Facts, after: Instant, until: Instant | None) -> Instant | None:
        """Return the time of the first event that counts in (after, until]; `until` None means no end.

        The leaf judges each event alone.
        """
        if facts.row is None:
            return None
        for event in sorted(_read(facts)[self.position], key=lambda timed: timed[0]):
            at = event[0]
            if after < at and (until is None or at <= until) and self.compiled.matches(facts.row, ((event,),), at):
                return at
        return None


@dataclass(frozen=True, slots=True)
class Goal:
    """The campaign's goal: on an event, on fields, or either; `within` counts from the entry."""

    within: timedelta | None
    exits: bool
    event: EventGoal | None = None
    fields: CampaignPredicate | None = None

    @property
    def predicates(self) -> tuple[CompiledPredicate, ...]:
        """The predicates of the goal: the event's leaf, the fields, or both."""
        event = () if self.event is None else (self.event.compiled,)
        return event if self.fields is None else (*event, self.fields.compiled)

    def closes(self, entered_at: Instant) -> Instant | None:
        """Return when the window of an enrolment that began at `entered_at` closes; None: never."""
        return None if self.within is None else entered_at + millis(self.within)

    def reached_at(self, facts: Facts, entered_at: Instant, as_of: Instant, planned: Instant | None) -> Instant | None:
        """Return when the goal was reached in (entry, entry + within], as known at `as_of`; None: not yet, or never.

        An event counts at its own time, however late it was stored. Fields count at the evaluation that finds them met.
        If that evaluation was `planned` for an earlier moment and comes late (campaign time was advanced), they count
        at the moment from which time alone has met them.
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
        """Return the first flip in [planned, until] from which the fields were met, by the user's current data."""
        at = fields.next_flip(facts, planned - 1)
        while at is not None and at <= until:
            if fields.matches(facts, at):
                return at
            at = fields.next_flip(facts, at)
        return None

    def next_flip(self, facts: Facts, entered_at: Instant, as_of: Instant) -> Instant | None:
        """Return the earliest moment after `as_of`, inside the window, at which time alone could reach the goal.

        A stored event may lie in the future of `as_of`.
        """
        closes = self.closes(entered_at)
        event = None if self.event is None else self.event.first_after(facts, max(entered_at, as_of), closes)
        fields = None if self.fields is None else self.fields.next_flip(facts, as_of)
        flips = (moment for moment in (event, fields) if moment is not None and (closes is None or moment <= closes))
        return min(flips, default=None)


@dataclass(frozen=True, slots=True)
class CompiledMessage:
    """One message as the decision sees it; `names` holds its name and its former names from before renames."""

    name: str
    names: frozenset[str]
    wait: timedelta
    when: CampaignPredicate | None
    not_after: Instant | None


@dataclass(frozen=True, slots=True)
class CompiledCampaign:
    """A campaign as `engine.decisions.decide` sees it; `queries` holds all event queries of its predicates, each once.

    `evaluation_wanted` tells the writer of a decision whether a command arrived since it read the campaign.
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
        """Whether an evaluation only counts conversions: the campaign is paused, or has finished."""
        return self.state not in LOOKED_AT

    @property
    def moves(self) -> bool:
        """Whether time alone can let a user in."""
        return self.audience.compiled.moves or any(gate.moves for gate in self._gates)

    @property
    def _gates(self) -> tuple[CompiledPredicate, ...]:
        """The predicates besides the audience that keep users out: a goal on fields that they already meet."""
        goal = self.goal
        return () if goal is None or goal.fields is None else (goal.fields.compiled,)

    def candidates(self, after: Instant | None, as_of: Instant) -> Candidates:
        """Return who may enter at `as_of`; with `after`, only users whom time may have let in since that pass."""
        return self.audience.compiled.candidates(after, as_of, also=self._gates)

    def in_holdout(self, user: str) -> bool:
        """Whether the user with this key is in the holdout; the same for every enrolment."""
        return self.holdout > 0 and arm(self.uid, "holdout", user_id_of(user)) < self.holdout

    def needs_events(self, row: Row, enrolment: Enrolment | None, as_of: Instant) -> bool:
        """Whether the evaluation of this user, whose latest enrolment is `enrolment`, needs event facts."""
        if not self.queries:
            return False
        if enrolment is not None and self.goal_position is not None and enrolment.converted_at is None:
            return True
        if self.only_converts:
            return False
        if enrolment is not None and enrolment.active:
            return True
        if not self.intake_open or (enrolment is not None and self.again_after is None):
            return False
        return self.audience.maybe(row, as_of) is not False

    def at_state(self, record: CampaignRecord, *, launching: bool) -> CompiledCampaign:
        """Return the same revision in the state of `record`; the slices of a launch run let users in."""
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
    """Merges the event queries of several predicates, each once, and returns their positions."""

    def __init__(self) -> None:
        self._queries: list[EventQuery] = []

    def add(self, queries: Sequence[EventQuery]) -> tuple[int, ...]:
        """Add `queries` and return their positions in the merged list."""
        for query in queries:
            if query not in self._queries:
                self._queries.append(query)
        return tuple(self._queries.index(query) for query in queries)

    def bind(self, compiled: CompiledPredicate) -> CampaignPredicate:
        """Add the queries of `compiled` and return it with their positions."""
        return CampaignPredicate(compiled, self.add(compiled.event_queries))

    @property
    def queries(self) -> tuple[EventQuery, ...]:
        """All queries added so far."""
        return tuple(self._queries)


def compile_campaign(record: CampaignRecord, loaded: LoadedCampaign) -> CompiledCampaign:
    """Compile `loaded` for decisions, with the uid, revision and state of `record`."""
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
