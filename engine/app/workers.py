"""The use cases that run by themselves: planning, deciding, sending, re-evaluation, the feed and the clock's tick.

Each use case is imported at its first use: a command that lists campaigns needs none of them.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from engine.app.runtime import Runtime
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.app.index_filling import IndexFilling
    from engine.pipeline.campaigns.change_triggers import ChangeTriggers
    from engine.pipeline.campaigns.health import CampaignHealth
    from engine.pipeline.campaigns.live_index import LiveCampaigns
    from engine.pipeline.delivery.deliver_slice import SliceDeliverer
    from engine.pipeline.evaluation.decide_slice import SliceDecider
    from engine.pipeline.evaluation.enrol import Enroller
    from engine.pipeline.evaluation.evaluate import Evaluator
    from engine.pipeline.evaluation.recheck_users import UserRechecker
    from engine.pipeline.feed.change_feed import ChangeFeed
    from engine.pipeline.scheduler.access_path import AccessPathChooser
    from engine.pipeline.scheduler.expired_leases import ExpiredLeases
    from engine.pipeline.slices.runner import SliceWorker
    from engine.stores.mongo.lists import Lists
    from engine.stores.user_cache.cache import CachedUsers


class Workers(Runtime):
    """The use cases behind the actors, the clock and the feed, each created at its first use."""

    @property
    def search_outages(self) -> tuple[type[Exception], ...]:
        """Exceptions of a search that does not answer or refuses, together with the stores' own outages."""
        return (*self.stores.OUTAGES, EngineError)

    @cached_property
    def access_paths(self) -> AccessPathChooser:
        """Chooses access paths."""
        from engine.pipeline.scheduler.access_path import AccessPathChooser

        s = self.stores
        return AccessPathChooser(
            campaign_cache=self.campaign_cache,
            users=s.users,
            lists=self._lists,
            search=s.user_index,
            filled=self.index_filling.filled,
            cache=self.cached_users,
            feed=s.feeds,
            rates=s.rates,
            clock=self.clock,
            outages=self.search_outages,
            small=self.settings.engine.scan_up_to,
            count_up_to=s.audience.count_up_to,
        )

    @cached_property
    def index_filling(self) -> IndexFilling:
        """Fills the users' index, and knows whether it is complete."""
        from engine.app.index_filling import IndexFilling

        return IndexFilling(self.stores, lambda workspace: self.access_paths.size(workspace), self.messenger)

    @cached_property
    def cached_users(self) -> CachedUsers | None:
        """The user cache; None without one."""
        return self.stores.cached_users(self.catalogues)

    def _lists(self, workspace: str) -> Lists:
        """Return the lists of a workspace."""
        return self.stores.lists(self.campaign_cache.catalogue(workspace))

    @cached_property
    def evaluator(self) -> Evaluator:
        """Evaluates users and records decisions."""
        from engine.pipeline.evaluation.evaluate import Evaluator

        return Evaluator(self.stores.campaigns, self.stores.events, self.stores.enrolments, self.stores.users)

    @cached_property
    def enroller(self) -> Enroller:
        """Lets candidates enter."""
        from engine.pipeline.evaluation.candidate_reader import CandidateReader
        from engine.pipeline.evaluation.enrol import Enroller
        from engine.pipeline.evaluation.recheck_users import StaleRowRecheck

        s = self.stores
        cache = self.cached_users
        recheck = None if cache is None else StaleRowRecheck(cache, s.looks)
        finding = CandidateReader(s.users, self._lists, s.user_index, self.index_filling.filled, cache)
        return Enroller(finding, self.evaluator, s.enrolments, recheck, self.clock)

    @cached_property
    def registry(self) -> ChangeTriggers:
        """Finds the campaigns that a change concerns."""
        from engine.pipeline.campaigns.change_triggers import ChangeTriggers
        from engine.pipeline.campaigns.live_index import LiveCampaigns

        return ChangeTriggers(LiveCampaigns(self.stores.campaigns, self.clock), self.campaign_cache)

    @cached_property
    def rechecker(self) -> UserRechecker:
        """Re-evaluates users who changed."""
        from engine.pipeline.evaluation.recheck_users import UserRechecker

        s = self.stores
        return UserRechecker(
            rechecks=s.looks,
            registry=self.registry,
            campaign_cache=self.campaign_cache,
            users=s.users,
            enrolments=s.enrolments,
            slices=s.slices,
            evaluator=self.evaluator,
            leases=s.leases,
            wakeup=s.wakeup,
            clock=self.clock,
            stop=self.stopping,
            outages=s.OUTAGES,
            lease=self.settings.engine.lease,
            time_is_set=self.clock.is_set,
            owed=s.owed_passes,
            campaigns=s.campaigns,
            failures=self.failures,
        )

    @cached_property
    def change_feed(self) -> ChangeFeed:
        """Follows the users' changes."""
        from engine.pipeline.campaigns.change_triggers import ChangeTriggers
        from engine.pipeline.campaigns.live_index import LiveCampaigns
        from engine.pipeline.feed.change_feed import ChangeFeed
        from engine.stores.mongo.change_stream import HistoryLost

        s = self.stores
        return ChangeFeed(
            open_stream=s.user_stream,
            lost=HistoryLost,
            feeds=s.feeds,
            registry=ChangeTriggers(LiveCampaigns(s.campaigns, self.clock), self.campaign_cache),
            users=s.users,
            rechecks=s.looks,
            cache=self.cached_users,
            index=s.user_index,
            keep_request=self.index_filling.index,
            reindex=self.index_filling.reindex,
            derive=self.index_filling.derive,
            make_index=self.index_filling.create,
            messenger=self.messenger,
            catalogues=self.catalogues,
            clock=self.clock,
            outages=self.search_outages,
        )

    @cached_property
    def worker(self) -> SliceWorker:
        """Runs slices under leases."""
        from engine.pipeline.slices.runner import SliceWorker

        return SliceWorker(
            self.stores.slices,
            self.expired_leases,
            self.clock,
            self.stores.wakeup,
            lease=self.settings.engine.lease,
            pace=self.settings.engine.checkpoint,
            stop=self.stopping,
            outages=self.stores.OUTAGES,
            name_of=self.campaign_cache.name,
            gate=self.bulk_gate,
            time_left=lambda: self.hooks.time_left(),
        )

    @property
    def slice_worker(self) -> SliceWorker | None:
        """What runs slices in this process; None before the first one."""
        worker: SliceWorker | None = self.__dict__.get("worker")
        return worker

    @cached_property
    def expired_leases(self) -> ExpiredLeases:
        """Recovers expired leases."""
        from engine.pipeline.scheduler.expired_leases import ExpiredLeases

        s, lease = self.stores, self.settings.engine.lease
        return ExpiredLeases(
            slices=s.slices,
            campaigns=s.campaigns,
            users=s.users,
            enrolments=s.enrolments,
            deliveries=s.deliveries,
            campaign_cache=self.campaign_cache,
            clock=self.clock,
            lease=lease,
        )

    @cached_property
    def slice_decider(self) -> SliceDecider:
        """Decides slices."""
        from engine.pipeline.evaluation.decide_slice import SliceDecider
        from engine.pipeline.evaluation.hand_over_deliveries import DeliveryHandover

        s = self.stores
        return SliceDecider(
            worker=self.worker,
            campaigns=s.campaigns,
            campaign_cache=self.campaign_cache,
            users=s.users,
            enrolments=s.enrolments,
            slices=s.slices,
            evaluator=self.evaluator,
            enroller=self.enroller,
            messenger=self.messenger,
            wakeup=s.wakeup,
            campaign_health=self.campaign_health,
            clock=self.clock,
            tuner=self.tuner,
            handing_over=DeliveryHandover(s.slices, self.clock),
        )

    @cached_property
    def campaign_health(self) -> CampaignHealth:
        """Notices campaigns that are slow or fail too much."""
        from engine.pipeline.campaigns.health import CampaignHealth

        return CampaignHealth(self.stores.campaigns, self.stores.counts, self.campaign_cache, self.clock)

    @cached_property
    def slice_deliverer(self) -> SliceDeliverer:
        """Delivers slices."""
        from engine.pipeline.delivery.complete_enrolments import CompletionOnSettle
        from engine.pipeline.delivery.deliver_slice import SliceDeliverer
        from engine.pipeline.delivery.late_answers import UnsettledWindows
        from engine.pipeline.delivery.recover_attempts import AttemptRecovery
        from engine.pipeline.delivery.send_rate import SendRateKeeper
        from engine.pipeline.delivery.sender_lease import Sender

        s = self.stores
        completing = CompletionOnSettle(s.campaigns)
        sender = Sender(s.leases, self.clock, self.settings.engine.lease)
        recovering = AttemptRecovery(
            campaign_cache=self.campaign_cache,
            deliveries=s.deliveries,
            leases=s.leases,
            users=s.users,
            channels=self.channel,
            clock=self.clock,
            completing=completing,
            sender=sender.name,
        )
        return SliceDeliverer(
            worker=self.worker,
            campaigns=s.campaigns,
            campaign_cache=self.campaign_cache,
            users=s.users,
            deliveries=s.deliveries,
            recovering=recovering,
            channels=self.channel,
            campaign_health=self.campaign_health,
            clock=self.clock,
            suppressions=s.suppressions,
            sender=sender,
            left_behind=UnsettledWindows(sender, s.OUTAGES),
            stop=self.stopping,
            completing=completing,
            send_rate=SendRateKeeper(s.send_rates, lambda: self.campaign_cache.policies, self.clock),
            bounces=self.settings.email.envelope_from,
        )

    def finish_deliveries(self) -> None:
        """Finish all deliveries of this process that are in progress, as far as time allows; safe to repeat."""
        if "slice_deliverer" in self.__dict__:
            self.slice_deliverer.close()

    def close(self) -> None:
        """Stop threads and close connections; safe to repeat."""
        self.finish_deliveries()
        super().close()

    @cached_property
    def live_campaigns(self) -> LiveCampaigns:
        """The campaigns as the clock knows them."""
        from engine.pipeline.campaigns.live_index import LiveCampaigns

        return LiveCampaigns(self.stores.campaigns, self.clock)
