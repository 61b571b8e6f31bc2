"""One sample call of every method of every store, with the indexes that its commands may use.

`CALLS` is complete: `test_queries_use_indexes.py` fails where a store has a public method that does not stand in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from pymongo.database import Database

from engine.catalogue.catalogue import BUILTINS, Catalogue, EventType
from engine.clock import moment
from engine.domain.access import Access, Role
from engine.domain.campaign import CampaignRecord, Slowness
from engine.domain.campaign_progress import Tally
from engine.domain.changes import NewEvent
from engine.domain.counts import CampaignCounts, Ends
from engine.domain.enrolment import EnrolmentChange, Settled
from engine.domain.keys import enrolment_prefix, suffix_of_user, user_key
from engine.domain.lifecycle import CampaignState, DeliveryState, RunState, SliceState
from engine.domain.looks import DirtyRange, RecheckRequest
from engine.domain.metric_totals import CampaignCost, LaneTotal, QueryTotal
from engine.domain.settling import PutBack, Settling, Unsent
from engine.domain.stuck import StuckBy
from engine.domain.suppression import Bounced
from engine.domain.work import AccessPath, Run, RunKind, Slice, SliceKind
from engine.predicate.compiled import EventQuery
from engine.query_metrics import Stretch
from engine.stores.mongo.access import Accesses
from engine.stores.mongo.audience_counts import Audience
from engine.stores.mongo.campaign_counts import Counts
from engine.stores.mongo.campaign_tallies import Tallies
from engine.stores.mongo.campaign_time import CampaignTimes
from engine.stores.mongo.campaigns import Campaigns
from engine.stores.mongo.deliveries import Deliveries
from engine.stores.mongo.enrolments import Enrolments
from engine.stores.mongo.events import Events
from engine.stores.mongo.feed_position import FeedPosition
from engine.stores.mongo.import_cursors import ImportCursors
from engine.stores.mongo.index_requests import IndexRequest, IndexRequests
from engine.stores.mongo.lane_work import LaneWork
from engine.stores.mongo.lists import Lists
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
from engine.stores.mongo.users import Edit, Users
from engine.stores.mongo.workspace_versions import WorkspaceVersions
from engine.stores.user_cache.active_layouts import CacheLayouts
from tests.support.decision_cases import NOW, ORDER, enrolment

HOUR = timedelta(hours=1)
PREFIX = enrolment_prefix("shop", "c1")
NAMES = [f"hh-{n}" for n in range(3_000)]
KEYS = sorted(user_key("shop", name) for name in NAMES[:20])
FAR_APART = [(suffix_of_user(KEYS[0]), KEYS[0]), (suffix_of_user(KEYS[-1]), KEYS[-1])]
"""So few users over so wide a range that their stays are read one by one; a single one is a range."""
STAY = enrolment(name="hh-1", outgoing="one")
MARKED = enrolment(name="hh-2", outgoing="one", attempting=True)
RUN = Run("shop/c1/pass/000000000000001", "shop", "c1", RunKind.PASS, 1, RunState.RUNNING)
SLOW = Slowness(since=9, batches=3, p50=0.002, p95=0.01, limit=0.001, query="users.scan")
PIECE = Slice(f"{RUN.id}/0001", RUN.id, "shop", "c1", SliceKind.CANDIDATES, 1, "0", "g")
CAMPAIGN = CampaignRecord("c1", "shop", "campaign-1", "continuous", CampaignState.LIVE, 1, {})
ENDED = Settled("one", DeliveryState.SENT, NOW)
ORDERS = [EventQuery(ORDER, timedelta(days=2), ("value",))]
CATALOGUE = Catalogue("shop", "UTC", None, BUILTINS, {ORDER: EventType(ORDER, {})})
STRETCH = Stretch("host:1:a/0000", "fast", NOW, NOW, (), {})
TALLY = Tally(CampaignCounts(0, 0, {}, 0, 0, 0, {}), NOW, 0.1)
COST = CampaignCost(1.5, 10, 2)
DIRTY = DirtyRange("shop/00", "shop", "00000000", "01000000", frozenset({"plan"}), "m")
KEY_ONLY = frozenset({"_id_"})


@dataclass(frozen=True)
class Call:
    """A call of `store.method`; `uses` are the indexes that its commands may use, beside which none is allowed."""

    make: Callable[[Any], object]
    uses: frozenset[str] = KEY_ONLY


def by(*indexes: str) -> Callable[[Callable[[Any], object]], Call]:
    return lambda make: Call(make, frozenset(indexes))


def _lists(database: Database[dict[str, Any]]) -> Lists:
    return Lists(database, Users(database), {})


def _layouts(database: Database[dict[str, Any]]) -> CacheLayouts:
    return CacheLayouts(database, Users(database), "test:")


STORES: dict[str, tuple[type, Callable[[Database[dict[str, Any]]], object]]] = {
    "accesses": (Accesses, Accesses),
    "audience": (Audience, Audience),
    "cache_layouts": (CacheLayouts, _layouts),
    "campaigns": (Campaigns, Campaigns),
    "counts": (Counts, Counts),
    "deliveries": (Deliveries, Deliveries),
    "enrolments": (Enrolments, Enrolments),
    "events": (Events, Events),
    "feeds": (FeedPosition, lambda database: FeedPosition(database, None)),
    "imports": (ImportCursors, ImportCursors),
    "index_requests": (IndexRequests, IndexRequests),
    "leases": (Leases, Leases),
    "lists": (Lists, _lists),
    "looks": (PendingRechecks, PendingRechecks),
    "owed_passes": (OwedPasses, OwedPasses),
    "policies": (PolicyVersions, PolicyVersions),
    "process_failures": (ProcessFailures, ProcessFailures),
    "processes": (Processes, Processes),
    "rates": (ReadRates, ReadRates),
    "runs": (Runs, Runs),
    "lane_work": (LaneWork, LaneWork),
    "slices": (Slices, Slices),
    "statistics": (Statistics, Statistics),
    "suppressions": (Suppressions, Suppressions),
    "tallies": (Tallies, Tallies),
    "times": (CampaignTimes, CampaignTimes),
    "totals": (MetricTotals, MetricTotals),
    "users": (Users, Users),
    "workspaces": (WorkspaceVersions, WorkspaceVersions),
}

CALLS: Mapping[str, Call] = {
    "accesses.everything": by("_id_")(lambda s: s.everything()),
    "accesses.add": Call(lambda s: s.add(Access("ann", Role.READ, "shop", "1", 5, "hash"))),
    "accesses.remove": Call(lambda s: s.remove("ann")),
    "accesses.session_key": Call(lambda s: s.session_key("key")),
    "audience.count": Call(lambda s: s.count("shop", {"a.plan": "gold"})),
    "audience.count_up_to": Call(lambda s: s.count_up_to("shop", {"a.plan": "gold"}, 100)),
    "cache_layouts.layout": Call(lambda s: s.layout(CATALOGUE, 1)),
    "cache_layouts.want": Call(lambda s: s.want("shop", ["plan"], [ORDER])),
    "cache_layouts.pending": Call(lambda s: s.pending(["shop", "other"])),
    "cache_layouts.retire_others": Call(lambda s: s.retire_others(["shop"])),
    "cache_layouts.adopt": Call(lambda s: (s.adopt(CATALOGUE, 1), s.adopt(replace(CATALOGUE, events={}), 2))),
    "campaigns.get": Call(lambda s: s.get("c1")),
    "campaigns.state_of": Call(lambda s: s.state_of("c1")),
    "campaigns.named": by("name")(lambda s: (s.named("campaign-1", "shop"), s.named("campaign-1"))),
    "campaigns.in_states": by("state")(lambda s: s.in_states([CampaignState.LIVE, CampaignState.PAUSED])),
    "campaigns.of": by("_id_")(lambda s: s.of(["c1", "c2"])),
    "campaigns.by_state": by("state")(lambda s: s.by_state()),
    "campaigns.any_converting": by("converting")(lambda s: s.any_converting()),
    "campaigns.converting": by("converting")(lambda s: s.converting()),
    "campaigns.close_conversions": Call(lambda s: s.close_conversions("c1")),
    "campaigns.everything": by("name")(lambda s: s.everything()),
    "campaigns.page": by("name")(
        lambda s: (
            s.page(None, (), "", ("", ""), 50),
            s.page("shop", [CampaignState.LIVE], "camp", ("shop", "campaign-1"), 2),
        )
    ),
    "campaigns.marks": by("_id_")(lambda s: s.marks()),
    "campaigns.apply": Call(lambda s: s.apply(replace(CAMPAIGN, revision=2))),
    "campaigns.move": Call(lambda s: s.move(CAMPAIGN, CampaignState.DRAINING, stuck_by=None)),
    "campaigns.evaluated": Call(lambda s: s.evaluated("c1", 1, enrolled=True, intake=True, left=True)),
    "campaigns.want_everybody": Call(lambda s: s.want_everybody("c1")),
    "campaigns.passed": Call(lambda s: (s.passed(["c1", "c2"], 5), s.passed(["c1"], 6, crossed=True))),
    "campaigns.crossed": Call(lambda s: (s.crossed(["c1", "c2"], 5), s.crossed(["c1"], 6, reconciled=True))),
    "campaigns.touched_since": by("touched")(lambda s: s.touched_since(moment(NOW))),
    "campaigns.set_stuck": Call(
        lambda s: (s.set_stuck("c1", StuckBy.SLICE, "why"), s.set_stuck("c1", StuckBy.SLICE, None))
    ),
    "campaigns.accept_fewer": Call(lambda s: s.accept_fewer("c1", Ends(0, 5))),
    "campaigns.measured": Call(lambda s: s.measured("c1", [0.001, 0.002], 10)),
    "campaigns.batch_times": Call(lambda s: s.batch_times("c1")),
    "campaigns.set_slowed": Call(lambda s: (s.set_slowed("c1", True, SLOW), s.set_slowed("c1", False, SLOW))),
    "campaigns.revisions": by("revision")(lambda s: s.revisions("c1")),
    "counts.failures": Call(lambda s: s.failures(PREFIX)),
    "counts.page": Call(lambda s: (s.page(PREFIX, "", 100), s.page(PREFIX, f"{PREFIX}8", 100))),
    "counts.of": Call(lambda s: s.of(PREFIX)),
    "counts.quiet_stretches": Call(lambda s: s.quiet_stretches(PREFIX, 100)),
    "deliveries.outgoing": by("_id_", "outgoing")(lambda s: s.outgoing(PREFIX, "", PREFIX + "8", NOW, 100)),
    "deliveries.overdue": by("outgoing")(lambda s: (s.overdue(NOW, 5), s.overdue(NOW, 5, "c1"))),
    "deliveries.first_campaign": by("outgoing")(lambda s: s.first_campaign(NOW, ["c2"])),
    "deliveries.has_outgoing": by("outgoing")(
        lambda s: [
            s.has_outgoing(None, NOW, leave_out=["c2"]),
            *(s.has_outgoing(who, now) for who in (None, ["c1"]) for now in (None, NOW)),
        ]
    ),
    "deliveries.settle_and_mark": Call(
        lambda s: s.settle_and_mark([Settling([MARKED.id], "t", ENDED)], [STAY, replace(STAY, version=9)], "t")
    ),
    "deliveries.settle": Call(
        lambda s: s.settle([Settling([MARKED.id], "t", ENDED), PutBack([MARKED.id], "t", HOUR, NOW)])
    ),
    "deliveries.hold": Call(lambda s: s.hold([STAY], HOUR)),
    "deliveries.skip": Call(lambda s: s.skip([Unsent(STAY, ENDED)])),
    "deliveries.replay_failed": Call(lambda s: s.replay_failed(PREFIX, "two", NOW)),
    "enrolments.latest": Call(lambda s: s.latest("shop", "c1", "1", "2")),
    "enrolments.latest_of": by("user")(lambda s: s.latest_of("c1", KEYS)),
    "enrolments.active": Call(lambda s: s.active(PREFIX, "", PREFIX + "8", 100)),
    "enrolments.due": by("_id_", "due")(lambda s: s.due(PREFIX, "", PREFIX + "8", NOW, 100)),
    "enrolments.idle": by("_id_", "idle")(lambda s: s.idle(PREFIX, "", PREFIX + "8", NOW, 100)),
    "enrolments.idle_ids": by("idle")(lambda s: s.idle_ids("c1", NOW, 100)),
    "enrolments.first_idle_campaign": by("idle")(lambda s: s.first_idle_campaign(["c1", "c2"], NOW)),
    "enrolments.latest_in": by("user")(lambda s: s.latest_in(["c1", "c2"], KEYS)),
    "enrolments.first_due_campaign": by("due")(lambda s: s.first_due_campaign(NOW, ["c2"])),
    "enrolments.overdue": by("due")(lambda s: (s.overdue(NOW, 5), s.overdue(NOW, 5, "c1"))),
    "enrolments.due_ids": by("due")(lambda s: s.due_ids("c1", NOW, 100)),
    "enrolments.all_of": by("user")(lambda s: s.all_of("c1", KEYS[0])),
    "enrolments.stays_of": by("user")(lambda s: s.stays_of(KEYS[0])),
    "enrolments.enter": Call(lambda s: s.enter([enrolment(name="new", entry=2)])),
    "enrolments.enter_alike": Call(
        lambda s: [s.enter_alike(enrolment(name="none", entry=2), few) for few in (FAR_APART, FAR_APART[:1])]
    ),
    "enrolments.present": Call(lambda s: [s.present("shop", "c1", [suffix for suffix, _ in FAR_APART])]),
    "enrolments.advance": Call(
        lambda s: s.advance([EnrolmentChange(STAY.id, 1, 1, NOW, None), EnrolmentChange(MARKED.id, 1, 1, NOW, NOW)])
    ),
    "enrolments.overtaken": Call(lambda s: s.overtaken([EnrolmentChange(STAY.id, 1, 1, NOW, None)])),
    "enrolments.wake": Call(lambda s: s.wake([STAY.id, MARKED.id], NOW)),
    "enrolments.clear_due": by("due")(lambda s: s.clear_due("c3")),
    "enrolments.make_due": by("user")(lambda s: s.make_due(KEYS[0], NOW)),
    "enrolments.has_open": by("idle", "outgoing")(lambda s: s.has_open("c1")),
    "enrolments.last_entered": Call(lambda s: s.last_entered(PREFIX)),
    "events.record": Call(lambda s: s.record([NewEvent(KEYS[0], "e1", ORDER, NOW, {})])),
    "events.summaries": by("user_name_time")(lambda s: s.summaries(KEYS, {"value"})),
    "events.fetch": by("user_name_time")(
        lambda s: [s.fetch(KEYS, ORDERS, NOW, adjacent=near) for near in (True, False)]
    ),
    "events.of_user": by("user_name_time")(lambda s: s.of_user(KEYS[0])),
    "events.erase": by("user_name_time")(lambda s: s.erase(KEYS[:2])),
    "feeds.read": Call(lambda s: s.read()),
    "feeds.save": Call(lambda s: s.save(5, "82")),
    "feeds.publish": by()(lambda s: s.publish(5)),
    "feeds.position": Call(lambda s: s.position()),
    "feeds.now": by()(lambda s: s.now()),
    "feeds.call": Call(lambda s: s.call()),
    "feeds.derives": Call(lambda s: s.derives({"shop": "a"})),
    "feeds.fills": Call(lambda s: s.fills("users-1/uuid", {"shop": "a"})),
    "feeds.ask_search": Call(lambda s: s.ask_search("shop")),
    "feeds.next_generation": Call(lambda s: s.next_generation()),
    "imports.load": Call(lambda s: s.load("k")),
    "imports.save": Call(lambda s: s.save("k", {"at": 1})),
    "imports.clear": Call(lambda s: s.clear("k")),
    "index_requests.add": Call(lambda s: s.add([IndexRequest(KEYS)])),
    "index_requests.get": Call(lambda s: s.get("i1")),
    "index_requests.done": Call(lambda s: s.done(["i1"])),
    "index_requests.of_users": Call(lambda s: s.of_users("shop")),
    "index_requests.put_off": Call(lambda s: s.put_off("i1")),
    "index_requests.indexed": Call(lambda s: s.indexed("i1")),
    "index_requests.deriving": Call(lambda s: s.deriving("shop")),
    "index_requests.any": Call(lambda s: s.any()),
    "index_requests.unheard": by("asked", "_id_")(lambda s: s.unheard(-HOUR, 10)),
    "leases.hold": Call(lambda s: (s.hold("clock", "a", HOUR), s.hold("new", "a", HOUR))),
    "leases.held_for": Call(lambda s: s.held_for("clock")),
    "leases.living": Call(lambda s: s.living("sender/", HOUR)),
    "leases.forget_ended": Call(lambda s: s.forget_ended("sender/", HOUR)),
    "leases.give_up": Call(lambda s: s.give_up("clock", "a")),
    "lists.add": Call(lambda s: s.add("vip", [KEYS[0], user_key("shop", "new")], run="r2")),
    "lists.remove": Call(lambda s: s.remove("vip", [KEYS[1]])),
    "lists.remove_others": Call(lambda s: s.remove_others("shop", "vip", "r2", 5)),
    "lists.derive": Call(lambda s: s.derive("vip", KEYS)),
    "lists.read_range": Call(lambda s: s.read_range("shop", "vip", "1", "3", 100)),
    "lists.size": Call(lambda s: s.size("shop", "vip")),
    "lists.names": Call(lambda s: s.names("shop")),
    "lists.erase": Call(lambda s: s.erase(KEYS[2])),
    "looks.add": Call(lambda s: s.add({KEYS[0]: frozenset({"plan"})}, "m")),
    "looks.add_ranges": Call(lambda s: s.add_ranges({KEYS[0]: frozenset({"plan"})}, "m")),
    "looks.take": by("_id_", "ready", "token")(lambda s: s.take(10, HOUR, NOW)),
    "looks.done": Call(
        lambda s: s.done(
            [RecheckRequest(KEYS[1], frozenset({"plan"}), "m"), RecheckRequest(KEYS[2], frozenset(), "old")]
        )
    ),
    "looks.put_off": Call(lambda s: s.put_off({RecheckRequest(KEYS[1], frozenset({"plan"}), "m"): NOW})),
    "looks.rest": Call(lambda s: s.rest([RecheckRequest(KEYS[0], frozenset(), "m")], HOUR)),
    "looks.expire": by("ready")(lambda s: s.expire()),
    "looks.suspects": by("ready")(lambda s: s.suspects(10)),
    "looks.waiting": by("_id_", "ready")(lambda s: s.waiting(NOW)),
    "looks.any": by("ready", "_id_")(lambda s: s.any(NOW)),
    "looks.count": by()(lambda s: s.count()),
    "looks.ranges": Call(lambda s: s.ranges(2)),
    "looks.move": Call(lambda s: s.move(DIRTY, "00000000/u")),
    "looks.clean": Call(lambda s: s.clean(DIRTY)),
    "owed_passes.owe": Call(lambda s: s.owe("c1")),
    "owed_passes.read": Call(lambda s: s.read()),
    "owed_passes.paid": Call(lambda s: s.paid("c1", 1)),
    "workspaces.record": Call(lambda s: s.record("v1", {}, NOW)),
    "workspaces.history": Call(lambda s: s.history()),
    "policies.record": Call(lambda s: s.record("v1", {}, NOW)),
    "policies.history": Call(lambda s: s.history()),
    "process_failures.note": Call(lambda s: s.note("feed", "feed", "why")),
    "process_failures.clear": Call(lambda s: s.clear("feed", "feed")),
    "process_failures.everything": Call(lambda s: s.everything()),
    "process_failures.forget_older": Call(lambda s: s.forget_older(HOUR)),
    "rates.read": Call(lambda s: s.read()),
    "rates.measured": Call(lambda s: s.measured(AccessPath.SCAN, 9_000, HOUR)),
    "rates.sent": Call(lambda s: s.sent(9_000, HOUR)),
    "processes.beat": Call(lambda s: s.beat("host:1:a", "fast", ["fast"])),
    "processes.seen": by("_id_")(lambda s: s.seen()),
    "processes.gone": Call(lambda s: s.gone("host:1:a")),
    "runs.add": Call(lambda s: s.add(replace(RUN, id="new"))),
    "runs.get": Call(lambda s: s.get(RUN.id)),
    "runs.move": Call(lambda s: s.move(RUN, RunState.DECIDED, {"users": 1})),
    "runs.undecided": by("undecided")(lambda s: (s.undecided(), s.undecided(["c1", "c2"]))),
    "runs.failed": Call(lambda s: s.failed(RUN, "why", HOUR)),
    "runs.count": by("campaign")(lambda s: s.count("c1", RunKind.DUE, 5)),
    "runs.count_all": by()(lambda s: s.count_all()),
    "runs.of_campaign": by("campaign")(lambda s: s.of_campaign("c1", 10)),
    "runs.launch_decided": by("campaign")(lambda s: s.launch_decided("c1")),
    "runs.forget_ended": by("ended")(lambda s: s.forget_ended(HOUR)),
    "runs.costs_by_window": by("campaign")(lambda s: s.costs_by_window(["c1", "c2"])),
    "runs.results_of": by("campaign")(lambda s: s.results_of(["c1", "c2"])),
    "lane_work.open": by("open")(lambda s: s.open(100)),
    "lane_work.of_campaign": by("_id_", "open")(
        lambda s: (s.of_campaign("c1", PREFIX, ended=True, limit=9), s.of_campaign("c1", PREFIX, ended=False, limit=9))
    ),
    "lane_work.latest": by("ended")(lambda s: s.latest(HOUR, 10)),
    "slices.add": Call(lambda s: s.add([replace(PIECE, id="new")])),
    "slices.get": Call(lambda s: s.get(PIECE.id)),
    "slices.claim": Call(lambda s: s.claim(PIECE.id, "t", HOUR)),
    "slices.worked": Call(lambda s: s.worked([PIECE.id])),
    "slices.checkpoint": Call(lambda s: s.checkpoint(PIECE.id, "t", "7f", {}, HOUR)),
    "slices.close": Call(lambda s: s.close(PIECE.id, "t", SliceState.DONE, {})),
    "slices.release": Call(lambda s: s.release(PIECE.id, "t", after=HOUR, suspect=False, deaths=0, errors=0)),
    "slices.waiting": by("open")(lambda s: s.waiting(HOUR, 100)),
    "slices.ring": Call(lambda s: s.ring([PIECE.id], "fast")),
    "slices.expired": by("open")(lambda s: s.expired()),
    "slices.free": Call(lambda s: s.free(PIECE.id, "t", suspect=True, deaths=0, after=None)),
    "slices.end_unclaimed": Call(lambda s: s.end_unclaimed(PIECE.id, SliceState.SPLIT)),
    "slices.drop_unclaimed": by("run")(lambda s: s.drop_unclaimed(RUN.id)),
    "slices.has_open": by("run")(lambda s: s.has_open(RUN.id)),
    "slices.campaigns_with_open": by("open")(lambda s: s.campaigns_with_open(SliceKind.DELIVER)),
    "slices.open_of": by("open")(lambda s: s.open_of("c1", 10)),
    "slices.of_run": by("run")(lambda s: s.of_run(RUN.id)),
    "slices.ended_between": by("ended")(lambda s: s.ended_between(NOW, NOW + 1_000)),
    "slices.recorded": by("ended")(lambda s: s.recorded(HOUR)),
    "slices.forget_ended": by("ended")(lambda s: s.forget_ended(HOUR)),
    "statistics.write": Call(lambda s: s.write(STRETCH)),
    "statistics.since": by("until")(lambda s: s.since(NOW)),
    "suppressions.among": Call(lambda s: s.among("shop", ["a@b.example", "c@b.example"])),
    "suppressions.get": Call(lambda s: s.get("shop", "a@b.example")),
    "suppressions.add": Call(lambda s: s.add("shop", [Bounced("a@b.example", "smtp_550", "c1", "one")])),
    "suppressions.lift": Call(lambda s: s.lift("shop", "a@b.example")),
    "tallies.write": Call(lambda s: s.write("c1", "shop", "campaign-1", TALLY, {}, unfit=False)),
    "tallies.of": Call(lambda s: s.of(["c1", "c2"])),
    "tallies.heads": Call(lambda s: s.heads()),
    "tallies.totals": Call(lambda s: s.totals()),
    "tallies.charge": Call(lambda s: s.charge({"c1": COST}, NOW)),
    "tallies.dearest": by("cost")(lambda s: s.dearest(20)),
    "totals.queries": Call(lambda s: s.queries()),
    "totals.begin_queries": Call(lambda s: s.begin_queries(NOW)),
    "totals.fold_queries": Call(lambda s: s.fold_queries(NOW, {"h:1:a/0000": NOW}, {"users.get": QueryTotal(1)}, NOW)),
    "totals.slices": Call(lambda s: s.slices()),
    "totals.next_slices": Call(lambda s: s.next_slices()),
    "totals.fold_slices": Call(lambda s: s.fold_slices(NOW, {"fast": LaneTotal({"done": 1})}, COST)),
    "times.read": Call(lambda s: s.read()),
    "times.advance": Call(lambda s: s.advance(NOW, NOW)),
    "users.server_now": by()(lambda s: s.server_now()),
    "users.read_range": Call(lambda s: s.read_range("shop", "1", "3", 100)),
    "users.find_range": Call(lambda s: s.find_range("shop", {"a.plan": "gold"}, "1", "3", 100)),
    "users.indexed": by()(lambda s: s.indexed()),
    "users.read_whole": Call(lambda s: s.read_whole("shop", "1", "3", {"rev": 1})),
    "users.read_keys": Call(lambda s: s.read_keys(KEYS)),
    "users.deleted": Call(lambda s: s.deleted(KEYS)),
    "users.get": Call(lambda s: s.get(KEYS[0])),
    "users.estimate": Call(lambda s: s.estimate("shop")),
    "users.population": Call(lambda s: (s.population("shop", 10**6), s.population("shop", 0))),
    "users.rewrite": Call(
        lambda s: s.rewrite([KEYS[0]], lambda keys, _: {key: Edit({"a.plan": "x"}, ["plan"]) for key in keys})
    ),
    "users.delete": Call(lambda s: s.delete(KEYS[3])),
}
