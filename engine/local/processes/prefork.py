"""Keeps child processes: forks them from a process that has imported everything, and again at once when one dies.

An import takes two seconds or more, a fork some milliseconds. So a process of the Procfile that is killed (by the
system for its memory, by a poisonous slice, by hand) works again before its lease expires, and its siblings never
notice. The parent does nothing else and opens nothing: it holds no connection, no lock and no thread that a child could
inherit.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType
from typing import Final

from engine.local.processes.supervisor import Backoff, how_ended

AGAIN: Final = Backoff(timedelta(milliseconds=50), timedelta(seconds=5))
"""Delay before a child is forked again; a child that dies repeatedly must not overload the machine."""
MARGIN: Final = 0.9
"""Share of our supervisor's stop patience after which we kill a child that does not end: we must outlive it."""
ASK_EVERY: Final = 1.0
"""Seconds between two questions how many children there should be."""
INTERRUPTED: Final = 130
_STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(slots=True)
class Child:
    """One of the children; times are seconds of the monotonic clock.

    A child that is `leaving` was asked to end because fewer are wanted: it is killed when it is `due`, and
    not replaced.
    """

    number: int
    pid: int = 0
    born: float = 0.0
    deaths: int = 0
    due: float = 0.0
    leaving: bool = False


def keep_children(
    count: int,
    patience: timedelta,
    *,
    say: Callable[[str], None],
    curable: Collection[int] = (),
    again: Backoff = AGAIN,
    wanted: Callable[[], int] | None = None,
) -> int | None:
    """Fork `count` children and replace dead ones until a stop signal.

    Return None in a child, the exit code in the parent. A child is forked again if a signal ended it or its exit code
    is `curable`. A child that exits with another code had a reason (a wrong setting, a service that is away): the
    parent ends the others and exits with that code, for its supervisor. `say` reports every death that the parent's
    exit code does not show.

    `wanted`, if given, returns how many children there should be from now on, at least 1; the parent asks it every
    second, and forks more or asks the last ones to end. It must start no thread and keep nothing open.

    Call it in the main thread while no other thread exists. TERM, HUP and Ctrl-C are passed on as one TERM; a child
    that still runs shortly before `patience` ends is killed. A second Ctrl-C kills at once. A child in which this
    returns has the default handlers (but ignores Ctrl-C, which its parent passes on). A child is killed if its parent
    is: a supervisor that starts the parent again must not find old children at work.
    """
    gc.freeze()  # keeps imported objects shared: the children's collector need not touch them
    return _Parent([Child(number) for number in range(1, count + 1)], patience, say, curable, again, wanted).run()


@dataclass
class _Parent:
    children: list[Child]
    patience: timedelta
    say: Callable[[str], None]
    curable: Collection[int]
    again: Backoff
    wanted: Callable[[], int] | None = None
    signals: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)  # exit codes of children that ended by themselves

    def __post_init__(self) -> None:
        self._alive, self._held = os.pipe()  # closes when the parent dies: the children wait for that
        self._waking, self._wake = os.pipe()
        self._numbered = len(self.children)
        for end in (self._waking, self._wake):
            os.set_blocking(end, False)

    def run(self) -> int | None:
        """Run the parent until its children have ended and return its exit code; return None in a child."""
        with self._signals():
            stopping: float | None = None
            while stopping is None or any(child.pid for child in self.children):
                now = time.monotonic()
                if stopping is None and (self.signals or self.ended):
                    stopping = now + self.patience.total_seconds() * MARGIN
                    self._tell(signal.SIGTERM)
                if stopping is not None and (now > stopping or self.signals.count(signal.SIGINT) > 1):
                    self._tell(signal.SIGKILL)
                if stopping is None:
                    self._adjust(now)
                if stopping is None and not self._fork_missing(now):
                    return None
                self._wait(now, stopping)
                self._bury(time.monotonic())
        for end in (self._alive, self._held, self._waking, self._wake):
            os.close(end)
        if self.signals:
            return INTERRUPTED if self.signals[0] == signal.SIGINT else 0
        return self.ended[0]

    def _adjust(self, now: float) -> None:
        """Have as many children as are wanted: add some, or ask the last ones to end, and kill those that do not."""
        if self.wanted is None:
            return
        count, staying = max(1, self.wanted()), [child for child in self.children if not child.leaving]
        if count != len(staying):
            self.say(f"processes wanted: {count} (until now {len(staying)})")
        for child in staying[count:]:
            child.leaving, child.due = True, now + self.patience.total_seconds() * MARGIN
            self._tell(signal.SIGTERM, [child])
        for _ in range(count - len(staying)):
            self._numbered += 1
            self.children.append(Child(self._numbered))
        self._tell(signal.SIGKILL, [child for child in self.children if child.leaving and now > child.due])
        self.children = [child for child in self.children if child.pid or not child.leaving]

    def _fork_missing(self, now: float) -> bool:
        """Fork the children that are due; return False in a child."""
        for child in self.children:
            if child.pid or child.leaving or now < child.due:
                continue
            # the parent's handlers must not run in the child
            unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
            child.pid, child.born = os.fork(), now
            if child.pid == 0:
                self._become_child()
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            if child.pid == 0:
                return False
        return True

    def _become_child(self) -> None:
        signal.set_wakeup_fd(-1)
        for end in (self._held, self._waking, self._wake):
            os.close(end)
        for number in (*_STOPS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_outlive, args=(self._alive,), name="parent", daemon=True).start()

    def _bury(self, now: float) -> None:
        for child in self.children:
            if not child.pid:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                healthy = now - child.born >= self.again.healthy.total_seconds()
                child.deaths = 1 if healthy else child.deaths + 1
                delay = self.again.delay(child.deaths).total_seconds()
                child.pid, child.due = 0, now + delay
                if child.leaving:
                    continue
                code = os.waitstatus_to_exitcode(status)
                ends_all = code >= 0 and code not in self.curable
                if not self.signals and not self.ended:
                    self._say(f"child {child.number} (pid {pid}) ended {how_ended(code)}", delay, ends_all=ends_all)
                if ends_all:
                    self.ended.append(code)

    def _say(self, death: str, delay: float, *, ends_all: bool) -> None:
        """Report a death and its consequence; the exit code already reports the death of an only child."""
        if not ends_all:
            self.say(f"{death}; it is forked again in {delay:g} s")
        elif len(self.children) > 1:
            self.say(f"{death}; the others are asked to end")

    def _tell(self, number: signal.Signals, children: Sequence[Child] | None = None) -> None:
        for child in self.children if children is None else children:
            if child.pid:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, number)

    def _wait(self, now: float, stopping: float | None) -> None:
        """Wait until a signal comes (a child that ends sends one) or an action is due."""
        if stopping is not None and not any(child.pid for child in self.children):
            return  # the last child has ended: no signal will come
        times = [child.due for child in self.children if not child.pid] if stopping is None else [stopping]
        if stopping is None and self.wanted is not None:
            times.append(now + ASK_EVERY)
        longest = max(0.0, min(times) - now) + 0.001 if times else None
        if select.select([self._waking], [], [], longest)[0]:
            os.read(self._waking, 4096)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Record the signals in the parent; a child stops recording them."""
        me = os.getpid()

        def hear(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
            if number != signal.SIGCHLD:
                self.signals.append(number)

        before = {number: signal.signal(number, hear) for number in (*_STOPS, signal.SIGCHLD)}
        woken = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        try:
            yield
        finally:
            if os.getpid() == me:
                signal.set_wakeup_fd(woken)
                for number, handler in before.items():
                    signal.signal(number, handler)


def _outlive(alive: int) -> None:
    """Kill this process when its parent ends."""
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGKILL)
