"""Runs a fleet of the policies: as a `dramatiq` command of its own, or as threads of this process.

The engine generates and checks command lines because typed ones go wrong: an empty `-Q` serves every queue, `-Q` before
the module swallows it, and `-p` defaults to the number of processors for each line of a Procfile (docs/broker.md, row
15).
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from dramatiq import Worker
from dramatiq.cli import make_argument_parser
from dramatiq.worker import _WorkerMiddleware

from actors.broker.broker import HardenedBroker
from actors.worker_threads import fetched, leave, resize, set_pace, take_up
from engine.clock import millis
from engine.errors import WrongCall

MODULE: Final = "actors.dramatiq_entry"
STOP_TIMEOUT: Final = timedelta(seconds=30)
"""How long a stop waits for the messages in hand: several times the longest batch plus a driver's timeout."""
RESTART_DELAY_MS: Final = 1_000
"""Pause before a consumer tries Redis again (Dramatiq: 3,000 ms)."""


FLEET_VARIABLE: Final = "TIDEGATE_FLEET"
"""Environment variable that names the fleet of a `dramatiq` process."""

_named: Final[WeakKeyDictionary[Worker, str]] = WeakKeyDictionary()


class Fleet(Protocol):
    """The fields of a fleet in `policies/lanes.yaml`."""

    @property
    def lanes(self) -> Sequence[str]:
        """The lanes it serves; at least one."""

    @property
    def processes(self) -> int:
        """Processes of its command; unused when the fleet runs as a thread pool inside one process."""

    @property
    def threads(self) -> int:
        """Worker threads per process."""

    @property
    def worker_timeout(self) -> timedelta:
        """The longest idle pause between two polls of a queue."""

    @property
    def prefetch(self) -> int | None:
        """Messages in hand per lane and process; None for twice the threads."""


def command_line(fleet: Fleet, module: str = MODULE) -> list[str]:
    """Return the `dramatiq` command of a fleet; run it with `environment(fleet)`.

    Raises `WrongCall` for an empty fleet.
    """
    if not fleet.lanes or fleet.processes < 1 or fleet.threads < 1:
        raise WrongCall(
            f"this fleet has no lane, no process or no thread: {fleet}",
            remedy="`policies/lanes.yaml` says which lanes it serves, and with how many.",
        )
    return [
        *("dramatiq", module),
        *("--processes", str(fleet.processes)),
        *("--threads", str(fleet.threads)),
        *("--worker-shutdown-timeout", str(millis(STOP_TIMEOUT))),
        "--skip-logging",
        *("--queues", *fleet.lanes),
    ]


def environment(fleet: Fleet) -> dict[str, str]:
    """Return the settings that Dramatiq's command reads only from environment variables, all in ms or messages.

    The prefetch of the delay queue stays at its default of 1,000 a thread: a full one would stop heartbeats.
    """
    return {
        "dramatiq_worker_timeout": str(millis(fleet.worker_timeout)),
        "dramatiq_queue_prefetch": str(prefetch(fleet)),
        "dramatiq_restart_delay": str(RESTART_DELAY_MS),
    }


def prefetch(fleet: Fleet) -> int:
    """Return the limit of messages in hand per lane and process."""
    return fleet.prefetch or fleet.threads * 2


def exec_fleet(fleet: Fleet, module: str = MODULE, *, environ: Mapping[str, str] | None = None) -> None:
    """Replace this process by the fleet's `dramatiq` command; never returns.

    Signals and exit code are then the command's own.
    """
    arguments = command_line(fleet, module)[1:]
    variables = {**(os.environ if environ is None else environ), **environment(fleet)}
    os.execve(sys.executable, [sys.executable, "-m", "dramatiq", *arguments], variables)  # noqa: S606 - no shell wanted


def check_command_line(argv: Sequence[str]) -> None:
    """Check a `dramatiq` command: raises `WrongCall` if it does not state its queues, processes and threads.

    `argv` starts with `dramatiq` or with the word after it, e.g. one line of a Procfile split into words.
    """
    arguments = list(argv[1:]) if argv and os.path.basename(argv[0]) == "dramatiq" else list(argv)  # noqa: PTH119 - text
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed = make_argument_parser().parse_args(arguments)  # type: ignore[no-untyped-call]  # Dramatiq's
    except SystemExit:
        reason = (complaint.getvalue().strip().splitlines() or ["it cannot be read"])[-1]
        remedy = "Put the module first: everything after -Q is taken for a queue."
        raise WrongCall(f"wrong dramatiq command: {reason}", remedy=remedy) from None
    if not parsed.queues:
        raise WrongCall("this dramatiq command names no queue, so it would serve all", remedy="Add -Q LANE.")
    for flags in (("-p", "--processes"), ("-t", "--threads")):
        if not any(word.startswith(flags) for word in arguments):
            raise WrongCall(
                f"this dramatiq command does not say {flags[1]}", remedy="The default depends on the machine: name it."
            )


def run_fleet_in_process(broker: HardenedBroker, fleet: Fleet, name: str = "") -> Worker:
    """Start a fleet as threads of this process, beside others on the same broker; stop it with `stop_fleets`.

    `name` is the fleet's name in the policies, by which `follow_policies` finds it again. This emits `process_boot`
    once per broker, before its first worker: otherwise only the command line emits it, and middleware that waits for it
    would never start. Raises `Refused` for an undeclared lane.
    """
    if not getattr(broker, "process_booted", False):
        broker.emit_after("process_boot")
        broker.process_booted = True
    worker = Worker(
        broker,
        queues=set(fleet.lanes),
        worker_timeout=millis(fleet.worker_timeout),
        worker_threads=fleet.threads,
    )
    worker.queue_prefetch = prefetch(fleet)
    _named[worker] = name
    with _second_worker_expected(broker):
        worker.start()
    return worker


def follow_policies(broker: HardenedBroker, lanes: Iterable[str], fleets: Mapping[str, Fleet]) -> None:
    """Let the workers of this process follow the policies: declare new lanes, then serve, fetch and pause as they say.

    A worker whose fleet no longer serves a lane goes on with it until `hand_over`; a worker whose fleet is gone goes on
    with all of its lanes until then.
    """
    for lane in lanes:
        if lane not in broker.queues:
            broker.declare_queue(lane)
    for worker in _workers(broker):
        fleet = fleets.get(_name_of(worker))
        if fleet is None:
            continue
        for lane in sorted(set(fleet.lanes) - fetched(worker)):
            take_up(worker, lane)
        set_pace(worker, prefetch=prefetch(fleet), pause=fleet.worker_timeout)
        resize(worker, fleet.threads)


def hand_over(
    broker: HardenedBroker, lanes: Iterable[str], fleets: Mapping[str, Fleet], alive: Collection[str]
) -> list[str]:
    """Leave lanes to the fleets that serve them now; return the lanes that a worker here has left.

    `alive` are the fleets with a living process. A lane of which none is alive is served on, so that an edit that names
    a fleet without a process stops nothing. A lane that is gone from the policies is served on as well: its messages
    move to their new lanes.
    """
    left: list[str] = []
    for worker in _workers(broker):
        name = _name_of(worker)
        own = set(fleets[name].lanes) if name in fleets else set()
        for lane in sorted(fetched(worker) - own):
            if lane in lanes and any(lane in fleets[other].lanes for other in alive if other in fleets):
                leave(worker, lane)
                left.append(lane)
    return left


def lanes_given_up(broker: HardenedBroker, fleets: Mapping[str, Fleet]) -> set[str]:
    """Return the lanes that workers of this process still serve although their fleets no longer do."""
    given_up: set[str] = set()
    for worker in _workers(broker):
        fleet = fleets.get(_name_of(worker))
        given_up |= fetched(worker) - set(() if fleet is None else fleet.lanes)
    return given_up


def _workers(broker: HardenedBroker) -> list[Worker]:
    return [middleware.worker for middleware in broker.middleware if isinstance(middleware, _WorkerMiddleware)]


def _name_of(worker: Worker) -> str:
    return _named.get(worker) or os.environ.get(FLEET_VARIABLE, "")


def stop_fleets(broker: HardenedBroker, workers: Sequence[Worker], *, timeout: timedelta = STOP_TIMEOUT) -> None:
    """Stop fleets of this process in parallel; other fleets go on. Work not begun goes back to its queue."""
    if not workers:
        return
    for worker in workers:
        for thread in worker.workers:
            thread.stop()
    with ThreadPoolExecutor(len(workers), "stop-fleet") as pool:
        list(pool.map(lambda worker: worker.stop(timeout=millis(timeout)), workers))
    # The middleware of a stopped worker would start consumers for it, without threads, whenever a lane is declared.
    broker.middleware = [
        middleware
        for middleware in broker.middleware
        if not (isinstance(middleware, _WorkerMiddleware) and middleware.worker in workers)
    ]


@contextlib.contextmanager
def _second_worker_expected(broker: HardenedBroker) -> Iterator[None]:
    """Silence one warning: each worker adds a middleware of the same type, bound to itself, and this is intended."""

    def unexpected(record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        return not any(isinstance(argument, _WorkerMiddleware) for argument in arguments)

    logger = broker.logger
    logger.addFilter(unexpected)
    try:
        yield
    finally:
        logger.removeFilter(unexpected)
