"""The index advisor: which index serves each predicate of each applied campaign, and which one is missing.

A pass needs an index to find users among all users: for the audience, and for the crossing sets of a continuous
campaign. The exit rule, the goal and the messages' rules are judged on users who are read by key. A predicate that no
index serves is no error: the cached scan and Elasticsearch answer it, and without them a scan does, at the cost that
the advice states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from engine.campaign.compiled import CampaignPredicate
from engine.clock import Clock, Instant, millis
from engine.domain.campaign import CampaignRecord
from engine.domain.counts import Population
from engine.domain.lifecycle import CampaignState
from engine.errors import EngineError
from engine.failure_text import reason_of
from engine.pipeline.campaigns.compiled_cache import CampaignCache, Entry
from engine.predicate.compiled import CompiledPredicate, Crossing

OVER: Final = frozenset({CampaignState.FINISHED, CampaignState.CANCELLED})
"""States in which a campaign evaluates no new users any more."""

WORTH: Final = 0.5
"""The advisor suggests no index that would find more than this share of the users.

Reading the users in order of key is cheaper then (`docs/architecture.md`: random reads are half as fast as adjacent
ones).
"""

BY_KEY: Final = "_id_"
BY_KEY_AND_EVENT: Final = "_id_, user_name_time"
"""The indexes that serve users read by key, and their events."""


@dataclass(frozen=True, slots=True)
class Advice:
    """The advice for one predicate of one campaign.

    `part` names the predicate; `served_by` names the index, list or key range that serves it (None: a scan reads all
    `users` of the workspace). `reads` is about how many users are read to find the matches (None: only those who are
    evaluated anyway). `index` is the missing index, in order of its keys, and `would_read` is about how many users
    would be read with it; both are None if no index would help. `estimated` says that `users` was not counted.
    `problem` says why the campaign cannot be read; the other facts are unknown then.
    """

    workspace: str
    campaign: str
    part: str
    served_by: str | None
    users: int
    reads: int | None
    index: tuple[str, ...] | None = None
    would_read: int | None = None
    estimated: bool = False
    problem: str = ""

    @property
    def text(self) -> str:
        """Return the advice as one line for people."""
        if self.problem:
            return f"cannot be read: {self.problem}"
        if self.served_by is not None:
            about = "only users who are evaluated anyway" if self.reads is None else f"about {self.reads:,} users"
            return f"{self.part}: {self.served_by}, {about}"
        about = "about " if self.estimated else ""
        scan = f"a MongoDB scan reads every user of {self.workspace} ({about}{self.users:,})"
        if self.index is None or self.would_read is None:
            return f"{self.part}: no index would help; {scan}"
        keys = ", ".join(f"{key}: 1" for key in self.index)
        return f"{self.part}: no index on users.{self.index[1]}; {scan}; with {{{keys}}} about {self.would_read:,}"


class IndexReads(Protocol):
    """The advisor's queries to MongoDB."""

    def serving(self, collection: str, query: Mapping[str, Any]) -> Sequence[str]:
        """Return the indexes that would serve a filter; none means a scan."""

    def users(self, workspace: str) -> Population:
        """Return how many users the workspace has; small numbers are counted exactly."""

    def matching(self, workspace: str, query: Mapping[str, Any], total: int) -> int:
        """Return about how many of the `total` users match."""


class CampaignReads(Protocol):
    """All campaigns."""

    def everything(self) -> list[CampaignRecord]:
        """Return every campaign, by workspace and name."""


class MissingIndexes:
    """Advises on indexes; reads a sample of each workspace, and writes nothing."""

    def __init__(
        self, indexes: IndexReads, campaigns: CampaignReads, campaign_cache: CampaignCache, clock: Clock
    ) -> None:
        self._indexes = indexes
        self._campaigns = campaigns
        self._campaign_cache = campaign_cache
        self._clock = clock
        self._known: dict[tuple[str, str], int] = {}
        self._totals: dict[str, Population] = {}

    def advise(self) -> list[Advice]:
        """Return the advice for every campaign that has not ended, by workspace and name."""
        as_of = self._clock.campaign_now()
        self._known.clear()
        self._totals.clear()
        return [
            advice if advice.problem else replace(advice, estimated=self._totals[advice.workspace].estimated)
            for record in self._campaigns.everything()
            if record.state not in OVER
            for advice in self._of(record, as_of)
        ]

    def _of(self, record: CampaignRecord, as_of: Instant) -> Sequence[Advice]:
        """Return the advice for one campaign; if it cannot be read, the other campaigns still get theirs."""
        try:
            entry = self._campaign_cache.of(record)
        except EngineError as error:
            return [Advice(record.workspace, record.name, "file", None, 0, None, problem=reason_of(error))]
        return list(self._campaign(entry, as_of))

    def _campaign(self, entry: Entry, as_of: Instant) -> Iterator[Advice]:
        record, campaign = entry.record, entry.compiled
        yield self._audience(record, campaign.audience.compiled, as_of)
        if record.kind == "continuous":
            since = as_of - millis(self._campaign_cache.profile(record).pass_every)
            for crossing in campaign.audience.compiled.crossings(since, as_of):
                yield self._crossing(record, crossing)
        by_key: dict[str, CampaignPredicate | None] = {"exit rule": campaign.exit_rule}
        if campaign.goal is not None:
            by_key["goal"] = campaign.goal.fields
        by_key |= {f"message {message.name}": message.when for message in campaign.messages}
        for part, predicate in by_key.items():
            if predicate is not None:
                served = BY_KEY_AND_EVENT if predicate.compiled.event_queries else BY_KEY
                yield Advice(record.workspace, record.name, part, served, self._users(record.workspace), None)

    def _audience(self, record: CampaignRecord, audience: CompiledPredicate, as_of: Instant) -> Advice:
        answer = audience.mongo(as_of)
        if answer.holds is not None:
            users = self._users(record.workspace)
            reads = users if answer.holds else 0
            return Advice(record.workspace, record.name, "audience", f"{BY_KEY}, all users", users, reads)
        if audience.required_lists:
            name, reads = min(
                ((name, self._matching(record.workspace, {"lists": name})) for name in audience.required_lists),
                key=lambda item: item[1],
            )
            users = self._users(record.workspace)
            return Advice(record.workspace, record.name, "audience", f"the range of list {name}", users, reads)
        return self._advise_on_filter(record, "audience", answer.filter, audience.index_filters(as_of))

    def _crossing(self, record: CampaignRecord, crossing: Crossing) -> Advice:
        part = f"crossing: {crossing.leaf}"
        if crossing.collection == "users":
            return self._advise_on_filter(
                record, part, crossing.mongo, dict.fromkeys(paths_of(crossing.mongo), crossing.mongo)
            )
        served = ", ".join(self._indexes.serving("events", crossing.mongo)) or None
        users = self._users(record.workspace)
        return Advice(
            record.workspace, record.name, part, served and f"events: {served}", users, 0 if served else users
        )

    def _advise_on_filter(
        self, record: CampaignRecord, part: str, query: Mapping[str, Any], by_path: Mapping[str, Mapping[str, Any]]
    ) -> Advice:
        """Advise on a filter on users: the index that serves it, or the missing index with the fewest users to read."""
        workspace = record.workspace
        users = self._users(workspace)
        serving = self._indexes.serving("users", {"$and": [{"w": workspace}, dict(query)]})
        reads = {path: self._matching(workspace, queries) for path, queries in by_path.items()}
        least = min(reads, key=lambda path: reads[path], default=None)
        if serving:
            about = users if least is None else reads[least]
            return Advice(workspace, record.name, part, ", ".join(serving), users, about)
        if least is None or reads[least] > WORTH * users:
            return Advice(workspace, record.name, part, None, users, users)
        return Advice(workspace, record.name, part, None, users, users, ("w", least, "_id"), reads[least])

    def _matching(self, workspace: str, query: Mapping[str, Any]) -> int:
        """Return the store's estimate, cached: many campaigns use the same query."""
        key = (workspace, repr(query))
        if key not in self._known:
            self._known[key] = self._indexes.matching(workspace, query, self._users(workspace))
        return self._known[key]

    def _users(self, workspace: str) -> int:
        if workspace not in self._totals:
            self._totals[workspace] = self._indexes.users(workspace)
        return self._totals[workspace].users


def paths_of(query: Mapping[str, Any]) -> list[str]:
    """Return the document paths that a filter of required conditions names, each once."""
    paths: dict[str, None] = {}
    for key, condition in query.items():
        if key == "$and":
            paths |= dict.fromkeys(path for clause in condition for path in paths_of(clause))
        elif not key.startswith("$"):
            paths[key] = None
    return list(paths)
