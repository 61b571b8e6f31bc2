"""What the clock does: plans runs, dispatches slices, recovers leases, finishes campaigns, and keeps the books."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from engine.app.workers import Workers

if TYPE_CHECKING:
    from engine.pipeline.insight.counter_folding import CounterFolding
    from engine.pipeline.insight.tallies import TallyKeeper
    from engine.pipeline.insight.upkeep import Upkeep
    from engine.pipeline.scheduler.completion import RunCompletion
    from engine.pipeline.scheduler.conversion_window import ConversionDeadlines
    from engine.pipeline.scheduler.dispatch import Dispatcher
    from engine.pipeline.scheduler.drop_run import RunDropper
    from engine.pipeline.scheduler.owed_evaluations import OwedEvaluations
    from engine.pipeline.scheduler.plan_run import RunPlanner
    from engine.pipeline.scheduler.run_attempts import RunAttempts
    from engine.pipeline.scheduler.stuck_campaigns import Obstacles
    from engine.pipeline.scheduler.tick import ClockTick


class Clockwork(Workers):
    """The use cases behind the clock, each created at its first use."""

    @cached_property
    def run_planner(self) -> RunPlanner:
        """Plans runs."""
        from engine.pipeline.scheduler.plan_run import RunPlanner

        s = self.stores
        return RunPlanner(
            runs=s.runs,
            slices=s.slices,
            campaigns=s.campaigns,
            enrolments=s.enrolments,
            campaign_cache=self.campaign_cache,
            access_paths=self.access_paths,
            wakeup=s.wakeup,
            clock=self.clock,
        )

    @cached_property
    def run_completion(self) -> RunCompletion:
        """Decides runs and finishes campaigns."""
        from engine.pipeline.scheduler.completion import RunCompletion

        s = self.stores
        return RunCompletion(
            runs=s.runs,
            slices=s.slices,
            campaigns=s.campaigns,
            enrolments=s.enrolments,
            wakeup=s.wakeup,
            clock=self.clock,
            name_of=self.campaign_cache.name,
            rates=s.rates,
            converts_until=self.conversion_deadlines.until,
        )

    @cached_property
    def conversion_deadlines(self) -> ConversionDeadlines:
        """Tells until when ended campaigns count conversions."""
        from engine.pipeline.scheduler.conversion_window import ConversionDeadlines

        s = self.stores
        return ConversionDeadlines(
            campaigns=s.campaigns,
            runs=s.runs,
            enrolments=s.enrolments,
            rechecks=s.looks,
            feed=s.feeds,
            live_campaigns=self.live_campaigns,
            clock=self.clock,
            owed=s.owed_passes,
        )

    @cached_property
    def run_attempts(self) -> RunAttempts:
        """Plans and closes runs, and records failures."""
        from engine.pipeline.scheduler.run_attempts import RunAttempts

        s = self.stores
        return RunAttempts(self.run_planner, self.run_completion, s.runs, self.campaign_cache.name, s.OUTAGES)

    @cached_property
    def obstacles(self) -> Obstacles:
        """Notices what keeps campaigns from going on."""
        from engine.pipeline.scheduler.stuck_campaigns import Obstacles

        s, limit = self.stores, self.settings.engine.attempt_limit
        return Obstacles(s.campaigns, self.campaign_cache, self.system, s.OUTAGES, attempt_limit=limit)

    @cached_property
    def tally_keeper(self) -> TallyKeeper:
        """Counts campaigns, in the clock's process."""
        from engine.pipeline.insight.tallies import TallyKeeper

        s = self.stores
        return TallyKeeper(
            counts=s.counts,
            tallies=s.tallies,
            live_campaigns=self.live_campaigns,
            gate=self.bulk_gate,
            clock=self.system,
            stop=lambda: self.upkeep.stopping(),
        )

    @cached_property
    def counter_folding(self) -> CounterFolding:
        """Adds to the counters of the metrics, in the clock's process."""
        from engine.pipeline.insight.counter_folding import CounterFolding

        s = self.stores
        return CounterFolding(
            totals=s.totals, slices=s.slices, tallies=s.tallies, stretches=s.statistics, clock=self.system
        )

    @cached_property
    def upkeep(self) -> Upkeep:
        """What the clock's process does beside its ticks."""
        from engine.pipeline.insight.upkeep import Upkeep

        return Upkeep(self.upkeep_steps(), self.system, self.stores.OUTAGES)

    def upkeep_steps(self) -> tuple[Callable[[], bool], ...]:
        """Return the steps of the upkeep; each returns whether it has more to do."""
        return (lambda: self.tally_keeper.step(), lambda: self.counter_folding.step())

    @cached_property
    def dispatcher(self) -> Dispatcher:
        """Enqueues slices in their lanes."""
        from engine.pipeline.scheduler.dispatch import Dispatcher

        again = self.settings.engine.ring_again
        return Dispatcher(
            self.stores.slices,
            self.campaign_cache,
            self.messenger,
            self.expired_leases.treat,
            self.obstacles,
            ring_again=again,
        )

    @cached_property
    def clock_tick(self) -> ClockTick:
        """The clock's tick."""
        from engine.pipeline.scheduler.periodic_passes import PeriodicPasses
        from engine.pipeline.scheduler.tick import ClockTick

        s = self.stores
        return ClockTick(
            campaigns=s.campaigns,
            runs=s.runs,
            slices=s.slices,
            enrolments=s.enrolments,
            deliveries=s.deliveries,
            campaign_cache=self.campaign_cache,
            run_planner=self.run_planner,
            run_completion=self.run_completion,
            expired_leases=self.expired_leases,
            dispatcher=self.dispatcher,
            messenger=self.messenger,
            clock=self.clock,
            time=self.clock.campaign_time,
            live_campaigns=self.live_campaigns,
            passing=PeriodicPasses(
                campaigns=s.campaigns,
                enrolments=s.enrolments,
                campaign_cache=self.campaign_cache,
                run_planner=self.run_planner,
                run_dropper=self.run_dropper,
                live_campaigns=self.live_campaigns,
                probe=self.access_paths.probe,
                obstacles=self.obstacles,
            ),
            owed=self.owed_evaluations,
            rechecker=self.rechecker,
            conversion_deadlines=self.conversion_deadlines,
            obstacles=self.obstacles,
            debts=s.owed_passes,
            leases=s.leases,
        )

    @cached_property
    def owed_evaluations(self) -> OwedEvaluations:
        """Plans the evaluations that commands require."""
        from engine.pipeline.scheduler.owed_evaluations import OwedEvaluations

        return OwedEvaluations(self.live_campaigns, self.run_planner, self.run_dropper)

    @cached_property
    def run_dropper(self) -> RunDropper:
        """Drops runs whose users another run evaluates."""
        from engine.pipeline.scheduler.drop_run import RunDropper

        return RunDropper(self.stores.runs, self.stores.slices, self.run_completion)

    def close(self) -> None:
        """Stop threads and close connections; safe to repeat."""
        self.finish_deliveries()
        if "upkeep" in self.__dict__:
            self.upkeep.stop()
        super().close()
