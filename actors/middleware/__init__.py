"""Middleware of the broker, one concern per file; `default_middleware` gives the order.

`before_...` hooks run in this order and `after_...` hooks in the reverse order. So the log context is bound first and
cleared last, message sizes include it, and the time limit is nearest to the actor.
"""

from __future__ import annotations

from dramatiq.middleware import Middleware

from actors.middleware.busy_threads import BusyThreads
from actors.middleware.context import LogContext
from actors.middleware.message_size import MessageSize
from actors.middleware.refused import Refused
from actors.middleware.reroute import Reroute
from actors.middleware.retries import CertainRetries
from actors.middleware.served_lanes import ServedLanes
from actors.middleware.shutdown import clear_stop, request_stop, stop_requested, wait_for_stop
from actors.middleware.terminate import Terminate
from actors.middleware.time_limit import TimeLimitBackstop, time_left
from actors.middleware.trace_context import TraceContext
from actors.middleware.watchdog import Watchdog

__all__ = [
    "BusyThreads",
    "CertainRetries",
    "LogContext",
    "MessageSize",
    "Refused",
    "Reroute",
    "ServedLanes",
    "Terminate",
    "TimeLimitBackstop",
    "TraceContext",
    "Watchdog",
    "clear_stop",
    "default_middleware",
    "request_stop",
    "stop_requested",
    "time_left",
    "wait_for_stop",
]


def default_middleware(
    *,
    busy: BusyThreads | None = None,
    context: LogContext | None = None,
    traces: TraceContext | None = None,
    reroute: Reroute | None = None,
    retries: CertainRetries | None = None,
    time_limit: TimeLimitBackstop | None = None,
    watchdog: Watchdog | None = None,
) -> list[Middleware]:
    """Return the middleware of a hardened broker, in order; counting, log context, traces, rerouting only if given."""
    chosen: list[Middleware | None] = [
        Terminate(),
        watchdog or Watchdog(),
        ServedLanes(),
        busy,
        context,
        traces,
        MessageSize(),
        reroute,
        retries or CertainRetries(),
        time_limit or TimeLimitBackstop(),
    ]
    return [middleware for middleware in chosen if middleware is not None]
