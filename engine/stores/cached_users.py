"""The user cache as the pipeline uses it: by workspace, under whatever layout is in force just then."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Final

from engine.domain.document import Document
from engine.domain.looks import FeedState
from engine.predicate.fields import Catalogue
from engine.stores.cache_layout import USERS_PER_BUCKET, Held, Layout
from engine.stores.cache_layouts import CacheLayouts
from engine.stores.feeds import Feeds
from engine.stores.user_cache import Rows, UserCache

RENEWED: Final = 0.25
"""Seconds after which the layout in force is asked for again: as often as a slice asks whether to go on."""

PENDING: Final = 5.0
"""Seconds between two looks of the feed at what more is wanted."""

SAMPLED: Final = 64
"""Buckets asked for, to estimate how much of a workspace is cached: within some 6 %."""

COLD: Final = "the user cache is not in force yet: no feed has taken it up"


class CachedUsers:
    """The user cache of one process; `catalogues` are the workspaces' fields."""

    def __init__(
        self, cache: UserCache, layouts: CacheLayouts, feeds: Feeds, catalogues: Mapping[str, Catalogue]
    ) -> None:
        self._cache = cache
        self._layouts = layouts
        self._feeds = feeds
        self._catalogues = catalogues
        self._kept: dict[str, tuple[float, Layout | None]] = {}
        self._adopted: dict[str, Layout] = {}
        self._adopted_for: Mapping[str, Catalogue] | None = None
        self._looked = float("-inf")
        self._refreshed: dict[str, int] = {}  # users, by workspace, since its buckets were looked at
        self._lock = Lock()

    # -- readers

    def scan(
        self, workspace: str, first: str, until: str, fields: frozenset[str], catalogue: Catalogue
    ) -> Iterator[Rows] | None:
        """All users with a suffix in [first, until), in batches that are read ahead; None where nothing is in force.

        Their rows have `fields` at least, and are those of `catalogue`: where the workspace file was edited since the
        reader was compiled, nothing is in force for it.
        """
        layout = self._layout(workspace)
        if layout is None or layout.catalogue is not catalogue or not layout.holds(fields, ()):
            return None
        return self._cache.scan(layout, first, until, fields=fields)

    def epoch(self, workspace: str, *, fresh: bool = False) -> str | None:
        """What is in force: where it changes, a scan that goes on reads what nobody refreshes any more.

        Whoever begins a scan asks for a `fresh` answer: one kept from before the feed was waited for may be of an older
        generation, which is refreshed no more.
        """
        if fresh:
            self._kept.pop(workspace, None)
        layout = self._layout(workspace)
        return None if layout is None else layout.epoch

    def refused(self, workspace: str, fields: frozenset[str], events: frozenset[str]) -> str | None:
        """Why the cache cannot serve a reader of these fields and events; what is not held is asked for."""
        layout = self._layout(workspace)
        if layout is None:
            return COLD
        if layout.holds(fields, events):
            return None
        self._layouts.want(workspace, fields, events)
        missing = sorted((fields - set(layout.held.fields)) | (events - layout.held.events))
        return f"the user cache does not hold {', '.join(missing)} yet; it was asked to"

    def warm_share(self, workspace: str) -> float:
        """About which share of the workspace's buckets is cached; 0 where Redis is away."""
        layout = self._layout(workspace)
        if layout is None:
            return 0.0
        picked = random.sample(range(layout.buckets), min(SAMPLED, layout.buckets))
        return self._cache.present(layout, picked) / len(picked)

    def changes(self, workspace: str) -> int | None:
        """The counter of refreshed rows; None where it cannot be had."""
        layout = self._layout(workspace)
        return None if layout is None else self._cache.changes(layout)

    def revisions(self, workspace: str, keys: Sequence[str]) -> Mapping[str, int | None]:
        """The cached revision of each user; None where its bucket is gone."""
        layout = self._layout(workspace)
        return dict.fromkeys(keys) if layout is None else self._cache.revisions(layout, keys)

    def warm(self, workspace: str) -> int:
        """Load every bucket that is absent; gives how many were stored."""
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
        """Put layouts into force and take up what is wanted; gives the workspaces whose layout is new.

        For the feed alone, before it refreshes anything under `state` and the workspaces `catalogues`; `named` gives
        the fields and events that the campaigns of a workspace name. The layout of a workspace that has no file (any
        more) is retired, for nobody refreshes it.
        """
        swapped = catalogues is not self._adopted_for
        if swapped:
            self._layouts.retire_others(catalogues)
            self._adopted = {name: layout for name, layout in self._adopted.items() if name in catalogues}
        if time.monotonic() - self._looked < PENDING and self._adopted and not swapped:
            stale = [name for name in self._adopted if not self._stands(catalogues[name], state)]
        else:
            self._looked = time.monotonic()
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
        """The workspaces of which as many users were refreshed as their layout is for: they may hold more by now."""
        return {
            name
            for name, layout in self._adopted.items()
            if self._refreshed.get(name, 0) >= USERS_PER_BUCKET * layout.buckets
        }

    def _stands(self, catalogue: Catalogue, state: FeedState) -> bool:
        """Whether the layout that was adopted last is of this catalogue and generation."""
        layout = self._adopted.get(catalogue.workspace)
        return layout is not None and layout.catalogue is catalogue and layout.generation == state.generation

    def refresh(self, workspace: str, documents: Sequence[Document], gone: Sequence[str] = ()) -> bool:
        """Bring cached users in line with these documents, drop those that are gone; whether Redis took it all."""
        layout = self._adopted.get(workspace)
        if layout is None:
            return True  # nobody reads what was never in force
        self._refreshed[workspace] = self._refreshed.get(workspace, 0) + len(documents)
        reached = self._cache.refresh(layout, documents).reached
        return self._cache.drop(layout, gone).reached and reached if gone else reached


def _held(fields: frozenset[str], events: frozenset[str]) -> Held:
    """What campaigns name, as the cache is asked to hold it."""
    return Held(tuple(sorted(fields)), events)
