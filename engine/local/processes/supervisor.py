"""Runs the lines of a Procfile: restarts processes that end, stops all in order, leaves none behind.

Each process leads its own session, so a Ctrl-C at the terminal reaches only the supervisor, which passes on one TERM. A
process that ends is started again after a delay that doubles (`Backoff`); the delay is reset once a process has stayed
healthy. The first Ctrl-C or TERM stops everything: TERM, then KILL for a process that exceeds its stop timeout; the
second kills at once. If the supervisor itself is killed, its guard ends the processes.

One thread does it all: it waits for output, signals and deadlines together.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Final

import psutil

from engine.local.processes.orphan_guard import MARK, start_guard
from engine.local.processes.output import Output
from engine.local.processes.process_groups import end_groups, marked_groups
from engine.local.processes.procfile import ProcessType, by_shell, environment, ports
from engine.local.processes.status_file import State, Supervised, Tell, untold

STOP_TIMEOUT: Final = timedelta(seconds=20)  # a batch lasts 1.5 s at most, a provider's answer up to 15 s
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK: Final = 0.1  # seconds; a death is noticed within this even if another process holds the output open
_CHUNK: Final = 64 * 1024
_INTERRUPTED: Final = 130
_SHELLS: Final = frozenset({"sh", "dash", "bash", "ash", "busybox", "ksh", "zsh"})
_SHELL_CODES: Final = {126: "its command cannot be executed", 127: "its command is not found"}
"""Meaning of a shell's exit codes."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delay before a restart: `first`, doubled for each death in a row, at most `longest`.

    A death after `healthy` counts as the first again.
    """

    first: timedelta = timedelta(milliseconds=250)
    longest: timedelta = timedelta(seconds=30)
    healthy: timedelta = timedelta(seconds=10)

    def delay(self, deaths: int) -> timedelta:
        """Return the delay before the restart after the `deaths`-th death in a row (from 1)."""
        doublings = min(deaths - 1, 30)  # beyond that every delay exceeds any sensible `longest`
        return min(self.first * (1 << doublings), self.longest)


@dataclass(slots=True)
class Instance:
    """One process of a type, e.g. `slow.2`; times are seconds of the monotonic clock."""

    name: str
    type: ProcessType
    port: int
    child: subprocess.Popen[bytes] | None = None
    by_shell: bool = False  # whether a shell leads its group; set when the stop begins
    born_at: float = 0.0
    since: datetime | None = None
    deaths: int = 0
    restarts: int = 0
    last_exit: str = ""
    start_at: float | None = 0.0
    kill_at: float | None = None


@dataclass
class Supervisor:
    """Runs process types, `scale` of each (1 if not named), with `env` added to their environment, in `cwd`.

    `stop_timeouts` go by type name. Call `run` once, in the main thread (it handles signals). `tell` receives the
    states of all processes whenever one changes.
    """

    types: Sequence[ProcessType]
    output: Output
    cwd: Path
    scale: Mapping[str, int] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    stop_timeouts: Mapping[str, timedelta] = field(default_factory=dict)
    backoff: Backoff = Backoff()
    tell: Tell = untold

    def __post_init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._selector = selectors.DefaultSelector()
        first = self.env.get("PORT") or os.environ.get("PORT")
        numbered = zip(instances(self.types, self.scale), ports(self.types, self.scale, first), strict=True)
        self._instances = [Instance(name, kind, port) for (name, kind), port in numbered]
        self._reported: list[Supervised] = []
        self._received: list[int] = []  # signals, in the order they came

    def run(self) -> int:
        """Supervise until a stop signal; return the exit code: 0 after TERM, 130 after Ctrl-C."""
        longest = max([STOP_TIMEOUT, *self.stop_timeouts.values()])
        guard = start_guard(self._mark, longest)
        try:
            with self._signals():
                self._loop()
        finally:
            self._leave_nothing()
            if guard.stdin:
                guard.stdin.close()
            guard.wait()
        return _INTERRUPTED if self._received[:1] == [signal.SIGINT] else 0

    def _loop(self) -> None:
        obeyed = 0
        while not obeyed or any(instance.child for instance in self._instances):
            for key, _ in self._selector.select(_TICK):
                self._read(key)
            now = time.monotonic()
            for number in self._received[obeyed:]:
                obeyed += 1
                self._stop(now, obeyed, signal.Signals(number).name)
            for instance in self._instances:
                self._check(instance, now, stopping=obeyed > 0)
            self._tell_changes()

    def _tell_changes(self) -> None:
        # a process that started before this is healthy
        healthy = time.monotonic() - self.backoff.healthy.total_seconds()
        states = [
            _state(instance, failing=instance.deaths > 1 and instance.born_at > healthy) for instance in self._instances
        ]
        if states != self._reported:
            self._reported = states
            self.tell(states)

    def _check(self, instance: Instance, now: float, *, stopping: bool) -> None:
        """Do the due action for one process: collect it, start it, or kill it."""
        if instance.child is not None and instance.child.poll() is not None and not (stopping and _lingers(instance)):
            self._bury(instance, now, stopping=stopping)
        if instance.child is None and not stopping and instance.start_at is not None and now >= instance.start_at:
            self._start(instance, now)
        if instance.child is not None and instance.kill_at is not None and now >= instance.kill_at:
            self.output.say(f"{instance.name} exceeds its stop timeout and is killed")
            instance.kill_at = None
            _signal_group(instance.child.pid, signal.SIGKILL)

    def _start(self, instance: Instance, now: float) -> None:
        own = {MARK: self._mark, "TIDEGATE_PROCESS": instance.name, "PORT": str(instance.port)}
        instance.restarts += instance.since is not None
        instance.start_at, instance.born_at, instance.since = None, now, datetime.now(UTC)
        try:
            child = subprocess.Popen(
                by_shell(instance.type.command),
                cwd=self.cwd,
                env=environment(self.env, own),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            instance.last_exit = f"cannot be started: {error}"
            self.output.say(f"{instance.name} {instance.last_exit}")
            self._again(instance, now)
            return
        instance.child = child
        if child.stdout:
            os.set_blocking(child.stdout.fileno(), False)
            self._selector.register(child.stdout, selectors.EVENT_READ, instance)
        self.output.say(f"{instance.name} started (pid {child.pid})")

    def _bury(self, instance: Instance, now: float, *, stopping: bool) -> None:
        """Collect an ended process: take its last output, end the rest of its group, and plan its restart."""
        child = instance.child
        if child is None:
            return
        _signal_group(child.pid, signal.SIGKILL)  # a main process that died leaves its workers behind
        if child.stdout and not child.stdout.closed:
            with suppress(BlockingIOError):
                while chunk := os.read(child.stdout.fileno(), _CHUNK):
                    self.output.feed(instance.name, chunk)
            self._close(child)
        self.output.finish(instance.name)
        instance.child, instance.kill_at = None, None
        instance.last_exit = how_ended(child.returncode)
        why = _SHELL_CODES.get(child.returncode, "")
        self.output.say(f"{instance.name} ended {instance.last_exit}{why and f': {why}'}")
        if not stopping:
            self._again(instance, now)

    def _again(self, instance: Instance, now: float) -> None:
        lived = timedelta(seconds=now - instance.born_at)
        instance.deaths = 1 if lived >= self.backoff.healthy else instance.deaths + 1
        delay = self.backoff.delay(instance.deaths).total_seconds()
        instance.start_at = now + delay
        self.output.say(f"{instance.name} starts again in {delay:g} s")

    def _read(self, key: selectors.SelectorKey) -> None:
        instance: Instance = key.data
        try:
            chunk = os.read(key.fd, _CHUNK)
        except BlockingIOError:
            return
        if chunk:
            self.output.feed(instance.name, chunk)
        elif instance.child is not None:
            self._close(instance.child)

    def _close(self, child: subprocess.Popen[bytes]) -> None:
        if child.stdout and not child.stdout.closed:
            self._selector.unregister(child.stdout)
            child.stdout.close()

    def _stop(self, now: float, times: int, name: str) -> None:
        """Handle a stop signal: TERM the first time, KILL the second."""
        running = [instance for instance in self._instances if instance.child is not None]
        self.output.say(f"{name}: {'stopping' if times == 1 else 'killing'} {len(running)} processes")
        for instance in running:
            if instance.child is None:
                continue
            if times > 1:
                _signal_group(instance.child.pid, signal.SIGKILL)
                continue
            timeout = self.stop_timeouts.get(instance.type.name, STOP_TIMEOUT)
            instance.kill_at = now + timeout.total_seconds()
            instance.by_shell = _led_by_shell(instance.child.pid)
            if instance.by_shell:  # the shell would not pass the signal on
                _signal_group(instance.child.pid, signal.SIGTERM)
            else:  # a fleet's main process signals its workers; on a second signal they would drop their work
                instance.child.terminate()

    def _leave_nothing(self) -> None:
        """End every remaining process and close every pipe, whatever happened."""
        running = [instance.child for instance in self._instances if instance.child is not None]
        end_groups([*(child.pid for child in running), *marked_groups(MARK, self._mark)], patience=timedelta(0))
        for child in running:
            child.wait()
            self._close(child)
        self._selector.close()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Record the stop signals; the loop handles them within a tick."""

        def hear(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
            self._received.append(number)

        before = {number: signal.signal(number, hear) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def instances(types: Sequence[ProcessType], scale: Mapping[str, int]) -> list[tuple[str, ProcessType]]:
    """Return the names of all processes with their types: `web`, or `slow.1`, `slow.2` if there are several."""
    named = []
    for kind in types:
        count = scale.get(kind.name, 1)
        named += [(kind.name if count == 1 else f"{kind.name}.{number}", kind) for number in range(1, count + 1)]
    return named


def _state(instance: Instance, *, failing: bool) -> Supervised:
    state: State = "restarting" if instance.child is None else "failing" if failing else "running"
    pid = None if instance.child is None else instance.child.pid
    since = "" if instance.since is None else instance.since.isoformat(timespec="seconds")
    return Supervised(instance.name, state, pid, since, instance.restarts, instance.last_exit)


def _led_by_shell(pid: int) -> bool:
    """Return whether a shell still leads this group; after `exec` of a plain command the program does."""
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return bool(words) and Path(words[0]).name.lstrip("-") in _SHELLS


def _lingers(instance: Instance) -> bool:
    """Return whether a stopped shell left a program that is still ending, within its stop timeout."""
    child = instance.child
    if child is None or child.stdout is None or child.stdout.closed:
        return False  # a group that has ended has closed its output
    if not instance.by_shell or instance.kill_at is None:
        return False
    try:
        os.killpg(child.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def how_ended(code: int) -> str:
    """Return an exit code in words: `by SIGKILL`, `with code 1`."""
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
