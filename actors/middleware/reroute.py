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
"""Most moves of one message under one version of the policies.

Two processes with different policies could pass it back and forth; after this it runs where it is.
"""
VERSIONS: Final = 4
"""Versions whose moves a message remembers, the latest: far more than processes have in force at once."""

Route = Callable[[MessageProxy], str | None]
LaneOptions = Callable[[str], Mapping[str, object]]

_log = logging.getLogger(__name__)


class Reroute(Middleware):
    """Compares a message's lane with `route(message)`; if they differ, enqueues a copy there and skips this message.

    `route` returns None for a message that may stay. `lane_options(lane)` gives the options that the copy needs on that
    lane, e.g. its time limit. If the copy cannot be enqueued, the message runs here: the wrong lane is better than a
    delay. `version` names the policies in force: a message that waits through several edits follows each of them.
    """

    def __init__(
        self,
        route: Route,
        *,
        lane_options: LaneOptions | None = None,
        hops: int = HOPS,
        version: Callable[[], str] = str,
    ) -> None:
        self.route = route
        self.version = version
        self.lane_options = lane_options
        self.hops = hops

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Move a message to its lane. Raises `SkipMessage` once the copy is safely on the other lane."""
        lane = self.route(message)
        told, version = message.options.get("hops"), self.version()
        hops: dict[str, int] = dict(told) if isinstance(told, dict) else {}
        count = hops.pop(version, 0)
        if lane is None or lane == q_name(message.queue_name) or count >= self.hops:
            return
        kept = list(hops.items())[1 - VERSIONS :]
        options: dict[str, object] = {"hops": dict([*kept, (version, count + 1)])}
        if self.lane_options is not None:
            options.update(self.lane_options(lane))
        copy: Message[Any] = message.copy(queue_name=lane, options=options)
        try:
            broker.enqueue(copy)
        except BrokerError as error:
            _log.warning("Could not move %s to lane %s, it runs on %s: %s", message, lane, message.queue_name, error)
            return
        raise SkipMessage(f"moved to lane {lane}")
