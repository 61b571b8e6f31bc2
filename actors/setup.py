"""Builds the broker of a process: lanes from the policies, actors, middleware, and the hooks back into the engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from dramatiq import Message, MessageProxy, set_broker
from dramatiq.common import q_name
from dramatiq.errors import BrokerError

from actors.broker.broker import HardenedBroker, build_broker
from actors.broker.queue_admin import removed, sweep
from actors.live_fleets import LiveFleets
from actors.messenger import SLICES, BrokerMessenger, time_limit
from actors.middleware import (
    BusyThreads,
    LogContext,
    Reroute,
    TimeLimitBackstop,
    default_middleware,
    stop_requested,
    time_left,
)
from actors.middleware.time_limit import FACTOR, INTERVAL_SECONDS
from actors.middleware.trace_context import TraceContext
from actors.registry import declare
from actors.tasks import (
    decide_slice,
    deliver_slice,
    finish_run,
    index_users,
    plan_run,
    purge_ended,
    recheck_users,
    warm_cache,
)
from engine.app.app import App
from engine.decisions.routing import route
from engine.domain.lifecycle import SliceState
from engine.domain.work import SliceKind
from engine.errors import OperatorError, ServiceUnreachable
from engine.pipeline.campaigns.compiled_cache import routing_facts
from engine.policy.models import LaneKind
from engine.telemetry import logging
from engine.telemetry.events import emit

ACTORS: Final = (deliver_slice, finish_run, index_users, recheck_users, purge_ended, plan_run, decide_slice, warm_cache)
"""The modules of all actors; importing one registers its actor."""


def broker_for(
    app: App, *, namespace: str | None = None, factor: float = FACTOR, interval: float = INTERVAL_SECONDS
) -> HardenedBroker:
    """Build the hardened broker of `app` and set it as Dramatiq's global broker.

    It declares every lane of the policies and every actor. A thread that exceeds its time limit by `factor` is
    interrupted; the check runs every `interval` seconds.
    """
    url = app.settings.services.broker_url
    if url is None:
        raise OperatorError("services.broker_url is not set", remedy="start the local services: tidegate up")
    busy = BusyThreads(lambda: app.process_counts)
    broker = build_broker(
        url.get_secret_value(),
        lanes=app.policies.lanes,
        middleware=default_middleware(
            busy=busy,
            context=LogContext(capture=_captured, bind=_bind, clear=logging.clear),
            traces=None if app.tracer is None else TraceContext(app.tracer),
            reroute=Reroute(lambda message: _lane_of(app, message), version=lambda: app.policies.version),
            time_limit=TimeLimitBackstop(
                factor=factor,
                interval=interval,
                holds=_Holds(app),
                in_force=lambda message: time_limit(app, message.actor_name, q_name(message.queue_name)),
            ),
        ),
        namespace=namespace or f"tidegate:{app.settings.services.mongo_database}",
    )
    set_broker(broker)
    app.hooks.messenger = BrokerMessenger(broker, declare(broker, app), app)
    app.hooks.stop = stop_requested
    app.hooks.time_left = time_left
    app.hooks.threads = busy.threads
    live = LiveFleets(app, broker)
    app.hooks.swapped.append(live.follow)
    app.hooks.after_beat = live.after_beat
    return broker


class _Holds:
    """The deciding slices that the threads of this process hold; none before the first one is claimed."""

    def __init__(self, app: App) -> None:
        self._app = app

    def trusts_until(self, thread: int) -> float | None:
        worker = self._app.slice_worker
        return None if worker is None else worker.trusts_until(thread)

    def overrunning(self, thread: int) -> Callable[[], None] | None:
        worker = self._app.slice_worker
        return None if worker is None else worker.overrunning(thread)


def sweep_removed_lanes(app: App, broker: HardenedBroker) -> None:
    """Move what waits in queues of lanes that are gone from the policies; the clock calls it now and then.

    No fleet serves such a queue after a restart. An outage only costs time: the next call tries again.
    """
    policies = app.policies
    with suppress(BrokerError, ServiceUnreachable):
        for queue in removed(broker, policies.lanes):
            moved, expired = sweep(broker, queue, lambda message: _open_lane(app, message))
            if moved or expired:
                emit("lane.swept", lane=queue, policy=policies.version, messages=moved, expired=expired)


def _open_lane(app: App, message: Message[Any]) -> str | None:
    """Return the lane of a message under the policies in force; None if its slice is closed or gone."""
    if message.actor_name not in SLICES:
        return None
    slice_ = app.stores.slices.get(str(message.args[0]))
    return _lane_of(app, message) if slice_ is not None and slice_.state is SliceState.OPEN else None


def _lane_of(app: App, message: MessageProxy | Message[Any]) -> str | None:
    """Return the lane that the policies in force give to a slice; None for messages that keep to their queue."""
    if message.actor_name not in SLICES:
        return None
    slice_ = app.stores.slices.get(str(message.args[0]))
    record = None if slice_ is None else app.stores.campaigns.get(slice_.campaign)
    if slice_ is None or record is None:
        return None
    kind = LaneKind.DELIVER if slice_.kind is SliceKind.DELIVER else LaneKind.DECIDE
    lane = route(app.policies, routing_facts(record, slow=slice_.slow), suspect=slice_.suspect, kind=kind)
    if lane != q_name(message.queue_name):
        emit(
            "slice.moved",
            workspace=slice_.workspace,
            campaign=record.name,
            campaign_uid=slice_.campaign,
            run=slice_.run,
            slice=slice_.id,
            kind=slice_.kind.value,
            as_of=slice_.as_of,
            policy=app.policies.version,
            lane=lane,
            reason=f"enqueued on {q_name(message.queue_name)}",
        )
    return lane


def _captured() -> dict[str, str]:
    return {name: str(value) for name, value in logging.bound().items()}


def _bind(context: Any) -> None:  # a mapping of texts, as `LogContext` hands it over
    logging.bind(**context)
