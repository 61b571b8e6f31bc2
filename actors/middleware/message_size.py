"""Refuses large messages before they reach the queue: messages carry ids only."""

# ruff: noqa: ARG002 - the signatures of the hooks are Dramatiq's
from __future__ import annotations

from typing import Any, Final

from dramatiq import Broker, Message
from dramatiq.middleware import Middleware

from actors.middleware.refused import Refused

LIMIT_BYTES: Final = 1_000
"""The queue may be lost and rebuilt, so it never holds the only copy (`docs/architecture.md`, invariant 7)."""


class MessageSize(Middleware):
    """Refuses a message whose stored form exceeds `limit` bytes. Put it after all middleware that adds options."""

    def __init__(self, *, limit: int = LIMIT_BYTES) -> None:
        self.limit = limit

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Check the size. Raises `Refused` for a message that is too large."""
        size = len(message.encode())
        if size > self.limit:
            raise Refused(
                f"a message of {size} bytes for {message.actor_name}, the limit is {self.limit}",
                remedy="Write the work into MongoDB and send its id.",
            )
