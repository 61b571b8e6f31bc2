"""Sends work to the actors, in the lane that the policies choose; the clock enqueues a lost message again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from dramatiq import Actor, Message
from dramatiq.errors import BrokerError

from actors.broker.broker import HardenedBroker
from actors.middleware import Refused
from actors.middleware.time_limit import FACTOR
from actors.registry import SPECS
from engine.app.app import App
from engine.clock import millis

SLICES: Final = ("process_slice", "deliver_slice")
"""The actors whose messages name slices; these travel in the lanes of their campaigns."""

_log = structlog.get_logger(__name__)


def time_limit(app: App, actor: str, lane: str) -> int | None:
    """Return the time limit (ms) of an actor's messages in a lane under the policies in force; None for no such lane.

    The engine's own messages have limits of their own; a longer one of their lane holds instead.
    """
    if lane not in app.policies.lanes:
        return None
    limit = millis(app.policies.lane(lane).time_limit)
    if actor == "deliver_slice":
        # add the provider's longest attempt: the last mail of a batch may wait that long after the batch's own time
        return limit + int(millis(app.settings.email.attempt) / FACTOR)
    return limit if actor in SLICES else max(limit, millis(SPECS[actor].time_limit))


class BrokerMessenger:
    """Enqueues messages through the broker; an outage of Redis is logged and only costs time."""

    def __init__(self, broker: HardenedBroker, actors: Mapping[str, Actor[Any, Any]], app: App) -> None:
        self.broker = broker
        self._actors = actors
        self._app = app

    def process(self, pieces: Sequence[tuple[str, str]]) -> None:
        """Enqueue deciding slices, given as (slice id, lane)."""
        self._send([self._in_lane("process_slice", slice_id, lane) for slice_id, lane in pieces])

    def deliver(self, pieces: Sequence[tuple[str, str]]) -> None:
        """Enqueue delivering slices, given as (slice id, lane)."""
        self._send([self._in_lane("deliver_slice", slice_id, lane) for slice_id, lane in pieces])

    def plan(self, run_id: str) -> None:
        """Request that a run is cut into slices."""
        self._send([self._actors["plan_run"].message(run_id)])

    def finish(self, run_id: str) -> None:
        """Request a check whether a run is decided."""
        self._send([self._actors["finish_run"].message(run_id)])

    def recheck(self) -> None:
        """Request the evaluation of changed users."""
        self._send([self._actors["look_at_users"].message()])

    def warm(self, workspace: str) -> None:
        """Request that the user cache of a workspace is loaded."""
        self._send([self._actors["warm_cache"].message(workspace)])

    def index(self, requests: Sequence[str], *, in_turn: bool = False) -> None:
        """Request that these index requests (ids) are processed; `in_turn` also while mails go out."""
        turn = (True,) if in_turn else ()
        self._send([self._actors["index_users"].message(request_id, *turn) for request_id in requests])

    def maintain(self) -> None:
        """Request the deletion of old records."""
        self._send([self._actors["maintain"].message()])

    def _in_lane(self, actor: str, slice_id: str, lane: str) -> Message[Any]:
        """Return a message in a lane, with that lane's time limit."""
        message = self._actors[actor].message_with_options(
            args=(slice_id,), time_limit=time_limit(self._app, actor, lane)
        )
        copy: Message[Any] = message.copy(queue_name=lane)
        return copy

    def _send(self, messages: Sequence[Message[Any]]) -> None:
        if not messages:
            return
        try:
            self.broker.enqueue_many(messages)
        except (BrokerError, Refused) as error:
            _log.warning("messenger.unheard", messages=len(messages), error=str(error))
