"""Carries a W3C `traceparent` from the dispatch to the actor; part of the broker only while traces are on."""

# ruff: noqa: ARG002 - the signatures of the hooks are Dramatiq's
from __future__ import annotations

from dramatiq import Broker, Message, MessageProxy
from dramatiq.middleware import Middleware

from engine.telemetry.traces import Tracer

OPTION = "traceparent"


class TraceContext(Middleware):
    """Writes the dispatch's `traceparent` into each message, and tells the tracer which one a thread works on.

    A message keeps the one that it carries already: a retry belongs to its first dispatch.
    """

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer

    def before_enqueue(self, broker: Broker, message: Message[object], delay: int | None) -> None:
        """Record the dispatch of a message that carries no context yet."""
        if OPTION not in message.options:
            message.options[OPTION] = self.tracer.dispatched(f"enqueue {message.actor_name}", 1)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Let the spans of this thread link to the dispatch."""
        self.tracer.begin_message(message.options.get(OPTION))

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: object = None, exception: BaseException | None = None
    ) -> None:
        """Forget the message."""
        self.tracer.end_message()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Forget a message that is skipped."""
        self.tracer.end_message()
