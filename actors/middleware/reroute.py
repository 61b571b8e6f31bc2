"""Moves a message to the lane of the current policy when a worker picks it up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from dramatiq import Broker, Message, MessageProxy
from dramatiq.common import q_name
from dramatiq.errors import BrokerError
from dramatiq.middleware import Middleware, SkipMessage

HOPS: Final = 2
"""Most moves of one message: two processes with different policies could pass it back and forth; after this it runs."""

Route = Callable[[MessageProxy], str | None]
LaneOptions = Callable[[str], Mapping[str, object]]

_log = logging.getLogger(__name__)


class Reroute(Middleware):
    """Compares a message's lane with `route(message)`; if they differ, enqueues a copy there and skips this message.

    `route` returns None for a message that may stay. `lane_options(lane)` gives the options that the copy needs on that
    lane, e.g. its time limit. If the copy cannot be enqueued, the message runs here: the wrong lane is better than a
    delay.
    """

    def __init__(self, route: Route, *, lane_options: LaneOptions | None = None, hops: int = HOPS) -> None:
        self.route = route
        self.lane_options = lane_options
        self.hops = hops

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Move a message to its lane. Raises `SkipMessage` once the copy is safely on the other lane."""
        lane = self.route(message)
        hops = int(message.options.get("hops", 0))
        if lane is None or lane == q_name(message.queue_name) or hops >= self.hops:
            return
        options: dict[str, object] = {"hops": hops + 1}
        if self.lane_options is not None:
            options.update(self.lane_options(lane))
        copy: Message[Any] = message.copy(queue_name=lane, options=options)
        try:
            broker.enqueue(copy)
        except BrokerError as error:
            _log.warning("Could not move %s to lane %s, it runs on %s: %s", message, lane, message.queue_name, error)
            return
        raise SkipMessage(f"moved to lane {lane}")
