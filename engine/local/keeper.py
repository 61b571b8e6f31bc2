"""Starts again the local services that die, at their old addresses: whoever holds an address is told no new one.

One thread for each service: a start may take half a minute, and the others must not wait for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Final

from engine.local.program import CannotStart, Say, ServiceName
from engine.local.record import Entry
from engine.local.supervisor import Backoff

POLL: Final = 0.2
"""Seconds between two looks whether a service still runs: two small files of /proc each."""

BACKOFF: Final = Backoff(timedelta(milliseconds=250), timedelta(seconds=30), timedelta(seconds=30))


class Keeper:
    """Watches services until `ending` is set.

    `read` gives the entries of all services, `restart` starts one again and gives its new entry (raises `CannotStart`);
    `say` is told of every death and every return.
    """

    def __init__(
        self,
        read: Callable[[], Mapping[ServiceName, Entry]],
        restart: Callable[[ServiceName], Entry],
        ending: threading.Event,
        say: Say,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self._read = read
        self._restart = restart
        self._ending = ending
        self._say = say
        self._backoff = backoff
        self._threads: dict[ServiceName, threading.Thread] = {}

    def start(self, names: Iterable[ServiceName]) -> None:
        """Watch these services too; safe twice."""
        for name in names:
            if name not in self._threads:
                thread = threading.Thread(target=self._watch, args=(name,), name=f"keep-{name}", daemon=True)
                self._threads[name] = thread
                thread.start()

    def join(self) -> None:
        """Wait for the threads, once `ending` is set."""
        for thread in list(self._threads.values()):
            thread.join()

    def _watch(self, name: ServiceName) -> None:
        entry = self._read().get(name)
        deaths, born = 0, time.monotonic()
        while not self._ending.wait(POLL):
            if entry is None or not entry.died:
                entry = entry or self._read().get(name)
                continue
            entry = self._read().get(name)  # another may have ended it on purpose, or started it again
            if entry is None or not entry.died:
                continue
            healthy = time.monotonic() - born >= self._backoff.healthy.total_seconds()
            deaths = 1 if healthy else deaths + 1
            entry, born = self._again(name, entry, self._backoff.delay(deaths)), time.monotonic()

    def _again(self, name: ServiceName, dead: Entry, delay: timedelta) -> Entry:
        """Start it again after `delay`; gives the entry to watch from now on."""
        pid = dead.process.pid if dead.process else 0
        self._say(f"{name} (pid {pid}) died; it starts again in {delay.total_seconds():g} s")
        if self._ending.wait(delay.total_seconds()):
            return dead
        try:
            entry = self._restart(name)
        except (CannotStart, OSError) as error:
            if not self._ending.is_set():
                remedy = error.remedy if isinstance(error, CannotStart) else ""
                self._say(f"{error}{remedy and f'; {remedy}'}")
            return dead
        self._say(f"{name} runs again (pid {entry.process.pid if entry.process else 0}) at its old address")
        return entry
