"""The composition root: the one place that builds things. Everything else is handed what it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

from engine.batching import Tuner
from engine.channels.opening import open_email
from engine.channels.port import Channel
from engine.clock import SystemClock
from engine.errors import InvalidSource, ProgrammerError, WrongCall
from engine.pipeline.advising import Advising
from engine.pipeline.book import CampaignBook
from engine.pipeline.choosing import Choosing
from engine.pipeline.deciding import Deciding
from engine.pipeline.delivering import Delivering
from engine.pipeline.dispatching import Dispatching
from engine.pipeline.entering import Entering
from engine.pipeline.explaining import Explaining
from engine.pipeline.feeding import Feeding
from engine.pipeline.finding import Finding
from engine.pipeline.finishing import Finishing
from engine.pipeline.importing.ports import ImportStores
from engine.pipeline.indexing import Indexing
from engine.pipeline.looking import Looking
from engine.pipeline.openness import Openness
from engine.pipeline.outlook import Outlook
from engine.pipeline.passing import Passing
from engine.pipeline.planning import Planning
from engine.pipeline.ports import Messenger
from engine.pipeline.process import Processing
from engine.pipeline.reconciling import Reconciling
from engine.pipeline.recording import Recording
from engine.pipeline.recovering import Recovering
from engine.pipeline.registry import Registry
from engine.pipeline.roster import Roster
from engine.pipeline.statistics import Statistics
from engine.pipeline.steering import Steering
from engine.pipeline.ticking import Ticking
from engine.pipeline.watching import Watching
from engine.pipeline.working import SliceWorker
from engine.policy.load import load_policies
from engine.policy.policyset import PolicySet
from engine.policy.watch import PolicyWatcher
from engine.predicate.fields import Catalogue
from engine.predicate.workspace import read_workspaces
from engine.settings import Settings
from engine.stores.change_stream import HistoryLost
from engine.stores.index_requests import IndexRequest
from engine.stores.lists import Lists
from engine.stores.opened import Stores
from engine.telemetry.events import emit


@dataclass
class Hooks:
    """What the outer floors give: the way to the actors, when to stop, and what follows new policies."""

    messenger: Messenger | None = None
    stop: Callable[[], bool] = bool
    swapped: list[Callable[[PolicySet], None]] = field(default_factory=list)


class App:
    """One process's engine: settings, stores, policies, and the use cases over them.

    `settings` must name every service (`engine.local` fills in the addresses of local ones).
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stores = Stores(settings.services, emit)
        self.clock = self.stores.clock
        self.system = SystemClock()
        self.hooks = Hooks()
        self.tuner = Tuner()
        self.recording = Recording(lambda: self.stores.statistics, self.tuner, self.system, Stores.OUTAGES)
        self._channels: dict[str, Channel] = {}
        self._lock = Lock()

    @cached_property
    def catalogues(self) -> dict[str, Catalogue]:
        """The field catalogues of all workspaces. Raises `InvalidSource`."""
        return dict(read_workspaces(self.settings.paths.workspaces))

    @cached_property
    def watcher(self) -> PolicyWatcher:
        """The policies in force; `watch_policies` makes it follow the folder. Raises `InvalidSource` at first."""
        return PolicyWatcher(
            self.settings.paths.policies,
            load_policies(self.settings.paths.policies),
            on_change=lambda new, _old: self._swapped(new),
            on_refused=self._refused,
        )

    @property
    def policies(self) -> PolicySet:
        """The policies in force."""
        return self.watcher.current

    def watch_policies(self) -> None:
        """Record the policies in force, and follow the folder from now on."""
        self._record(self.policies)
        self.watcher.start()

    def _record(self, policies: PolicySet) -> None:
        self.stores.policy_versions.record(policies.version, policies.plain(), self.system.system_now())

    def _swapped(self, new: PolicySet) -> None:
        emit("policy.swapped", policy=new.version, path=str(self.settings.paths.policies), profiles=len(new.profiles))
        for follow in self.hooks.swapped:
            follow(new)
        self._record(new)
        self.stores.bell.ring()

    def _refused(self, error: InvalidSource) -> None:
        path = str(self.settings.paths.policies)
        emit("policy.refused", policy=self.policies.version, path=path, faults=len(error.faults), text=str(error))

    def messenger(self) -> Messenger:
        """The way to the actors. Raises `ProgrammerError` in a process without a broker."""
        if self.hooks.messenger is None:
            raise ProgrammerError("this process has no broker: only workers and the clock send messages")
        return self.hooks.messenger

    def stopping(self) -> bool:
        """Whether this process is asked to stop."""
        return self.hooks.stop()

    def channel(self, name: str) -> Channel:
        """The channel of that name, opened at its first use. Raises `WrongCall` for another name than `email`."""
        if name != "email":
            raise WrongCall(f"there is no channel {name}")
        with self._lock:
            if name not in self._channels:
                self._channels[name] = open_email(self.settings.email, self.settings.maildir)
            return self._channels[name]

    @cached_property
    def book(self) -> CampaignBook:
        """The campaigns, compiled."""
        return CampaignBook(self.stores.campaigns, self.catalogues, lambda: self.policies)

    @cached_property
    def planning(self) -> Planning:
        """Plans runs."""
        s = self.stores
        return Planning(s.runs, s.slices, s.campaigns, s.enrolments, self.book, self.choosing, s.bell, self.clock)

    @cached_property
    def choosing(self) -> Choosing:
        """Chooses access paths."""
        s = self.stores
        return Choosing(
            self.book,
            s.users,
            self._lists,
            s.user_index,
            s.index_requests.any,
            None,
            s.feeds,
            s.rates,
            self.clock,
            s.OUTAGES,
        )

    def _lists(self, workspace: str) -> Lists:
        """The lists of a workspace."""
        return self.stores.lists(self.book.catalogue(workspace))

    @cached_property
    def deciding(self) -> Deciding:
        """Evaluates looks and records decisions."""
        return Deciding(self.stores.campaigns, self.stores.events, self.stores.enrolments)

    @cached_property
    def entering(self) -> Entering:
        """Lets candidates enter."""
        s = self.stores
        finding = Finding(s.users, self._lists, s.user_index, None, self.choosing.size)
        return Entering(finding, self.deciding, s.enrolments, None, self.clock)

    @cached_property
    def registry(self) -> Registry:
        """Which campaigns a change concerns."""
        return Registry(Roster(self.stores.campaigns, self.clock), self.book)

    @cached_property
    def looking(self) -> Looking:
        """Looks at users who changed."""
        s = self.stores
        return Looking(
            s.looks,
            self.registry,
            self.book,
            s.users,
            s.enrolments,
            s.slices,
            self.deciding,
            s.leases,
            s.bell,
            self.clock,
            self.stopping,
            s.OUTAGES,
        )

    @cached_property
    def feeding(self) -> Feeding:
        """Follows the users' changes."""
        s = self.stores
        return Feeding(
            s.user_stream,
            HistoryLost,
            s.feeds,
            Registry(Roster(s.campaigns, self.clock), self.book),
            s.users,
            s.looks,
            None,
            s.user_index,
            lambda keys: self._ask_index([IndexRequest(keys)]),
            lambda workspace, ranges: self._ask_index([IndexRequest((), workspace, *one) for one in ranges]),
            self.messenger,
            self.catalogues,
            self.clock,
            s.OUTAGES,
        )

    def _ask_index(self, requests: Sequence[IndexRequest]) -> None:
        """Keep requests to be indexed; the clock rings for them."""
        self.stores.index_requests.add(requests)

    @cached_property
    def finishing(self) -> Finishing:
        """Decides runs, finishes campaigns."""
        s = self.stores
        return Finishing(
            s.runs,
            s.slices,
            s.campaigns,
            s.enrolments,
            s.deliveries,
            s.bell,
            self.clock,
            self.book.name,
            s.rates,
        )

    @cached_property
    def reconciling(self) -> Reconciling:
        """Frees leases that ran out."""
        s, lease = self.stores, self.settings.engine.lease
        return Reconciling(
            s.slices, s.campaigns, s.users, s.enrolments, s.deliveries, self.book, self.clock, lease=lease
        )

    @cached_property
    def worker(self) -> SliceWorker:
        """Works on slices under leases."""
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
        s = self.stores
        return Processing(
            self.worker,
            s.campaigns,
            self.book,
            s.users,
            s.enrolments,
            s.slices,
            self.deciding,
            self.entering,
            self.messenger,
            s.bell,
            self.watching,
            self.clock,
        )

    @cached_property
    def watching(self) -> Watching:
        """Notices campaigns that are slow, fail too much, or are stuck."""
        s, limit = self.stores, self.settings.engine.attempt_limit
        return Watching(s.campaigns, s.deliveries, s.counts, self.book, self.clock, attempt_limit=limit)

    @cached_property
    def delivering(self) -> Delivering:
        """Delivers slices."""
        s = self.stores
        recovering = Recovering(self.book, s.deliveries, s.slices, self.channel, self.clock)
        return Delivering(
            self.worker,
            s.campaigns,
            self.book,
            s.users,
            s.deliveries,
            recovering,
            self.channel,
            self.watching,
            self.clock,
        )

    @cached_property
    def dispatching(self) -> Dispatching:
        """Rings slices in their lanes."""
        again = self.settings.engine.ring_again
        return Dispatching(
            self.stores.slices, self.book, self.messenger, self.reconciling.treat, self.watching, ring_again=again
        )

    @cached_property
    def ticking(self) -> Ticking:
        """The clock's tick."""
        s = self.stores
        return Ticking(
            s.campaigns,
            s.runs,
            s.slices,
            s.enrolments,
            s.deliveries,
            self.book,
            self.planning,
            self.finishing,
            self.reconciling,
            self.dispatching,
            self.messenger,
            self.clock,
            self.clock.is_set,
            self.roster,
            Passing(s.campaigns, s.enrolments, self.book, self.planning, self.roster, self.choosing.probe),
            self.looking,
        )

    @cached_property
    def roster(self) -> Roster:
        """The campaigns as the clock knows them."""
        return Roster(self.stores.campaigns, self.clock)

    @cached_property
    def steering(self) -> Steering:
        """Applies, launches, pauses, ends campaigns."""
        s = self.stores
        return Steering(s.campaigns, s.runs, s.slices, self.book, self.planning, s.bell, self.clock)

    @cached_property
    def openness(self) -> Openness:
        """Tells what is open."""
        s = self.stores
        return Openness(
            s.campaigns, s.runs, s.enrolments, s.deliveries, self.clock, self.clock.is_set, s.looks, s.feeds
        )

    @cached_property
    def explaining(self) -> Explaining:
        """Explains one user in one campaign."""
        s = self.stores
        return Explaining(self.book, s.users, s.events, s.enrolments, self.clock)

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
        return Outlook(self.book, s.audience, s.users, s.events, s.counts, s.runs, self.planning, self.clock)

    @cached_property
    def indexing(self) -> Indexing | None:
        """Indexes users into Elasticsearch; None where there is none."""
        index = self.stores.user_index
        requests = self.stores.index_requests
        return None if index is None else Indexing(self.stores.users, index, requests, self.catalogues)

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

    def close(self) -> None:
        """Let go of threads and connections; safe twice."""
        if "watcher" in self.__dict__:
            self.watcher.stop()
        for channel in self._channels.values():
            channel.close()
        self.recording.stop()
        self.stores.close()
