"""Choose the access path of a pass: gather the facts, ask the planner, wait for the feed if the path needs it.

The user cache and Elasticsearch may be stale. A pass may use them only when the feed has handled every change that
existed when the pass was planned. Until then, and while they are unavailable, the pass reads MongoDB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.fields import Row
from engine.clock import Clock
from engine.decisions.access_path_cost import Choice, Estimate, estimates
from engine.decisions.batch_size import choose
from engine.domain.counts import Population
from engine.domain.keys import HASH_SPACE, HIGHEST, hash_prefix
from engine.domain.work import AccessPath, Run
from engine.pipeline.campaigns.compiled_cache import CampaignCache, Entry
from engine.pipeline.feed.catch_up import caught_up
from engine.pipeline.ports.feed import FeedStore
from engine.pipeline.ports.search import Search
from engine.pipeline.ports.user_cache import UserCache
from engine.pipeline.ports.users import ListReads, RangeReads
from engine.pipeline.ports.work import RateStore
from engine.predicate.compiled import Candidates
from engine.query_metrics import measured
from engine.telemetry.events import emit

MOST_BY_INDEX: Final = 50_000
"""Limit of the count of users that an index finds: counting takes 20 ms, and with more users the index does not pay."""

SAMPLE: Final = 2_000
"""Users judged to estimate a share when Elasticsearch cannot count."""

BY_SEARCH: Final = "by Elasticsearch"
"""How an audience was counted: the only way that reads no user."""

BEHIND: Final = "it is behind: not every change of a user has reached it"
"""Why the plan does not query Elasticsearch."""

PATIENCE: Final = 3.0
"""Seconds that a plan waits for the feed before it reads MongoDB instead."""

ESTIMATE_KEPT: Final = 60.0
"""Seconds for which an estimate of a workspace's users is good enough."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The chosen access path of a pass with its estimate, the other paths, and the facts behind the choice.

    `why` is a sentence. `matches` is the estimated number of candidates (None: not counted), and `counted` says how it
    was found. All figures are estimates: a launch may find other users than the plan.
    """

    path: AccessPath
    estimate: Estimate
    others: tuple[Estimate, ...]
    users: int
    matches: int | None
    counted: str
    why: str


class AccessPathChooser:
    """Chooses access paths; `search` and `cache` are None if there is none.

    `filled` returns the name of the Elasticsearch index that holds everybody by a catalogue, None if none does (yet).
    Workspaces of up to `small` users are simply scanned. `count_up_to` counts the users that an index finds.
    """

    def __init__(
        self,
        *,
        campaign_cache: CampaignCache,
        users: RangeReads,
        lists: Callable[[str], ListReads],
        search: Search | None,
        filled: Callable[[Catalogue], str | None],
        cache: UserCache | None,
        feed: FeedStore,
        rates: RateStore,
        clock: Clock,
        outages: tuple[type[BaseException], ...],
        small: int,
        count_up_to: Callable[[str, Mapping[str, Any], int], int],
    ) -> None:
        self._campaign_cache = campaign_cache
        self._users = users
        self._lists = lists
        self._search = search
        self._filled = filled
        self._cache = cache
        self._feed = feed
        self._rates = rates
        self._clock = clock
        self._outages = outages
        self.small = small
        self._count_up_to = count_up_to
        self._sizes: dict[str, tuple[float, int]] = {}

    def size(self, workspace: str) -> int:
        """Return about how many users a workspace has, by an estimate that is at most a minute old."""
        kept = self._sizes.get(workspace)
        if kept is None or self._clock.monotonic() - kept[0] > ESTIMATE_KEPT:
            kept = (self._clock.monotonic(), self._users.estimate(workspace))
            self._sizes[workspace] = kept
        return kept[1]

    def for_run(self, run: Run, entry: Entry, candidates: Candidates) -> Chosen:
        """Return the path of a run: the requested one, or the quickest one that is up to date."""
        if run.path is not None:
            return self.forced(run.path, entry, candidates)
        chosen = self.choose(entry, candidates)
        stale = chosen.path in (AccessPath.CACHE, AccessPath.ELASTIC) and not self._caught_up(chosen.path, entry)
        if not stale:
            return chosen
        emit("plan.fallback", workspace=run.workspace, campaign=entry.record.name, run=run.id, reason="feed_behind")
        return self.forced(AccessPath.SCAN, entry, candidates, why="the feed is behind: the pass reads MongoDB")

    def for_plan(self, entry: Entry, candidates: Candidates, path: AccessPath | None, users: Population) -> Chosen:
        """Return the path that a launch now would take, or the requested one; do not query a stale Elasticsearch."""
        if path is None and users.users <= self.small:
            return self.choose(entry, candidates, users=users)
        searched = self._search is not None and not candidates.everybody
        behind = searched and not self._caught_up(AccessPath.ELASTIC, entry)
        if path is not None:
            return self.forced(path, entry, candidates, users=users, behind=behind)
        return self.choose(entry, candidates, users=users, behind=behind)

    def choose(
        self, entry: Entry, candidates: Candidates, *, users: Population | None = None, behind: bool = False
    ) -> Chosen:
        """Return the quickest path by measured rates, without checking the feed.

        `behind` says that Elasticsearch is not up to date; `users` is the workspace's count, if it was counted.
        """
        workspace = entry.record.workspace
        there = users or Population(self.size(workspace), estimated=True)
        about = "about " if there.estimated else ""
        if there.users <= self.small:
            only = Estimate(AccessPath.SCAN, there.users, there.users / self._rates.read().read[AccessPath.SCAN], 1)
            why = f"{about}{there.users:,} users: too few to choose another access path"
            return Chosen(AccessPath.SCAN, only, (only,), there.users, None, "not counted", why)
        compared, matches, counted = self._estimates(entry, candidates, there.users, behind=behind)
        there = there.at_least(matches or 0)
        best = compared[0]
        second = next((estimate for estimate in compared[1:] if estimate.possible), None)
        why = f"it reads about {best.users:,} of {about}{there.users:,} users in about {best.seconds:.2f} s"
        if second is not None:
            why += f"; the next best, {second.path.value}, takes about {second.seconds:.2f} s"
        return Chosen(best.path, best, compared, there.users, matches, counted, why)

    def probe(self, entry: Entry, candidates: Candidates) -> bool:
        """Return False if a pass over these candidates would surely find nobody; at most one query looks for them.

        Return True if only the pass can tell. A slightly old answer does no harm, because a user who has changed since
        gets a re-evaluation request anyway.
        """
        if candidates.nobody:
            return False
        workspace = entry.record.workspace
        if self.size(workspace) <= self.small or self._indexed(entry.compiled.audience.compiled.index_paths):
            whole = hash_prefix(0), hash_prefix(HASH_SPACE)
            return bool(self._users.find_range(workspace, candidates.mongo().filter, *whole, 1, {"_id": 1}))
        return self._count(entry, candidates)[0] != 0

    def forced(
        self,
        path: AccessPath,
        entry: Entry,
        candidates: Candidates,
        why: str = "it was requested",
        *,
        users: Population | None = None,
        behind: bool = False,
    ) -> Chosen:
        """Return the requested path, or a scan of MongoDB by key range, with the reason, if it cannot be taken."""
        size = users.users if users is not None else self.size(entry.record.workspace)
        compared, matches, counted = self._estimates(entry, candidates, size, behind=behind)
        mine = next((estimate for estimate in compared if estimate.path is path and estimate.possible), None)
        if mine is None:
            mine = next(estimate for estimate in compared if estimate.path is AccessPath.SCAN)
            why = f"{path.value} cannot be used: {next((o.reason for o in compared if o.path is path), 'unknown')}"
        elif path in (AccessPath.CACHE, AccessPath.ELASTIC) and not self._caught_up(path, entry):
            mine = next(estimate for estimate in compared if estimate.path is AccessPath.SCAN)
            why = "the feed is behind: the pass reads MongoDB"
        return Chosen(mine.path, mine, compared, max(size, matches or 0), matches, counted, why)

    def _estimates(
        self, entry: Entry, candidates: Candidates, users: int, *, behind: bool
    ) -> tuple[tuple[Estimate, ...], int | None, str]:
        workspace = entry.record.workspace
        impossible: dict[AccessPath, str] = {}
        refused = (
            "there is no user cache"
            if self._cache is None
            else self._cache.refused(workspace, entry.fields, entry.events)
        )
        matches, counted = (None, BEHIND) if behind else self._count(entry, candidates)
        reads: dict[AccessPath, int] = {}
        if matches is None:
            impossible[AccessPath.ELASTIC] = counted
            if candidates.everybody:
                matches, counted = users, "all users"
            else:
                share = self._sampled(entry, candidates, cached=refused is None)
                matches, counted = int(share * users), f"estimated from {SAMPLE:,} users"
        else:
            reads[AccessPath.ELASTIC] = matches
        users = max(users, matches)  # an estimate may be below the count
        reads[AccessPath.SCAN] = users
        if refused is None:
            reads[AccessPath.CACHE] = users
        else:
            impossible[AccessPath.CACHE] = refused
        audience = entry.compiled.audience.compiled
        if audience.required_lists:
            reads[AccessPath.LIST] = self._lists(workspace).size(workspace, audience.required_lists[0])
        else:
            impossible[AccessPath.LIST] = "the audience names no list"
        served = self._indexed(audience.index_paths)
        if served:
            filters = audience.index_filters(candidates.as_of)
            counts = [self._count_up_to(workspace, filters[path], MOST_BY_INDEX) for path in served]
            reads[AccessPath.INDEX] = max(matches, min(counts))
        else:
            impossible[AccessPath.INDEX] = "no index of users serves the audience"
        warm = self._cache.warm_share(workspace) if self._cache is not None and refused is None else 0.0
        batch = choose(self._campaign_cache.profile(entry.record).batch.candidates, None)
        facts = Choice(users, matches, reads, impossible, warm, batch)
        return estimates(facts, self._rates.read()), matches, counted

    def _count(self, entry: Entry, candidates: Candidates) -> tuple[int | None, str]:
        """Return how many users Elasticsearch finds, or None and why it cannot be queried."""
        if self._search is None:
            return None, "there is no Elasticsearch"
        if candidates.everybody:
            return None, "the audience is all users: there is nothing to search for"
        index = self._searchable(entry)
        if index is None:
            return None, "it does not have all users yet"
        try:
            return self._search.count(candidates.elastic().filter, entry.record.workspace, index), BY_SEARCH
        except self._outages:
            return None, "it does not answer"

    def _searchable(self, entry: Entry) -> str | None:
        """Return the name of the index that holds everybody; if there is none, ask for it once and return None."""
        index = self._filled(entry.catalogue)
        if index is None and entry.record.workspace not in self._feed.read().searched:
            self._feed.ask_search(entry.record.workspace)
        return index

    def _sampled(self, entry: Entry, candidates: Candidates, *, cached: bool) -> float:
        """Return the share of candidates among the first users of the hash space, which are a fair sample.

        Reads the user cache if it is in force: an estimate may be some moments old, and this saves a MongoDB query.
        """
        workspace = entry.record.workspace
        rows: list[Row] = []
        if cached and self._cache is not None:
            with measured("cache.read") as call:
                for batch in self._cache.scan(workspace, hash_prefix(0), HIGHEST, entry.fields, entry.catalogue) or ():
                    rows += batch.rows
                    if len(rows) >= SAMPLE:
                        break
                call.documents = len(rows)
        else:
            until = hash_prefix(HASH_SPACE)
            documents = self._users.read_range(workspace, hash_prefix(0), until, SAMPLE, entry.projection)
            rows = list(map(entry.catalogue.row, documents))
        return len(candidates.living(rows, candidates.as_of)) / len(rows) if rows else 0.0

    def _indexed(self, paths: tuple[str, ...]) -> list[str]:
        """Return those of the audience's paths that directly follow the workspace in the keys of an index of users."""
        begun = {keys[1] for keys in self._users.indexed() if keys[:1] == ("w",) and len(keys) > 1}
        return [path for path in paths if path in begun]

    def _caught_up(self, path: AccessPath, entry: Entry) -> bool:
        """Wait until the feed has handled everything that exists now; return False if it does not in time."""
        if path is AccessPath.ELASTIC and self._searchable(entry) is None:
            return False
        if not caught_up(self._feed, self._clock, self._feed.now(), PATIENCE):
            return False
        if path is AccessPath.ELASTIC and self._search is not None:
            try:
                self._search.refresh()
                return self._filled(entry.catalogue) is not None and self._search.identity() == self._feed.read().index
            except self._outages:
                return False
        return True
