"""The user cache as the pipeline uses it: by workspace, under the layout currently in force."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Final

from engine.catalogue.catalogue import Catalogue
from engine.domain.document import UserDocument
from engine.domain.looks import FeedState
from engine.stores.mongo.feed_position import FeedPosition
from engine.stores.user_cache.active_layouts import CacheLayouts
from engine.stores.user_cache.buckets import Rows, UserCache
from engine.stores.user_cache.layout import USERS_PER_BUCKET, Held, Layout

RENEWED: Final = 0.25
"""Seconds for which a layout is reused before it is read again: the interval at which a slice asks whether to go on."""

PENDING: Final = 5.0
"""Seconds between two checks by the feed for requested fields and events."""

SAMPLED: Final = 64
"""Buckets sampled to estimate the cached share of a workspace, within about 6 %."""

COLD: Final = "the user cache is not in use yet: no feed maintains it"


class CachedUsers:
    """The user cache of one process; `catalogues` maps workspaces to their fields."""

    def __init__(
        self, cache: UserCache, layouts: CacheLayouts, feeds: FeedPosition, catalogues: Mapping[str, Catalogue]
    ) -> None:
        self._cache = cache
        self._layouts = layouts
        self._feeds = feeds
        self._catalogues = catalogues
        self._kept: dict[str, tuple[float, Layout | None]] = {}
        self._adopted: dict[str, Layout] = {}
        self._adopted_for: Mapping[str, Catalogue] | None = None
        self._checked_at = float("-inf")
        self._refreshed: dict[str, int] = {}  # users refreshed, by workspace, since its layout was last adopted
        self._lock = Lock()

    # -- readers

    def scan(
        self, workspace: str, first: str, until: str, fields: frozenset[str], catalogue: Catalogue
    ) -> Iterator[Rows] | None:
        """Yield all users with a suffix in [first, until), in batches read ahead; return None without a usable layout.

        Rows have at least `fields` and belong to `catalogue`. There is no usable layout if none is in force, if it does
        not hold `fields`, or if the workspace file was edited since the reader was compiled.
        """
        layout = self._layout(workspace)
        if layout is None or layout.catalogue is not catalogue or not layout.holds(fields, ()):
            return None
        return self._cache.scan(layout, first, until, fields=fields)

    def epoch(self, workspace: str, *, fresh: bool = False) -> str | None:
        """Return the epoch in force; once it changes, a running scan reads data that nobody refreshes any more.

        A caller that begins a scan asks for a `fresh` answer: a kept answer from before the wait for the feed may
        belong to an older generation, which is no longer refreshed.
        """
        if fresh:
            self._kept.pop(workspace, None)
        layout = self._layout(workspace)
        return None if layout is None else layout.epoch

    def refused(self, workspace: str, fields: frozenset[str], events: frozenset[str]) -> str | None:
        """Return why the cache cannot serve these fields and events, or None; request those that are not held."""
        layout = self._layout(workspace)
        if layout is None:
            return COLD
        if layout.holds(fields, events):
            return None
        self._layouts.want(workspace, fields, events)
        missing = sorted((fields - set(layout.held.fields)) | (events - layout.held.events))
        return f"the user cache does not hold {', '.join(missing)} yet; the feed was asked to add them"

    def warm_share(self, workspace: str) -> float:
        """Estimate the share of the workspace's buckets that is cached; 0 if Redis is away."""
        layout = self._layout(workspace)
        if layout is None:
            return 0.0
        picked = random.sample(range(layout.buckets), min(SAMPLED, layout.buckets))
        return self._cache.present(layout, picked) / len(picked)

    def changes(self, workspace: str) -> int | None:
        """Return the counter of refreshed rows; None if it is unavailable."""
        layout = self._layout(workspace)
        return None if layout is None else self._cache.changes(layout)

    def revisions(self, workspace: str, keys: Sequence[str]) -> Mapping[str, int | None]:
        """Return the cached revision of each user; None if the user's bucket is gone."""
        layout = self._layout(workspace)
        return dict.fromkeys(keys) if layout is None else self._cache.revisions(layout, keys)

    def warm(self, workspace: str) -> int:
        """Load every absent bucket; return how many were stored."""
        layout = self._layout(workspace)
        return 0 if layout is None else self._cache.warm(layout)

    def _layout(self, workspace: str) -> Layout | None:
        kept = self._kept.get(workspace)
        if kept is not None and time.monotonic() - kept[0] < RENEWED:
            return kept[1]
        catalogue = self._catalogues.get(workspace)
        layout = None if catalogue is None else self._layouts.layout(catalogue, self._feeds.read().generation)
        with self._lock:
            known = None if kept is None else kept[1]
            alike = known is not None and layout is not None and known.catalogue is layout.catalogue
            if alike and known is not None and layout is not None and known.epoch == layout.epoch:
                layout = known  # its decoder is built already
            self._kept[workspace] = (time.monotonic(), layout)
        return layout

    # -- the feed

    def adopt(
        self,
        state: FeedState,
        named: Callable[[str], tuple[frozenset[str], frozenset[str]]],
        catalogues: Mapping[str, Catalogue],
    ) -> list[str]:
        """Put layouts into force that include all requests; return the workspaces whose layout is new.

        Only the feed may call this, before it refreshes anything under `state` and the workspaces `catalogues`. `named`
        returns the fields and events that the campaigns of a workspace name. If a workspace has no file (any more), its
        layout is retired, because nobody refreshes it.
        """
        swapped = catalogues is not self._adopted_for
        if swapped:
            self._layouts.retire_others(catalogues)
            self._adopted = {name: layout for name, layout in self._adopted.items() if name in catalogues}
        if time.monotonic() - self._checked_at < PENDING and self._adopted and not swapped:
            stale = [name for name in self._adopted if not self._stands(catalogues[name], state)]
        else:
            self._checked_at = time.monotonic()
            pending = self._layouts.pending(catalogues) | self._outgrown()
            stale = [name for name in catalogues if name in pending or not self._stands(catalogues[name], state)]
        fresh = []
        for name in stale:
            layout = self._layouts.adopt(catalogues[name], state.generation, _held(*named(name)))
            known = self._adopted.get(name)
            if known is None or known.epoch != layout.epoch:
                fresh.append(name)
            self._adopted[name] = layout
            self._refreshed[name] = 0
        self._adopted_for = catalogues
        return fresh

    def _outgrown(self) -> set[str]:
        """Return workspaces with as many refreshed users as their layout is for: they may have outgrown it."""
        return {
            name
            for name, layout in self._adopted.items()
            if self._refreshed.get(name, 0) >= USERS_PER_BUCKET * layout.buckets
        }

    def _stands(self, catalogue: Catalogue, state: FeedState) -> bool:
        """Whether the last adopted layout belongs to this catalogue and generation."""
        layout = self._adopted.get(catalogue.workspace)
        return layout is not None and layout.catalogue is catalogue and layout.generation == state.generation

    def refresh(self, workspace: str, documents: Sequence[UserDocument], gone: Sequence[str] = ()) -> bool:
        """Update cached users to these documents and drop those that are gone; return whether Redis took it all."""
        layout = self._adopted.get(workspace)
        if layout is None:
            return True  # no reader uses a layout that was never in force
        self._refreshed[workspace] = self._refreshed.get(workspace, 0) + len(documents)
        reached = self._cache.refresh(layout, documents).reached
        return self._cache.drop(layout, gone).reached and reached if gone else reached


def _held(fields: frozenset[str], events: frozenset[str]) -> Held:
    """Return the fields and events that campaigns name, in the form that the cache expects."""
    return Held(tuple(sorted(fields)), events)
