"""The stores that need MongoDB alone, each created at its first use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pymongo.database import Database

    from engine.domain.document import Document
    from engine.stores.mongo.access import Accesses
    from engine.stores.mongo.audience_counts import Audience
    from engine.stores.mongo.campaign_counts import Counts
    from engine.stores.mongo.campaign_tallies import Tallies
    from engine.stores.mongo.campaign_time import CampaignTimes
    from engine.stores.mongo.campaigns import Campaigns
    from engine.stores.mongo.deliveries import Deliveries
    from engine.stores.mongo.enrolments import Enrolments
    from engine.stores.mongo.events import Events
    from engine.stores.mongo.import_cursors import ImportCursors
    from engine.stores.mongo.index_advisor import IndexAdvisor
    from engine.stores.mongo.index_requests import IndexRequests
    from engine.stores.mongo.lane_work import LaneWork
    from engine.stores.mongo.metric_totals import MetricTotals
    from engine.stores.mongo.named_leases import Leases
    from engine.stores.mongo.owed_passes import OwedPasses
    from engine.stores.mongo.pending_rechecks import PendingRechecks
    from engine.stores.mongo.policy_versions import PolicyVersions
    from engine.stores.mongo.process_failures import ProcessFailures
    from engine.stores.mongo.processes import Processes
    from engine.stores.mongo.query_statistics import Statistics
    from engine.stores.mongo.read_rates import ReadRates
    from engine.stores.mongo.runs import Runs
    from engine.stores.mongo.slices import Slices
    from engine.stores.mongo.suppressions import Suppressions
    from engine.stores.mongo.users import Users
    from engine.stores.mongo.workspace_versions import WorkspaceVersions


class MongoStores(ABC):
    """The collections of one database; `Stores` adds the clients and the other services."""

    @property
    @abstractmethod
    def database(self) -> Database[Document]:
        """The database of the engine."""

    @cached_property
    def times(self) -> CampaignTimes:
        """Campaign time."""
        from engine.stores.mongo.campaign_time import CampaignTimes

        return CampaignTimes(self.database)

    @cached_property
    def users(self) -> Users:
        """Users."""
        from engine.stores.mongo.users import Users

        return Users(self.database)

    @cached_property
    def audience(self) -> Audience:
        """Counts of audiences."""
        from engine.stores.mongo.audience_counts import Audience

        return Audience(self.database)

    @cached_property
    def events(self) -> Events:
        """Events."""
        from engine.stores.mongo.events import Events

        return Events(self.database)

    @cached_property
    def enrolments(self) -> Enrolments:
        """Enrolments."""
        from engine.stores.mongo.enrolments import Enrolments

        return Enrolments(self.database)

    @cached_property
    def deliveries(self) -> Deliveries:
        """Deliveries inside the enrolments."""
        from engine.stores.mongo.deliveries import Deliveries

        return Deliveries(self.database)

    @cached_property
    def counts(self) -> Counts:
        """Counts of campaigns."""
        from engine.stores.mongo.campaign_counts import Counts

        return Counts(self.database)

    @cached_property
    def tallies(self) -> Tallies:
        """The latest exact counts of campaigns."""
        from engine.stores.mongo.campaign_tallies import Tallies

        return Tallies(self.database)

    @cached_property
    def totals(self) -> MetricTotals:
        """Sums that only rise, for the metrics."""
        from engine.stores.mongo.metric_totals import MetricTotals

        return MetricTotals(self.database)

    @cached_property
    def campaigns(self) -> Campaigns:
        """Campaigns."""
        from engine.stores.mongo.campaigns import Campaigns

        return Campaigns(self.database)

    @cached_property
    def runs(self) -> Runs:
        """Runs."""
        from engine.stores.mongo.runs import Runs

        return Runs(self.database)

    @cached_property
    def slices(self) -> Slices:
        """Slices."""
        from engine.stores.mongo.slices import Slices

        return Slices(self.database)

    @cached_property
    def looks(self) -> PendingRechecks:
        """Re-evaluation requests."""
        from engine.stores.mongo.pending_rechecks import PendingRechecks

        return PendingRechecks(self.database)

    @cached_property
    def rates(self) -> ReadRates:
        """Measurements of runs."""
        from engine.stores.mongo.read_rates import ReadRates

        return ReadRates(self.database)

    @cached_property
    def statistics(self) -> Statistics:
        """Measurements of processes."""
        from engine.stores.mongo.query_statistics import Statistics

        return Statistics(self.database)

    @cached_property
    def advisor(self) -> IndexAdvisor:
        """Explains queries."""
        from engine.stores.mongo.index_advisor import IndexAdvisor

        return IndexAdvisor(self.database)

    @cached_property
    def leases(self) -> Leases:
        """Named leases."""
        from engine.stores.mongo.named_leases import Leases

        return Leases(self.database)

    @cached_property
    def lane_work(self) -> LaneWork:
        """Open and ended slices, for the picture of the installation."""
        from engine.stores.mongo.lane_work import LaneWork

        return LaneWork(self.database)

    @cached_property
    def processes(self) -> Processes:
        """The living processes."""
        from engine.stores.mongo.processes import Processes

        return Processes(self.database)

    @cached_property
    def policy_versions(self) -> PolicyVersions:
        """Recorded policy sets."""
        from engine.stores.mongo.policy_versions import PolicyVersions

        return PolicyVersions(self.database)

    @cached_property
    def workspace_versions(self) -> WorkspaceVersions:
        """Recorded sets of workspaces."""
        from engine.stores.mongo.workspace_versions import WorkspaceVersions

        return WorkspaceVersions(self.database)

    @cached_property
    def owed_passes(self) -> OwedPasses:
        """Campaigns that missed changes and owe a full pass."""
        from engine.stores.mongo.owed_passes import OwedPasses

        return OwedPasses(self.database)

    @cached_property
    def suppressions(self) -> Suppressions:
        """Suppressed addresses."""
        from engine.stores.mongo.suppressions import Suppressions

        return Suppressions(self.database)

    @cached_property
    def accesses(self) -> Accesses:
        """Who may see the pages."""
        from engine.stores.mongo.access import Accesses

        return Accesses(self.database)

    @cached_property
    def process_failures(self) -> ProcessFailures:
        """The current failures of process loops."""
        from engine.stores.mongo.process_failures import ProcessFailures

        return ProcessFailures(self.database)

    @cached_property
    def index_requests(self) -> IndexRequests:
        """Requests to index users."""
        from engine.stores.mongo.index_requests import IndexRequests

        return IndexRequests(self.database)

    @cached_property
    def import_cursors(self) -> ImportCursors:
        """The progress of imports."""
        from engine.stores.mongo.import_cursors import ImportCursors

        return ImportCursors(self.database)
