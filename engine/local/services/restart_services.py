"""Restarts local services that die or hang, at their old addresses: clients would not learn a new one.

Each service has its own thread: a start may take half a minute, and the others must not wait for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Final

from engine.local.processes.supervisor import Backoff
from engine.local.services.program import CannotStart, Say, ServiceName
from engine.local.services.registry_file import Entry

POLL: Final = 0.2
"""Seconds between two checks that a service still runs; a check reads two small files of /proc."""

BACKOFF: Final = Backoff(timedelta(milliseconds=250), timedelta(seconds=30), timedelta(seconds=30))


ASKED: Final = 5.0
"""Seconds between two questions to a service: one small connection."""

HUNG: Final = timedelta(seconds=30)
"""A service that answers no question for this long is killed: no load of a machine delays answers so long."""


class Keeper:
    """Watches services until `ending` is set.

    `read` returns the entries of all services. `restart` starts a service again and returns its new entry (raises
    `CannotStart`). `answers` asks a service a question; `kill` ends one that does not answer. `say` reports every
    death, silence and return. `between_questions` holds the seconds between two questions, `hung` the seconds of
    silence after which a service is killed.
    """

    def __init__(
        self,
        *,
        read: Callable[[], Mapping[ServiceName, Entry]],
        restart: Callable[[ServiceName], Entry],
        answers: Callable[[ServiceName, Entry], bool],
        kill: Callable[[Entry], None],
        ending: threading.Event,
        say: Say,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self._answers = answers
        self._kill = kill
        self.between_questions = ASKED
        self.hung = HUNG.total_seconds()
        self._read = read
        self._restart = restart
        self._ending = ending
        self._say = say
        self._backoff = backoff
        self._threads: dict[ServiceName, threading.Thread] = {}

    def start(self, names: Iterable[ServiceName]) -> None:
        """Watch these services too; safe to call twice."""
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
        silence = _Silence(self.between_questions)
        while not self._ending.wait(POLL):
            if entry is None or not entry.died:
                entry = entry or self._read().get(name)
                if entry is not None and silence.is_time():
                    self._ask(name, entry, silence)
                continue
            silence = _Silence(self.between_questions)
            entry = self._read().get(name)  # another process may have ended it on purpose, or started it again
            if entry is None or not entry.died:
                continue
            healthy = time.monotonic() - born >= self._backoff.healthy.total_seconds()
            deaths = 1 if healthy else deaths + 1
            entry, born = self._again(name, entry, self._backoff.delay(deaths)), time.monotonic()

    def _ask(self, name: ServiceName, entry: Entry, silence: _Silence) -> None:
        """Ask a service a question; kill it after too long a silence."""
        lasting = silence.record(answers=self._answers(name, entry))
        pid = entry.process.pid if entry.process else 0
        if self._ending.is_set() or entry.died:
            return
        if lasting is not None and lasting >= self.hung:
            self._say(f"{name} (pid {pid}) has said nothing for {lasting:.0f} s and is killed")
            self._kill(entry)
        elif silence.began_now:
            self._say(f"{name} (pid {pid}) does not answer; it is killed after {self.hung:g} s of that")
        elif silence.ended_now:
            self._say(f"{name} (pid {pid}) answers again")

    def _again(self, name: ServiceName, dead: Entry, delay: timedelta) -> Entry:
        """Start a service again after `delay`; return the entry to watch from now on."""
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


class _Silence:
    """The silence of a service, question by question; a question is due every `every` seconds."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._next = time.monotonic() + every
        self._since: float | None = None
        self.began_now = self.ended_now = False

    def is_time(self) -> bool:
        """Return whether a question is due."""
        return time.monotonic() >= self._next

    def record(self, *, answers: bool) -> float | None:
        """Record an answer or its absence; return seconds since the first unanswered question, None after an answer."""
        now = time.monotonic()
        self._next = now + self._every
        self.began_now = not answers and self._since is None
        self.ended_now = answers and self._since is not None
        self._since = None if answers else now if self._since is None else self._since
        return None if self._since is None else now - self._since
