"""Follow the changes of users in micro-batches, and update everything that depends on them.

For each batch the feed refreshes the user cache, indexes the users into Elasticsearch, and requests the re-evaluation
of users whom a campaign's predicates concern. Only then does it save its position. A feed that dies repeats the last
batch after its restart, which is safe: each step is idempotent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from engine.catalogue.catalogue import Catalogue
from engine.catalogue.workspace_set import LiveWorkspaces, derived_shape, indexed_shape
from engine.clock import Clock
from engine.domain.document import UserDocument
from engine.domain.keys import cut, workspace_of
from engine.domain.looks import EVERYTHING, FeedState
from engine.failpoints import passage
from engine.pipeline.campaigns.change_triggers import ChangeTriggers
from engine.pipeline.ports.feed import Batch, FeedStore, RecheckStore, Stream
from engine.pipeline.ports.messaging import Messenger
from engine.pipeline.ports.search import Search
from engine.pipeline.ports.user_cache import UserCache
from engine.pipeline.ports.users import RangeReads
from engine.predicate.compile_elastic import elastic_document
from engine.telemetry.events import emit

MOST: Final = 1_000
"""Most changes in one micro-batch: some tens of milliseconds of work."""

BACKLOG: Final = 20_000
"""Waiting re-evaluation requests above which changes become dirty ranges, so a burst is evaluated range by range."""

SAVE_IDLE: Final = 10.0
"""Seconds between two saves of the position while nothing changes: the token must stay younger than the oplog."""

TENDED: Final = 5.0
"""Seconds between two checks which index Elasticsearch's alias points to."""

RANGES: Final = 256
"""Number of dirty ranges that cover a workspace."""


class ChangeFeed:
    """Follow changes: the use case behind the process `feed`. `cache` and `index` are None if there is none."""

    def __init__(
        self,
        *,
        open_stream: Callable[[str | None], Stream],
        lost: type[Exception],
        feeds: FeedStore,
        registry: ChangeTriggers,
        users: RangeReads,
        rechecks: RecheckStore,
        cache: UserCache | None,
        index: Search | None,
        keep_request: Callable[[Sequence[str]], None],
        reindex: Callable[[str], Sequence[str]],
        derive: Callable[[str], Sequence[str]],
        make_index: Callable[[], None],
        messenger: Callable[[], Messenger],
        catalogues: LiveWorkspaces,
        clock: Clock,
        outages: tuple[type[BaseException], ...],
    ) -> None:
        """`lost` is the exception of a stream that cannot continue.

        `keep_request` stores a request to index users later. `reindex` stores requests for a whole workspace and
        returns their ids. `derive` does the same for the aggregates of a workspace. `make_index` creates an index.
        """
        self._open_stream = open_stream
        self._lost = lost
        self._feeds = feeds
        self._registry = registry
        self._users = users
        self._rechecks = rechecks
        self._cache = cache
        self._index = index
        self._keep_request = keep_request
        self._reindex = reindex
        self._derive = derive
        self._derived_for: object = None
        self._make_index = make_index
        self._messenger = messenger
        self._catalogues = catalogues
        self._workspaces = catalogues.snapshot()
        self._clock = clock
        self._outages = outages
        self.stream: Stream | None = None
        self._saved = float("-inf")
        self._tended = float("-inf")
        self.generation = 0
        self._searched: frozenset[str] = frozenset()
        self._covered: dict[str, int] = {}
        self._away: set[str] = set()
        self._cold: set[str] = set()

    def step(self, wait: timedelta) -> int:
        """Handle the next micro-batch, waiting up to `wait` for one; return how many changes it had."""
        self._take_up_workspaces()
        try:
            stream = self.stream or self._open()
            self._adopt()
            self._tend()
            batch = stream.take(MOST, wait)
        except self._lost:
            self.close()
            self.begin_again("the change stream cannot be resumed")
            return 0
        if batch.changes:
            try:
                self._handle(batch)
                passage("feed.handled")
                self._feeds.save(batch.position, batch.token)
            except BaseException:  # raised again; the stream has passed a batch that is not done, so reopen it
                self.close()
                raise
            self._saved = self._clock.monotonic()
        elif self._clock.monotonic() - self._saved > SAVE_IDLE:
            self._feeds.save(batch.position, batch.token)
            self._saved = self._clock.monotonic()
        else:
            self._feeds.publish(batch.position)
        return len(batch.changes)

    def _take_up_workspaces(self) -> None:
        """Take up the workspace files in force, once per step: all writes of one step use the same files."""
        workspaces = self._catalogues.snapshot()
        if workspaces is not self._workspaces:
            self._workspaces = workspaces
            self._tended = float("-inf")
        if self._derived_for is not workspaces:
            self._derive_changed()
            self._derived_for = workspaces

    def _derive_changed(self) -> None:
        """Request new aggregates for the users of workspaces whose aggregates differ from the derived ones."""
        before = self._feeds.read().derived
        shapes = {name: derived_shape(catalogue) for name, catalogue in self._workspaces.items()}
        if shapes == before:
            return
        changed = [name for name, shape in shapes.items() if name in before and before[name] != shape]
        requests = [request for name in changed for request in self._derive(name)]
        self._feeds.derives(shapes)
        self._messenger().index(requests)

    def close(self) -> None:
        """Close the stream; the next step opens it again at the last saved position."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None

    def _open(self) -> Stream:
        state = self._feeds.read()
        self.generation = state.generation
        self._searched = frozenset(state.shapes)
        self.stream = self._open_stream(state.token)
        self._registry.refresh()
        if state.token is None:
            self.begin_again("the feed starts for the first time", report=False)
        return self.stream

    def begin_again(self, reason: str, *, report: bool = True) -> None:
        """Recover from unknown changes: invalidate the cache, and evaluate and index everybody again.

        `report` says whether to log the gap. The first start on a database logs nothing, because nothing was missed.
        """
        generation = self.generation = self._feeds.next_generation()
        if report:
            emit("feed.gap", reason=reason, generation=generation)
        if self.stream is None:
            self.stream = self._open_stream(None)
        mark = f"gap{generation:08d}"
        self._covered.clear()
        self._registry.refresh()
        for workspace in self._registry.workspaces():
            everybody = {f"{workspace}/{first}/": frozenset({EVERYTHING}) for first, _ in cut(RANGES)}
            self._rechecks.add_ranges(everybody, mark)
        self._feeds.fills(None, self._feeds.read().shapes)
        self._tended = float("-inf")
        self._feeds.save(0, self.stream.start)
        self._messenger().recheck()

    def _adopt(self) -> None:
        """Activate the current cache layouts, and enqueue the warm-up of new ones once the cache is reachable."""
        if self._cache is None:
            return
        self._cold.update(
            self._cache.adopt(FeedState(generation=self.generation), self._registry.named, self._workspaces)
        )
        while self._cold and "cache" not in self._away:
            self._messenger().warm(self._cold.pop())

    def _tend(self) -> None:
        """Request the indexing of searched workspaces whose users in Elasticsearch are missing or outdated.

        That is the case if the alias points to another index than the one filled last, if no index was filled, if the
        fields of the workspace changed, or if its users were not searched before.
        """
        if self._index is None or self._clock.monotonic() - self._tended < TENDED:
            return
        self._tended = self._clock.monotonic()
        try:
            identity = self._index.identity()
            if identity is None:
                self._make_index()
                identity = self._index.identity()
        except self._outages as error:
            self._lost_search(error)
            return
        before = self._feeds.read()
        shapes = {
            name: indexed_shape(catalogue) for name, catalogue in self._workspaces.items() if name in before.searched
        }
        self._searched = frozenset(shapes)
        if (identity, shapes) == (before.index, before.shapes):
            return
        behind = [
            name for name, shape in shapes.items() if identity != before.index or before.shapes.get(name) != shape
        ]
        until = self._feeds.now()
        requests = [request for name in behind for request in self._reindex(name)]
        self._covered |= dict.fromkeys(behind, until)
        self._feeds.fills(identity, shapes)  # only after the requests: an index noted without requests counts as full
        self._messenger().index(requests)
        for reason, names in _refilled(identity, before, behind).items():
            emit("search.refilled", reason=reason, text=", ".join(names))

    def _handle(self, batch: Batch) -> None:
        began = self._clock.monotonic()
        names: dict[str, frozenset[str]] = defaultdict(frozenset)
        for change in batch.changes:
            names[change.user] |= change.names
        groups: dict[str, list[str]] = defaultdict(list)
        for key in sorted(names):
            groups[workspace_of(key)].append(key)
        for workspace, keys in groups.items():
            catalogue = self._workspaces.get(workspace)
            if catalogue is not None:
                documents = self._users.read_keys(keys, catalogue.projection())
                self._refresh(workspace, documents, sorted(set(keys) - {raw["_id"] for raw in documents}))
                if workspace in self._searched and batch.newest > self._covered.get(workspace, -1):
                    self._write(catalogue, documents)  # otherwise unsearched, or covered by a request
        passage("feed.refreshed")
        # Refresh only now: a campaign launched later reads these users fresh, and a live one gets their re-evaluations.
        self._registry.refresh()
        concerned = {
            key: changed for key, changed in names.items() if self._registry.concerned(workspace_of(key), changed)
        }
        if concerned:
            mark = f"{batch.position:020d}"
            if self._rechecks.count() > BACKLOG:
                self._rechecks.add_ranges(concerned, mark)
            else:
                self._rechecks.add(concerned, mark)
            passage("feed.asked")
            self._messenger().recheck()
        emit(
            "feed.handled",
            users=len(names),
            looks=len(concerned),
            duration=timedelta(seconds=self._clock.monotonic() - began),
        )

    def _refresh(self, workspace: str, documents: Sequence[UserDocument], gone: Sequence[str]) -> None:
        """Write newer rows into the cache. Each time the cache is unreachable, invalidate everything that it holds.

        Every failure needs its own invalidation: readers may reach the cache meanwhile, and load rows that the next
        refresh should change.
        """
        if self._cache is None:
            return
        if self._cache.refresh(workspace, documents, gone):
            self._away.discard("cache")
            return
        self.generation = self._feeds.next_generation()
        if "cache" not in self._away:
            self._away.add("cache")
            emit("feed.gap", reason="the user cache does not answer", generation=self.generation)
        self._adopt()

    def _write(self, catalogue: Catalogue, documents: Sequence[UserDocument]) -> None:
        """Index whole documents into Elasticsearch; if that fails, store a request to index them later."""
        if self._index is None:
            return
        try:
            self._index.index([elastic_document(catalogue, raw) for raw in documents])
        except self._outages as error:
            self._keep_request([raw["_id"] for raw in documents])
            self._lost_search(error)
        else:
            if "search" in self._away:
                self._away.discard("search")
                emit("service.back", service="elasticsearch")

    def _lost_search(self, error: BaseException) -> None:
        """Log the loss once, and check the index again in a second."""
        self._tended = min(self._tended, self._clock.monotonic() - TENDED + 1)
        if "search" not in self._away:
            self._away.add("search")
            emit("service.lost", service="elasticsearch", reason=type(error).__name__, error=error)


def _refilled(identity: str | None, before: FeedState, behind: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of the workspaces in `behind` by the reason why their users are indexed again."""
    reasons: dict[str, list[str]] = {}
    for name in behind:
        if name not in before.shapes:
            reason = "a campaign searches its users"
        elif before.index is None:
            reason = "changes were missed"
        elif identity != before.index:
            reason = "the index was replaced"
        else:
            reason = "the workspace file was edited"
        reasons.setdefault(reason, []).append(name)
    return reasons


def drain(change_feed: ChangeFeed, wait: timedelta = timedelta(milliseconds=20)) -> int:
    """Handle changes until there are none; return how many there were."""
    handled = 0
    while (now := change_feed.step(wait)) > 0:
        handled += now
    return handled
