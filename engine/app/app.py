"""The composition root: the one place that builds objects. All other code gets its dependencies passed in."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from engine.app.workers import Machinery

if TYPE_CHECKING:
    from engine.domain.campaign import CampaignRecord
    from engine.pipeline.control.campaign_commands import Steering
    from engine.pipeline.control.quiescence import Openness
    from engine.pipeline.feed.search_indexing import Indexing
    from engine.pipeline.importing.ports import ImportStores
    from engine.pipeline.insight.explain_user import Explaining
    from engine.pipeline.insight.index_advisor import Advising
    from engine.pipeline.insight.liveness import Liveness
    from engine.pipeline.insight.plan_and_report import Outlook
    from engine.pipeline.insight.statistics import Statistics


class App(Machinery):
    """The engine of one process: the machinery and the use cases that people call."""

    def named(self, name: str, workspace: str | None = None) -> CampaignRecord:
        """Return the campaign of that name. Raises `NotFound`, or `WrongCall` if several workspaces have one."""
        from engine.pipeline.campaigns.find_campaign import find_campaign

        return find_campaign(self.stores.campaigns, name, workspace)

    @cached_property
    def steering(self) -> Steering:
        """Applies, launches, pauses and ends campaigns."""
        from engine.pipeline.control.campaign_commands import Steering

        s = self.stores
        return Steering(s.campaigns, self.book, s.bell, self.clock, s.counts, s.feeds)

    @cached_property
    def liveness(self) -> Liveness:
        """Reports which processes are alive."""
        from engine.pipeline.insight.liveness import Liveness

        return Liveness(self.stores.processes, self.stores.leases)

    @cached_property
    def openness(self) -> Openness:
        """Reports pending work."""
        from engine.pipeline.control.quiescence import Openness

        s = self.stores
        return Openness(
            campaigns=s.campaigns,
            runs=s.runs,
            stays=s.enrolments,
            deliveries=s.deliveries,
            clock=self.clock,
            time_is_set=self.clock.is_set,
            looks=s.looks,
            feed=s.feeds,
            owed=s.owed_passes,
        )

    @cached_property
    def explaining(self) -> Explaining:
        """Explains one user in one campaign."""
        from engine.pipeline.insight.explain_user import Explaining

        s = self.stores
        return Explaining(self.book, s.users, s.events, s.enrolments, s.suppressions, self.clock)

    @cached_property
    def statistics(self) -> Statistics:
        """Reports measurements."""
        from engine.pipeline.insight.statistics import Statistics

        s = self.stores
        return Statistics(s.statistics, s.runs, s.counts, s.campaigns, self.book, self.system)

    @cached_property
    def advising(self) -> Advising:
        """Advises indexes."""
        from engine.pipeline.insight.index_advisor import Advising

        return Advising(self.stores.advisor, self.stores.campaigns, self.book, self.clock)

    @cached_property
    def outlook(self) -> Outlook:
        """Plans and reports campaigns."""
        from engine.pipeline.insight.plan_and_report import Outlook

        s = self.stores
        return Outlook(
            book=self.book,
            audience=s.audience,
            users=s.users,
            events=s.events,
            counts=s.counts,
            runs=s.runs,
            choosing=lambda: self.choosing,
            rates=s.rates,
            clock=self.clock,
        )

    @cached_property
    def indexing(self) -> Indexing:
        """Indexes users into Elasticsearch, if there is one, and derives their aggregates anew."""
        from engine.pipeline.feed.search_indexing import Indexing

        s = self.stores
        return Indexing(
            users=s.users,
            index=s.user_index,
            requests=s.index_requests,
            catalogues=self.catalogues,
            shapes=lambda: s.feeds.read().shapes,
            reread=self.workspace_watcher.look,
            derivation=s.derivation,
            derived=lambda: s.feeds.read().derived,
            mails_go_out=self.mails_go_out,
        )

    def mails_go_out(self) -> bool:
        """Whether any delivery may be sent now."""
        return self.stores.deliveries.has_outgoing(None, self.clock.campaign_now())

    def imports(self, workspace: str) -> ImportStores:
        """Return the stores that imports of a workspace write to. Raises `NotFound` for an unknown workspace."""
        from engine.pipeline.importing.ports import ImportStores

        catalogue, s = self.book.catalogue(workspace), self.stores
        return ImportStores(
            upserts=s.upserts(catalogue),
            tombstones=s.users,
            events=s.events,
            derivation=s.derivation(catalogue),
            lists=s.lists(catalogue),
            cursors=s.import_cursors,
        )
