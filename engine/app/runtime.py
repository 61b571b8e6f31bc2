"""The basis of a process's use cases: settings, stores, clocks, policies, campaign cache, channels, messenger."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Final

from engine.clock import SystemClock
from engine.decisions.batch_size import Tuner
from engine.errors import InvalidSource, ProgrammerError, WrongCall
from engine.stores.stores import Stores
from engine.telemetry.events import emit, stand, subscribe

if TYPE_CHECKING:
    from engine.catalogue.workspace_set import LiveWorkspaces, WorkspaceSet, WorkspaceWatcher
    from engine.channels.channel import Channel
    from engine.domain.system_view import QueueView
    from engine.pipeline.campaigns.compiled_cache import CampaignCache
    from engine.pipeline.gate.bulk_gate import BulkGate
    from engine.pipeline.gate.gate_keeper import GateKeeper
    from engine.pipeline.insight.heartbeat import Heartbeat
    from engine.pipeline.insight.statistics_recorder import StatisticsRecorder
    from engine.pipeline.loop_failures import LoopFailures
    from engine.pipeline.ports.messaging import Messenger
    from engine.policy.policyset import PolicySet
    from engine.policy.watch import PolicyWatcher
    from engine.settings import Settings
    from engine.stores.redis.gate import RedisGate
    from engine.telemetry.process_counts import ProcessCounts
    from engine.telemetry.traces import Tracer


COMMAND: Final = "command"
"""The process name of a command; it ends by itself, so nobody monitors its failures."""


@dataclass
class Hooks:
    """Values from the outer layers: the messenger to the actors, the stop signal, and callbacks for new policies.

    `address` is where this process serves pages. `fleets` are the names of the fleets that this process runs, `started`
    the policies by which it, or its parent, set what only a start can set (its niceness). `after_beat` runs after each
    heartbeat. `time_left` returns the seconds that the time limit of its lane leaves the calling thread (None: no
    limit). `keeps_processes` says that this process belongs to a command whose number of processes is fixed. `threads`
    returns how many threads of this process may work on messages at once. `queues` returns what Redis holds of lanes
    (None: this process does not ask the broker).
    """

    process: str = COMMAND
    messenger: Messenger | None = None
    stop: Callable[[], bool] = bool
    time_left: Callable[[], float | None] = lambda: None
    address: str = ""
    fleets: Collection[str] = ()
    started: PolicySet | None = None
    after_beat: Callable[[], object] = lambda: None
    keeps_processes: bool = False
    threads: Callable[[], int] = int
    queues: Callable[[Iterable[str]], Mapping[str, QueueView]] | None = None
    swapped: list[Callable[[PolicySet], None]] = field(default_factory=list)


class Runtime:
    """The engine of one process: settings, stores, policies, and the use cases over them.

    `settings` must name every service (`engine.local` fills in the addresses of local ones).
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stores = Stores(settings.services, emit)
        self.clock = self.stores.clock
        self.system = SystemClock()
        self.hooks = Hooks()
        self.tuner = Tuner()
        self.channels: dict[str, Channel] = {}
        self._lock = Lock()
        self._unlabel: Callable[[], None] = lambda: None
        self._untraced: Callable[[], object] = lambda: None
        self._uncount: Callable[[], None] = lambda: None
        self._unrecorded: dict[str, Callable[[], None]] = {}

    @cached_property
    def heartbeat(self) -> Heartbeat:
        """Reports that this process is alive, once started."""
        from engine.pipeline.insight.heartbeat import Heartbeat

        return Heartbeat(lambda: self.stores.processes, self.stores.OUTAGES)

    @cached_property
    def process_counts(self) -> ProcessCounts:
        """Counts what this process does, from its events, once the heartbeat has started."""
        import psutil

        from engine.query_metrics import MEASUREMENTS
        from engine.telemetry.process_counts import ProcessCounts

        own = psutil.Process()
        return ProcessCounts(MEASUREMENTS.by_store, lambda: int(own.memory_info().rss))

    @cached_property
    def statistics_recorder(self) -> StatisticsRecorder:
        """Writes the measurements of this process."""
        from engine.pipeline.insight.statistics_recorder import StatisticsRecorder

        return StatisticsRecorder(lambda: self.stores.statistics, self.tuner, self.system, self.stores.OUTAGES)

    @cached_property
    def tracer(self) -> Tracer | None:
        """Makes traces of this process's work, from its first use on; None unless `telemetry.traces` is set."""
        target = self.settings.telemetry.traces
        if not target:
            return None
        from engine import __version__
        from engine.telemetry.trace_export import TraceExporter
        from engine.telemetry.traces import Tracer

        process = os.environ.get("TIDEGATE_PROCESS") or self.hooks.process
        named = {"service.name": "tidegate", "service.version": __version__, "tidegate.process": process}
        exporter = TraceExporter(target, {**named, "host.name": socket.gethostname(), "process.pid": str(os.getpid())})
        tracer = Tracer(exporter.receive, self.settings.telemetry.share)
        end = tracer.start()

        def stop() -> None:
            end()
            exporter.stop()

        self._untraced = stop
        return tracer

    @cached_property
    def bulk_gate(self) -> BulkGate:
        """The gate that this process's bulk work passes before each call of MongoDB."""
        from engine.pipeline.gate.bulk_gate import BulkGate

        return BulkGate(self.system)

    @cached_property
    def gate_store(self) -> RedisGate:
        """MongoDB's gate, shared by all processes."""
        from engine.domain.gate import MONGODB
        from engine.stores.redis.gate import RedisGate

        return RedisGate(self.stores.broker_client, MONGODB, f"{self.stores.database.name}:")

    @cached_property
    def gate_keeper(self) -> GateKeeper:
        """Keeps MongoDB's gate in this process, once started."""
        from engine.domain.gate import MONGODB
        from engine.pipeline.gate.gate_keeper import GateKeeper
        from engine.stores.mongo.store_probe import MongoProbe

        probe = MongoProbe(self.stores.database)
        return GateKeeper(
            self.gate_store,
            probe,
            self.bulk_gate,
            lambda: self.policies.gates.get(MONGODB),
            self.system,
            self.stores.OUTAGES,
        )

    @cached_property
    def catalogues(self) -> LiveWorkspaces:
        """The field catalogues of all workspaces, always as currently in force."""
        from engine.catalogue.workspace_set import LiveWorkspaces

        watcher = self.workspace_watcher
        return LiveWorkspaces(lambda: watcher.current)

    @cached_property
    def workspace_watcher(self) -> WorkspaceWatcher:
        """The workspaces in force; `watch_files` makes it follow the folder.

        With an unreadable file, a command loses only that file's workspace, but a process does not start.
        """
        from engine.catalogue.workspace_file import read_each
        from engine.catalogue.workspace_set import WorkspaceSet, WorkspaceWatcher

        folder = self.settings.paths.workspaces
        return WorkspaceWatcher(
            folder,
            WorkspaceSet(*read_each(folder)),
            on_change=lambda new, old: self._swapped_workspaces(new, old),
            on_refused=self._refused_workspaces,
            on_valid=lambda: self.failures.worked("workspaces"),
        )

    @cached_property
    def failures(self) -> LoopFailures:
        """Records failures of this process's loops."""
        from engine.pipeline.loop_failures import LoopFailures

        process = os.environ.get("TIDEGATE_PROCESS") or self.hooks.process
        name = f"{process}@{socket.gethostname()}"
        return LoopFailures(name, lambda: self.stores.process_failures, self.system, self.stores.OUTAGES)

    @cached_property
    def watcher(self) -> PolicyWatcher:
        """The policies in force; `watch_files` makes it follow the folder. Raises `InvalidSource` at first access."""
        from engine.policy.load import load_policies
        from engine.policy.watch import PolicyWatcher

        return PolicyWatcher(
            self.settings.paths.policies,
            load_policies(self.settings.paths.policies),
            on_change=lambda new, _old: self._swapped(new),
            on_refused=self._refused,
            on_valid=lambda: self.failures.worked("policies"),
        )

    @property
    def policies(self) -> PolicySet:
        """The policies in force."""
        return self.watcher.current

    def watch_files(self, process: str) -> None:
        """Record the policies and workspaces in force, and follow their folders from now on.

        `process` is the name under which failures of this process are recorded if the supervisor gave it none. Raises
        `InvalidSource` if a file cannot be read.
        """
        self.hooks.process = process
        workspaces = self.workspace_watcher.current.whole()
        self.hooks.started = self.hooks.started or self.policies
        self._unlabel = stand("policy", lambda: self.policies.version)
        self._record(self.policies)
        self._record_workspaces(workspaces)
        for loop in ("policies", "workspaces"):
            self.failures.worked(loop)
        self.watcher.start()
        self.workspace_watcher.start()

    def follow_files(self, process: str) -> None:
        """Follow the folders without recording what is in force: for a process that only shows, also without MongoDB.

        Raises `InvalidSource` if a file cannot be read.
        """
        self.hooks.process = process
        self.hooks.started = self.hooks.started or self.policies
        self.watcher.start()
        self.workspace_watcher.start()

    def _record_workspaces(self, workspaces: WorkspaceSet) -> None:
        now = self.system.system_now()
        self.stores.workspace_versions.record(workspaces.version, workspaces.plain(), now)

    def _swapped_workspaces(self, new: WorkspaceSet, old: WorkspaceSet) -> None:
        path = str(self.settings.paths.workspaces)
        changed = sorted(name for name in {*new, *old} if new.get(name) is not old.get(name))
        emit("workspace.swapped", workspace_set=new.version, path=path, workspaces=len(new), text=", ".join(changed))
        self._unrecorded["workspaces"] = lambda: self._record_workspaces(new)
        self.stores.wakeup.ring()
        self.record_files()

    def _refused_workspaces(self, error: InvalidSource) -> None:
        path, version = str(self.settings.paths.workspaces), self.catalogues.version
        emit("workspace.refused", workspace_set=version, path=path, faults=len(error.faults), text=str(error))
        if self.hooks.process != COMMAND:  # a command that meets the errors reports them itself
            self.failures.failed("workspaces", f"the files are invalid, the last good set stays in force: {error}")

    def _record(self, policies: PolicySet) -> None:
        self.stores.policy_versions.record(policies.version, policies.plain(), self.system.system_now())

    def start_heartbeat(self, process: str, lanes: Callable[[], Iterable[str]] = tuple) -> None:
        """Report from now on that this process is alive and serves `lanes`.

        Sets of files that came into force while MongoDB was away are recorded after the next heartbeat.
        """
        counts = self.process_counts
        self._uncount = subscribe(counts)
        self.heartbeat.start(
            process,
            lanes,
            self.notes,
            lambda: replace(counts.report(self.hooks.threads()), address=self.hooks.address),
            then=(self.record_files, lambda: self.hooks.after_beat()),
        )

    def notes(self) -> list[str]:
        """Return, in words, what of the policies in force this process does not follow before a restart."""
        from engine.policy.effects import behind

        hooks = self.hooks
        started = hooks.started or self.policies
        return behind(started, self.policies, hooks.fleets, keeps_processes=hooks.keeps_processes)

    def _swapped(self, new: PolicySet) -> None:
        """Follow new policies: the fleets first, because MongoDB may be away while the set is recorded."""
        from engine.channels.channel import Resizable

        path, notes = str(self.settings.paths.policies), "; ".join(self.notes())
        emit("policy.swapped", policy=new.version, path=path, profiles=len(new.profiles), text=notes or None)
        for follow in self.hooks.swapped:
            try:
                follow(new)
            except Exception as error:  # noqa: BLE001 - the others must still follow
                emit("engine.failed", process=self.hooks.process, reason=type(error).__name__, error=error)
        with self._lock:
            for channel in self.channels.values():
                if isinstance(channel, Resizable):
                    channel.resize(self._sending_threads)
        self.heartbeat.soon()
        self._unrecorded["policies"] = lambda: self._record(new)
        self.stores.wakeup.ring()
        self.record_files()

    def record_files(self) -> None:
        """Record the sets of files that came into force and are not recorded yet. Raises the outages of the stores."""
        for name, record in list(self._unrecorded.items()):
            record()
            if self._unrecorded.get(name) is record:
                del self._unrecorded[name]

    @property
    def _sending_threads(self) -> int:
        return self.policies.delivering_threads(self.hooks.fleets)

    def _refused(self, error: InvalidSource) -> None:
        path = str(self.settings.paths.policies)
        emit("policy.refused", policy=self.policies.version, path=path, faults=len(error.faults), text=str(error))
        self.failures.failed("policies", f"the files are invalid, the last good set stays in force: {error}")

    def messenger(self) -> Messenger:
        """Return the messenger to the actors. Raises `ProgrammerError` in a process without a broker."""
        if self.hooks.messenger is None:
            raise ProgrammerError("this process has no broker: only workers and the clock send messages")
        return self.hooks.messenger

    def stopping(self) -> bool:
        """Whether this process has been asked to stop."""
        return self.hooks.stop()

    def channel(self, name: str) -> Channel:
        """Return the channel of that name, opened at its first use. Raises `WrongCall` for any name but `email`."""
        if name != "email":
            raise WrongCall(f"there is no channel {name}")
        from engine.channels.factory import open_email

        with self._lock:
            if name not in self.channels:
                self.channels[name] = open_email(self.settings.email, self.settings.maildir, self._sending_threads)
            return self.channels[name]

    @cached_property
    def campaign_cache(self) -> CampaignCache:
        """The campaign cache: compiled campaigns by revision."""
        from engine.pipeline.campaigns.compiled_cache import CampaignCache

        return CampaignCache(
            self.stores.campaigns, self.catalogues, lambda: self.policies, lambda: self.workspace_watcher.look()
        )

    def stop_watching(self) -> None:
        """Stop following the folders; safe to repeat."""
        for name in ("watcher", "workspace_watcher"):
            if name in self.__dict__:
                getattr(self, name).stop()

    def close(self) -> None:
        """Stop threads and close connections; safe to repeat."""
        self.stop_watching()
        self._unlabel()
        self._untraced()
        self._uncount()
        for channel in self.channels.values():
            channel.close()
        if "heartbeat" in self.__dict__:
            self.heartbeat.stop()
        if "statistics_recorder" in self.__dict__:
            self.statistics_recorder.stop()
        if "gate_keeper" in self.__dict__:
            self.gate_keeper.stop()
        self.stores.close()
