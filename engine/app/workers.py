"""The use cases that run by themselves: planning, deciding, sending, re-evaluation, the feed and the clock's tick.

Each use case is imported at its first use: a command that lists campaigns needs none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from engine.app.runtime import Core
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.catalogue.catalogue import Catalogue
    from engine.pipeline.campaigns.change_triggers import Registry
    from engine.pipeline.campaigns.health import Watching
    from engine.pipeline.campaigns.live_index import Roster
    from engine.pipeline.delivery.deliver_slice import Delivering
    from engine.pipeline.evaluation.decide_slice import Processing
    from engine.pipeline.evaluation.enrol import Entering
    from engine.pipeline.evaluation.evaluate import Deciding
    from engine.pipeline.evaluation.recheck_users import Looking
    from engine.pipeline.feed.change_feed import Feeding
    from engine.pipeline.scheduler.access_path import Choosing
    from engine.pipeline.scheduler.completion import Finishing
    from engine.pipeline.scheduler.conversion_window import Converting
    from engine.pipeline.scheduler.dispatch import Dispatching
    from engine.pipeline.scheduler.expired_leases import Reconciling
    from engine.pipeline.scheduler.owed_evaluations import OwedEvaluations
    from engine.pipeline.scheduler.plan_run import Planning
    from engine.pipeline.scheduler.run_attempts import RunAttempts
    from engine.pipeline.scheduler.stuck_campaigns import Obstacles
    from engine.pipeline.scheduler.tick import Ticking
    from engine.pipeline.slices.runner import SliceWorker
    from engine.stores.mongo.index_requests import IndexRequest
    from engine.stores.mongo.lists import Lists
    from engine.stores.user_cache.cache import CachedUsers


class Machinery(Core):
    """The use cases behind the actors, the clock and the feed, each created at its first use."""

    @property
    def search_outages(self) -> tuple[type[Exception], ...]:
        """Exceptions of a search that does not answer or refuses, together with the stores' own outages."""
        return (*self.stores.OUTAGES, EngineError)

    @cached_property
    def planning(self) -> Planning:
        """Plans runs."""
        from engine.pipeline.scheduler.plan_run import Planning

        s = self.stores
        return Planning(
            runs=s.runs,
            slices=s.slices,
            campaigns=s.campaigns,
            stays=s.enrolments,
            book=self.book,
            choosing=self.choosing,
            bell=s.bell,
            clock=self.clock,
        )

    @cached_property
    def choosing(self) -> Choosing:
        """Chooses access paths."""
        from engine.pipeline.scheduler.access_path import Choosing

        s = self.stores
        return Choosing(
            book=self.book,
            users=s.users,
            lists=self._lists,
            search=s.user_index,
            filled=self._filled,
            cache=self.cached_users,
            feed=s.feeds,
            rates=s.rates,
            clock=self.clock,
            outages=self.search_outages,
            small=self.settings.engine.scan_up_to,
            count_up_to=s.audience.count_up_to,
        )

    def _filled(self, catalogue: Catalogue) -> str | None:
        """Return the name of the Elasticsearch index that contains all users of a workspace in its catalogue's form.

        Return None if there is no such index or some users are still to be indexed. The index is read before the
        requests, because the feed records an index only after the requests to fill it.
        """
        from engine.catalogue.workspace_set import indexed_shape

        state = self.stores.feeds.read()
        if state.index is None or state.shapes.get(catalogue.workspace) != indexed_shape(catalogue):
            return None
        return None if self.stores.index_requests.any() else state.index_name

    @cached_property
    def cached_users(self) -> CachedUsers | None:
        """The user cache; None without one."""
        return self.stores.cached_users(self.catalogues)

    def _lists(self, workspace: str) -> Lists:
        """Return the lists of a workspace."""
        return self.stores.lists(self.book.catalogue(workspace))

    @cached_property
    def deciding(self) -> Deciding:
        """Evaluates users and records decisions."""
        from engine.pipeline.evaluation.evaluate import Deciding

        return Deciding(self.stores.campaigns, self.stores.events, self.stores.enrolments, self.stores.users)

    @cached_property
    def entering(self) -> Entering:
        """Lets candidates enter."""
        from engine.pipeline.evaluation.candidate_reader import Finding
        from engine.pipeline.evaluation.enrol import Entering
        from engine.pipeline.evaluation.recheck_users import Rechecking

        s = self.stores
        cache = self.cached_users
        recheck = None if cache is None else Rechecking(cache, s.looks)
        finding = Finding(s.users, self._lists, s.user_index, self._filled, cache)
        return Entering(finding, self.deciding, s.enrolments, recheck, self.clock)

    @cached_property
    def registry(self) -> Registry:
        """Finds the campaigns that a change concerns."""
        from engine.pipeline.campaigns.change_triggers import Registry
        from engine.pipeline.campaigns.live_index import Roster

        return Registry(Roster(self.stores.campaigns, self.clock), self.book)

    @cached_property
    def looking(self) -> Looking:
        """Re-evaluates users who changed."""
        from engine.pipeline.evaluation.recheck_users import Looking

        s = self.stores
        return Looking(
            looks=s.looks,
            registry=self.registry,
            book=self.book,
            users=s.users,
            stays=s.enrolments,
            slices=s.slices,
            deciding=self.deciding,
            leases=s.leases,
            bell=s.bell,
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
    def feeding(self) -> Feeding:
        """Follows the users' changes."""
        from engine.pipeline.campaigns.change_triggers import Registry
        from engine.pipeline.campaigns.live_index import Roster
        from engine.pipeline.feed.change_feed import Feeding
        from engine.stores.mongo.change_stream import HistoryLost
        from engine.stores.mongo.index_requests import IndexRequest

        s = self.stores
        return Feeding(
            open_stream=s.user_stream,
            lost=HistoryLost,
            feeds=s.feeds,
            registry=Registry(Roster(s.campaigns, self.clock), self.book),
            users=s.users,
            looks=s.looks,
            cache=self.cached_users,
            index=s.user_index,
            keep_request=lambda keys: self._ask_index([IndexRequest(keys)]),
            reindex=self._reindex,
            derive=self._derive,
            make_index=self._make_index,
            messenger=self.messenger,
            catalogues=self.catalogues,
            clock=self.clock,
            outages=self.search_outages,
        )

    def _make_index(self) -> None:
        """Create the users' index if it is missing."""
        from engine.stores.migrations import migrate_search

        if self.stores.user_index is not None:
            migrate_search(self.stores.user_index)

    def _reindex(self, workspace: str) -> list[str]:
        """Store requests to index every user of a workspace, in ranges of some thousand; return their ids.

        They replace requests for single users that were stored while Elasticsearch was away.
        """
        from engine.domain.keys import cut
        from engine.stores.mongo.index_requests import IndexRequest

        requests = self.stores.index_requests
        included = requests.of_users(workspace)
        pieces = max(1, min(256, self.choosing.size(workspace) // 5_000))
        made = requests.add([IndexRequest((), workspace, *one) for one in cut(pieces)])
        requests.done(included)
        return made

    def _derive(self, workspace: str) -> list[str]:
        """Store requests to derive every user of a workspace, in ranges of some thousand; return their ids."""
        from engine.domain.keys import cut
        from engine.stores.mongo.index_requests import IndexRequest

        pieces = max(1, min(256, self.choosing.size(workspace) // 5_000))
        ranges = [IndexRequest((), workspace, *one, derive=True) for one in cut(pieces)]
        return self.stores.index_requests.add(ranges)

    def _ask_index(self, requests: Sequence[IndexRequest]) -> None:
        """Store index requests and enqueue them; the clock enqueues those again that no worker has received."""
        self.messenger().index(self.stores.index_requests.add(requests))

    @cached_property
    def finishing(self) -> Finishing:
        """Decides runs and finishes campaigns."""
        from engine.pipeline.scheduler.completion import Finishing

        s = self.stores
        return Finishing(
            runs=s.runs,
            slices=s.slices,
            campaigns=s.campaigns,
            stays=s.enrolments,
            bell=s.bell,
            clock=self.clock,
            name_of=self.book.name,
            rates=s.rates,
            converts_until=self.converting.until,
        )

    @cached_property
    def converting(self) -> Converting:
        """Tells until when ended campaigns count conversions."""
        from engine.pipeline.scheduler.conversion_window import Converting

        s = self.stores
        return Converting(
            campaigns=s.campaigns,
            runs=s.runs,
            stays=s.enrolments,
            looks=s.looks,
            feed=s.feeds,
            roster=self.roster,
            clock=self.clock,
            owed=s.owed_passes,
        )

    @cached_property
    def run_attempts(self) -> RunAttempts:
        """Plans and closes runs, and records failures."""
        from engine.pipeline.scheduler.run_attempts import RunAttempts

        s = self.stores
        return RunAttempts(self.planning, self.finishing, s.runs, self.book.name, s.OUTAGES)

    @cached_property
    def reconciling(self) -> Reconciling:
        """Recovers expired leases."""
        from engine.pipeline.scheduler.expired_leases import Reconciling

        s, lease = self.stores, self.settings.engine.lease
        return Reconciling(
            slices=s.slices,
            campaigns=s.campaigns,
            users=s.users,
            stays=s.enrolments,
            deliveries=s.deliveries,
            book=self.book,
            clock=self.clock,
            lease=lease,
        )

    @cached_property
    def worker(self) -> SliceWorker:
        """Runs slices under leases."""
        from engine.pipeline.slices.runner import SliceWorker

        return SliceWorker(
            self.stores.slices,
            self.reconciling,
            self.clock,
            self.stores.bell,
            lease=self.settings.engine.lease,
            pace=self.settings.engine.checkpoint,
            stop=self.stopping,
            outages=self.stores.OUTAGES,
            name_of=self.book.name,
        )

    @cached_property
    def processing(self) -> Processing:
        """Decides slices."""
        from engine.pipeline.evaluation.decide_slice import Processing
        from engine.pipeline.evaluation.hand_over_deliveries import HandingOver

        s = self.stores
        return Processing(
            worker=self.worker,
            campaigns=s.campaigns,
            book=self.book,
            users=s.users,
            stays=s.enrolments,
            slices=s.slices,
            deciding=self.deciding,
            entering=self.entering,
            messenger=self.messenger,
            bell=s.bell,
            watching=self.watching,
            clock=self.clock,
            tuner=self.tuner,
            handing_over=HandingOver(s.slices, self.clock),
        )

    @cached_property
    def watching(self) -> Watching:
        """Notices campaigns that are slow or fail too much."""
        from engine.pipeline.campaigns.health import Watching

        return Watching(self.stores.campaigns, self.stores.counts, self.book)

    @cached_property
    def obstacles(self) -> Obstacles:
        """Notices what keeps campaigns from going on."""
        from engine.pipeline.scheduler.stuck_campaigns import Obstacles

        s, limit = self.stores, self.settings.engine.attempt_limit
        return Obstacles(s.campaigns, self.book, self.system, s.OUTAGES, attempt_limit=limit)

    @cached_property
    def delivering(self) -> Delivering:
        """Delivers slices."""
        from engine.pipeline.delivery.complete_enrolments import Completing
        from engine.pipeline.delivery.deliver_slice import Delivering
        from engine.pipeline.delivery.late_answers import LeftBehind
        from engine.pipeline.delivery.recover_attempts import Recovering
        from engine.pipeline.delivery.sender_lease import Sender

        s = self.stores
        completing = Completing(s.campaigns)
        sender = Sender(s.leases, self.clock, self.settings.engine.lease)
        recovering = Recovering(
            book=self.book,
            deliveries=s.deliveries,
            leases=s.leases,
            users=s.users,
            channels=self.channel,
            clock=self.clock,
            completing=completing,
            sender=sender.name,
        )
        return Delivering(
            worker=self.worker,
            campaigns=s.campaigns,
            book=self.book,
            users=s.users,
            deliveries=s.deliveries,
            recovering=recovering,
            channels=self.channel,
            watching=self.watching,
            clock=self.clock,
            suppressions=s.suppressions,
            sender=sender,
            left_behind=LeftBehind(sender, s.OUTAGES),
            stop=self.stopping,
            completing=completing,
            bounces=self.settings.email.envelope_from,
        )

    def finish_deliveries(self) -> None:
        """Finish all deliveries of this process that are in progress, as far as time allows; safe to repeat."""
        if "delivering" in self.__dict__:
            self.delivering.close()

    def close(self) -> None:
        """Stop threads and close connections; safe to repeat."""
        self.finish_deliveries()
        super().close()

    @cached_property
    def dispatching(self) -> Dispatching:
        """Enqueues slices in their lanes."""
        from engine.pipeline.scheduler.dispatch import Dispatching

        again = self.settings.engine.ring_again
        return Dispatching(
            self.stores.slices, self.book, self.messenger, self.reconciling.treat, self.obstacles, ring_again=again
        )

    @cached_property
    def ticking(self) -> Ticking:
        """The clock's tick."""
        from engine.pipeline.scheduler.periodic_passes import Passing
        from engine.pipeline.scheduler.tick import Ticking

        s = self.stores
        return Ticking(
            campaigns=s.campaigns,
            runs=s.runs,
            slices=s.slices,
            stays=s.enrolments,
            deliveries=s.deliveries,
            book=self.book,
            planning=self.planning,
            finishing=self.finishing,
            reconciling=self.reconciling,
            dispatching=self.dispatching,
            messenger=self.messenger,
            clock=self.clock,
            time=self.clock.campaign_time,
            roster=self.roster,
            passing=Passing(
                campaigns=s.campaigns,
                stays=s.enrolments,
                book=self.book,
                planning=self.planning,
                roster=self.roster,
                probe=self.choosing.probe,
                obstacles=self.obstacles,
            ),
            owed=self.owed_evaluations,
            looking=self.looking,
            converting=self.converting,
            obstacles=self.obstacles,
            debts=s.owed_passes,
            leases=s.leases,
        )

    @cached_property
    def owed_evaluations(self) -> OwedEvaluations:
        """Plans the evaluations that commands require."""
        from engine.pipeline.scheduler.owed_evaluations import OwedEvaluations

        return OwedEvaluations(self.roster, self.stores.runs, self.stores.slices, self.planning, self.finishing)

    @cached_property
    def roster(self) -> Roster:
        """The campaigns as the clock knows them."""
        from engine.pipeline.campaigns.live_index import Roster

        return Roster(self.stores.campaigns, self.clock)
