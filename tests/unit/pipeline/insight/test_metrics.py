"""What the metrics say of a picture of the installation, of totals, and of stores that are away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any

from engine.clock import SystemClock
from engine.domain.campaign_progress import TallyTotals, WorkspaceTotals
from engine.domain.gate import GateState, GateView, Gauge, Hold, Member, Override
from engine.domain.metric_totals import CampaignCost, FoldedSlices, LaneTotal, NamedCost, QueryTotal
from engine.domain.processes import Seen
from engine.domain.system_view import (
    ChannelNode,
    FleetNode,
    LaneNode,
    Late,
    Level,
    ProcessNode,
    ProcessReport,
    ProducerNode,
    StoreNode,
    SystemView,
    Times,
    Verdict,
)
from engine.pipeline.insight.metrics import REASONS, TOP, MetricsReader, costs, counts, gate, lateness, picture
from engine.telemetry.exposition import exposition

NOW = 1_800_000_000_000
FINE = Verdict(Level.FINE)
DONE = Times()
FAST = ProcessNode(
    "h:1:a", "fast", ("fast", "control"), "", 0.5, ProcessReport(4, 3, 1_000, {"slices.fast": 2.0, "users.fast": 90.0})
)
RUN = ProcessNode("h:2:b", "run", ("fast", "slow"), "", 0.5, ProcessReport(2, 1, 500, {"slices.fast": 1.0}))
LANE = LaneNode("fast", "decide", 5, 1, 2, 3, 7, 2, 12.5, 3.0, DONE, DONE, 600.0, ("fast",), Verdict(Level.FAILING))
VIEW = SystemView(
    at=NOW - 2_000,
    lanes=(LANE, replace(LANE, name="slow", ready=None, delayed=None, taken=None, dead=None, slices=0, oldest=None)),
    fleets=(
        FleetNode("fast", ("fast",), 2, 4, 4, (FAST, RUN), FINE),
        FleetNode("slow", ("slow",), 1, 2, 1, (RUN,), FINE),
    ),
    producers=(
        ProducerNode("clock", (), 0.0, None, Verdict(Level.FAILING)),
        ProducerNode("feed", (RUN,), 3.0, 1.5, FINE),
    ),
    stores=(
        StoreNode("mongodb", "m", 0.001, 50.0, 0.0, DONE, FINE),
        StoreNode("cache", "c", None, 0.0, 1.0, DONE, FINE),
    ),
    channels=(ChannelNode("email", "smtp", {"sent": 8.0, "failed": 1.0}, None, FINE),),
    edges=(),
    gate=None,
    verdict=Verdict(Level.FAILING),
    policy="v1",
    campaigns={"live": 3},
)


def test_a_process_in_two_fleets_is_counted_once_in_the_rates_and_the_memory() -> None:
    found = picture(VIEW, NOW)
    assert found["tidegate_lane_slices_per_second"]["fast",] == 3.0
    assert found["tidegate_process_memory_bytes"] == {("fast",): 1_000, ("run",): 500}
    assert found["tidegate_fleet_processes"] == {("fast",): 2, ("slow",): 1}
    assert found["tidegate_fleet_threads"]["fast",] == 6


def test_what_redis_does_not_tell_is_absent_and_an_empty_lane_has_waited_for_nothing() -> None:
    found = picture(VIEW, NOW)
    assert {lane for lane, _ in found["tidegate_lane_messages"]} == {"fast"}
    assert found["tidegate_lane_oldest_seconds"] == {("fast",): 12.5, ("slow",): 0.0}
    nobody = replace(VIEW, lanes=(replace(LANE, ready=None, slices=None, held=None, oldest=None),))
    assert "tidegate_lane_oldest_seconds" not in picture(nobody, NOW)


def test_a_producer_without_a_process_has_a_zero() -> None:
    found = picture(VIEW, NOW)
    assert found["tidegate_producer_processes"] == {("clock",): 0, ("feed",): 1}
    assert found["tidegate_feed_lag_seconds"] == {(): 1.5}
    assert found["tidegate_level"]["producer", "clock"] == 3
    assert found["tidegate_level"]["installation", ""] == 3
    assert found["tidegate_view_age_seconds"] == {(): 2.0}


def test_a_picture_can_be_written_as_text() -> None:
    assert (
        b'tidegate_channel_deliveries_per_second{channel="email",outcome="sent"} 8.0'
        in exposition(picture(VIEW, NOW))[0]
    )


def test_the_gate_is_in_one_state_and_an_open_one_has_no_limit() -> None:
    members = (Member("a", "fast", 2, 0.5), Member("b", "slow", 1, 0.25))
    view = GateView(GateState(None, NOW - 5_000), None, Gauge(0.001, 0.004), NOW, members)
    found = gate(view, NOW)
    assert found["tidegate_gate_state"] == {("open",): 1, ("limited",): 0, ("closed",): 0}
    assert "tidegate_gate_limit" not in found
    assert found["tidegate_gate_used"] == {(): 0.75}
    assert found["tidegate_gate_since_seconds"] == {(): 5.0}
    closed = gate(replace(view, override=Override(Hold.CLOSED, NOW + 1, "backup")), NOW)
    assert closed["tidegate_gate_state"]["closed",] == closed["tidegate_gate_held"][()] == 1
    assert closed["tidegate_gate_limit"] == {(): 0.0}


def test_the_exact_counts_are_told_by_workspace_and_outcome() -> None:
    shop = WorkspaceTotals(10, 4, 2, 3, 1, {("email", "sent"): 6, ("email", "queued"): 2})
    found = counts(TallyTotals({"shop": shop}, 1, 0, NOW - 9_000), NOW)
    assert found["tidegate_deliveries"] == {("shop", "email", "sent"): 6, ("shop", "email", "queued"): 2}
    assert found["tidegate_enrolments"] == {("shop", "active"): 4, ("shop", "exited"): 6}
    assert found["tidegate_conversions"] == {("shop", "treated"): 2, ("shop", "holdout"): 1}
    assert found["tidegate_tally_age_seconds"] == {(): 9.0}
    assert counts(TallyTotals({}, 0, 0, None), NOW) == {
        "tidegate_unfit_campaigns": {(): 0},
        "tidegate_tally_age_seconds": {(): 0},
    }


def test_what_is_not_among_the_dearest_is_summed() -> None:
    dearest = [NamedCost("shop", f"c{n}", CampaignCost(10.0 - n, 100, 5)) for n in range(TOP)]
    found = costs(dearest, CampaignCost(1_000.0, 5_000, 300))
    assert len(found["tidegate_campaign_work_seconds"]) == TOP + 1
    assert sum(float(value) for value in found["tidegate_campaign_work_seconds"].values()) == 1_000.0  # type: ignore[arg-type]
    assert found["tidegate_campaign_users_evaluated"]["", "other"] == 5_000 - TOP * 100


def test_each_reason_of_lateness_has_a_series_even_if_nothing_is_late() -> None:
    late = [Late("shop", "a", "1", 90.0, "gate", "", ""), Late("shop", "b", "2", 30.0, "gate", "", "")]
    found = lateness(late)
    assert {reason for (reason,) in found["tidegate_late_campaigns"]} == set(REASONS)
    assert found["tidegate_late_campaigns"]["gate",] == 2
    assert found["tidegate_late_seconds"]["gate",] == 90.0
    assert found["tidegate_late_seconds"]["rate",] == 0


class Away(Exception):
    """A store does not answer."""


class Stores:
    """All stores that the reader asks; those in `away` do not answer. It counts the questions."""

    def __init__(self, *away: str) -> None:
        self.away = away
        self.asked: list[str] = []

    def _ask(self, what: str, store: str = "mongodb") -> None:
        self.asked.append(what)
        if store in self.away:
            raise Away

    def pings(self) -> Mapping[str, bool]:
        return {store: store not in self.away for store in ("mongodb", "broker")}

    def totals(self) -> TallyTotals:
        self._ask("totals")
        return TallyTotals({}, 0, 0, None)

    def of(self, uids: object) -> dict[str, Any]:
        raise AssertionError("no tally is read one by one")

    def dearest(self, limit: int) -> list[NamedCost]:
        self._ask("dearest")
        return []

    def slices(self) -> FoldedSlices:
        self._ask("slices")
        return FoldedSlices(NOW, {"fast": LaneTotal({"done": 2}, 9)}, CampaignCost())

    def queries(self) -> None:
        self._ask("queries")

    def read(self, **_: object) -> Mapping[str, Any]:
        self._ask("read")
        return {}

    def seen(self) -> list[Seen]:
        self._ask("seen")
        return [
            Seen("a", "fast", (), "", timedelta(seconds=1), (), -3.0),
            Seen("b", "old", (), "", timedelta(minutes=2)),
        ]

    def view(self) -> SystemView:
        self._ask("view", "broker")
        return VIEW

    def late(self) -> Sequence[Late]:
        self._ask("late")
        return []

    def reader(self) -> MetricsReader:
        made: Any = self
        return MetricsReader(
            version="1.2.3",
            policy=lambda: "v1",
            pings=self.pings,
            view=self.view,
            late=self.late,
            tallies=made,
            totals=made,
            queries=made,
            open_work=made,
            processes=made,
            skews=made,
            clock=SystemClock(),
            limit=lambda _: nullcontext(),
            outages=(Away,),
        )


def test_a_reading_asks_each_source_once_and_answers_everybody_within_a_second() -> None:
    stores = Stores()
    reader = stores.reader()
    first = reader.read()
    assert reader.read() is first
    assert stores.asked.count("totals") == stores.asked.count("view") == 1
    assert first["tidegate_up"] == {("mongodb",): 1, ("broker",): 1}
    assert first["tidegate_clock_skew_seconds"] == {("fast",): -3.0}, "a process that is gone has no clock"
    assert exposition(first)[0]


def test_a_store_that_is_away_takes_its_metrics_with_it_and_is_not_asked() -> None:
    stores = Stores("mongodb")
    found = stores.reader().read()
    assert found["tidegate_up"]["mongodb",] == 0
    assert set(stores.asked) == {"view"}
    assert "tidegate_unfit_campaigns" not in found
    assert "tidegate_lane_slices" in found, "the picture tells the rest"


def test_a_store_that_goes_away_meanwhile_costs_only_its_part() -> None:
    found = Stores("broker").reader().read()
    assert "tidegate_lane_slices" not in found
    assert found["tidegate_slices_ended"] == {("fast", "done"): 2}


def test_queries_of_the_cache_give_its_hit_rate() -> None:
    from engine.pipeline.insight.metrics import query_sums

    found = query_sums({"cache.read": QueryTotal(10, 0, 200), "cache.load": QueryTotal(1, 0, 50)})
    assert found["tidegate_cache_hit_ratio"] == {(): 0.75}
    assert "tidegate_cache_hit_ratio" not in query_sums({})
