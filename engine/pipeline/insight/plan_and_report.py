"""Look ahead and back: the effect of a launch (`campaign plan`), and the results so far (`campaign report`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from engine.campaign.compiled import CampaignPredicate, Facts
from engine.clock import Clock, Instant
from engine.decisions.access_path_cost import Capacity, capacity, pieces
from engine.decisions.batch_size import choose
from engine.decisions.routing import route
from engine.domain.campaign import CampaignRecord
from engine.domain.counts import Population
from engine.domain.keys import bound_behind, enrolment_prefix
from engine.domain.lifecycle import CampaignState
from engine.domain.work import AccessPath
from engine.pipeline.campaigns.compiled_cache import CampaignCache, Entry, routing_facts
from engine.pipeline.insight.campaign_report import Report, conversions, messages
from engine.pipeline.ports.enrolments import EnrolmentCounts
from engine.pipeline.ports.users import AudienceCounts, EventReads, UserReads
from engine.pipeline.ports.work import RateStore, RunStore
from engine.pipeline.scheduler.access_path import BY_SEARCH, AccessPathChooser, Chosen
from engine.policy.models import LaneKind

PAGE: Final = 5_000
RUNS_SHOWN: Final = 20

COUNTED_UP_TO: Final = 250_000
"""Largest workspace whose users a plan counts; counting takes some 0.2 s."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The effect of a launch now.

    `audience` users match out of the `users` in the workspace, which may be an estimate; `counted` says how the
    audience was found. `chosen` holds the access path with its reason and the rejected paths. `reads_events` says
    whether the launch must read events; `slices` and `batch` say how the work is cut.
    """

    as_of: Instant
    users: Population
    audience: int
    counted: str
    chosen: Chosen
    reads_events: bool
    cost: str
    profile: str
    lane: str
    deliver_lane: str
    slices: int
    batch: int
    inactivity: timedelta
    holdout: float

    @property
    def share(self) -> float | None:
        """Return the share of the users that match; None if the workspace has no users."""
        return self.audience / self.users.users if self.users.users else None


class PlanAndReport:
    """Plans launches and reports on campaigns."""

    def __init__(
        self,
        *,
        campaign_cache: CampaignCache,
        audience: AudienceCounts,
        users: UserReads,
        events: EventReads,
        counts: EnrolmentCounts,
        runs: RunStore,
        access_paths: Callable[[], AccessPathChooser],
        rates: RateStore,
        clock: Clock,
    ) -> None:
        self._campaign_cache = campaign_cache
        self._audience = audience
        self._users = users
        self._events = events
        self._counts = counts
        self._runs = runs
        self._access_paths = access_paths
        self._rates = rates
        self._clock = clock

    def plan(self, record: CampaignRecord, path: AccessPath | None = None) -> Plan:
        """Return the effect of a launch of the campaign now; `path` is the access path that the launch must take.

        If Elasticsearch cannot count the audience exactly, or is behind, the plan reads every user of the workspace
        once.
        """
        entry = self._campaign_cache.of(record)
        as_of = self._clock.campaign_now()
        profile = self._campaign_cache.profile(record)
        facts = routing_facts(record)
        candidates = entry.compiled.candidates(None, as_of)
        users = self._users.population(record.workspace, COUNTED_UP_TO)
        chosen = self._access_paths().for_plan(entry, candidates, path, users)
        answer = entry.compiled.audience.compiled.mongo(as_of)
        if (
            chosen.matches is not None
            and chosen.counted == BY_SEARCH
            and candidates.exact
            and candidates.elastic().exact
        ):
            audience, counted = chosen.matches, BY_SEARCH
        elif answer.exact:
            audience, counted = self._audience.count(record.workspace, answer.filter), "inside MongoDB, exactly"
        else:
            audience, living = self._judged(entry, as_of)
            users, counted = Population(living, estimated=False), "user by user, with their events"
        policies = self._campaign_cache.policies
        return Plan(
            as_of=as_of,
            users=users.at_least(audience),
            audience=audience,
            counted=counted,
            chosen=chosen,
            reads_events=bool(entry.compiled.queries),
            cost=record.cost,
            profile=profile.profile,
            lane=route(policies, facts, suspect=False, kind=LaneKind.DECIDE),
            deliver_lane=route(policies, facts, suspect=False, kind=LaneKind.DELIVER),
            slices=pieces(chosen.estimate, profile.slice_users, profile.in_flight),
            batch=choose(profile.batch.candidates, None),
            inactivity=profile.inactivity,
            holdout=entry.compiled.holdout,
        )

    def capacity(self, planned: Plan, within: timedelta) -> tuple[Capacity, Capacity]:
        """Return the deciding and the sending workers for a launch that finishes `within` a time, by measured rates."""
        policies = self._campaign_cache.policies
        deciding = capacity(planned.chosen.estimate.seconds, within, policies.workers(planned.lane))
        sending = planned.audience * (1 - planned.holdout) / self._rates.read().send
        return deciding, capacity(sending, within, policies.workers(planned.deliver_lane))

    def report(self, record: CampaignRecord) -> Report:
        """Return the counts of a campaign, computed from its enrolments; check that both sums add up."""
        prefix = enrolment_prefix(record.workspace, record.uid)
        counts = self._counts.of(prefix)
        failures = tuple(self._counts.failures(prefix))
        runs = tuple(self._runs.of_campaign(record.uid, RUNS_SHOWN))
        converted = conversions(record, counts, self._clock.campaign_now())
        windows = tuple(self._runs.costs_by_window([record.uid]).get(record.uid, ()))
        lines = messages(record, counts)
        faults = counts.faults(closed=record.closed and record.state is CampaignState.FINISHED)
        return Report(record, counts, not faults, runs, lines, converted, failures, windows, faults)

    def _judged(self, entry: Entry, as_of: Instant) -> tuple[int, int]:
        """Return how many users match and how many there are, judging in Python page by page.

        It reads events only for users whose row does not decide.
        """
        audience = entry.compiled.audience
        read, first, count, living = entry.catalogue.row, "", 0, 0
        while True:
            documents = self._users.read_range(entry.record.workspace, first, "g", PAGE, entry.projection)
            rows = [row for row in map(read, documents) if not row.deleted]
            living += len(rows)
            certain = {row.key: audience.maybe(row, as_of) for row in rows}
            unsure = [row for row in rows if certain[row.key] is None]
            count += sum(answer is True for answer in certain.values())
            count += self._judge(entry, audience, unsure, as_of)
            if len(documents) < PAGE:
                return count, living
            first = bound_behind(documents[-1]["_id"])

    def _judge(self, entry: Entry, audience: CampaignPredicate, rows: list[Any], as_of: Instant) -> int:
        queries = entry.compiled.queries
        known = self._events.fetch([row.key for row in rows], queries, as_of) if rows else {}
        return sum(audience.matches(Facts(row, known[row.key]), as_of) for row in rows)
