"""The composition root: the one place that builds things. Everything else is handed what it needs."""

from __future__ import annotations

from functools import cached_property

from engine.machinery import Machinery
from engine.pipeline.advising import Advising
from engine.pipeline.explaining import Explaining
from engine.pipeline.importing.ports import ImportStores
from engine.pipeline.indexing import Indexing
from engine.pipeline.openness import Openness
from engine.pipeline.outlook import Outlook
from engine.pipeline.statistics import Statistics
from engine.pipeline.steering import Steering


class App(Machinery):
    """One process's engine: the machinery, and what people ask of it."""

    @cached_property
    def steering(self) -> Steering:
        """Applies, launches, pauses, ends campaigns."""
        s = self.stores
        return Steering(s.campaigns, self.book, s.bell, self.clock)

    @cached_property
    def openness(self) -> Openness:
        """Tells what is open."""
        s = self.stores
        return Openness(
            s.campaigns,
            s.runs,
            s.enrolments,
            s.deliveries,
            self.clock,
            self.clock.is_set,
            s.looks,
            s.feeds,
            s.owed_passes,
        )

    @cached_property
    def explaining(self) -> Explaining:
        """Explains one user in one campaign."""
        s = self.stores
        return Explaining(self.book, s.users, s.events, s.enrolments, s.suppressions, self.clock)

    @cached_property
    def statistics(self) -> Statistics:
        """Tells what was measured."""
        s = self.stores
        return Statistics(s.statistics, s.runs, s.counts, s.campaigns, self.book, self.system)

    @cached_property
    def advising(self) -> Advising:
        """Advises indexes."""
        return Advising(self.stores.advisor, self.stores.campaigns, self.book, self.clock)

    @cached_property
    def outlook(self) -> Outlook:
        """Plans and reports campaigns."""
        s = self.stores
        return Outlook(self.book, s.audience, s.users, s.events, s.counts, s.runs, self.choosing, s.rates, self.clock)

    @cached_property
    def indexing(self) -> Indexing:
        """Indexes users into Elasticsearch, where there is one, and derives their aggregates anew."""
        s = self.stores
        return Indexing(
            s.users,
            s.user_index,
            s.index_requests,
            self.catalogues,
            lambda: s.feeds.read().shapes,
            self.workspace_watcher.look,
            s.derivation,
            lambda: s.feeds.read().derived,
        )

    def imports(self, workspace: str) -> ImportStores:
        """The stores that imports of a workspace write to. Raises `NotFound` for an unknown workspace."""
        catalogue, s = self.book.catalogue(workspace), self.stores
        return ImportStores(
            upserts=s.upserts(catalogue),
            tombstones=s.users,
            events=s.events,
            derivation=s.derivation(catalogue),
            lists=s.lists(catalogue),
            cursors=s.import_cursors,
        )
