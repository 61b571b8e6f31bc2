"""The composition root: the one place that builds objects. All other code gets its dependencies passed in."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from engine import __version__
from engine.app.clockwork import Clockwork
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.clock import Instant
    from engine.domain.campaign import CampaignRecord
    from engine.pipeline.control.access_control import AccessControl
    from engine.pipeline.control.campaign_commands import CampaignCommands
    from engine.pipeline.control.quiescence import Quiescence
    from engine.pipeline.feed.search_indexing import SearchIndexer
    from engine.pipeline.importing.ports import ImportStores
    from engine.pipeline.insight.explain_user import UserExplainer
    from engine.pipeline.insight.find_users import UserFinder
    from engine.pipeline.insight.index_advisor import MissingIndexes
    from engine.pipeline.insight.lateness import Lateness, LatenessWatch
    from engine.pipeline.insight.liveness import Liveness
    from engine.pipeline.insight.metrics import MetricsReader
    from engine.pipeline.insight.plan_and_report import PlanAndReport
    from engine.pipeline.insight.progress import ProgressReader
    from engine.pipeline.insight.readiness import Readiness
    from engine.pipeline.insight.statistics import Statistics
    from engine.pipeline.insight.system_reader import SystemReader
    from engine.pipeline.ports.tallies import TallyReads


class App(Clockwork):
    """The engine of one process: the machinery and the use cases that people call."""

    def named(self, name: str, workspace: str | None = None) -> CampaignRecord:
        """Return the campaign of that name. Raises `NotFound`, or `WrongCall` if several workspaces have one."""
        from engine.pipeline.campaigns.find_campaign import find_campaign

        return find_campaign(self.stores.campaigns, name, workspace)

    @cached_property
    def commands(self) -> CampaignCommands:
        """Applies, launches, pauses and ends campaigns."""
        from engine.pipeline.control.campaign_commands import CampaignCommands

        s = self.stores
        return CampaignCommands(s.campaigns, self.campaign_cache, s.wakeup, self.clock, s.counts, s.feeds)

    @cached_property
    def access_control(self) -> AccessControl:
        """Adds, removes and recognises those who may see the pages."""
        from engine.pipeline.control.access_control import AccessControl

        s = self.stores
        return AccessControl(s.accesses, s.failed_logins, self.system, s.OUTAGES)

    @cached_property
    def liveness(self) -> Liveness:
        """Reports which processes are alive."""
        from engine.pipeline.insight.liveness import Liveness

        return Liveness(self.stores.processes, self.stores.leases)

    @cached_property
    def quiescence(self) -> Quiescence:
        """Reports pending work."""
        from engine.pipeline.control.quiescence import Quiescence

        s = self.stores
        return Quiescence(
            campaigns=s.campaigns,
            runs=s.runs,
            enrolments=s.enrolments,
            deliveries=s.deliveries,
            clock=self.clock,
            time_is_set=self.clock.is_set,
            rechecks=s.looks,
            feed=s.feeds,
            owed=s.owed_passes,
        )

    @cached_property
    def explainer(self) -> UserExplainer:
        """Explains one user in one campaign."""
        from engine.pipeline.insight.explain_user import UserExplainer

        s = self.stores
        return UserExplainer(self.campaign_cache, s.users, s.events, s.enrolments, s.suppressions, self.clock)

    @cached_property
    def user_finder(self) -> UserFinder:
        """Finds users by their address."""
        from engine.pipeline.insight.find_users import UserFinder

        return UserFinder(self.stores.user_index, self.index_filling.filled)

    @cached_property
    def statistics(self) -> Statistics:
        """Reports measurements."""
        from engine.pipeline.insight.statistics import Statistics

        s = self.stores
        return Statistics(s.statistics, s.runs, s.counts, s.campaigns, self.campaign_cache, self.system)

    @property
    def tallies(self) -> TallyReads:
        """The exact counts of campaigns as of a moment: `of(uids)`, and `totals()` over all of them."""
        return self.stores.tallies

    @cached_property
    def readiness(self) -> Readiness:
        """Which stores answer this process, and whether it can serve."""
        from engine.pipeline.insight.readiness import Readiness

        return Readiness(self.stores.pings(), ("mongodb", "broker"))

    @cached_property
    def system_reader(self) -> SystemReader:
        """Reads the whole installation: what the map, the pages and the metrics show."""
        from engine.pipeline.insight.system_nodes import Surroundings
        from engine.pipeline.insight.system_reader import SystemReader

        s = self.stores
        return SystemReader(
            policies=lambda: self.policies,
            surroundings=Surroundings(self.settings.services.shown(), self.settings.email.transport),
            pings=s.pings(),
            processes=s.processes,
            leases=s.leases,
            work=s.lane_work,
            campaigns=s.campaigns,
            feed=s.feeds,
            stretches=s.statistics,
            gate=lambda: self.gate_store.view(),
            queues=lambda: self.hooks.queues,
            clock=self.system,
            limit=s.within,
            outages=(*s.OUTAGES, EngineError),
        )

    @cached_property
    def progress(self) -> ProgressReader:
        """Says how far campaigns are."""
        from engine.pipeline.insight.progress import ProgressReader

        return ProgressReader(self.stores.lane_work, self.stores.runs, self.system)

    @cached_property
    def lateness(self) -> Lateness:
        """Finds the campaigns that are late, and says why."""
        from engine.pipeline.insight.lateness import Lateness

        s = self.stores
        return Lateness(
            campaigns=s.campaigns,
            work=s.lane_work,
            deliveries=s.deliveries,
            enrolments=s.enrolments,
            runs=s.runs,
            campaign_cache=self.campaign_cache,
            policies=lambda: self.policies,
            view=lambda: self.system_reader.read(),  # imported only if something is overdue
            clock=self.system,
            time=self._standing_time,
        )

    def _standing_time(self) -> tuple[Instant, Instant | None]:
        """Return campaign time, and since when (system time) it stands still; None while it is system time."""
        time = self.stores.times.read()
        if time.set_at is None:
            return self.system.system_now(), None
        return time.set_at, time.moved_at or 0

    @cached_property
    def lateness_watch(self) -> LatenessWatch:
        """Logs when campaigns become late, in the clock's process."""
        from engine.pipeline.insight.lateness import LatenessWatch

        return LatenessWatch(self.lateness.late, self.system)

    def upkeep_steps(self) -> tuple[Callable[[], bool], ...]:
        """Return the steps of the clock's upkeep, with the search for late campaigns."""
        return (*super().upkeep_steps(), lambda: self.lateness_watch.step())

    @cached_property
    def metrics(self) -> MetricsReader:
        """Reads the metrics of the whole installation."""
        from engine.pipeline.insight.counter_folding import QueryCounters
        from engine.pipeline.insight.metrics import MetricsReader, OpenWork

        s = self.stores
        return MetricsReader(
            version=__version__,
            policy=lambda: self.policies.version,
            pings=lambda: self.readiness.up(),
            view=self.system_reader.read,
            late=self.lateness.late,
            tallies=s.tallies,
            totals=s.totals,
            queries=QueryCounters(s.totals, s.statistics),
            open_work=OpenWork(s.runs, s.deliveries, s.enrolments, s.looks, self.clock),
            processes=s.processes,
            skews=s.clock_offsets,
            clock=self.system,
            limit=s.within,
            outages=(*s.OUTAGES, EngineError),
        )

    @cached_property
    def missing_indexes(self) -> MissingIndexes:
        """Advises indexes."""
        from engine.pipeline.insight.index_advisor import MissingIndexes

        return MissingIndexes(self.stores.advisor, self.stores.campaigns, self.campaign_cache, self.clock)

    @cached_property
    def plans(self) -> PlanAndReport:
        """Plans and reports campaigns."""
        from engine.pipeline.insight.plan_and_report import PlanAndReport

        s = self.stores
        return PlanAndReport(
            campaign_cache=self.campaign_cache,
            audience=s.audience,
            users=s.users,
            events=s.events,
            counts=s.counts,
            runs=s.runs,
            access_paths=lambda: self.access_paths,
            rates=s.rates,
            clock=self.clock,
        )

    @cached_property
    def search_indexer(self) -> SearchIndexer:
        """Indexes users into Elasticsearch, if there is one, and derives their aggregates anew."""
        from engine.pipeline.feed.search_indexing import SearchIndexer

        s = self.stores
        return SearchIndexer(
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

        catalogue, s = self.campaign_cache.catalogue(workspace), self.stores
        return ImportStores(
            upserts=s.upserts(catalogue),
            tombstones=s.users,
            events=s.events,
            derivation=s.derivation(catalogue),
            lists=s.lists(catalogue),
            cursors=s.import_cursors,
        )
