"""Keep the gate of a store: report this process, follow the shared limit, and control it where nobody else does.

Every process with bulk work reports itself each `BEAT` seconds and takes its share of the limit. One clock controls the
gate, because it has little other work: it probes the store as one of its other users would, and decides once a second.
What it waits for a processor itself is measured beside and subtracted, for that is no fault of the store. While Redis
is away each process keeps its last share; without a clock the last limit holds.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from engine.clock import Clock
from engine.decisions.gate import adjusted, share
from engine.decisions.slow_and_failing import percentile
from engine.domain.gate import MONGODB, GateState, GateView, Gauge, Member, Override, limit_in_force
from engine.pipeline.gate.bulk_gate import BulkGate
from engine.pipeline.ports.gate import GateStore, StoreProbe
from engine.policy.models import Gate
from engine.query_metrics import new_process_id
from engine.telemetry.events import emit

BEAT: Final = 0.5
"""Seconds between two reports of a process."""

PROBE_EVERY: Final = 0.05
"""Seconds between two probes while bulk work is going on; every other probe writes."""

JUDGE_EVERY: Final = 1.0
"""Seconds between two decisions: each sees about 20 probes made since the last one. A certain one comes earlier."""

SETTLED: Final = 0.5
"""Seconds after a decision in which the store still works off what had begun before."""

CERTAIN: Final = 2
"""Probes above the latency that settle the decision: of 20, the 95th percentile excludes only one."""

PROBES: Final = 10
"""Fewest probes that a decision needs."""

HEALTH_EVERY: Final = 5.0
"""Seconds between two readings of the replication lag and the server's queue."""


class GateKeeper:
    """The thread that keeps MongoDB's gate in this process, once started; `outages` are those of MongoDB."""

    def __init__(
        self,
        store: GateStore,
        probe: StoreProbe,
        gate: BulkGate,
        rule: Callable[[], Gate | None],
        clock: Clock,
        outages: tuple[type[BaseException], ...],
    ) -> None:
        self._store = store
        self._probe = probe
        self._gate = gate
        self._rule = rule
        self._clock = clock
        self._outages = outages
        self._id = new_process_id()
        self._process = ""
        self._may_control = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._state = GateState()
        self._override: Override | None = None
        self._probes: deque[float] = deque(maxlen=200)
        self._delays: deque[float] = deque(maxlen=200)
        self._probed = 0
        self._working = False
        self._health: tuple[float | None, int | None] = (None, None)
        self._health_at = self._judged_at = self._reported_at = float("-inf")
        self._wanted = 0
        self._used = 0.0

    def start(self, process: str, *, may_control: bool = False) -> None:
        """Start the thread; `process` is the type of this process, which controls the gate only if it may."""
        self._process, self._may_control = process, may_control
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and record that this process has ended. Safe to repeat, and before a start."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            thread.join()
            self._store.gone(self._id)

    def _run(self) -> None:
        failed = False
        while not self._stop.is_set():
            began = self._clock.monotonic()
            try:
                view = self.beat()
                if view is not None and view.controls:
                    self._control(view, began + BEAT)
            except self._outages:
                self._forget()
            except Exception as error:  # noqa: BLE001 - the gate must never end a process
                if not failed:
                    failed = True
                    emit("engine.failed", process=self._process, reason=type(error).__name__, error=error)
            self._stop.wait(max(0.0, began + BEAT - self._clock.monotonic()))

    def beat(self) -> GateView | None:
        """Report this process and take its share of the limit; return the gate, or None while Redis is away."""
        rule = self._rule()
        now = self._clock.monotonic()
        lasted, self._reported_at = now - self._reported_at, now
        wanted, used = self._gate.taken()
        self._wanted, self._used = wanted, used / lasted if lasted > 0 else 0.0
        member = Member(self._id, self._process, wanted, round(self._used, 4))
        view = self._store.beat(member, may_control=self._may_control)
        if view is None:
            return None
        self._follow(view)
        limit = None if rule is None and self._override is None else limit_in_force(self._state, self._override)
        wanted_by_all = sum(member.wanted for member in view.members)
        self._gate.set_share(share(limit, wanted, wanted_by_all), _quantum(rule))
        return view

    def _follow(self, view: GateView) -> None:
        """Take over the shared state; a gate that Redis has lost continues with what this process knows."""
        if view.state is not None:
            self._state = view.state
        if view.override != self._override:
            self._override = view.override
            if view.controls:
                emit("gate.held", service=MONGODB, reason=_held(view.override))

    def _control(self, view: GateView, until: float) -> None:
        """Probe the store until `until` (monotonic s), and decide once a second."""
        rule = self._rule()
        if rule is None:
            return
        wanted = sum(member.wanted for member in view.members)
        if wanted and not self._working:
            self._forget()  # probes of a store without bulk work say nothing of one with it
        self._working = wanted > 0
        if wanted == 0:
            self._nap(PROBE_EVERY)
            self._measure(write=False)
        while wanted and self._clock.monotonic() < until and not self._stop.is_set():
            self._nap(PROBE_EVERY)
            self._measure(write=self._probed % 2 == 1)
            if self._is_certain(rule):
                break
        now = self._clock.monotonic()
        early = wanted > 0 and self._is_certain(rule)
        if not early and (now - self._judged_at < JUDGE_EVERY or (wanted and len(self._probes) < PROBES)):
            return
        if now - self._health_at >= HEALTH_EVERY:
            self._health, self._health_at = self._probe.health(), now
        self._judged_at = now
        self._judge(view, rule, wanted)

    def _is_certain(self, rule: Gate) -> bool:
        """Whether enough probes since the last decision were too slow that it need not wait for more."""
        if self._clock.monotonic() - self._judged_at < SETTLED or not self._delays:
            return False
        bound = rule.latency.total_seconds() + percentile(list(self._delays), 0.95)
        return sum(probe > bound for probe in self._probes) >= CERTAIN

    def _forget(self) -> None:
        self._probes.clear()
        self._delays.clear()

    def _nap(self, seconds: float) -> None:
        """Wait, and note how much later than asked this thread goes on: it waited for a processor."""
        began = self._clock.monotonic()
        self._stop.wait(seconds)
        self._delays.append(max(0.0, self._clock.monotonic() - began - seconds))

    def _measure(self, *, write: bool) -> None:
        began = self._clock.monotonic()
        (self._probe.write if write else self._probe.read)()
        self._probes.append(self._clock.monotonic() - began)
        self._probed += 1

    def _judge(self, view: GateView, rule: Gate, wanted: int) -> None:
        gauge = _gauge(list(self._probes), list(self._delays), self._health)
        used = sum(member.used for member in view.members)
        after = adjusted(self._state, gauge, rule, used=used, wanted=wanted, now=view.now)
        if not self._store.decide(self._id, after, gauge):
            return
        if wanted:
            self._forget()  # the next decision sees only what came after this one
        if after.limit != self._state.limit:
            emit(
                "gate.changed",
                service=MONGODB,
                reason=after.why,
                limit=after.limit,
                before=self._state.limit,
                used=used,
                p50=gauge.p50,
                p95=gauge.p95,
            )
        self._state = after


def _gauge(probes: list[float], delays: list[float], health: tuple[float | None, int | None]) -> Gauge:
    """Return what these probes (s) say of the store, without the process's own delays (s)."""
    lag, queue = health
    if not probes:
        return Gauge(lag=lag, queue=queue)
    own = percentile(delays, 0.95) if delays else 0.0
    typical = percentile(delays, 0.5) if delays else 0.0
    p50, p95 = max(0.0, percentile(probes, 0.5) - typical), max(0.0, percentile(probes, 0.95) - own)
    return Gauge(round(p50, 6), round(p95, 6), lag, queue, round(own, 6))


def _quantum(rule: Gate | None) -> float:
    """Return how long (s) one operation may take while the gate limits: a quarter of the latency to keep."""
    return (Gate() if rule is None else rule).latency.total_seconds() / 4


def _held(override: Override | None) -> str:
    """Return a person's setting as a sentence for the log."""
    if override is None:
        return "the automatic limit is in force again"
    limit = "" if override.limit is None else f" {override.limit:g}"
    return f"{override.hold.value}{limit}, set by a person" + (f": {override.why}" if override.why else "")
