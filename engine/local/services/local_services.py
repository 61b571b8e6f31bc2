"""The local services of one folder: starts missing ones in parallel and reuses running ones.

`tidegate up`, the demo and the tests call `LocalServices(var).start()`. It never starts a service whose address is
given. The process that started a service ends it with `stop`. A service left by a killed run is recognised by its
record (pid and start time) or, if there was no time to write one, by a mark in its environment. It is reused or ended;
the process that reuses it owns it from then on. `keep` restarts services that die.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, Self

from engine.errors import ServiceUnreachable
from engine.local.processes.process_groups import end_groups, marked_groups, spawn
from engine.local.processes.supervisor import how_ended
from engine.local.services.addresses import Status, Urls, given, require_given
from engine.local.services.elastic_distribution import locked
from engine.local.services.elasticsearch import Elastic
from engine.local.services.mongod import Mongod
from engine.local.services.ports import free_ports, is_free
from engine.local.services.program import CannotStart, Program, Say, ServiceName
from engine.local.services.reachability import answers, reaches
from engine.local.services.registry_file import NAMES, Entry, Record
from engine.local.services.restart_services import Keeper
from engine.local.services.valkey import Valkey
from engine.process_identity import Born, birth_of, myself
from engine.settings import Settings

MARK: Final = "TIDEGATE_LOCAL_SERVICE"
STOP_PATIENCE: Final = timedelta(seconds=20)  # Elasticsearch flushes for some seconds
_TRIES: Final = 3  # another program may take a port between our check and the bind
_DECIDED: Final = 3.0  # seconds after the others within which Elasticsearch's ability to start is known
_SEARCH_LATER: Final = 15.0  # seconds that Elasticsearch waits for the processes that must start before it
_POLL: Final = 0.05  # seconds between two checks that a service serves
_WITHOUT_ELASTIC: Final = "running without Elasticsearch: audiences are read from MongoDB, log search is off"


class LocalServices:
    """The services of the folder `var`; `addresses` maps service names to given addresses, used instead.

    `heap` is Elasticsearch's, in Java's notation, and `search_niceness` lowers its priority; `cache_memory` limits the
    cache, in Valkey's notation; `mongo_cache_gb` limits mongod's cache. `say` reports long work. The services belong to
    `owner` (default: this process): an owner that outlives this process ends its own services.
    """

    @classmethod
    def of(cls, settings: Settings, say: Say = lambda _: None, owner: Born | None = None) -> Self:
        """Return the services that `settings` describe: given addresses are used, the rest is local to `paths.var`."""
        engine = settings.engine
        return cls(
            settings.paths.var,
            addresses=given(settings),
            heap=engine.elastic_heap,
            cache_memory=engine.cache_memory,
            say=say,
            owner=owner,
            search_niceness=10,
        )

    def __init__(
        self,
        var: Path,
        *,
        addresses: Mapping[ServiceName, str] | None = None,
        heap: str = "512m",
        cache_memory: str = "256mb",
        mongo_cache_gb: float = 1.0,
        search_niceness: int = 0,
        say: Say = lambda _: None,
        owner: Born | None = None,
    ) -> None:
        self._owner, self._for_another = owner or myself(), owner is not None
        self.var = var.resolve()
        self.given = dict(addresses or {})
        self.notes: list[str] = []
        self._say = say
        self._record = Record(self.var)
        self.programs: dict[ServiceName, Program] = {
            "mongo": Mongod(mongo_cache_gb),
            "broker": Valkey("broker"),
            "cache": Valkey("cache", cache_memory),
            "elastic": Elastic(heap, search_niceness),
        }
        self._pool = ThreadPoolExecutor(len(NAMES), thread_name_prefix="service")
        self._launches: dict[ServiceName, Future[str]] = {}
        self._chosen: dict[ServiceName, Future[str]] = {}  # its address, known before it runs
        self._prepared: dict[ServiceName, Future[None]] = {}
        self._search_may_start = threading.Event()
        self._children: dict[ServiceName, subprocess.Popen[bytes]] = {}
        self._adopted: set[ServiceName] = set()
        self._ending = threading.Event()

    def start(self, names: Iterable[ServiceName] = NAMES, *, wait_for_search: bool = True) -> Urls:
        """Start the missing services of `names` in parallel; return all addresses ("" for those not requested).

        Raises `CannotStart` for a service that the engine needs. Without Elasticsearch it goes on, and `notes` says why
        and what that costs. If `wait_for_search` is false, Elasticsearch starts after the processes that need the
        processor more (`start_search`), and the returned address is the one at which it will serve.
        """
        chosen = list(names)
        if wait_for_search:
            self.start_search()
        self.launch(chosen)
        urls = {name: self.url(name) for name in chosen if name != "elastic"}
        return Urls(
            urls.get("mongo", ""),
            urls.get("broker", ""),
            urls.get("cache", ""),
            (self.elastic_url() if wait_for_search else self.elastic_soon()) if "elastic" in chosen else None,
        )

    def start_search(self) -> None:
        """Let Elasticsearch start now: it takes some seconds of processor time."""
        self._search_may_start.set()

    def launch(self, names: Iterable[ServiceName]) -> None:
        """Begin to start services and return at once; `url` waits for one.

        Raises `WrongCall` for a given address that cannot be read, before anything starts.
        """
        names = list(names)
        for name in names:
            if name in self.given:
                require_given(name, self.given[name])
        self.var.mkdir(parents=True, exist_ok=True)
        for name in names:
            if name not in self._launches:
                self._chosen[name], self._prepared[name] = Future(), Future()
                self._launches[name] = self._pool.submit(self._ensure, name)

    def url(self, name: ServiceName) -> str:
        """Return the address of one service; start it if needed and wait until it serves. Raises `CannotStart`."""
        self.launch([name])
        return self._launches[name].result()

    def elastic_url(self) -> str | None:
        """Return the address of Elasticsearch in the same way, or None if it cannot run (then `notes` says why)."""
        self.start_search()
        try:
            return self.url("elastic")
        except CannotStart as missing:
            self._do_without(missing)
            return None

    def elastic_soon(self) -> str | None:
        """Return Elasticsearch's present or future address without waiting; None if it is known that it cannot run.

        The engine runs without it meanwhile, and uses it once it answers. It starts at `start_search`, or after some
        seconds.
        """
        self.launch(["elastic"])
        launch, prepared, chosen = self._launches["elastic"], self._prepared["elastic"], self._chosen["elastic"]
        either: list[Future[Any]] = [launch, prepared]
        wait_for(either, _DECIDED, FIRST_COMPLETED)
        if launch.done():
            return self.elastic_url()
        what = "starts" if prepared.done() else "is fetched or unpacked"
        self._say(f"elastic {what} meanwhile; the engine uses it once it serves")
        launch.add_done_callback(self._came_late)
        wait_for([launch, chosen], None, FIRST_COMPLETED)
        return chosen.result() if chosen.done() else None

    def _came_late(self, launch: Future[str]) -> None:
        missing = None if launch.cancelled() else launch.exception()
        if isinstance(missing, CannotStart) and not self._ending.is_set():
            self._do_without(missing)

    def _do_without(self, missing: CannotStart) -> None:
        note = f"{missing}; {_WITHOUT_ELASTIC}. To have it: {missing.remedy}"
        if note not in self.notes:
            self.notes.append(note)
            self._say(note)

    def running(self) -> Urls:
        """Return the addresses that are given or recorded by another process; start nothing.

        Raises `ServiceUnreachable` if a service that the engine needs is neither given nor running.
        """
        for name, url in self.given.items():
            require_given(name, url)
        states = {status.name: status for status in self.status()}
        for name in ("mongo", "broker", "cache"):
            if states[name].state not in {"given", "running"}:
                doubt = "" if self.var.exists() else " (nothing ever ran in this folder: is it the right one?)"
                remedy = f"`tidegate up` starts it{doubt}, or give TIDEGATE_SERVICES__{name.upper()}_URL"
                raise ServiceUnreachable(f"{name}: no local service runs for {self.var}", remedy=remedy)
        elastic = states["elastic"]
        serving = elastic.url if elastic.state in {"given", "running"} else None
        return Urls(states["mongo"].url, states["broker"].url, states["cache"].url, serving)

    def status(self) -> list[Status]:
        """Return the state of every service; start nothing."""
        entries = self._record.read()
        shown = []
        for name in NAMES:
            entry = entries.get(name)
            if name in self.given:
                shown.append(Status(name, "given", self.given[name], None))
            elif entry is None:
                shown.append(Status(name, "absent", "", None))
            else:
                shown.append(_status(name, entry))
        return shown

    def probed(self, status: Status) -> Status:
        """Return the status with `answers`: a given address takes connections, a local service replies."""
        if status.state == "given":
            return status.probed(reaches)
        entry = self._record.read().get(status.name)
        if status.state != "running" or entry is None:
            return status
        return replace(status, answers=self.answers(status.name, entry))

    def keep(self) -> None:
        """Restart services launched here that die, at their old addresses, from now on until `stop`."""
        for name, launch in self._launches.items():
            if name not in self.given:
                launch.add_done_callback(partial(self._keep, name))

    def _keep(self, name: ServiceName, launch: Future[str]) -> None:
        if not launch.cancelled() and launch.exception() is None and not self._ending.is_set():
            self.keeper.start([name])

    @cached_property
    def keeper(self) -> Keeper:
        """The keeper that restarts services that die."""
        return Keeper(
            read=self._record.read,
            restart=self._restart,
            answers=self.answers,
            kill=_kill,
            ending=self._ending,
            say=self._say,
        )

    def answers(self, name: ServiceName, entry: Entry) -> bool:
        """Return whether a local service replies within some seconds."""
        return answers(entry.ports[0], self.programs[name].question)

    def leave(self) -> None:
        """Leave the services of this object running on purpose: nobody owns them any more."""
        for name, entry in self._record.read().items():
            if self._started(name, entry):
                self._record.write(name, replace(entry, owner=None))

    def stop(self, *, everything: bool = False, discard: bool = False) -> list[ServiceName]:
        """End the services that this object started (`everything`: all of the folder); return their names.

        `discard` is for data that nobody needs again: it ends them at once and removes the data.
        """
        self._ending.set()
        self.start_search()
        self.keeper.join()
        self._pool.shutdown(wait=True, cancel_futures=True)
        entries = {
            name: entry for name, entry in self._record.read().items() if everything or self._started(name, entry)
        }
        return self._end(entries, discard=discard)

    def _end(self, entries: Mapping[ServiceName, Entry], *, discard: bool = False) -> list[ServiceName]:
        groups = {name: group for name, entry in entries.items() if (group := _group(entry))}
        strays = {name: marked_groups(MARK, self._mark(name)) for name in entries}
        everything = [*groups.values(), *chain.from_iterable(strays.values())]
        end_groups(everything, patience=timedelta(0) if discard else STOP_PATIENCE)
        for child in self._children.values():
            child.wait()
        self._children.clear()
        self._launches.clear()
        for name, entry in entries.items():
            self._record.write(name, replace(entry, process=None))
            if discard:
                shutil.rmtree(entry.home, ignore_errors=True)
        return [name for name in entries if name in groups or strays[name]]

    def _started(self, name: ServiceName, entry: Entry) -> bool:
        """Return whether this object started or took over the recorded service.

        Another may have started it after a crash.
        """
        child = self._children.get(name)
        mine = child is not None and entry.process is not None and child.pid == entry.process.pid
        return mine or ((self._for_another or name in self._adopted) and entry.owner == self._owner)

    def _ensure(self, name: ServiceName) -> str:
        """Return the address of a serving `name`: given, running already, or started now."""
        if name in self.given:
            return self.given[name]
        program = self.programs[name]
        with locked(self.var / f".{name}.lock"):
            entry = self._record.read().get(name)
            if entry and entry.process and entry.alive and self._serves(program, entry.ports, entry.process):
                self._adopt(name, entry)
                return entry.url
            self._end_leftovers(name, entry)
            home = self._home(program, entry)
            try:
                return self._try_ports(program, home, entry)
            except CannotStart:
                if entry is None:  # created just now, and no record names it
                    shutil.rmtree(home, ignore_errors=True)
                raise

    def _adopt(self, name: ServiceName, entry: Entry) -> None:
        """Own a running service whose owner died: its user must end it, because nobody else would."""
        if entry.orphaned:
            self._adopted.add(name)
            self._record.write(name, replace(entry, owner=self._owner))

    def _restart(self, name: ServiceName) -> Entry:
        """Start a dead service again, on its old ports and data; return its new entry. Raises `CannotStart`."""
        program = self.programs[name]
        with locked(self.var / f".{name}.lock"):
            entry = self._record.read()[name]
            if entry.alive:
                return entry  # another process was quicker
            dead = self._children.get(name)
            last_exit = how_ended(dead.wait()) if dead else "died"
            self._end_leftovers(name, None)  # processes that may remain in its group
            if not _usable(entry, program):
                taken = ", ".join(map(str, entry.ports))
                raise CannotStart(f"{name}: its port {taken} is taken", remedy="end the program that took it")
            again = replace(entry, restarts=entry.restarts + 1, last_exit=last_exit)
            if self._try(program, Path(entry.home), entry.ports, again) is None:
                raise CannotStart(f"{name}: it does not start{_last_words(self.var / f'{name}.log')}")
            return self._record.read()[name]

    def _try_ports(self, program: Program, home: Path, entry: Entry | None) -> str:
        """Start `program` on its old ports if they are free, else on others. Raises `CannotStart`."""
        for attempt in range(_TRIES):
            ports = entry.ports if attempt == 0 and entry and _usable(entry, program) else None
            started = self._try(program, home, ports or free_ports(program.port_count))
            if started is not None:
                return started
        raise CannotStart(f"{program.name}: it does not start{_last_words(self.var / f'{program.name}.log')}")

    def _try(self, program: Program, home: Path, ports: tuple[int, ...], before: Entry | None = None) -> str | None:
        """Start `program` once and wait until it serves; None if it ended first, e.g. because a port was taken."""
        chosen = self._chosen[program.name]
        if not chosen.done():
            chosen.set_result(program.url(ports))
        command = program.command(home, ports, self._say)
        if not self._prepared[program.name].done():
            self._prepared[program.name].set_result(None)
        if program.name == "elastic":
            self._search_may_start.wait(_SEARCH_LATER)
        if self._ending.is_set():
            raise CannotStart(f"{program.name}: ended before it started")
        command = replace(command, env={**command.env, MARK: self._mark(program.name)})
        child = spawn(command, log=self.var / f"{program.name}.log", cwd=home)
        born = Born(child.pid, birth_of(child.pid) or "")
        past = (before.restarts, before.last_exit) if before else (0, "")
        since = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(program.url(ports), ports, born, str(home), self._owner, since, *past)
        self._record.write(program.name, entry)
        self._children[program.name] = child
        began = time.monotonic()
        deadline = began + program.patience.total_seconds()
        while child.poll() is None:
            if program.ready(ports, child.pid):
                self._say(f"{program.name} serves at port {ports[0]}, after {time.monotonic() - began:.1f} s")
                if chosen.result() != entry.url:  # another program took its port
                    self._say(
                        f"{program.name} serves at another address than announced: restart the processes that use it"
                    )
                return entry.url
            if self._ending.wait(_POLL) or time.monotonic() > deadline:
                break
        end_groups([child.pid], patience=timedelta(0))
        child.wait()
        if before is None:  # a restarting keeper goes on trying; otherwise it is over
            self._record.write(program.name, replace(entry, process=None))
        if self._ending.is_set():
            raise CannotStart(f"{program.name}: ended while it started")
        if time.monotonic() > deadline:
            took = program.patience.total_seconds()
            raise CannotStart(
                f"{program.name}: not ready in {took:.0f} s{_last_words(self.var / f'{program.name}.log')}"
            )
        return None

    def _serves(self, program: Program, ports: tuple[int, ...], process: Born) -> bool:
        """Wait until the recorded process serves; its starter may have died before it was ready."""
        deadline = time.monotonic() + program.patience.total_seconds()
        while process.alive and time.monotonic() < deadline and not self._ending.is_set():
            if program.ready(ports, process.pid):
                return True
            self._ending.wait(_POLL)
        return False

    def _end_leftovers(self, name: ServiceName, entry: Entry | None) -> None:
        """End the processes that a killed run left of `name`: two servers must never share one data folder."""
        groups = set(marked_groups(MARK, self._mark(name)))
        if entry and (group := _group(entry)):
            groups.add(group)
        if groups:
            self._say(f"ending what an earlier run left of {name}")
            end_groups(sorted(groups), patience=STOP_PATIENCE)

    def _home(self, program: Program, entry: Entry | None) -> Path:
        """Return the data folder: the recorded one while it exists."""
        if entry and Path(entry.home).is_dir():
            return Path(entry.home)
        folder = self.var / program.name
        folder.mkdir(exist_ok=True)
        return program.home(folder)

    def _mark(self, name: ServiceName) -> str:
        return f"{self.var}:{name}"


def _kill(entry: Entry) -> None:
    """End a service that no longer answers."""
    if (group := _group(entry)) is not None:
        end_groups([group], patience=timedelta(0))


def _status(name: ServiceName, entry: Entry) -> Status:
    """Return the status of a recorded service; a dead one is restarting while its owner lives."""
    again = entry.died and entry.owner is not None and entry.owner.alive
    state = "running" if entry.alive else "restarting" if again else "ended"
    pid = entry.process.pid if entry.alive and entry.process is not None else None
    return Status(name, state, entry.url, pid, entry.since, entry.restarts, entry.last_exit)


def _usable(entry: Entry, program: Program) -> bool:
    return len(entry.ports) == program.port_count and all(is_free(port) for port in entry.ports)


def _group(entry: Entry) -> int | None:
    """Return the process group of a running recorded service; the mark finds groups whose leader died."""
    return entry.process.pid if entry.process is not None and entry.process.alive else None


def _last_words(log: Path) -> str:
    """Return the end of a service's log, for a message."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return "".join(f"\n  {line[:300]}" for line in lines[-3:])
